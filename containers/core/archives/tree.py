"""Entries of a tar made into files. Runs in the confined process only, whose root directory is the tree.

Every name is opened by itself, relative to a directory descriptor and without following a link, although there is
nothing outside the tree that a link could lead to. A layer of an OCI image becomes a layer of overlay's: whiteouts are
0/0 character devices, opaque directories carry ``user.overlay.opaque``. They say something about the layers below, so
what the same layer has of that name stays, in whatever order the entries come.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tarfile
from collections import Counter
from collections.abc import Callable
from typing import IO, Any, Final

from ..kernel.within import within
from . import rules
from .headers import Header, times
from .rules import Refused

OPAQUE: Final = "user.overlay.opaque"
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK_BYTES: Final = 1 << 20
_DEVICES_MAX: Final = 4096
"""So many device nodes of a backup's layer are told of; nobody in here could make one."""
_MARKS: Final = (("BOXROOM.opaque", OPAQUE, b"y"), ("BOXROOM.origin", "user.overlay.origin", b""))
"""Of directories in a backup's layer: header, and what it stands for on disk."""
_NO_XATTRS: Final = (errno.ENOTSUP, errno.EPERM, errno.EINVAL)


class Tree:
    """The tree that is being made in the directory root_fd (borrowed). layer: it is one of an OCI image's.

    exact: it is one of a backup's (core.reading.packing): overlay's own marks are in it, and devices are told of.
    """

    def __init__(
        self,
        root_fd: int,
        limits: rules.Limits,
        *,
        layer: bool,
        exact: bool = False,
        tell: Callable[[int], None] = lambda _entries: None,
    ) -> None:
        self._root_fd = root_fd
        self._limits = limits
        self._layer = layer
        self._exact = exact
        self._devices: list[dict[str, Any]] = []
        self._tell = tell
        self._at: tuple[str, ...] = ()
        self._at_fd = os.dup(root_fd)
        self._directories: dict[tuple[str, ...], tuple[tuple[int, int], dict[str, bytes]]] = {}
        self._implicit: dict[tuple[str, ...], None] = {}
        self._bytes = 0
        self._entries = 0
        self.left_out: Counter[str] = Counter()
        """What was not taken, by kind: devices, xattrs."""

    def take(self, stream: IO[bytes]) -> None:
        """Make everything that a plain tar holds; raises Refused, OSError. What was made before stays."""
        try:
            with tarfile.open(
                fileobj=stream, mode="r|", bufsize=256 << 10, tarinfo=Header, encoding="utf-8", errors="surrogateescape"
            ) as archive:
                while (member := archive.next()) is not None:
                    # tarfile keeps them all, for what a stream cannot do
                    vars(archive)["members"].clear()
                    self.add(member, archive)
        except tarfile.TarError as error:
            raise Refused(f"It is damaged: {error}.") from None
        except (OverflowError, UnicodeError, ValueError) as error:
            raise Refused(f"It is damaged: {error}.") from None
        if Header.ended != "EOFHeaderError" and not (self._layer and Header.ended == "EmptyHeaderError"):
            raise Refused("It is damaged or cut off: its end is missing.")
        self._finish()

    def result(self) -> dict[str, Any]:
        """Return what was made, as JSON values. implicit: directories that no entry spoke of."""
        return {
            "entries": self._entries,
            "bytes": self._bytes,
            "left_out": dict(self.left_out),
            "implicit": ["/".join(parts) for parts in self._implicit],
            "devices": self._devices,
        }

    def add(self, member: tarfile.TarInfo, archive: tarfile.TarFile) -> None:
        """Make one entry; raises Refused, OSError."""
        self._count(member.name)
        parts = rules.parts(member.name, exact=self._exact)
        if self._layer and self._whiteout(parts, member):
            return
        owner = rules.owner(member.uid, member.gid, member.name, self._limits.ids)
        if member.isdir():
            self._directory(parts, member, owner)
        elif not parts:
            raise Refused("The root directory is not one.", member.name)
        elif member.isreg():
            self._file(parts, member, owner, archive)
        elif member.issym():
            self._symlink(parts, member, owner)
        elif member.islnk():
            self._link(parts, member)
        elif member.isfifo():
            name, parent_fd, _ = self._place(parts, member.name)
            socket = self._exact and "BOXROOM.socket" in member.pax_headers
            os.mknod(name, (stat.S_IFSOCK if socket else stat.S_IFIFO) | 0o600, dir_fd=parent_fd)
            os.chown(name, *owner, dir_fd=parent_fd, follow_symlinks=False)
            os.chmod(name, member.mode & 0o7777, dir_fd=parent_fd)
            with within(parent_fd):
                self._set_xattrs(name, self._xattrs(member, directory=False))
            self._times(name, parent_fd, member)
        elif member.ischr() or member.isblk():
            self._device(parts, member, owner)
        else:
            raise Refused(f"It holds an entry of an unknown kind ({member.type!r}).", member.name)

    def close(self) -> None:
        """Close what it opened."""
        os.close(self._at_fd)

    # one kind of entry each

    def _directory(self, parts: tuple[str, ...], member: tarfile.TarInfo, owner: tuple[int, int]) -> None:
        if not parts:
            directory_fd = os.dup(self._root_fd)
        else:
            name, parent_fd, hid = self._place(parts, member.name, directory=True)
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=parent_fd)
            directory_fd = os.open(name, _DIRECTORY, dir_fd=parent_fd)
            if hid:
                os.setxattr(directory_fd, OPAQUE, b"y")
        try:
            for header, mark, value in _MARKS if self._exact else ():
                if header in member.pax_headers:
                    os.setxattr(directory_fd, mark, value)
            os.fchown(directory_fd, *owner)
            os.fchmod(directory_fd, member.mode & 0o7777)
        finally:
            os.close(directory_fd)
        self._implicit.pop(parts, None)
        # at the end: a default ACL would be inherited by what is made in it, and every new entry changes its time
        self._directories[parts] = (times(member), self._xattrs(member, directory=True))

    def _file(
        self, parts: tuple[str, ...], member: tarfile.TarInfo, owner: tuple[int, int], archive: tarfile.TarFile
    ) -> None:
        if not 0 <= member.size <= self._limits.bytes:
            raise Refused(f"A file is larger than {self._limits.bytes} bytes.", member.name, limit="bytes")
        name, parent_fd, _ = self._place(parts, member.name)
        # a file's data lies there in one piece, without its holes; a stream goes forward only, and so do the entries
        source: Any = archive.fileobj
        source.seek(member.offset_data)
        file_fd = os.open(name, _NEW_FILE, 0o600, dir_fd=parent_fd)
        try:
            self._data(source, file_fd, member)
            os.fchown(file_fd, *owner)
            os.fchmod(file_fd, member.mode & 0o7777)
            self._set_xattrs(file_fd, self._xattrs(member, directory=False))
            os.utime(file_fd, ns=times(member))
        finally:
            os.close(file_fd)

    def _data(self, source: Any, file_fd: int, member: tarfile.TarInfo) -> None:
        """Copy a file's data; a sparse one's holes stay holes."""
        pieces: list[tuple[int, int]] = getattr(member, "sparse", None) or [(0, member.size)]
        at = 0
        for offset, size in pieces:
            if not size:  # GNU's way of saying where the file ends
                continue
            if offset < at or size < 0 or offset + size > member.size:
                raise Refused("The map of a sparse file is wrong.", member.name)
            self._bytes += size
            if self._bytes > self._limits.bytes:
                raise Refused(f"It comes to more than {self._limits.bytes} bytes.", member.name, limit="bytes")
            if offset > at:
                os.lseek(file_fd, offset, os.SEEK_SET)
            left = size
            while left:
                data = source.read(min(left, _CHUNK_BYTES))
                if not data:
                    raise Refused("It is cut off in the middle of a file.", member.name)
                left -= len(data)
                view = memoryview(data)
                while view:
                    view = view[os.write(file_fd, view) :]
                self._tell(self._entries)
            at = offset + size
        if at < member.size:
            os.ftruncate(file_fd, member.size)

    def _symlink(self, parts: tuple[str, ...], member: tarfile.TarInfo, owner: tuple[int, int]) -> None:
        target = member.linkname
        if not target or "\0" in target or len(target.encode("utf-8", "surrogateescape")) >= rules.PATH_MAX_BYTES:
            raise Refused("A symbolic link leads nowhere.", member.name)
        name, parent_fd, _ = self._place(parts, member.name)
        os.symlink(target, name, dir_fd=parent_fd)
        os.chown(name, *owner, dir_fd=parent_fd, follow_symlinks=False)
        self._times(name, parent_fd, member)

    def _link(self, parts: tuple[str, ...], member: tarfile.TarInfo) -> None:
        *directories, target = rules.parts(member.linkname, entry=member.name, exact=self._exact) or ("",)
        if not target:
            raise Refused("A hard link leads nowhere.", member.name)
        with contextlib.ExitStack() as held:
            try:
                source_fd = self._opened(tuple(directories), member.name, make=False)
                held.callback(os.close, source_fd)
                found = os.stat(target, dir_fd=source_fd, follow_symlinks=False)
            except FileNotFoundError:
                raise Refused("A hard link leads to what is not there.", member.name) from None
            if stat.S_ISDIR(found.st_mode) or stat.S_ISCHR(found.st_mode):
                raise Refused("A hard link leads to no file.", member.name)
            name, parent_fd, _ = self._place(parts, member.name, but=(found.st_dev, found.st_ino))
            if name:
                os.link(target, name, src_dir_fd=source_fd, dst_dir_fd=parent_fd, follow_symlinks=False)

    def _device(self, parts: tuple[str, ...], member: tarfile.TarInfo, owner: tuple[int, int]) -> None:
        """Take a device node: the runtime makes those of /dev, and nobody in a container may make any other.

        One that is overlay's mark for what is not there is made; of the others of a backup's layer root is told.
        """
        if self._exact and member.ischr() and (member.devmajor, member.devminor) == (0, 0):
            name, parent_fd, _ = self._place(parts, member.name)
            os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=parent_fd)
        elif self._exact and len(self._devices) < _DEVICES_MAX:
            self._place(parts, member.name)
            self._devices.append(
                {
                    "parts": parts,
                    "kind": stat.S_IFCHR if member.ischr() else stat.S_IFBLK,
                    "number": (member.devmajor, member.devminor),
                    "mode": member.mode & 0o7777,
                    "owner": owner,
                    "times": times(member),
                    "acl": self._xattrs(member, directory=False).get(rules.ACL, b"").hex(),
                }
            )
        else:
            self.left_out["devices"] += 1

    def _whiteout(self, parts: tuple[str, ...], member: tarfile.TarInfo) -> bool:
        """Take an entry that says something about the layers below; returns whether it was one."""
        if any(part.startswith(rules.WHITEOUT_META) for part in parts[:-1]):
            return True
        if any(part.startswith(rules.WHITEOUT) for part in parts[:-1]):
            raise Refused("A whiteout is no directory.", member.name)
        if not parts or not parts[-1].startswith(rules.WHITEOUT):
            return False
        name = parts[-1]
        if name == rules.WHITEOUT_OPAQUE:
            self._mark_opaque(parts[:-1], member.name)
            return True
        if name.startswith(rules.WHITEOUT_META):
            return True
        hidden = name.removeprefix(rules.WHITEOUT)
        if hidden in ("", ".", ".."):
            raise Refused("A whiteout hides nothing.", member.name)
        parent_fd = self._enter(parts[:-1], member.name)
        try:
            os.mknod(hidden, stat.S_IFCHR, os.makedev(0, 0), dir_fd=parent_fd)
        except FileExistsError:
            # this layer's own: what lies below it is hidden all the same, by a file as it stands
            if stat.S_ISDIR(os.stat(hidden, dir_fd=parent_fd, follow_symlinks=False).st_mode):
                self._mark_opaque((*parts[:-1], hidden), member.name)
        return True

    # places

    def _place(
        self,
        parts: tuple[str, ...],
        entry: str,
        *,
        directory: bool = False,
        but: tuple[int, int] | None = None,
    ) -> tuple[str, int, bool]:
        """Make room for an entry; return its name, its parent's descriptor (borrowed), and whether it was a whiteout.

        A later entry of the same name replaces an earlier one. but: the file it is to be, which then stays: name is "".
        """
        parent_fd, name = self._enter(parts[:-1], entry), parts[-1]
        try:
            found = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
        except FileNotFoundError:
            return name, parent_fd, False
        if (found.st_dev, found.st_ino) == but:
            return "", parent_fd, False
        if stat.S_ISDIR(found.st_mode):
            if not directory:
                try:
                    os.rmdir(name, dir_fd=parent_fd)
                except OSError:
                    raise Refused("An entry would replace a directory that is not empty.", entry) from None
                self._directories.pop(parts, None)
                self._implicit.pop(parts, None)
            return name, parent_fd, False
        os.unlink(name, dir_fd=parent_fd)
        return name, parent_fd, stat.S_ISCHR(found.st_mode)

    def _enter(self, parts: tuple[str, ...], entry: str) -> int:
        """Return the descriptor of a directory of the tree, made where it is missing; it stays this object's."""
        if parts != self._at:
            new_fd = self._opened(parts, entry, make=True)
            os.close(self._at_fd)
            self._at, self._at_fd = parts, new_fd
        return self._at_fd

    def _opened(self, parts: tuple[str, ...], entry: str, *, make: bool) -> int:
        """Open a directory of the tree, one name at a time; the caller owns the descriptor."""
        common = len(self._at) if parts[: len(self._at)] == self._at else 0
        here_fd = os.dup(self._at_fd if common else self._root_fd)
        for index, name in enumerate(parts[common:], common + 1):
            try:
                next_fd = self._step(here_fd, name, parts[:index], entry, make=make)
            finally:
                os.close(here_fd)
            here_fd = next_fd
        return here_fd

    def _step(self, here_fd: int, name: str, path: tuple[str, ...], entry: str, *, make: bool) -> int:
        try:
            return os.open(name, _DIRECTORY, dir_fd=here_fd)
        except FileNotFoundError:
            if not make:
                raise
            hid = False
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            found = os.stat(name, dir_fd=here_fd, follow_symlinks=False)
            hid = stat.S_ISCHR(found.st_mode)
            if not make or not hid:
                raise Refused("An entry lies below something that is no directory.", entry) from None
            os.unlink(name, dir_fd=here_fd)
        self._count(entry)
        os.mkdir(name, 0o755, dir_fd=here_fd)
        self._implicit[path] = None
        next_fd = os.open(name, _DIRECTORY, dir_fd=here_fd)
        os.fchmod(next_fd, 0o755)
        if hid:
            os.setxattr(next_fd, OPAQUE, b"y")
        return next_fd

    def _mark_opaque(self, parts: tuple[str, ...], entry: str) -> None:
        os.setxattr(self._enter(parts, entry), OPAQUE, b"y")

    # attributes

    def _xattrs(self, member: tarfile.TarInfo, *, directory: bool) -> dict[str, bytes]:
        kept, refused = rules.xattrs(member.pax_headers, directory=directory)
        if refused:
            self.left_out["xattrs"] += refused
        return kept

    def _set_xattrs(self, of: int | str, values: dict[str, bytes]) -> None:
        for name, value in values.items():
            try:
                os.setxattr(of, name, value, follow_symlinks=isinstance(of, int))
            except OSError as error:
                if error.errno not in _NO_XATTRS:
                    raise
                self.left_out["xattrs"] += 1

    @staticmethod
    def _times(name: str, parent_fd: int, member: tarfile.TarInfo) -> None:
        os.utime(name, ns=times(member), dir_fd=parent_fd, follow_symlinks=False)

    def _finish(self) -> None:
        """Give directories what their entries must not see or change."""
        for parts, (when, xattrs) in self._directories.items():
            directory_fd = self._opened(parts, "/".join(parts), make=False)
            try:
                self._set_xattrs(directory_fd, xattrs)
                os.utime(directory_fd, ns=when)
            finally:
                os.close(directory_fd)

    def _count(self, entry: str) -> None:
        self._entries += 1
        if self._entries > self._limits.entries:
            raise Refused(f"It holds more than {self._limits.entries} entries.", entry, limit="entries")
        self._tell(self._entries)
