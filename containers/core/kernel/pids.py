"""Naming one process among all that ever ran: (boot, pid, start time). Stdlib only."""

from __future__ import annotations

import errno
import os
from functools import cache


@cache
def boot_id() -> str:
    """Return the kernel's id of this boot. Source: random(4)."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def start_time(pid: int, *, zombies: bool = False) -> int | None:
    """Return a process's start in clock ticks after boot, which makes its pid unique; None where it is gone.

    zombies: one that has ended, and waits to be reaped, counts as well. Source: proc_pid_stat(5), fields 3 and 22.
    """
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            # the name, in parentheses, may hold anything
            fields = os.read(fd, 4096).rpartition(b")")[2].split()
        finally:
            os.close(fd)
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(fields[19]) if zombies or fields[0] not in (b"Z", b"X") else None


def opened(pid: int) -> int:
    """Return a pidfd of any process, which is the caller's; raises ProcessLookupError where there is none.

    Of one that is gone, and whose number still names a session or a process group, older kernels, Debian 12's too, say
    EINVAL and not ESRCH. Source: pidfd_open(2), and pidfd_create() in kernel/pid.c.
    """
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH)) from error
        raise
