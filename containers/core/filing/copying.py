"""Files and directories copied inside one container: owners, modes, times, attributes, holes, hard links and all."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable
from typing import Final

from ..filenames import shown
from ..kernel.holes import data_ranges
from ..kernel.within import within
from .places import Refused, open_there, own, pinned

DEPTH_MAX: Final = 500
_LINKED_MAX: Final = 8192
_TOLD_MAX: Final = 20
_CHUNK_BYTES: Final = 1 << 20
_OVERLAYS: Final = ("user.overlay.", "trusted.")
_NO_NODE: Final = (errno.EPERM, errno.EACCES)


class Copier:
    """Copies from one open directory to another. skipped: what the container's root may not make, device nodes."""

    def __init__(self, source_fd: int, target_fd: int, tell: Callable[[int, int], None] | None = None) -> None:
        """Borrow both directories. tell: called with how many entries and bytes were copied."""
        self._source_fd, self._target_fd = source_fd, target_fd
        self._tell = tell
        self._linked: dict[tuple[int, int], int] = {}
        self.entries = self.bytes = 0
        self.skipped: list[str] = []

    def close(self) -> None:
        """Forget which files have several names."""
        for fd in self._linked.values():
            os.close(fd)
        self._linked.clear()

    def copy(self, name: str, new: str) -> bool:
        """Copy an entry with all in it, to a name that nobody has; False where it had to be left out."""
        return self.between(self._source_fd, name, self._target_fd, new, 0)

    def between(self, source_fd: int, name: str, target_fd: int, new: str, depth: int) -> bool:
        """Copy an entry from one open directory to another, as copy does."""
        status = os.stat(name, dir_fd=source_fd, follow_symlinks=False)
        if depth > DEPTH_MAX:
            raise Refused("invalid-value", "The directories are nested too deeply.")
        if stat.S_ISDIR(status.st_mode):
            self._directory(source_fd, name, target_fd, new, depth)
        elif not self._known(status, target_fd, new):
            if stat.S_ISREG(status.st_mode):
                self._file(source_fd, name, target_fd, new)
            elif not self._special(source_fd, name, target_fd, new, status):
                self.skipped.append(shown(name))
                return False
            self._remember(status, target_fd, new)
        self.entries += 1
        if self._tell is not None:
            self._tell(self.entries, self.bytes)
        return True

    def _directory(self, source_fd: int, name: str, target_fd: int, new: str, depth: int) -> None:
        os.mkdir(new, 0o700, dir_fd=target_fd)
        with contextlib.ExitStack() as undo:
            from_fd = open_there(source_fd, name, directory=True)
            undo.callback(os.close, from_fd)
            to_fd = open_there(target_fd, new, directory=True)
            undo.callback(os.close, to_fd)
            status = os.fstat(from_fd)
            for child in os.listdir(from_fd):
                inner = os.stat(child, dir_fd=from_fd, follow_symlinks=False)
                if not stat.S_ISDIR(inner.st_mode) or inner.st_dev == status.st_dev:
                    self.between(from_fd, child, to_fd, child, depth + 1)
            dress(from_fd, to_fd, status)

    def _known(self, status: os.stat_result, target_fd: int, new: str) -> bool:
        """Give a file that was copied already its next name; False where it was not."""
        fd = self._linked.get((status.st_dev, status.st_ino)) if status.st_nlink > 1 else None
        if fd is None:
            return False
        os.link(str(fd), new, src_dir_fd=own(), dst_dir_fd=target_fd, follow_symlinks=True)
        return True

    def _remember(self, status: os.stat_result, target_fd: int, new: str) -> None:
        if status.st_nlink > 1 and not stat.S_ISLNK(status.st_mode) and len(self._linked) < _LINKED_MAX:
            self._linked[status.st_dev, status.st_ino] = pinned(target_fd, new)

    def _file(self, source_fd: int, name: str, target_fd: int, new: str) -> None:
        write = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with contextlib.ExitStack() as undo:
            from_fd = open_there(source_fd, name)
            undo.callback(os.close, from_fd)
            to_fd = os.open(new, write, 0o600, dir_fd=target_fd)
            undo.callback(os.close, to_fd)
            status = os.fstat(from_fd)
            os.ftruncate(to_fd, status.st_size)
            for at, end in data_ranges(from_fd, status.st_size):
                self._range(from_fd, to_fd, at, end)
            dress(from_fd, to_fd, status)

    def _range(self, from_fd: int, to_fd: int, at: int, end: int) -> None:
        os.lseek(to_fd, at, os.SEEK_SET)
        os.lseek(from_fd, at, os.SEEK_SET)
        while at < end:
            data = memoryview(os.read(from_fd, min(_CHUNK_BYTES, end - at)))
            if not data:
                return  # it has become shorter meanwhile
            at += len(data)
            self.bytes += len(data)
            while data:
                data = data[os.write(to_fd, data) :]
            if self._tell is not None:
                self._tell(self.entries, self.bytes)

    @staticmethod
    def _special(source_fd: int, name: str, target_fd: int, new: str, status: os.stat_result) -> bool:
        if stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(name, dir_fd=source_fd), new, dir_fd=target_fd)
        else:
            try:
                os.mknod(new, status.st_mode, status.st_rdev, dir_fd=target_fd)
            except OSError as error:
                if error.errno not in _NO_NODE:
                    raise
                return False
        os.chown(new, status.st_uid, status.st_gid, dir_fd=target_fd, follow_symlinks=False)
        if not stat.S_ISLNK(status.st_mode):
            pin_fd = pinned(target_fd, new)
            try:
                os.chmod(str(pin_fd), stat.S_IMODE(status.st_mode), dir_fd=own())
                _same_attributes(source_fd, name, pin_fd)
            finally:
                os.close(pin_fd)
        times = (status.st_atime_ns, status.st_mtime_ns)
        os.utime(new, ns=times, dir_fd=target_fd, follow_symlinks=False)
        return True


def dress(source_fd: int, target_fd: int, status: os.stat_result) -> None:
    """Give an open file or directory another's owner, mode, attributes (and none else) and times."""
    os.fchown(target_fd, status.st_uid, status.st_gid)
    os.fchmod(target_fd, stat.S_IMODE(status.st_mode))
    wanted = attributes(source_fd)
    for name, value in wanted.items():
        os.setxattr(target_fd, name, value)
    for name in os.listxattr(target_fd):
        if name not in wanted and not name.startswith(_OVERLAYS):
            with contextlib.suppress(OSError):
                os.removexattr(target_fd, name)
    os.utime(target_fd, ns=(status.st_atime_ns, status.st_mtime_ns))


def _same_attributes(source_fd: int, name: str, target_fd: int) -> None:
    """Give what is not opened, a FIFO or a socket, another's attributes. target_fd: O_PATH."""
    from_fd = pinned(source_fd, name)
    try:
        with within(own()):
            for attribute in os.listxattr(str(from_fd)):
                if not attribute.startswith(_OVERLAYS):
                    os.setxattr(str(target_fd), attribute, os.getxattr(str(from_fd), attribute))
    finally:
        os.close(from_fd)


def attributes(fd: int) -> dict[str, bytes]:
    """Return a file's or directory's extended attributes, without overlay's own. Raises OSError."""
    found = {}
    for name in os.listxattr(fd):
        if not name.startswith(_OVERLAYS):
            try:
                found[name] = os.getxattr(fd, name)
            except OSError as error:
                if error.errno not in (errno.EOVERFLOW, errno.ENODATA):  # a capability of another user namespace
                    raise
    return found
