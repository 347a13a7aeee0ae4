"""Which process runs an operation: (boot, pid, start time), so that a dead one's rows are known as such."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any


@cache
def boot_id() -> str:
    """Return the kernel's id of this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def start_time(pid: int) -> int | None:
    """Return a process's start time in clock ticks since boot (proc(5), stat, field 22); None where it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # the name, in parentheses, may hold anything
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in ("Z", "X") else int(fields[19])


def this_process() -> dict[str, Any]:
    """Return what names the calling process among all that ever ran on this host."""
    return {"boot_id": boot_id(), "pid": os.getpid(), "start_time": start_time(os.getpid())}


def alive(owner: dict[str, Any] | None) -> bool:
    """Whether the process that an operation's row names still runs."""
    if not owner or owner.get("boot_id") != boot_id():
        return False
    return owner.get("start_time") is not None and start_time(int(owner["pid"])) == owner["start_time"]
