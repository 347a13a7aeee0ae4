"""Files and directories of cgroups, and where a container's processes come to be in them."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..errors import TimedOut
from ..plans.cgroup_files import DELEGATE

BESIDE: Final = "beside-boxroom"
"""Where the processes go that stand where Boxroom's cgroups begin, and are none of its own (see offer)."""
_DELEGATE_LIST: Final = "/sys/kernel/cgroup/delegate"
_MOVES: Final = 10
"""How often what stands in a cgroup is moved out of it: what is born meanwhile stands there, too."""


@dataclass(frozen=True, slots=True)
class Birth:
    """Where a container's first process is born, and where it moves itself before its namespaces are made.

    Moving another process, or several threads, waits for an RCU grace period of 10 ms and more after a quiet while
    (cgroup_threadgroup_rwsem); neither of these does. tree: a cgroup2 directory, for clone3(2). tasks: files of v1 into
    which the process itself, which has one thread, writes "0".
    """

    tree: str
    tasks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Joined:
    """The cgroup.procs files that put a process where it belongs; a pid is written to each, in order.

    init_procs: the container's first process. attach_procs: a process that joins a running container.
    supervisor_procs: its supervisor (or the launcher, whose children inherit the place).
    """

    init_procs: tuple[str, ...]
    attach_procs: tuple[str, ...]
    supervisor_procs: tuple[str, ...]


def write_file(path: str, value: str) -> None:
    """Write value to a cgroup file in one write(2); raises OSError naming the file, with the value as a note."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    except OSError as error:
        located = OSError(error.errno, os.strerror(error.errno or 0), path)
        located.add_note(f"writing {value!r} to {path}")
        raise located from None


def read_file(path: str) -> str:
    """Return a cgroup file's text; raises OSError naming the file."""
    with open(path, encoding="ascii", errors="replace") as file:
        return file.read()


def join(pid: int, procs: Iterable[str]) -> None:
    """Move a process (all its threads) into cgroups; procs: files of Joined."""
    for path in procs:
        write_file(path, str(pid))


def offer(root: Path, controllers: str) -> None:
    """Let what is below the root of a cgroup2 tree have controllers, "+memory +pids". Raises OSError.

    In a container of another runtime this is the root of a cgroup namespace and not the kernel's own, and takes no
    controllers while there are processes in it. They, the panel's among them, get a directory of their own then.
    Source: kernel Documentation/admin-guide/cgroup-v2.rst, "No Internal Process Constraint".
    """
    file = f"{root}/cgroup.subtree_control"
    try:
        write_file(file, controllers)
    except OSError as error:
        # the kernel's own root has no type
        if error.errno != errno.EBUSY or not os.path.exists(root / "cgroup.type"):
            raise
        _move_aside(root)
        write_file(file, controllers)


def _move_aside(root: Path) -> None:
    aside = root / BESIDE
    aside.mkdir(mode=0o755, exist_ok=True)
    for _ in range(_MOVES):
        # "0" is somebody whom this pid namespace does not see, and who cannot be moved from here
        pids = set(read_file(f"{root}/cgroup.procs").split()) - {"0"}
        if not pids:
            return
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                write_file(f"{aside}/cgroup.procs", pid)


def delegate(path: Path, owner_uid: int) -> None:
    """Give a cgroup2 directory to a user as the kernel means it: who may make cgroups below, not who sets limits."""
    os.chown(path, owner_uid, owner_uid)
    for name in _delegated():
        with contextlib.suppress(FileNotFoundError):
            os.chown(f"{path}/{name}", owner_uid, owner_uid)


@functools.cache
def _delegated() -> frozenset[str]:
    """Return the names of the files that go with a delegated directory; they are the running kernel's."""
    names = set(DELEGATE)
    with contextlib.suppress(FileNotFoundError):
        names.update(read_file(_DELEGATE_LIST).split())
    return frozenset(names)


def remove_tree(path: Path, deadline: float) -> None:
    """Remove a cgroup directory and all below it, deepest first; deadline: monotonic seconds."""
    wait_sec = 0.0005
    while True:
        try:
            with os.scandir(path) as entries:
                children = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
            for child in children:
                remove_tree(Path(child), deadline)
            path.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            # ENOTEMPTY: the container made one more while we looked
            if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
                raise
            if time.monotonic() >= deadline:
                raise TimedOut(
                    "Processes that do not end hold the container's cgroup.", step="remove cgroup", path=str(path)
                ) from error
            time.sleep(wait_sec)
            wait_sec = min(2 * wait_sec, 0.008)
        else:
            return
