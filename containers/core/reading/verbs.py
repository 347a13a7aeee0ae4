"""What can be asked of a stack of layers: a directory's entries, a file, an archive, what changed, a text's lines."""

from __future__ import annotations

import contextlib
import difflib
import errno
import io
import os
import stat
import tarfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from .compare import changes, shown
from .merged import DEPTH_MAX, Entry, Level, Merged, kind_of

ENTRIES_MAX: Final = 10_000
TEXT_MAX_BYTES: Final = 256 * 1024
LINES_MAX: Final = 20_000
_NO_NEWLINE: Final = "\n\\ No newline at end of file"
DIFF_MAX_CHARS: Final = 512 * 1024
_CHUNK_BYTES: Final = 1 << 18

_XATTR: Final = "SCHILY.xattr."
"""As GNU tar and bsdtar keep extended attributes in pax headers."""

Write = Callable[[bytes], object]


class Refused(Exception):
    """What was asked for is not there, or not of the kind. code: not-found or invalid-value."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def compared(before: Sequence[int], after: Sequence[int], shared: int, path: str = "/") -> dict[str, Any]:
    """Return what differs between two stacks, as core.reading.compare tells it."""
    return changes(before, after, shared, path).as_json()


def listing(top: Sequence[int], path: str) -> dict[str, Any]:
    """Return a directory's entries: name, kind, size_bytes, mode, uid, gid, modified_at, target. Raises Refused."""
    tree = Merged(top)
    with _directory(tree, path) as level:
        names = tree.names(level)
        entries = (tree.look(level, name) for name in names[:ENTRIES_MAX])
        return {
            "items": [_told(entry) for entry in entries if entry is not None],
            "complete": len(names) <= ENTRIES_MAX,
        }


def _told(entry: Entry) -> dict[str, Any]:
    status = entry.status
    target = None
    if stat.S_ISLNK(status.st_mode):
        with contextlib.suppress(OSError):
            target = shown(entry.target())
    return {
        "name": shown(entry.name),
        "kind": kind_of(status),
        "size_bytes": status.st_size if entry.is_file else None,
        "mode": f"{stat.S_IMODE(status.st_mode):04o}",
        "uid": status.st_uid,
        "gid": status.st_gid,
        "modified_at": status.st_mtime,
        "target": target,
    }


@contextlib.contextmanager
def _directory(tree: Merged, path: str) -> Iterator[Level]:
    with _found(tree, path) as (level, entry):
        if entry is None:
            yield level
            return
        if not entry.is_directory:
            raise Refused("invalid-value", "This is not a directory.")
        with tree.below(level, entry.name) as inner:
            yield inner


@contextlib.contextmanager
def _found(tree: Merged, path: str) -> Iterator[tuple[Level, Entry | None]]:
    """Find a path; the entry is None for the top alone. Raises Refused."""
    with contextlib.ExitStack() as held:
        try:
            level, entry = held.enter_context(tree.at(path))
        except FileNotFoundError:
            raise Refused("not-found", "There is no such file or directory.") from None
        if entry is None and path.strip("/."):
            raise Refused("not-found", "There is no such file or directory.")
        yield level, entry


def content(top: Sequence[int], path: str, begin: Callable[[dict[str, Any]], None], write: Write) -> None:
    """Write a regular file's bytes. begin: told its size first. Raises Refused."""
    with _found(Merged(top), path) as (_level, entry):
        if entry is None or not entry.is_file:
            raise Refused("invalid-value", "This is not a regular file.")
        with _refusing(), entry.opened() as fd:
            size = os.fstat(fd).st_size
            begin({"size_bytes": size, "name": shown(entry.name)})
            copy(fd, size, write)


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise Refused("not-found", "It is gone.") from None


def copy(fd: int, size: int, write: Write) -> None:
    """Write exactly size bytes: what a file that shrinks meanwhile lacks is NUL."""
    left = size
    while left:
        data = os.read(fd, min(left, _CHUNK_BYTES)) or bytes(min(left, _CHUNK_BYTES))
        write(data)
        left -= len(data)


def archive(
    top: Sequence[int],
    path: str,
    begin: Callable[[dict[str, Any]], None],
    write: Write,
    *,
    only: Sequence[str] = (),
    one_file_system: bool = False,
) -> None:
    """Write a file or a directory with all in it as a tar archive (pax): owners, modes, times, links, devices, xattrs.

    Names begin with the last name of the path. only: what to take of a directory, by name; names begin with that then.
    one_file_system: of one layer; what is mounted below stays empty. Raises Refused.
    """
    tree = Merged(top)
    with _found(tree, path) as (level, entry), contextlib.ExitStack() as held:
        name = "root" if entry is None else entry.name
        inner = level
        if only and entry is not None:
            if not entry.is_directory:
                raise Refused("invalid-value", "This is not a directory.")
            inner = held.enter_context(tree.below(level, entry.name))
        chosen = [_present(tree, inner, one) for one in only]
        begin({"name": shown(name)})
        out = tarfile.open(
            fileobj=_Sink(write), mode="w|", format=tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogateescape"
        )
        device = None
        if one_file_system:
            device = os.fstat(top[0]).st_dev if entry is None else entry.status.st_dev
        packer = _Packer(tree, out, device)
        if only:
            for one in chosen:
                packer.entry(inner, one, one.name, 0)
        elif entry is None:
            packer.inside(level, ".", 0)
        else:
            packer.entry(level, entry, name, 0)
        out.close()


