"""What confined processes give up, each before it reads what somebody hostile made: names, limits, rights, calls."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterable
from typing import Final

from ..cgroups import places
from ..kernel import syscalls
from ..model.idmap import UNUSED_BASE
from ..plans.mount_flags import MS_PRIVATE, MS_REC

NOBODY: Final = UNUSED_BASE + 65534
"""An id that nobody on this host has, nor any container."""
REPORT_FD: Final = 3
_NAMESPACES: Final = (
    syscalls.CLONE_NEWNS
    | syscalls.CLONE_NEWPID
    | syscalls.CLONE_NEWNET
    | syscalls.CLONE_NEWIPC
    | syscalls.CLONE_NEWUTS
    | syscalls.CLONE_NEWCGROUP
)
_ADDRESSES: Final = 2
"""Addresses are no memory, of which the cgroup keeps count: so many of them for each byte of it."""


def enter_cage(cage: Iterable[str], report_fd: int | None) -> None:
    """Go into a cage, by cages.Cage.procs, die with the starter, and keep no descriptor but REPORT_FD and the first."""
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    for path in cage:
        places.write_file(path, "0")
    if report_fd is not None and report_fd != REPORT_FD:
        os.dup2(report_fd, REPORT_FD, inheritable=False)
    syscalls.close_range(REPORT_FD + 1)
    os.umask(0)


def leave_host() -> None:
    """Have namespaces of one's own; the pid namespace is that of the next child."""
    syscalls.unshare(_NAMESPACES)
    syscalls.mount(None, "/", None, MS_REC | MS_PRIVATE)


def enter_root(directory: str) -> None:
    """Make a mount point the root directory; nothing else is mounted in this namespace afterwards."""
    os.chdir(directory)
    syscalls.pivot_root(".", ".")
    syscalls.umount(".", syscalls.MNT_DETACH)
    os.chdir("/")


def limit(*, memory_bytes: int, cpu_sec: float, file_bytes: int) -> None:
    """Limit what the process, and its children, may take. file_bytes: how long a file may become by it; 0: none."""
    for kind, most in (
        (resource.RLIMIT_AS, memory_bytes * _ADDRESSES),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, max(1, int(cpu_sec))),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_NOFILE, 256),
    ):
        resource.setrlimit(kind, (most, most))


def drop_to_nobody(filters: bytes) -> None:
    """Become somebody who owns nothing, without a capability, and unable to get one."""
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    seal(filters)


def seal(filters: bytes) -> None:
    """Give up the last of it: whatever came by a program's set-id bits, and every call that is not on the list."""
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)  # a change of ids has cleared it
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    syscalls.load_seccomp(filters)
