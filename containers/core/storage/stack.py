"""Reading and changing single files of a container at rest, as overlay would, without mounting anything.

The trees were written by a container and are hostile. Each step of a path is one name, opened relative to a directory
descriptor with O_NOFOLLOW: symbolic links are never followed and nothing outside the layers is ever reached. Nobody
else changes them meanwhile: lower layers never change, and the container whose writable layer this is does not run.
Source of the rules for whiteouts and opaque directories: kernel Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self

from ..host import Host
from ..hoststore import store
from ..kernel import files
from . import disks
from .marks import ORIGIN, OWN_XATTRS, is_opaque, is_whiteout

READ_MAX_BYTES: Final = 64 * 1024
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

Level = tuple[tuple[int, int], ...]
"""One merged directory: (number of the layer, descriptor), uppermost first; layer 0 is the writable one."""


class Stack:
    """A container's merged tree; a context manager that owns the descriptors it opens.

    fresh: nothing refers to its writable layer yet. What is written is brought to the disk all at once, at the end.
    """

    def __init__(self, host: Host, root: store.Root, *, fresh: bool = False) -> None:
        self._undo = contextlib.ExitStack()
        self._fresh = fresh
        self._late: dict[tuple[int, int], int] = {}
        self._own_tree = disks.tree(host, root.writable)
        self._lower_trees = [store.rootfs(host, layer) for layer in reversed(root.layers)]
        self._top: Level = ()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as undo:
            trees = (undo.enter_context(self._own_tree), *self._lower_trees)
            level = []
            for number, tree in enumerate(trees):
                level.append((number, self._own(undo, os.open(tree, _DIRECTORY))))
            self._top = tuple(level)
            self._undo = undo.pop_all()
        return self

    def __exit__(self, failed: object, *_: object) -> None:
        with self._undo:
            if self._late and failed is None:
                files.sync_fds([*self._late.values(), self._top[0][1]])

    def read(self, path: str) -> bytes | None:
        """Return the content of a regular file of at most READ_MAX_BYTES; None where there is none such."""
        with self._level_of(path) as (level, name):
            found = self._entry(level, name)
            if found is None or not stat.S_ISREG(found[1].st_mode) or found[1].st_size > READ_MAX_BYTES:
                return None
            file_fd = os.open(name, _FILE, dir_fd=found[0])
            with os.fdopen(file_fd, "rb") as file:
                return file.read(READ_MAX_BYTES)

    def names(self, path: str) -> list[str]:
        """Return the names in a directory, sorted; of one that is none, nothing."""
        with self._level_of(f"{path}/.") as (level, _):
            listed = {name for _number, directory_fd in level for name in os.listdir(directory_fd)}
            return sorted(name for name in listed if self._entry(level, name) is not None)

    def write(self, path: str, data: bytes, *, mode: int = 0o644) -> bool:
        """Replace or make a file, in the writable layer; returns whether its directory was there to do so.

        One that is there as a regular file keeps its owner and mode; a symbolic link is replaced, a directory left.
        """
        with self._level_of(path) as (level, name):
            if not level:
                return False
            found = self._entry(level, name)
            if found is not None and stat.S_ISDIR(found[1].st_mode):
                return False
            with self._copied_up(path) as directory_fd:
                temporary = f".{secrets.token_hex(8)}"
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                with os.fdopen(os.open(temporary, flags, 0o600, dir_fd=directory_fd), "wb") as file:
                    file.write(data)
                    file.flush()
                    if found is not None and stat.S_ISREG(found[1].st_mode):
                        os.fchown(file.fileno(), found[1].st_uid, found[1].st_gid)
                        mode = stat.S_IMODE(found[1].st_mode)
                    os.fchmod(file.fileno(), mode)
                    self._settle(file.fileno())
                os.rename(temporary, name, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)
        return True

    def remove(self, path: str) -> None:
        """Remove a file, link or device; a directory, or nothing there, is left."""
        with self._level_of(path) as (level, name):
            found = self._entry(level, name)
            if found is None or stat.S_ISDIR(found[1].st_mode):
                return
            covered = any(number > 0 and self._has(directory_fd, name) for number, directory_fd in level)
            with self._copied_up(path) as directory_fd:
                if not covered:
                    os.unlink(name, dir_fd=directory_fd)
                    return
                temporary = f".{secrets.token_hex(8)}"
                os.mknod(temporary, stat.S_IFCHR, os.makedev(0, 0), dir_fd=directory_fd)
                os.rename(temporary, name, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)

    # the merged view

    @contextlib.contextmanager
    def _level_of(self, path: str) -> Iterator[tuple[Level, str]]:
        """Yield the merged directory that holds path's last name, empty where there is none, and that name."""
        *directories, name = path.strip("/").split("/")
        with contextlib.ExitStack() as undo:
            level = self._top
            for directory in directories:
                level = self._below(undo, level, directory)
            yield level, name

    def _below(self, undo: contextlib.ExitStack, level: Level, name: str) -> Level:
        """Enter a sub-directory: those of the same name that the uppermost does not hide."""
        found: list[tuple[int, int]] = []
        for number, directory_fd in level:
            try:
                status = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
            except FileNotFoundError:
                continue
            if not stat.S_ISDIR(status.st_mode):
                break
            child_fd = self._own(undo, os.open(name, _DIRECTORY, dir_fd=directory_fd))
            found.append((number, child_fd))
            if is_opaque(child_fd):
                break
        return tuple(found)

    @staticmethod
    def _entry(level: Level, name: str) -> tuple[int, os.stat_result] | None:
        """Return the uppermost entry of that name, with the directory it is in; None where there is none."""
        for _number, directory_fd in level:
            try:
                status = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
            except FileNotFoundError:
                continue
            return None if is_whiteout(status) else (directory_fd, status)
        return None

    @staticmethod
    def _has(directory_fd: int, name: str) -> bool:
        try:
            return not is_whiteout(os.stat(name, dir_fd=directory_fd, follow_symlinks=False))
        except FileNotFoundError:
            return False

    @contextlib.contextmanager
    def _copied_up(self, path: str) -> Iterator[int]:
        """Yield path's directory in the writable layer, made like the one below where it is not there yet."""
        *directories, _name = path.strip("/").split("/")
        with contextlib.ExitStack() as undo:
            level = self._top
            upper_fd = level[0][1]
            for directory in directories:
                level = self._below(undo, level, directory)
                if level[0][0] != 0:
                    copy_directory(level[0][1], upper_fd, directory)
                upper_fd = self._own(undo, os.open(directory, _DIRECTORY, dir_fd=upper_fd))
                if self._fresh:
                    self._settle(upper_fd)
            yield upper_fd
            self._settle(upper_fd)

    def _settle(self, fd: int) -> None:
        """Bring a file or directory to the disk, or remember to do so."""
        if not self._fresh:
            os.fsync(fd)
            return
        status = os.fstat(fd)
        if (status.st_dev, status.st_ino) not in self._late:
            self._late[status.st_dev, status.st_ino] = self._own(self._undo, os.dup(fd))

    @staticmethod
    def _own(undo: contextlib.ExitStack, fd: int) -> int:
        undo.callback(os.close, fd)
        return fd


