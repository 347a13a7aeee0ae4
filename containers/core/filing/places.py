"""Where in a container's tree a path leads: an open directory and one name in it, found by the kernel below the root.

Symbolic links lead to places inside, wherever they point; /proc's magic ones nowhere. What lies in a file system that
has no files of its own (/proc, /sys, FUSE, ...) is refused before anything is opened.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import Final

from ..kernel import mount_api
from ..reading.verbs import Refused

IN_ROOT: Final = mount_api.RESOLVE_IN_ROOT | mount_api.RESOLVE_NO_MAGICLINKS
LINKS_MAX: Final = 40
"""As many links in a row as the kernel follows (path_resolution(7))."""
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_FILES: Final = frozenset(
    {
        0xEF53,  # ext2, 3, 4
        0x58465342,  # xfs
        0x9123683E,  # btrfs
        mount_api.TMPFS,
        0x794C7630,  # overlay
        0xF2F52010,  # f2fs
        0x2FC12FC1,  # zfs
        0xCA451A4E,  # bcachefs
        0x858458F6,  # ramfs
        0x73717368,  # squashfs
        0xE0F5E1E2,  # erofs
        0x9660,  # iso9660
        0x4D44,  # vfat
        0x2011BAB0,  # exfat
    }
)
"""Kinds of file systems with files of their own. Source: include/uapi/linux/magic.h, and statfs(2)."""
__all__ = ["Place", "Refused", "directory", "named", "open_there", "own", "pinned", "place", "require_files"]

_own: list[int] = []


_MESSAGES: Final[dict[int, tuple[str, str]]] = {
    errno.ENOENT: ("not-found", "There is no such file or directory."),
    errno.ENOTDIR: ("not-found", "There is no such file or directory."),
    errno.ESTALE: ("not-found", "There is no such file or directory."),
    errno.EEXIST: ("already-exists", "There is something of this name already."),
    errno.ENOTEMPTY: ("in-use", "The directory is not empty."),
    errno.EBUSY: ("in-use", "It is in use: something is mounted there."),
    errno.ETXTBSY: ("in-use", "It is in use: the program runs."),
    errno.ENOSPC: ("storage-full", "The disk is full. Nothing was changed."),
    errno.EDQUOT: ("storage-full", "The disk limit is reached. Nothing was changed."),
    errno.EFBIG: ("policy", "The host's policy allows no file of this size."),
    errno.EROFS: ("setup-failed", "This place is read-only."),
    errno.EPERM: ("setup-failed", "The container's root may not do this here."),
    errno.EACCES: ("setup-failed", "The container's root may not do this here."),
    errno.EXDEV: ("invalid-value", "This would lead to another file system."),
    errno.ELOOP: ("invalid-value", "Too many symbolic links, or one that leads nowhere."),
    errno.EISDIR: ("invalid-value", "This is a directory."),
    errno.ENAMETOOLONG: ("invalid-value", "This name is too long."),
    errno.EINVAL: ("invalid-value", "The container's file system refuses this value."),
    errno.EOPNOTSUPP: ("invalid-value", "The file system knows no such thing."),
    errno.EMLINK: ("setup-failed", "There are too many links to it."),
}


def named(error: OSError) -> Refused:
    """Return what to say of an error of the file system."""
    code, message = _MESSAGES.get(error.errno or 0, ("setup-failed", ""))
    return Refused(code, message or f"The file system failed: {error.strerror or error}")


def require_files(fd: int) -> None:
    """Raise Refused unless a place is in a file system that has files of its own."""
    if mount_api.file_system(fd) not in _FILES:
        raise Refused("invalid-value", "This belongs to the kernel, or to a program: there are no files in it.")


@contextlib.contextmanager
def directory(root_fd: int, path: str) -> Iterator[int]:
    """Open the directory that a path leads to. Raises Refused, OSError."""
    place_fd = mount_api.open_path(root_fd, path.lstrip("/") or ".", IN_ROOT)
    try:
        if not stat.S_ISDIR(os.fstat(place_fd).st_mode):
            raise Refused("invalid-value", "This is not a directory.")
        require_files(place_fd)
        fd = os.open(".", _DIRECTORY, dir_fd=place_fd)
    finally:
        os.close(place_fd)
    try:
        yield fd
    finally:
        os.close(fd)


class Place:
    """One name in an open directory. status: of what is there, not following a link; None for nothing."""

    __slots__ = ("name", "parent_fd", "status")

    def __init__(self, parent_fd: int, name: str) -> None:
        self.parent_fd, self.name = parent_fd, name
        self.status = self.look()

    def look(self) -> os.stat_result | None:
        """Return what is there now."""
        try:
            return os.stat(self.name, dir_fd=self.parent_fd, follow_symlinks=False)
        except FileNotFoundError:
            return None

    @property
    def present(self) -> os.stat_result:
        """What is there; raises Refused for nothing."""
        if self.status is None:
            raise Refused("not-found", "There is no such file or directory.")
        return self.status


@contextlib.contextmanager
def place(root_fd: int, path: str, *, follow: bool) -> Iterator[Place]:
    """Find what a path names. follow: where it is a symbolic link, what that leads to. Raises Refused, OSError."""
    for _ in range(LINKS_MAX):
        above, _slash, name = path.rstrip("/").rpartition("/")
        if name in ("", ".", ".."):
            raise Refused("invalid-value", "This names a directory, and nothing in one.")
        with directory(root_fd, above or "/") as parent_fd:
            found = Place(parent_fd, name)
            if not follow or found.status is None or not stat.S_ISLNK(found.status.st_mode):
                yield found
                return
            target = os.readlink(name, dir_fd=parent_fd)
        # the kernel resolves what stands before the name, ".." of a link's target too, and never above the root
        path = target if target.startswith("/") else f"{above}/{target}"
    raise Refused("invalid-value", "Too many symbolic links, or one that leads nowhere.")


def hold_own() -> None:
    """Keep the way to this process's own descriptors, while /proc is the host's; before anything below."""
    _own.append(os.open("/proc/self/fd", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))


def own() -> int:
    """Return the directory of this process's own descriptors, by number, for the calls that take no descriptor."""
    return _own[-1]


def pinned(parent_fd: int, name: str) -> int:
    """Return a descriptor (O_PATH) of what has a name, without opening it; a link itself, not what it leads to."""
    return os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent_fd)


def open_there(parent_fd: int, name: str, *, directory: bool = False) -> int:
    """Open a regular file or a directory for reading, and nothing else, whatever is put in its place meanwhile."""
    pin_fd = pinned(parent_fd, name)
    try:
        mode = os.fstat(pin_fd).st_mode
        if not (stat.S_ISDIR(mode) if directory else stat.S_ISREG(mode)):
            raise Refused("invalid-value", "This is not a directory." if directory else "This is not a regular file.")
        require_files(pin_fd)
        kind = os.O_DIRECTORY if directory else 0
        return os.open(str(pin_fd), os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | kind, dir_fd=own())
    finally:
        os.close(pin_fd)
