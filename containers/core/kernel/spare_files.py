"""Empty files beside the tree of a disk: room for what overlay makes there, where there is no other left.

Overlay makes two or three files of its own when it is mounted. On a disk without any file left to make nothing would
start, and nothing could be deleted inside either. The container does not reach these files.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final

from . import disk_mount

_SPARE: Final = "spare"
_FILES: Final = 6
"""Overlay makes at most three when it is mounted, and the files page mounts it, too."""


def keep(top: Path) -> None:
    """Keep some files beside the tree, as many as there is room for. top: the directory that the disk is mounted as."""
    with contextlib.suppress(OSError):
        (top / _SPARE).mkdir(mode=0o700, exist_ok=True)
        for number in range(_FILES):
            (top / _SPARE / str(number)).touch(mode=0o600)


def give(top: Path) -> None:
    """Remove the files that keep() has made."""
    for number in range(_FILES):
        (top / _SPARE / str(number)).unlink(missing_ok=True)


def keep_in(disk: str) -> None:
    """Keep them in a disk by its path, before anybody who is inside can be faster. Raises OSError."""
    with disk_mount.at(disk) as top:
        keep(top)
