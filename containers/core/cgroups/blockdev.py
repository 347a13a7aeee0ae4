"""Which disk lies below the state directory, for I/O limits."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import HostUnsupported
from ..model.limits import Limits
from ..sentences import say


def throttled_device(state_dir: Path, limits: Limits) -> str | None:
    """Return "MAJOR:MINOR" of the disk to throttle, or None where there is none and none is asked for.

    Raises HostUnsupported where limits ask for it and the state directory is on no disk (a tmpfs, say).
    """
    device = disk_of(state_dir)
    if device is None and limits.throttled:
        raise HostUnsupported(
            say("%(path)s is on no disk whose speed could be limited.", path=state_dir),
            field=limits.throttled,
            feature="io-limits",
        )
    return device


def disk_of(path: Path) -> str | None:
    """Return "MAJOR:MINOR" of the whole disk that holds path: the kernel throttles disks, not partitions."""
    number = os.stat(path).st_dev
    if os.major(number) == 0:  # btrfs, overlay and the like number their own devices
        found = _mounted_device(path)
        if found is None:
            return None
        number = found
    name = f"{os.major(number)}:{os.minor(number)}"
    entry = f"/sys/dev/block/{name}"
    if not os.path.exists(entry):
        return None
    if os.path.exists(f"{entry}/partition"):
        with open(f"{entry}/../dev", encoding="ascii") as file:
            return file.read().strip()
    return name


def _mounted_device(path: Path) -> int | None:
    """Return the device number of the block device that is mounted where path lies, or None."""
    best, source = "", ""
    real = os.path.realpath(path)
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
        for line in mounts:
            left, _, right = line.partition(" - ")
            point = left.split()[4].replace("\\040", " ")
            inside = real == point or real.startswith(point.rstrip("/") + "/")
            if inside and len(point) >= len(best):
                best, source = point, right.split()[1]
    try:
        return os.stat(source).st_rdev if source.startswith("/dev/") else None
    except FileNotFoundError:
        return None
