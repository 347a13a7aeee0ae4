"""A start's two processes, either of which is killed at each step: what remains is what the documentation says."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from containers.core.cgroups import detect
from containers.core.errors import CoreError
from containers.core.host import Host
from containers.core.kernel import pids
from containers.core.lifecycle import granting, launching, leaks, running
from containers.core.model.hooks import Hook
from containers.core.model.security import Security
from containers.core.model.spec import Limits, Spec
from containers.core.model.states import Status
from containers.core.network.plugging import Placed
from containers.core.proc import rehearsing, starting
from containers.core.proc.records import RunFile
from containers.core.rules import policy_file

from .conftest import Launcher, NoNetwork
from .patience import patient, wait_until
from .test_hooks import register

_SYS_PIDFD_GETFD = 438


def children(pid: int) -> list[int]:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


def sockets_of(pid: int) -> list[int]:
    return [int(link.name) for link in Path(f"/proc/{pid}/fd").iterdir() if os.readlink(link).startswith("socket:")]


@contextlib.contextmanager
def copies_of_sockets(pid: int) -> Iterator[list[int]]:
    """Give copies of all sockets of a process."""
    pidfd = os.pidfd_open(pid)
    with contextlib.ExitStack() as opened:
        opened.callback(os.close, pidfd)
        copies = []
        for number in sockets_of(pid):
            copies.append(ctypes.CDLL(None, use_errno=True).syscall(_SYS_PIDFD_GETFD, pidfd, number, 0))
            assert copies[-1] >= 0, os.strerror(ctypes.get_errno())
            opened.callback(os.close, copies[-1])
        yield copies


@contextlib.contextmanager
def socket_of(pid: int) -> Iterator[int]:
    """Give a copy of the one socket that a supervisor has before it serves."""
    with copies_of_sockets(pid) as copies:
        assert len(copies) == 1, sockets_of(pid)
        yield copies[0]


def holds(pid: int, inode: int) -> bool:
    """Tell whether a process has a namespace open."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                if link.stat().st_ino == inode and os.readlink(link).startswith("net:"):
                    return True
    return False


BY_A_CHILD = {"limits": Limits(memory_bytes=starting.ROOM_BYTES - 4096)}
"""What is not begun in another's memory is started by a child of its supervisor's, all others by one that stays."""


IN_A_CHILD = {"security": Security(sysctls={"kernel.msgmax": "8192"})}
"""The same, but for the memory."""


class Meddling(NoNetwork):
    """A port that knows the processes of the start, and does something to them once the namespaces are there."""

    def __init__(self, host: Host, act: Callable[[Meddling], None]) -> None:
        self.launcher = host.__dict__["test_launcher"].process.pid
        self.act = act
        self.init = self.starter = self.supervisor = 0

    def attach(self, spec: Spec, netns_fd: int) -> list[Placed]:
        """Find out who is who."""
        wanted = os.fstat(netns_fd).st_ino
        wait_until(lambda: self._found(wanted), what="both of init's parents are seen")
        self.act(self)
        return []

    def _found(self, netns: int) -> bool:
        # the kernel's list of children may miss some while one of them ends
        for forked in children(self.launcher):
            for child in children(forked):
                with contextlib.suppress(FileNotFoundError):
                    if os.stat(f"/proc/{child}/ns/net").st_ino == netns:
                        self.init, self.supervisor = child, forked
        for process in (*children(self.launcher), *children(self.supervisor)):
            if holds(process, netns):
                self.starter = process
        return bool(self.starter and self.supervisor)


def assert_nothing_left(host: Host, spec: Spec, port: Meddling, *, cgroups: bool = False) -> None:
    # a starter that stays goes on
    wait_until(
        lambda: all(state_of(pid) in "ZX" for pid in (port.init, port.supervisor)),
        what="its processes are gone",
    )
    assert not host.run_path(spec.id).exists()
    assert not host.supervisor_socket(spec.id).exists()
    groups = detect.open(host)
    if cgroups:
        leaks.repair(host, leaks.find(host))
    assert spec.id not in groups.ids()
    assert running.observe(host)[spec.id].status is Status.STOPPED
    running.start(host, spec, network=NoNetwork())
    assert running.observe(host)[spec.id].status is Status.RUNNING


