"""Each layer is a subvolume of btrfs: a running container's snapshot is one entry, however much it wrote."""

from __future__ import annotations

import contextlib
import errno
import secrets
from pathlib import Path

from ..errors import StorageFull
from ..kernel import subvolumes
from ..kernel.subvolumes import make, remove

__all__ = ["AT_ONCE", "WHOLE", "copy", "make", "problem", "remove"]

AT_ONCE = True
WHOLE = False


def problem(directory: Path) -> str:
    """Make a subvolume, copy it, and remove both."""
    first, second = (directory / f"{secrets.token_hex(16)}" for _ in range(2))
    try:
        make(first)
        subvolumes.copy(first, second)
    except StorageFull:
        return "Its file system is full."
    except OSError as error:
        if error.errno == errno.ENOTTY:
            return "Its file system is not btrfs."
        return f"Its file system has no subvolumes that can be copied: {error.strerror}."
    finally:
        for path in (first, second):
            with contextlib.suppress(OSError):
                remove(path)
    return ""


def copy(source: Path, path: Path) -> bool:
    """Copy a subvolume; a layer that was made before the pool had this driver is none, and one may hold others."""
    if not subvolumes.is_one(source) or subvolumes.nested(source):
        return False
    subvolumes.copy(source, path)
    return True
