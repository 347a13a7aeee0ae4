"""A container whose own disk is full to the last file can be started all the same.

Overlay makes two or three files of its own beside the tree when it is mounted. On a disk without any file left to make
nothing starts, and nothing could be deleted inside either. So a disk keeps a few empty files beside the tree, where the
container does not reach; they make room for overlay's, and are there again as soon as the container runs.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from ..errors import SetupFailed, StorageFull
from ..storage import disks
from .launching import RunState

_LEAST_FILES = 4
_LEAST_BLOCKS = 4


def started(disk: str, start: Callable[[], RunState]) -> RunState:
    """Start a container whose own disk this is, or "" where it has none.

    Raises what start() raises; StorageFull, naming the limit, where the disk is what has no room.
    """
    try:
        return start()
    except SetupFailed as error:
        if not disk or error.details.get("errno") != errno.ENOSPC:
            raise
        lacking = _lacking(Path(disk))
        if not lacking:  # it is the host's own disk that is full
            raise
    try:
        with _room(Path(disk)):
            return start()
    except SetupFailed as error:
        if error.details.get("errno") != errno.ENOSPC:
            raise
        raise StorageFull(
            "The container's disk is full: nothing can be made on it. Raise its limit.",
            step="start",
            errno=errno.ENOSPC,
        ) from error


def _lacking(disk: Path) -> bool:
    with disks.opened(disk) as top:
        room = os.statvfs(top)
    return room.f_ffree < _LEAST_FILES or room.f_bavail < _LEAST_BLOCKS


@contextlib.contextmanager
def _room(disk: Path) -> Iterator[None]:
    """Have the files that a disk keeps make room while the block lasts."""
    with disks.opened(disk) as top:
        disks.give_spare(top)
        try:
            yield
        finally:
            disks.keep_spare(top)
