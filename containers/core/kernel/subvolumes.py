"""Subvolumes of btrfs: made, copied at once and removed at once, by the kernel's own calls.

A subvolume is a directory whose whole content the file system can copy by one entry, whatever it holds. No file can be
renamed out of one or into one, but it can be renamed itself. Source: include/uapi/linux/btrfs.h, fs/btrfs/ioctl.c.
"""

from __future__ import annotations

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
    """Remove a subvolume with everything in it, but for other subvolumes; False where it is none."""
    if not is_one(path):
        return False
    _call(_SNAP_DESTROY, path)
    return True


def _call(number: int, path: Path, source_fd: int = 0) -> None:
    with files.opened(path.parent) as parent_fd:
        try:
            fcntl.ioctl(parent_fd, number, bytearray(_ARGUMENTS.pack(source_fd, os.fsencode(path.name))))
        except OSError as error:
            error.filename = os.fspath(path)
            raise files.translated(error, "write", path) from error