def copy_directory(source_fd: int, parent_fd: int, name: str) -> None:
    """Make a directory below parent_fd with the owner, mode, ACLs and times of another, as overlay's copy-up does."""
    os.mkdir(name, 0o700, dir_fd=parent_fd)
    target_fd = os.open(name, _DIRECTORY, dir_fd=parent_fd)
    try:
        copy_attributes(source_fd, target_fd)
        # says "was copied up": overlay then looks for whiteouts in it, whatever lies below it one day
        with contextlib.suppress(OSError):
            os.setxattr(target_fd, ORIGIN, b"")
    finally:
        os.close(target_fd)


def copy_attributes(source_fd: int, target_fd: int) -> None:
    """Give a directory the owner, mode, times and extended attributes of another, overlay's own marks excepted."""
    status = os.fstat(source_fd)
    os.fchown(target_fd, status.st_uid, status.st_gid)
    os.fchmod(target_fd, stat.S_IMODE(status.st_mode))
    for name in os.listxattr(source_fd):
        if not name.startswith(OWN_XATTRS):
            os.setxattr(target_fd, name, os.getxattr(source_fd, name))
    os.utime(target_fd, ns=(status.st_atime_ns, status.st_mtime_ns))


def copy_root_attributes(source: Path, target: Path) -> None:
    """Give a layer's top directory the attributes of another layer's."""
    with files.opened(source) as source_fd, files.opened(target) as target_fd:
        copy_attributes(source_fd, target_fd)
