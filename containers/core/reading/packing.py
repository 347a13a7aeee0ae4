"""One layer of a container as a tar, exact in everything: what a backup is made of, and core.archives.tree takes back.

Plain pax, as GNU tar reads it: owners and modes, times to the nanosecond, extended attributes, ACLs, file capabilities,
hard links, sparse files (GNU.sparse 1.0), device nodes. What the format has no word for is said in words of our own:
``BOXROOM.opaque`` of a directory that hides the ones below, ``BOXROOM.origin`` of one that overlay has copied up and
looks for whiteouts in, ``BOXROOM.socket`` of a FIFO that is a socket. A whiteout is what it is on disk, a character
device 0/0.
"""

from __future__ import annotations

import errno
import os
import stat
import tarfile
from collections.abc import Callable
from typing import Final

from ..kernel.holes import data_ranges
from ..kernel.within import within
from ..storage import marks
from ..storage.marks import OWN_XATTRS, is_opaque, is_whiteout

DEPTH_MAX: Final = 1000
PATH_MAX_BYTES: Final = 64 << 10
"""As core.archives.rules takes them back."""
OPAQUE: Final = "BOXROOM.opaque"
ORIGIN: Final = "BOXROOM.origin"
SOCKET: Final = "BOXROOM.socket"
_XATTR: Final = "SCHILY.xattr."
_CHUNK_BYTES: Final = 1 << 20
_SPARSE_DATA_MAX: Final = 7 << 30
"""A file with holes and more data than this is packed with its holes as zeros: its size would need a field that readers
of the format disagree about."""
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_KINDS: Final = {
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
    stat.S_IFSOCK: tarfile.FIFOTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
    stat.S_IFREG: tarfile.REGTYPE,
}


def layer(top_fd: int, write: Callable[[bytes], object]) -> None:
    """Write the tree of a directory (borrowed) that nobody changes. Raises OSError; half a tar is out then."""
    _Packer(write).run(top_fd)
    write(bytes(2 * tarfile.BLOCKSIZE))


