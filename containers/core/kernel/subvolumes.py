"""Subvolumes of btrfs: made, copied at once and removed at once, by the kernel's own calls.

A subvolume is a directory whose whole content the file system can copy by one entry, whatever it holds. No file can be
renamed out of one or into one, but it can be renamed itself. Source: include/uapi/linux/btrfs.h, fs/btrfs/ioctl.c.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
from pathlib import Path
from typing import Final

from . import files

_SNAP_CREATE: Final = 0x50009401
_SUBVOL_CREATE: Final = 0x5000940E
_SNAP_DESTROY: Final = 0x5000940F
_SUBVOL_GETFLAGS: Final = 0x80089419
_ROOTREF: Final = 0xD000943D
_LOOKUP_USER: Final = 0xD000943E
_ROOTREF_COUNT_AT: Final = 4088
_ARGUMENTS: Final = struct.Struct("=q4088s")
"""struct btrfs_ioctl_vol_args: the descriptor of what is copied, a name in the directory that is asked."""


def is_one(path: Path) -> bool:
    """Tell whether a path is the top of a subvolume; False for what is no directory, or not there."""
    try:
        with files.opened(path) as directory_fd:
            fcntl.ioctl(directory_fd, _SUBVOL_GETFLAGS, bytes(8))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL, errno.ENOTTY, errno.EOPNOTSUPP):
            return False
        raise
    return True


def make(path: Path) -> None:
    """Make an empty subvolume (0700). Raises OSError: ENOTTY where the file system is not btrfs, EEXIST."""
    _call(_SUBVOL_CREATE, path)
    path.chmod(0o700)


def copy(source: Path, path: Path) -> None:
    """Make a subvolume that is another as it is now, writable, and its own from then on. Raises OSError, StorageFull.

    What was written to the source is on the disk afterwards, and so is the copy.
    """
    with files.opened(source) as source_fd:
        _call(_SNAP_CREATE, path, source_fd)


def remove(path: Path) -> bool:
    """Remove a subvolume with everything in it; False where it is none, or holds others: then it is as it was."""
    if not is_one(path):
        return False
    try:
        _call(_SNAP_DESTROY, path)
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise
        return False
    return True


def nested(path: Path) -> bool:
    """Tell whether subvolumes lie below a directory; False where its file system is not btrfs, or it is not there.

    A copy of a subvolume has an empty directory in the place of each.
    """
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), files.opened(path) as directory_fd:
        least = 0
        while True:
            found = bytearray(4096)
            struct.pack_into("=Q", found, 0, least)
            more = False
            try:
                fcntl.ioctl(directory_fd, _ROOTREF, found)
            except OSError as error:
                if error.errno != errno.EOVERFLOW:
                    return False
                more = True
            pairs = [struct.unpack_from("=QQ", found, 8 + 16 * at) for at in range(found[_ROOTREF_COUNT_AT])]
            if any(_below(directory_fd, tree, parent) for tree, parent in pairs):
                return True
            if not more or not pairs:
                return False
            least = pairs[-1][0] + 1
    return False


def _below(directory_fd: int, tree: int, parent: int) -> bool:
    """Tell whether a subvolume, in a directory of this number, lies below another directory of what that is in."""
    asked = bytearray(4096)
    struct.pack_into("=QQ", asked, 0, parent, tree)
    try:
        fcntl.ioctl(directory_fd, _LOOKUP_USER, asked)
    except OSError:  # EACCES: it lies elsewhere; ENOENT: it is gone
        return False
    return True


def _call(number: int, path: Path, source_fd: int = 0) -> None:
    with files.opened(path.parent) as parent_fd:
        try:
            fcntl.ioctl(parent_fd, number, bytearray(_ARGUMENTS.pack(source_fd, os.fsencode(path.name))))
        except OSError as error:
            error.filename = os.fspath(path)
            raise files.translated(error, "write", path) from error