@pytest.mark.parametrize("values", [{}, BY_A_CHILD], ids=["stays", "child"])
def test_a_starter_that_is_killed_takes_its_container_along(
    host: Host, container: Callable[..., Spec], values: dict[str, Any]
) -> None:
    spec = container(**values)
    port = Meddling(host, lambda found: os.kill(found.starter, signal.SIGKILL))
    with pytest.raises(CoreError):
        running.start(host, spec, network=port)
    assert_nothing_left(host, spec, port, cgroups=True)


@pytest.mark.parametrize("values", [{}, BY_A_CHILD], ids=["stays", "child"])
def test_a_supervisor_that_is_killed_during_the_start_leaves_nothing(
    host: Host, container: Callable[..., Spec], values: dict[str, Any]
) -> None:
    spec = container(**values)
    port = Meddling(host, lambda found: os.kill(found.supervisor, signal.SIGKILL))
    with pytest.raises(CoreError):
        running.start(host, spec, network=port)
    assert_nothing_left(host, spec, port)


@pytest.mark.parametrize("values", [{}, BY_A_CHILD], ids=["stays", "child"])
@pytest.mark.parametrize("killed", ["starter", "supervisor"])
def test_killed_while_the_run_is_handed_over(
    host: Host, container: Callable[..., Spec], killed: str, values: dict[str, Any]
) -> None:
    """The supervisor is held until init runs and what it is to take over waits for it."""
    spec = container(**values)
    tree = f"/{host.cgroup_name}/c-{spec.id}/ns"

    def kill_later(found: Meddling) -> None:
        # born there: nobody moves it
        assert f"0::{tree}" in Path(f"/proc/{found.init}/cgroup").read_text().splitlines()
        wait_until(lambda: state_of(found.supervisor) == "S", what="the supervisor waits")
        os.kill(found.supervisor, signal.SIGSTOP)
        wait_until(lambda: state_of(found.supervisor) == "T", what="it stands still, with nothing received")

        def wait_and_kill() -> None:
            try:
                with socket_of(found.supervisor) as fd:
                    poll = select.poll()
                    poll.register(fd, select.POLLIN)
                    wait_until(lambda: poll.poll(0), what="the run is handed over")
            finally:
                os.kill(found.starter if killed == "starter" else found.supervisor, signal.SIGKILL)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(found.supervisor, signal.SIGCONT)

        thread.append(threading.Thread(target=wait_and_kill))
        thread[0].start()

    thread: list[threading.Thread] = []
    port = Meddling(host, kill_later)
    if killed == "supervisor":
        with pytest.raises(CoreError):
            running.start(host, spec, network=port)
        thread[0].join()
        assert_nothing_left(host, spec, port)
        return
    state = running.start(host, spec, network=port)
    thread[0].join()
    assert state.init_pid == port.init
    run = RunFile.read(host.run_path(spec.id))
    assert run is not None
    assert (run.supervisor.pid, run.init.pid) == (port.supervisor, port.init)
    assert running.observe(host)[spec.id].status is Status.RUNNING
    wait_until(lambda: children(port.supervisor) == [port.init], what="the starter is reaped")


@pytest.mark.parametrize("values", [{}, IN_A_CHILD, BY_A_CHILD], ids=["stays", "child", "fork"])
def test_an_init_that_is_killed_right_before_its_exec_has_ended_like_any_other(
    host: Host, container: Callable[..., Spec], values: dict[str, Any]
) -> None:
    """Its starter cannot tell that from an exec: whoever is handed it finds out how it ended."""
    spec = container(**values)

    def kill_later(found: Meddling) -> None:
        place = Path(f"/proc/{found.init}")
        wait_until(
            lambda: os.readlink(place / "fd/0").startswith("/dev/") and os.readlink(place / "fd/0") != "/dev/null",
            what="it has its console",
        )
        wait_until(lambda: state_of(found.init) == "S", what="it waits for nothing but its exec")
        os.kill(found.init, signal.SIGSTOP)
        wait_until(lambda: state_of(found.init) == "T", what="it stands still")

        def wait_and_kill() -> None:
            try:
                # by then the starter has read what the worker has said, whose connection a fork has as well
                wait_until(host.run_path(spec.id).exists, what="the run file is there")
                with copies_of_sockets(found.init) as fds:
                    poll = select.poll()
                    for fd in fds:
                        poll.register(fd, select.POLLIN)
                    wait_until(lambda: poll.poll(0), what="it is released")
            finally:
                os.kill(found.init, signal.SIGKILL)

        thread.append(threading.Thread(target=wait_and_kill))
        thread[0].start()

    thread: list[threading.Thread] = []
    port = Meddling(host, kill_later)
    running.start(host, spec, network=port)
    thread[0].join()
    wait_until(lambda: running.observe(host)[spec.id].status is Status.STOPPED, what="the container has ended")
    last = running.observe(host)[spec.id].last_exit
    assert last is not None
    assert (last.reason, last.signal) == ("signal", signal.SIGKILL)
    assert_nothing_left(host, spec, port)


