"""The starter's half of a start: what it gives the child, and how it hears of it (see core.proc.setup)."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..cgroups.places import write_file
from ..errors import SetupFailed, TimedOut
from ..host import IDS_PER_CONTAINER
from ..kernel import disk_mount
from ..kernel.script import Script
from ..kernel.syscalls import (
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUTS,
    open_tree,
    set_mount_idmap,
)
from ..model.idmap import IdMap, for_container
from ..plans.start_plan import HANDSHAKE_SEC, StartPlan
from ..sentences import recognized, say
from . import messages, rights, terminals
from .stdio import STREAMS

_NAMED_STEPS = ("set the sysctl %(name)s", "bring the link %(name)s up")
"""What a child tells with a name in it, as text."""

_NAMESPACES = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC


@dataclass(slots=True, kw_only=True)
class Init:
    """A container's init. Owns its descriptors; close() frees them.

    consoles: master and slave of /dev/console, /dev/tty1 and so on; none before it has made them. namespaces: others
    than the network's that are kept for hooks of its end, by their names below /proc/PID/ns.
    """

    pid: int
    pidfd: int
    netns_fd: int = -1
    consoles: tuple[tuple[int, int], ...] = ()
    namespaces: dict[str, int] = field(default_factory=dict)

    def close(self) -> None:
        """Close everything that belongs to it."""
        pairs = (fd for pair in self.consoles for fd in pair)
        for fd in (self.pidfd, self.netns_fd, *pairs, *self.namespaces.values()):
            if fd >= 0:
                os.close(fd)
        self.pidfd = self.netns_fd = -1
        self.consoles = ()
        self.namespaces = {}

    def keep_namespaces(self, *kinds: str) -> None:
        """Keep namespaces, which then outlive all processes in them. Raises OSError where it has ended."""
        for kind in kinds:
            self.namespaces[kind] = os.open(f"/proc/{self.pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)


@dataclass(slots=True, kw_only=True)
class Child(Init):
    """One that is being started: it is told what to do, and tells how it goes, over its connection.

    script: what it does; it stays until the exec. hook: runs the hooks of a point at which it waits. patience_sec: what
    its own hooks may take beside the usual.
    """

    connection: socket.socket
    script: Script | None = None
    hook: Callable[[str], None] | None = None
    patience_sec: float = 0.0

    def kill(self) -> None:
        """Kill the child and wait for its end; its parent reaps it."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        poll.poll()

    def close(self) -> None:
        """Close everything that belongs to it."""
        self.connection.close()
        self.script = None
        Init.close(self)

    def failure(self) -> SetupFailed | None:
        """Return what went wrong in one that has ended, where it ran in this process's memory."""
        failed = self.script.failure() if self.script is not None else None
        return SetupFailed.from_oserror(failed.step, failed.error) if failed is not None else None


