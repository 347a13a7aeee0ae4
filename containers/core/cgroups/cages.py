"""Cgroups for processes that read what somebody hostile made: how much memory and how many processes they may have.

A cage lies beside the containers', ``boxroom-INSTANCE/u-PID-START-N``; PID and START name the process that made it, so
that one whose maker was killed is known by its name, and anybody may remove it. What is in it counts together: a
process that takes what is not there is killed, and nobody outside. On v1 it stands in the hierarchies that have a
limit, and in the cgroup2 tree, by which all of it is killed.

Sources: kernel Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/{memory,pids}.rst.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..errors import SetupFailed, TimedOut
from ..kernel.pids import start_time
from ..plans.cgroup_files import parse_keyed
from .base import CAGE_PREFIX, Cgroups
from .places import read_file, remove_tree, write_file

PIDS: Final = 512
"""Threads of a program that uses every core, and no more."""
_PART_OF_HOST: Final = 0.75
_REMOVE_SEC: Final = 30.0
_COUNT: Final = itertools.count()


@dataclass(frozen=True, slots=True)
class Cage:
    """One that is there. procs: files into which a process that goes in, which has one thread, writes "0"."""

    procs: tuple[str, ...]
    memory_bytes: int
    _memory: Path

    def starved(self) -> bool:
        """Tell whether the kernel has killed a process in it for want of memory."""
        name = "memory.events" if (self._memory / "memory.events").exists() else "memory.oom_control"
        return parse_keyed(read_file(f"{self._memory}/{name}")).get("oom_kill", 0) > 0


@contextlib.contextmanager
def cage(groups: Cgroups, *, memory_bytes: int) -> Iterator[Cage]:
    """Yield a new cage; afterwards every process in it is gone, and so is it.

    memory_bytes: of all together, their page cache too; of a small host's memory never all. Raises SetupFailed.
    """
    memory_bytes = min(memory_bytes, int(_host_bytes() * _PART_OF_HOST))
    name = f"{CAGE_PREFIX}{os.getpid()}-{start_time(os.getpid())}-{next(_COUNT)}"
    try:
        try:
            groups.prepare()
            made = _made(groups, name, memory_bytes)
        except OSError as error:
            raise SetupFailed.from_oserror("cgroups", error) from error
        yield made
    finally:
        # one that the kernel cannot end now is found as a leak, and removed later
        with contextlib.suppress(TimedOut):
            _remove(groups, name)


def abandoned(groups: Cgroups) -> list[str]:
    """Return the names of cages whose maker is gone."""
    found: set[str] = set()
    for base in groups.instance_dirs():
        with contextlib.suppress(FileNotFoundError):
            found.update(name for name in os.listdir(base) if name.startswith(CAGE_PREFIX) and not _kept(name))
    return sorted(found)


def sweep(groups: Cgroups) -> list[str]:
    """Kill and remove what is in cages whose maker is gone; return their names."""
    names = abandoned(groups)
    for name in names:
        _remove(groups, name)
    return names


def _kept(name: str) -> bool:
    pid, _, rest = name.removeprefix(CAGE_PREFIX).partition("-")
    return pid.isdecimal() and str(start_time(int(pid))) == rest.partition("-")[0]


def _made(groups: Cgroups, name: str, memory_bytes: int) -> Cage:
    memory, pids, tree = (
        groups.controller_dir("memory") / name,
        groups.controller_dir("pids") / name,
        groups.tree / name,
    )
    directories = tuple(dict.fromkeys((memory, pids, tree)))
    for directory in directories:
        directory.mkdir(mode=0o755)
    if memory == tree:
        write_file(f"{memory}/memory.max", str(memory_bytes))
        write_file(f"{memory}/memory.oom.group", "1")
        if (memory / "memory.swap.max").exists():
            write_file(f"{memory}/memory.swap.max", "0")
    else:
        write_file(f"{memory}/memory.limit_in_bytes", str(memory_bytes))
        if (memory / "memory.memsw.limit_in_bytes").exists():
            write_file(f"{memory}/memory.memsw.limit_in_bytes", str(memory_bytes))
    write_file(f"{pids}/pids.max", str(PIDS))
    # v1 moves one thread at once; a process, in any hierarchy, waits for all others to let go of a lock of the kernel's
    procs = tuple(f"{path}/{'cgroup.procs' if path == tree else 'tasks'}" for path in directories)
    return Cage(procs, memory_bytes, memory)


def _remove(groups: Cgroups, name: str) -> None:
    deadline = time.monotonic() + _REMOVE_SEC
    with contextlib.suppress(FileNotFoundError):
        write_file(f"{groups.tree}/{name}/cgroup.kill", "1")
    for base in reversed(groups.instance_dirs()):
        remove_tree(base / name, deadline)


def _host_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
