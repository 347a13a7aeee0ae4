"""What the kernel tells of a cgroup2 directory by cgroup.events: "populated" and "frozen", and when they change.

Source: kernel Documentation/admin-guide/cgroup-v2.rst, cgroup.events.
"""

from __future__ import annotations

import errno
import os
import select
import time
from pathlib import Path
from typing import Final

from ..plans.cgroup_files import parse_keyed

_LOOKS_SEC: Final = (0.0001, 0.0002, 0.0004, *[0.001] * 12)
"""Between the first looks at the file: the kernel holds back a notice that would be the file's second in 10 ms
(kernel/cgroup/cgroup.c, CGROUP_FILE_NOTIFY_MIN_INTV), and a freeze takes less than one."""
_LOOK_AGAIN_SEC: Final = 0.5


def value(path: Path, key: str) -> int:
    """Return a value of cgroup.events; a cgroup that is gone has 0 of everything."""
    try:
        # by hand: every container is asked again and again
        fd = os.open(f"{path}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return parse_keyed(os.read(fd, 4096).decode()).get(key, 0)
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV):
            return 0
        raise


def wait(path: Path, key: str, wanted: int, timeout_sec: float) -> bool:
    """Wait for a value in cgroup.events; return whether it came in time. A cgroup that is gone has 0 of everything."""
    deadline = time.monotonic() + timeout_sec
    try:
        fd = os.open(path / "cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return wanted == 0
    try:
        poll = select.poll()
        poll.register(fd, select.POLLPRI)
        waits = iter(_LOOKS_SEC)
        while True:
            # before the look: one that comes late sees what happened in time
            left = deadline - time.monotonic()
            try:
                now = parse_keyed(os.pread(fd, 4096, 0).decode()).get(key, 0)
            except OSError as error:
                if error.errno != errno.ENODEV:
                    raise
                now = 0
            if now == wanted:
                return True
            if left <= 0:
                return False
            wait_sec = min(left, next(waits, _LOOK_AGAIN_SEC))
            if wait_sec < 0.001:
                time.sleep(wait_sec)  # poll(2) counts in whole milliseconds
            else:
                poll.poll(wait_sec * 1000)
    finally:
        os.close(fd)
