"""One merged directory tree over several layers.

Source of the rules for whiteouts and opaque directories: kernel Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Sequence
from typing import Final

from ..kernel.within import within
from ..storage.marks import OWN_XATTRS, is_opaque, is_whiteout

DEPTH_MAX: Final = 100
"""Deeper directories are not entered; whoever reads is told."""
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_GONE: Final = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE)
"""What an entry answers that was another one a moment ago."""

Level = tuple[tuple[int, int], ...]
"""One merged directory: (number of the layer, descriptor), uppermost first."""


class Entry:
    """Something in a merged directory. status: of its uppermost inode. parent_fd: borrowed; it has that name there."""

    __slots__ = ("layer", "name", "parent_fd", "status")

    def __init__(self, name: str, layer: int, parent_fd: int, status: os.stat_result) -> None:
        self.name, self.layer, self.parent_fd, self.status = name, layer, parent_fd, status

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.status.st_mode)

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return stat.S_ISREG(self.status.st_mode)

    @contextlib.contextmanager
    def opened(self) -> Iterator[int]:
        """Open a regular file, or a directory, for the time being. Raises FileNotFoundError where it is another now."""
        flags = _FILE if self.is_file else _DIRECTORY
        try:
            fd = os.open(self.name, flags, dir_fd=self.parent_fd)
        except OSError as error:
            if error.errno in _GONE:
                raise FileNotFoundError(errno.ENOENT, "gone", self.name) from error
            raise
        try:
            there = os.fstat(fd)
            if (there.st_ino, there.st_dev, stat.S_IFMT(there.st_mode)) != (
                self.status.st_ino,
                self.status.st_dev,
                stat.S_IFMT(self.status.st_mode),
            ):
                raise FileNotFoundError(errno.ENOENT, "it is another file now", self.name)
            yield fd
        finally:
            os.close(fd)

    def target(self) -> str:
        """Return where a symbolic link points."""
        return os.readlink(self.name, dir_fd=self.parent_fd)

    def xattrs(self) -> dict[str, bytes]:
        """Return the extended attributes, without overlay's own."""
        if self.is_file or self.is_directory:
            with self.opened() as fd:
                return _xattrs(fd)
        with within(self.parent_fd):
            return _xattrs(self.name)


def _xattrs(of: int | str) -> dict[str, bytes]:
    found, follow = {}, isinstance(of, int)
    for name in os.listxattr(of, follow_symlinks=follow):
        if not name.startswith(OWN_XATTRS):
            with contextlib.suppress(OSError):  # one that has no meaning in this user namespace
                found[name] = os.getxattr(of, name, follow_symlinks=follow)
    return found


class Merged:
    """A tree over layers. top: an open directory of each, uppermost first; borrowed."""

    def __init__(self, top: Sequence[int]) -> None:
        self.top: Level = tuple(enumerate(top))

    def look(self, level: Level, name: str) -> Entry | None:
        """Return the entry of a name in a merged directory; None where there is none."""
        for number, directory_fd in level:
            try:
                status = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
            except OSError as error:
                if error.errno in _GONE:
                    continue
                raise
            return None if is_whiteout(status) else Entry(name, number, directory_fd, status)
        return None

    def names(self, level: Level) -> list[str]:
        """Return the names in a merged directory, sorted; whiteouts and what they hide are not among them."""
        listed = {name for _number, directory_fd in level for name in os.listdir(directory_fd)}
        return sorted(name for name in listed if self.look(level, name) is not None)

    @contextlib.contextmanager
    def below(self, level: Level, name: str) -> Iterator[Level]:
        """Enter a sub-directory for the time being: those of the same name that the uppermost does not hide."""
        with contextlib.ExitStack() as undo:
            found: list[tuple[int, int]] = []
            for number, directory_fd in level:
                try:
                    status = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
                    if not stat.S_ISDIR(status.st_mode):
                        break
                    child_fd = os.open(name, _DIRECTORY, dir_fd=directory_fd)
                except OSError as error:
                    if error.errno in _GONE:
                        continue
                    raise
                undo.callback(os.close, child_fd)
                found.append((number, child_fd))
                if is_opaque(child_fd):
                    break
            yield tuple(found)

    @contextlib.contextmanager
    def at(self, path: str) -> Iterator[tuple[Level, Entry | None]]:
        """Find a path, of names alone; yields the merged directory that holds it, and its entry or None.

        For the top itself the entry is None and the directory its own.
        """
        names = [name for name in path.split("/") if name not in ("", ".")]
        if ".." in names or len(names) > DEPTH_MAX:
            raise FileNotFoundError(errno.ENOENT, "There is no such path.", path)
        with contextlib.ExitStack() as undo:
            level = self.top
            for name in names[:-1]:
                level = undo.enter_context(self.below(level, name))
                if not level:
                    raise FileNotFoundError(errno.ENOENT, "There is no such path.", path)
            yield level, self.look(level, names[-1]) if names else None


def kind_of(status: os.stat_result) -> str:
    """Return the word for what something is: file, directory, link, device, fifo or socket."""
    mode = status.st_mode
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "directory"
    if stat.S_ISLNK(mode):
        return "link"
    if stat.S_ISFIFO(mode):
        return "fifo"
    return "socket" if stat.S_ISSOCK(mode) else "device"
