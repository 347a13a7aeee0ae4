"""A container whose own disk is full to the last file can be started all the same.

A disk keeps a few empty files beside the tree (core.kernel.spare_files). They make room for those that overlay makes,
and are there again when all is mounted, before the container runs: it would be faster than whoever did it afterwards.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from ..errors import SetupFailed, StorageFull
from ..kernel import spare_files
from ..plans.start_plan import StartPlan
from ..storage import disks
from .launching import RunState

_LEAST_FILES = 4
_LEAST_BLOCKS = 4


def started(plan: StartPlan, start: Callable[[StartPlan], RunState]) -> RunState:
    """Start a container whose own disk may be full.

    Raises what start() raises; StorageFull, naming the limit, where the disk is what has no room.
    """
    try:
        return start(plan)
    except SetupFailed as error:
        if not plan.disk or error.details.get("errno") != errno.ENOSPC:
            raise
        lacking = _lacking(Path(plan.disk))
        if not lacking:  # it is the host's own disk that is full
            raise
    try:
        with _room(Path(plan.disk)):
            return start(dataclasses.replace(plan, keeps_spare=True))
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
        spare_files.give(top)
        try:
            yield
        finally:
            spare_files.keep(top)
