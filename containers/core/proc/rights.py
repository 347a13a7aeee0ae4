"""Puts a container's Security in force: what the supervisor does for its child, and what processes do to themselves.

The container's root may not raise limits, and before 6.9 not change what belongs to its IPC namespace either: both are
the supervisor's to do, as the host's root. Sysctls of the network are written by the child, so that the kernel judges
them as it would judge root inside; what is not the network namespace's own then fails instead of changing the host.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import struct
from collections.abc import Iterable, Mapping
from typing import Final

from ..cgroups.places import write_file
from ..kernel.syscalls import CLONE_NEWIPC, CLONE_NEWUTS, setns
from ..model.security import PRLIMITS, UNLIMITED, Bound, Prlimit

Limits = tuple[tuple[int, int, int], ...]
"""What to set: kind as in setrlimit(2), soft, hard; RLIM_INFINITY stands for none."""

_UTS: Final = "kernel.domainname"
_NUMBERS: Final = {"rttime": 15}
"""What the standard library has no name for. Source: include/uapi/asm-generic/resource.h."""


def limits_of(prlimits: Mapping[str, Prlimit]) -> Limits:
    """Return what a container's limits are to the kernel."""
    return tuple((_kind(name), _number(one.soft), _number(one.hard)) for name, one in sorted(prlimits.items()))


def _kind(name: str) -> int:
    number: int = _NUMBERS.get(name) or getattr(resource, f"RLIMIT_{name.upper()}")
    return number


def _number(bound: Bound) -> int:
    return resource.RLIM_INFINITY if bound == UNLIMITED else int(bound)


def _above(one: int, other: int) -> bool:
    if resource.RLIM_INFINITY in (one, other):
        return one == resource.RLIM_INFINITY and other != resource.RLIM_INFINITY
    return one > other


def make_room(pid: int, limits: Limits) -> None:
    """Raise the hard limits of a process (0: this one), for its own part, to what it is to have.

    Raises PermissionError, whose path is the limit's name, where the host's root may not raise limits (it may lack
    CAP_SYS_RESOURCE), or not so far (fs.nr_open).
    """
    for kind, _, hard in limits:
        soft, present = resource.getrlimit(kind)
        if _above(hard, present):
            try:
                resource.prlimit(pid, kind, (soft, hard))
            except OSError as error:
                error.filename = next(name for name in PRLIMITS if _kind(name) == kind)
                raise


def set_oom_score(pid: int, value: int) -> None:
    """Write how gladly the kernel takes the process when memory is short: the supervisor's own -900 is inherited."""
    write_file(f"/proc/{pid}/oom_score_adj", str(value))


def of_network(sysctls: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return the sysctls of the network namespace, which the child writes."""
    return tuple((name, value) for name, value in sysctls.items() if name.startswith("net."))


def write_sysctls(sysctls: Iterable[tuple[str, str]]) -> None:
    """Write sysctls; /proc/sys shows those of the namespaces that this process is in. Raises OSError with the path."""
    for name, value in sysctls:
        write_file(f"/proc/sys/{name.replace('.', '/')}", f"{value}\n")


def of_kernel(sysctls: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return the sysctls of the IPC and UTS namespaces, which somebody outside writes."""
    return tuple((name, value) for name, value in sysctls.items() if not name.startswith("net."))


def write_kernel_sysctls(pidfd: int, wanted: tuple[tuple[str, str], ...]) -> None:
    """Write what of_kernel() returned, from a process of its own in the namespaces of the process that has them.

    Raises OSError with the sysctl's path.
    """
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    helper = os.fork()
    if helper == 0:
        os.close(read_fd)
        _write_inside(pidfd, wanted, write_fd)
    os.close(write_fd)
    try:
        report = os.read(read_fd, 4096)
    finally:
        os.close(read_fd)
        os.waitpid(helper, 0)
    if len(report) < 4:
        raise OSError(errno.ECHILD, "the helper ended", "/proc/sys")
    number = struct.unpack_from("=i", report)[0]
    if number:
        raise OSError(number, os.strerror(number), report[4:].decode())


def _write_inside(pidfd: int, wanted: tuple[tuple[str, str], ...], write_fd: int) -> None:
    number, path = errno.EIO, ""
    try:
        # the network namespace stays the host's: nothing of it is in the list
        setns(pidfd, CLONE_NEWIPC | CLONE_NEWUTS)
        write_sysctls(wanted)
        number = 0
    except OSError as error:
        number = error.errno or errno.EIO
        path = error.filename if isinstance(error.filename, str) else "/proc/sys"
    finally:
        with contextlib.suppress(OSError):
            os.write(write_fd, struct.pack("=i", number) + path.encode())
        os._exit(0)