def test_a_start_that_waits_at_the_socket_of_a_launcher_that_ends_is_the_next_ones(
    host: Host, container: Callable[..., Spec], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = container()
    process = host.__dict__["test_launcher"].process
    wait_until(lambda: len(children(process.pid)) >= 4, what="starters and spares wait")
    there = children(process.pid)
    for pid in there:
        os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: all(state_of(pid) == "T" for pid in there), what="they stand still")
    asked = 0
    ask = launching._ask

    def ask_and_kill(*arguments: Any) -> None:
        nonlocal asked
        asked += 1
        ask(*arguments)
        if asked == 1:
            process.kill()
            process.wait()
            wait_until(lambda: all(state_of(pid) in "ZX" for pid in there), what="all have ended with it")
            host.__dict__["test_launcher"] = Launcher(host)

    monkeypatch.setattr(launching, "_ask", ask_and_kill)
    running.start(host, spec, network=NoNetwork())
    assert asked == 2
    assert running.observe(host)[spec.id].status is Status.RUNNING


HELD = """
[hooks.held]
projects = ["*"]
timeout_sec = 300
"""


@pytest.mark.parametrize("killed", ["starter", "supervisor"])
@pytest.mark.parametrize("point", ["pre-start", "start-host"])
def test_killed_while_it_boots_again(host: Host, container: Callable[..., Spec], point: str, killed: str) -> None:
    """A hook holds the starter where nothing is made yet, or where the next init waits for nothing but its exec."""
    held, told = host.state_dir / "held", host.state_dir / "told"
    waits = f"while [ -e {held} ]; do sleep 0.05; done"
    register(host, "held", f"[ -e {held} ] || exit 0; echo $PPID >{told}.new; mv {told}.new {told}; {waits}")
    spec = container(init_command=("/sbin/init",), hooks=(Hook(point=point, hook="held"),))
    extras = granting.extras(host, policy_file.parse(HELD), spec)
    running.start(host, spec, network=NoNetwork(), extras=extras)
    run = RunFile.read(host.run_path(spec.id))
    assert run is not None
    held.touch()

    def reboot() -> None:
        with contextlib.suppress(CoreError):
            running.reboot(host, spec.id, timeout_sec=patient(60))

    asking = threading.Thread(target=reboot)
    asking.start()
    try:
        wait_until(told.exists, what="the starter of the next boot is held")
        starter = int(told.read_text())
        assert starter in children(run.supervisor.pid)
        os.kill(starter if killed == "starter" else run.supervisor.pid, signal.SIGKILL)
    finally:
        held.unlink()
        asking.join()

    def ended() -> bool:
        running.sweep(host)
        return running.observe(host)[spec.id].status is Status.STOPPED and leaks.find(host) == []

    wait_until(ended, what="the container has ended, and nothing is left")
    last = running.observe(host)[spec.id].last_exit
    assert last is not None
    assert last.reason == ("reboot" if killed == "starter" else "lost")
    assert children(run.supervisor.pid) == []
    running.start(host, spec, network=NoNetwork(), extras=extras)
    assert running.observe(host)[spec.id].status is Status.RUNNING


def test_a_rehearsed_start_leaves_nothing(host: Host) -> None:
    def seen() -> tuple[list[str], set[str], list[str]]:
        files = [str(path) for path in host.run_dir.rglob("*")]
        return sorted(os.listdir("/proc/self/fd")), detect.open(host).ids(), sorted(files)

    before = seen()
    rehearsing.rehearse(detect.open(host), rehearsing.sample(host))
    assert seen() == before


def test_who_is_gone_is_gone_though_its_number_names_a_session_yet():
    """A supervisor that was killed, and whose hook runs on: older kernels have a word of their own for that."""
    read_fd, write_fd = os.pipe()
    leader = os.fork()
    if leader == 0:
        os.setsid()
        if os.fork() == 0:
            os.close(write_fd)
            os.read(read_fd, 1)
        os._exit(0)
    os.waitpid(leader, 0)
    try:
        with pytest.raises(ProcessLookupError):
            pids.opened(leader)
    finally:
        os.close(read_fd)
        os.close(write_fd)