class _Packer:
    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._links: dict[int, str] = {}

    def run(self, top_fd: int) -> None:
        """Pack a directory and all in it, going down by descriptors alone."""
        top = os.dup(top_fd)
        stack = [(top, ".", self._begin(top, "."))]
        try:
            while stack:
                here_fd, path, waiting = stack[-1]
                if not waiting:
                    os.close(here_fd)
                    stack.pop()
                    continue
                name = waiting.pop()
                inner = f"{path}/{name}"
                status = os.stat(name, dir_fd=here_fd, follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    if len(stack) >= DEPTH_MAX or len(os.fsencode(inner)) > PATH_MAX_BYTES:
                        raise OSError(errno.ENAMETOOLONG, "Directories lie too deep for a backup")
                    below_fd = os.open(name, _DIRECTORY, dir_fd=here_fd)
                    stack.append((below_fd, inner, []))
                    stack[-1] = (below_fd, inner, self._begin(below_fd, inner))
                else:
                    self._entry(here_fd, name, inner, status)
        finally:
            for fd, _path, _waiting in stack:
                os.close(fd)

    def _begin(self, fd: int, path: str) -> list[str]:
        """Pack a directory itself; return what is in it, last first."""
        headers = {OPAQUE: "1"} if is_opaque(fd) else {}
        if marks.ORIGIN in os.listxattr(fd):
            headers[ORIGIN] = "1"
        self._head(path, os.fstat(fd), {**headers, **_xattrs(fd)})
        return sorted(os.listdir(fd), reverse=True)

    def _entry(self, parent_fd: int, name: str, path: str, status: os.stat_result) -> None:
        """Pack what is no directory."""
        device = stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)
        if status.st_nlink > 1 and not device:
            known = self._links.setdefault(status.st_ino, path)
            if known != path:
                self._head(path, status, {}, kind=tarfile.LNKTYPE, target=known)
                return
        if stat.S_ISREG(status.st_mode):
            self._file(parent_fd, name, path)
        elif stat.S_ISLNK(status.st_mode):
            self._head(path, status, {}, target=os.readlink(name, dir_fd=parent_fd))
        elif is_whiteout(status):
            self._head(path, status, {})
        else:
            headers = {SOCKET: "1"} if stat.S_ISSOCK(status.st_mode) else {}
            with within(parent_fd):
                headers |= _xattrs(name)
            self._head(path, status, headers)

    def _file(self, parent_fd: int, name: str, path: str) -> None:
        file_fd = os.open(name, _FILE, dir_fd=parent_fd)
        try:
            status = os.fstat(file_fd)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            pieces = _pieces(file_fd, status)
            length = sum(size for _at, size in pieces)
            headers = _xattrs(file_fd)
            if length < status.st_size and length <= _SPARSE_DATA_MAX:
                head = _sparse_map([*pieces, (status.st_size, 0)])
                real = {"name": path, "realsize": str(status.st_size), "major": "1", "minor": "0"}
                headers |= {f"GNU.sparse.{key}": value for key, value in real.items()}
                self._head(path, status, headers, size=len(head) + length)
                self._write(head)
            else:
                pieces, length, head = [(0, status.st_size)], status.st_size, b""
                self._head(path, status, headers, size=length)
            for at, size in pieces:
                self._data(file_fd, at, size)
            self._write(bytes(-length % tarfile.BLOCKSIZE))
        finally:
            os.close(file_fd)

    def _data(self, file_fd: int, at: int, size: int) -> None:
        while size:
            data = os.pread(file_fd, min(size, _CHUNK_BYTES), at)
            if not data:
                raise OSError(errno.EIO, "A file became shorter")
            self._write(data)
            at, size = at + len(data), size - len(data)

    def _head(
        self,
        path: str,
        status: os.stat_result,
        headers: dict[str, str],
        *,
        kind: bytes = b"",
        target: str = "",
        size: int = 0,
    ) -> None:
        info = tarfile.TarInfo(path)
        info.type = kind or _KINDS[stat.S_IFMT(status.st_mode)]
        info.mode, info.uid, info.gid = stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid
        info.size, info.linkname = size, target
        if info.type in (tarfile.CHRTYPE, tarfile.BLKTYPE):
            info.devmajor, info.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
        times = {"mtime": _stamp(status.st_mtime_ns), "atime": _stamp(status.st_atime_ns)}
        info.pax_headers = {**times, **headers}
        self._write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))


def _pieces(file_fd: int, status: os.stat_result) -> list[tuple[int, int]]:
    """Return where a file's data lies, as (offset, size); all of it, where it has no holes."""
    if status.st_blocks * 512 >= status.st_size:
        return [(0, status.st_size)]
    return [(begin, end - begin) for begin, end in data_ranges(file_fd, status.st_size)]


def _sparse_map(pieces: list[tuple[int, int]]) -> bytes:
    """Return the map of a sparse file, in whole blocks. Source: GNU tar's manual, "Storing Sparse Files"."""
    lines = [len(pieces), *(number for piece in pieces for number in piece)]
    told = "".join(f"{number}\n" for number in lines).encode()
    return told + bytes(-len(told) % tarfile.BLOCKSIZE)


def _xattrs(of: int | str) -> dict[str, str]:
    """Return the extended attributes of an open file or directory, or of a name, as headers, without overlay's own."""
    found, follow = {}, isinstance(of, int)
    for name in os.listxattr(of, follow_symlinks=follow):
        if not name.startswith(OWN_XATTRS):
            value = os.getxattr(of, name, follow_symlinks=follow)
            found[f"{_XATTR}{name}"] = value.decode("utf-8", "surrogateescape")
    return found


def _stamp(nanoseconds: int) -> str:
    """Return a time as pax writes it, to the nanosecond."""
    whole, part = divmod(abs(nanoseconds), 1_000_000_000)
    return f"{'-' if nanoseconds < 0 else ''}{whole}.{part:09d}"
