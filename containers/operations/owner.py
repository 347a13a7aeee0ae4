"""Which process runs an operation: (boot, pid, start time), so that a dead one's rows are known as such."""

from __future__ import annotations

import os
from typing import Any

from containers.core.kernel.pids import boot_id, start_time


def this_process() -> dict[str, Any]:
    """Return what names the calling process among all that ever ran on this host."""
    return {"boot_id": boot_id(), "pid": os.getpid(), "start_time": start_time(os.getpid())}


def alive(owner: dict[str, Any] | None) -> bool:
    """Whether the process that an operation's row names still runs."""
    if not owner or owner.get("boot_id") != boot_id():
        return False
    return owner.get("start_time") is not None and start_time(int(owner["pid"])) == owner["start_time"]