class Equipment:
    """What a child gets from outside: id maps, its layers, and what only the host's root may grant.

    All that can be is thought out beforehand: from the clone on somebody waits for it.
    """

    def __init__(self, plan: StartPlan) -> None:
        security = plan.spec.security
        self._limits = rights.limits_of(security.prlimits)
        self._sysctls = rights.of_kernel(security.sysctls)
        self._oom_score = str(security.oom_score_adj)
        self._map = ""
        if plan.id_base is not None:
            self._map = for_container(plan.id_base).line()
            if plan.more_ids is not None:
                self._map += IdMap(IDS_PER_CONTAINER, *plan.more_ids).line()
        self._layers = (*plan.lowers, plan.disk or os.path.commonpath((plan.upper, plan.work)))
        self._disk = plan.disk

    def hand_to(self, child: Child) -> None:
        """Write the id maps, open the network namespace, and hand the child its layers. Raises SetupFailed."""
        fds: list[int] = []
        place = f"/proc/{child.pid}"
        try:
            write_file(f"{place}/oom_score_adj", self._oom_score)
            if self._limits:
                rights.make_room(child.pid, self._limits)
            if self._sysctls:
                rights.write_kernel_sysctls(child.pidfd, self._sysctls)
        except OSError as error:
            raise SetupFailed.from_oserror("grant what the security settings ask for", error) from error
        try:
            userns_fd = None
            if self._map:
                write_file(f"{place}/uid_map", self._map)
                write_file(f"{place}/gid_map", self._map)
                userns_fd = os.open(f"{place}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
                fds.append(userns_fd)
            child.netns_fd = os.open(f"{place}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            mounts = []
            for path in self._layers:
                mounts.append(disk_mount.mounted(path) if path == self._disk else open_tree(path))
                fds.append(mounts[-1])
                if userns_fd is not None:
                    _idmap(mounts[-1], userns_fd, path)
            messages.send(child.connection, {"type": "mounts"}, tuple(mounts))
        except OSError as error:
            raise SetupFailed.from_oserror("prepare the root file system", error) from error
        finally:
            for fd in fds:
                os.close(fd)


def _idmap(mount_fd: int, userns_fd: int, path: str) -> None:
    try:
        set_mount_idmap(mount_fd, userns_fd)
    except OSError as error:
        error.filename = path
        raise


def await_consoles(child: Child, count: int) -> None:
    """Wait until the child has mounted everything and opened its consoles. Raises SetupFailed, TimedOut."""
    _, fds = _receive(child, "console", fds_max=2 * count)
    child.consoles = tuple(zip(fds[::2], fds[1::2], strict=True))
    for number, (master_fd, _) in enumerate(child.consoles):
        terminals.check_pty(master_fd, number)


def join(child: Child, tasks: Sequence[str]) -> None:
    """Have the child move itself into its cgroups, which are all there; tasks as in its plan. Raises SetupFailed."""
    fds: list[int] = []
    try:
        for path in tasks:
            fds.append(os.open(path, os.O_WRONLY | os.O_CLOEXEC))
        messages.send(child.connection, {"type": "join"}, tuple(fds))
    except OSError as error:
        # what has ended meanwhile has told why
        raise report(child) or SetupFailed.from_oserror("join the cgroups", error) from error
    finally:
        for fd in fds:
            os.close(fd)


def await_root(child: Child) -> None:
    """Wait until a child whose plan says that it tells has changed its root. Raises SetupFailed, TimedOut."""
    _receive(child, "rooted")


def finish(child: Child, *, stdio: bool = False) -> list[int]:
    """Let the child exec init, and wait until it has. Raises SetupFailed, TimedOut.

    stdio: as in its plan; then the far ends of its pipes are returned, which are the caller's.
    """
    try:
        messages.send(child.connection, {"type": "finish"})
    except OSError as error:
        # what has ended meanwhile has told why
        raise report(child) or _vanished() from error
    pipes = _receive(child, "stdio", fds_max=STREAMS)[1] if stdio else []
    try:
        message, _ = _receive(child, None)
        if message is not None:
            raise _vanished()
    except BaseException:
        for fd in pipes:
            os.close(fd)
        raise
    return pipes


def _receive(child: Child, kind: str | None, *, fds_max: int = 0) -> tuple[dict[str, Any] | None, list[int]]:
    """Return the child's next message, which must be of that kind; kind None: its end of file."""
    while True:
        seconds = HANDSHAKE_SEC + child.patience_sec
        poll = select.poll()
        poll.register(child.connection, select.POLLIN)
        if not poll.poll(seconds * 1000):
            told = say("The container's setup took longer than %(seconds)s s.", seconds=round(seconds))
            raise TimedOut(told, step="set up the container")
        try:
            message, fds = messages.receive(child.connection, fds_max=fds_max)
        except ConnectionResetError:
            message, fds = None, []
        if message is None or message.get("type") != "hook" or child.hook is None:
            break
        child.hook(message["point"])
        with contextlib.suppress(OSError):
            messages.send(child.connection, {"type": "go"})
    if message is None and (failed := child.failure()):
        raise failed
    if message is not None and message.get("type") == "error":
        raise _reported(message)
    if (message["type"] if message else None) != kind:
        raise _vanished()
    return message, fds


def report(child: Child) -> SetupFailed | None:
    """Return what a child that failed has told, if it has: it knows better than whoever finds it gone."""
    if failed := child.failure():
        return failed
    with contextlib.suppress(OSError):
        child.connection.settimeout(0)
        while (message := messages.receive(child.connection, fds_max=2)[0]) is not None:
            if message["type"] == "error":
                return _reported(message)
    return None


def _reported(message: dict[str, Any]) -> SetupFailed:
    error = OSError(message["errno"], message["message"], message["path"])
    return SetupFailed.from_oserror(recognized(message["step"], _NAMED_STEPS), error)


def _vanished() -> SetupFailed:
    return SetupFailed("The container's first process ended during its setup.", step="set up the container")