def _present(tree: Merged, level: Level, name: str) -> Entry:
    found = tree.look(level, name)
    if found is None:
        raise Refused("not-found", "There is no such file or directory.")
    return found


class _Sink(io.RawIOBase):
    """A file object that only takes bytes."""

    def __init__(self, write: Write) -> None:
        self._write = write

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: Any) -> int:
        """Hand all of it on."""
        self._write(bytes(data))
        return len(data)


class _Packer:
    def __init__(self, tree: Merged, out: tarfile.TarFile, device: int | None = None) -> None:
        self._tree, self._out, self._device = tree, out, device
        self._links: dict[tuple[int, int], str] = {}

    def entry(self, level: Level, entry: Entry, name: str, depth: int) -> None:
        """Add an entry, with all in it."""
        status = entry.status
        info = tarfile.TarInfo(name)
        info.mode, info.uid, info.gid = stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid
        info.mtime = status.st_mtime
        try:
            info.pax_headers = {
                f"SCHILY.xattr.{key}": value.decode("utf-8", "surrogateescape") for key, value in entry.xattrs().items()
            }
            if entry.is_file:
                self._file(entry, info)
                return
            self._special(entry, info)
        except FileNotFoundError:
            return  # a running container removed it just now
        if info.type == tarfile.AREGTYPE:
            return  # a socket: no archive holds one
        self._out.addfile(info)
        if entry.is_directory and depth < DEPTH_MAX and self._device in (None, status.st_dev):
            with self._tree.below(level, entry.name) as inner:
                self.inside(inner, name, depth + 1)

    def inside(self, level: Level, name: str, depth: int) -> None:
        """Add what is in a directory."""
        for child in self._tree.names(level):
            found = self._tree.look(level, child)
            if found is not None:
                self.entry(level, found, f"{name}/{child}", depth)

    def _file(self, entry: Entry, info: tarfile.TarInfo) -> None:
        inode = (entry.status.st_dev, entry.status.st_ino)
        if inode in self._links:
            info.type, info.linkname = tarfile.LNKTYPE, self._links[inode]
            self._out.addfile(info)
            return
        with entry.opened() as fd:
            info.type, info.size = tarfile.REGTYPE, os.fstat(fd).st_size
            if entry.status.st_nlink > 1:
                self._links[inode] = info.name
            self._out.addfile(info, _Exactly(fd, info.size))

    @staticmethod
    def _special(entry: Entry, info: tarfile.TarInfo) -> None:
        mode = entry.status.st_mode
        info.type = tarfile.AREGTYPE
        if stat.S_ISDIR(mode):
            info.type = tarfile.DIRTYPE
        elif stat.S_ISLNK(mode):
            info.type, info.linkname = tarfile.SYMTYPE, entry.target()
        elif stat.S_ISFIFO(mode):
            info.type = tarfile.FIFOTYPE
        elif stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            info.type = tarfile.CHRTYPE if stat.S_ISCHR(mode) else tarfile.BLKTYPE
            info.devmajor, info.devminor = os.major(entry.status.st_rdev), os.minor(entry.status.st_rdev)


class _Exactly:
    """A file that always has the length it was said to have."""

    def __init__(self, fd: int, size: int) -> None:
        self._fd, self._left = fd, size

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes; NULs where a file has become shorter meanwhile."""
        wanted = self._left if size < 0 else min(size, self._left)
        data = os.read(self._fd, wanted) if wanted else b""
        data += bytes(wanted - len(data)) if not data else b""
        self._left -= len(data)
        if len(data) < wanted:
            data += self.read(wanted - len(data))
        return data


def text(before: Sequence[int], after: Sequence[int], path: str) -> dict[str, Any]:
    """Return a file's unified diff: {"diff"}, or {"reason"} where it has none: binary, too-large, no-file."""
    old, new = _lines(before, path), _lines(after, path)
    for side in (old, new):
        if isinstance(side, str):
            return {"diff": None, "reason": side}
    if old is None and new is None:
        return {"diff": None, "reason": "no-file"}
    assert not isinstance(old, str)
    assert not isinstance(new, str)
    size, told = 0, []
    for line in difflib.unified_diff(old or [], new or [], "before", "after", lineterm=""):
        size += len(line)
        if size > DIFF_MAX_CHARS:
            return {"diff": None, "reason": "too-large"}
        told.append(line)
    return {"diff": "\n".join(told), "reason": None}


def _lines(top: Sequence[int], path: str) -> list[str] | str | None:
    """Return a text file's lines; None where there is no such file; or the reason why it is no text."""
    try:
        with _found(Merged(top), path) as (_level, entry):
            if entry is None or not entry.is_file:
                return "no-file"
            if entry.status.st_size > TEXT_MAX_BYTES:
                return "too-large"
            with entry.opened() as fd:
                data = os.read(fd, TEXT_MAX_BYTES)
    except (Refused, FileNotFoundError):
        return None
    try:
        found = data.decode()
    except UnicodeDecodeError:
        return "binary"
    if "\0" in found:
        return "binary"
    lines = found.split("\n")
    if lines[-1]:
        lines[-1] += _NO_NEWLINE
    else:
        lines.pop()  # what stands behind the last newline is no line
    return lines if len(lines) <= LINES_MAX else "too-large"


def named(error: OSError) -> tuple[str, str]:
    """Return what to say of an error of the file system: code and message."""
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return "not-found", "There is no such file or directory."
    return "setup-failed", f"Reading failed: {error.strerror}"
