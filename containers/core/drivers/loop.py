"""Plain directories, and what a container writes in a file of a fixed size with a file system of its own.

So no container can fill the pool, and ``df`` inside tells the truth. See storage/disks.py.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from .overlay import copy, make, remove

__all__ = ["AT_ONCE", "WHOLE", "copy", "make", "problem", "remove"]

AT_ONCE = False
WHOLE = False
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def problem(_directory: Path) -> str:
    """Look for what makes and drives such files."""
    if shutil.which("mkfs.ext4", path=_PATH) is None:
        return "mkfs.ext4 is missing: install e2fsprogs."
    if not Path("/dev/loop-control").exists():
        return "The kernel has no loop devices: modprobe loop."
    return ""
