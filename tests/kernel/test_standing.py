"""Starters that stay: what they keep of a start, who follows one that has ended, and many starts at once."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from containers.core.cgroups import detect
from containers.core.errors import CoreError, SetupFailed
from containers.core.host import Host
from containers.core.kernel import runner
from containers.core.kernel.numbers import NUMBERS
from containers.core.kernel.script import AT_FDCWD, Places, Script
from containers.core.lifecycle import running
from containers.core.model import nics
from containers.core.model.behaviour import TTYS_MAX, Init
from containers.core.model.spec import Limits, Spec
from containers.core.plans import mount_plan
from containers.core.plans.start_plan import StartPlan
from containers.core.proc import child_plan, cloning, launcher, rehearsing, setup
from containers.core.proc.records import RunFile

from .conftest import Launcher, NoNetwork
from .patience import wait_until
from .test_handing_over import Meddling, children, sockets_of, state_of

AT_ONCE = 12
_WALL = 0x40000000
"""Of waitpid(2): a child whose end no signal tells of, too."""


def launcher_of(host: Host) -> int:
    return int(host.__dict__["test_launcher"].process.pid)


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def opened(pid: int) -> tuple[int, int]:
    """Return how many sockets and descriptors a process has: a spare that waits has one socket, who has ended none."""
    with contextlib.suppress(FileNotFoundError):
        return len(sockets_of(pid)), descriptors(pid)
    return 0, 0


def once(host: Host, spec: Spec) -> int:
    """Start and kill a container; returns who started it."""
    port = Meddling(host, lambda _: None)
    running.start(host, spec, network=port)
    running.stop(host, spec.id, kill=True)
    return port.starter


def settled(host: Host, supervisors: int = 0) -> bool:
    """Tell whether there are the starters that stay, a spare for each, and so many supervisors."""
    starters, odd = divmod(len(children(launcher_of(host))) - supervisors, 2)
    return not odd and launcher.FIRST <= starters <= launcher.AT_REST


def at_rest(host: Host) -> bool:
    """Tell whether all starters and spares wait, having let go of what they had of the launcher."""
    found = [opened(pid) for pid in children(launcher_of(host))]
    return settled(host) and len(set(found)) == 2 and found.count(min(found)) == len(found) / 2


def test_nothing_of_a_start_stays_in_a_starter(host: Host, container: Callable[..., Spec]) -> None:
    good = container(slot=1)
    bad = container(slot=2, init_command=("/sbin/nothing",))
    application = container(slot=3, init_command=("/bin/true",), init=Init(kind="application"))
    small = container(slot=4, limits=Limits(memory_bytes=24 * 1024**2))

    def every_kind() -> set[int]:
        found = {once(host, good)}
        with pytest.raises(CoreError, match="nothing"):
            running.start(host, bad, network=NoNetwork())
        for spec in (application, small):
            running.start(host, spec, network=NoNetwork())
            running.stop(host, spec.id, kill=True)
        return found

    for _ in range(4):
        every_kind()
    wait_until(lambda: at_rest(host), what="all starters and spares wait")
    before = {pid: opened(pid) for pid in children(launcher_of(host))}
    after = {pid for _ in range(6) for pid in every_kind()} & set(before)
    assert after, "those that have had work have it again"

    def same() -> bool:
        there = set(children(launcher_of(host)))
        return settled(host) and all(opened(pid) == before[pid] for pid in after & there)

    wait_until(same, what="all descriptors are closed")


def test_another_follows_a_starter_that_has_ended(host: Host, container: Callable[..., Spec]) -> None:
    spec = container()
    for _ in range(2 * launcher.AT_REST):
        starter = once(host, spec)
        wait_until(lambda: settled(host), what="all spares are there")
        os.kill(starter, signal.SIGKILL)
        wait_until(lambda starter=starter: starter not in children(launcher_of(host)), what="it is reaped")
        wait_until(lambda: settled(host), what="another has followed, and its spare")


@pytest.mark.parametrize(
    "values",
    [{}, {"init_command": ("/bin/sleep",), "init": Init(kind="application", arguments=("1000",))}],
    ids=["script", "passed on"],
)
def test_a_start_gets_another_spare_where_somebody_has_ended_its_own(
    host: Host, container: Callable[..., Spec], values: dict[str, Any]
) -> None:
    spec = container(**values)

    def spares() -> set[int]:
        return {pid for pid in children(launcher_of(host)) if opened(pid)[0] == 1}

    def starters() -> dict[int, tuple[int, int]]:
        return {pid: found for pid in children(launcher_of(host)) if (found := opened(pid))[0] > 1}

    for _ in range(2):
        wait_until(lambda: at_rest(host), what="all starters and spares wait")
        before, gone = starters(), spares()
        for pid in gone:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda gone=gone: not gone & set(children(launcher_of(host))), what="they are reaped")
        for _ in range(2 * launcher.AT_REST):
            running.start(host, spec, network=NoNetwork())
            running.stop(host, spec.id, kill=True)

    def same() -> bool:
        now = starters()
        return settled(host) and all(now[pid] == before[pid] for pid in now.keys() & before.keys())

    wait_until(same, what="all descriptors are closed")


def test_many_at_once_do_not_wait_for_each_other(host: Host, container: Callable[..., Spec]) -> None:
    specs = [container(slot=number) for number in range(1, AT_ONCE + 1)]
    all_there = threading.Barrier(AT_ONCE, timeout=60)

    class Together(NoNetwork):
        def attach(self, spec: Spec, netns_fd: int) -> list:
            all_there.wait()
            return super().attach(spec, netns_fd)

    threads = [
        threading.Thread(target=running.start, args=(host, spec), kwargs={"network": Together()}) for spec in specs
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not all_there.broken
    assert all(RunFile.read(host.run_path(spec.id)) for spec in specs)
    wait_until(lambda: settled(host, AT_ONCE), what="no more starters stay than are of use")
    for spec in specs:
        running.stop(host, spec.id, kill=True)


def shared(pid: int) -> list[str]:
    """Return the lines of a process's memory that others may write to as well."""
    return [line for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if line.split()[1] == "rw-s"]


@pytest.mark.parametrize(
    "values",
    [{}, {"init_command": ("/bin/sleep",), "init": Init(kind="application", arguments=("1000",))}],
    ids=["system", "application"],
)
def test_nobody_of_a_container_has_the_memory_of_scripts(
    host: Host, container: Callable[..., Spec], values: dict[str, Any]
) -> None:
    """Root's processes carry out what stands there."""
    spec = container(**values)
    running.start(host, spec, network=NoNetwork())
    run = RunFile.read(host.run_path(spec.id))
    assert run is not None
    assert shared(launcher_of(host))
    assert shared(run.init.pid) == []
    wait_until(lambda: not shared(run.supervisor.pid), what="the supervisor lets go of it")


def test_a_supervisor_has_its_own_oom_score_after_its_init_has_left_its_memory(
    host: Host, container: Callable[..., Spec]
) -> None:
    spec = container()
    running.start(host, spec, network=NoNetwork())
    run = RunFile.read(host.run_path(spec.id))
    assert run is not None
    scores = [Path(f"/proc/{pid}/oom_score_adj").read_text() for pid in (run.supervisor.pid, launcher_of(host))]
    assert scores[0] == scores[1]
    assert Path(f"/proc/{run.init.pid}/oom_score_adj").read_text() == "0\n"


class Dying:
    """A maker of the child that ends as soon as it has made it, before it has told of it: here its script is run."""

    def __init__(self) -> None:
        self.ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.far_fd = self._theirs.fileno()
        self.pid = 0

    def script(self) -> Script:
        self._script = Script()
        return self._script

    def carry_out(self, fds: tuple[int, ...]) -> None:
        before = set(children(os.getpid()))
        socket.send_fds(self.ours, [b"c"], fds)
        runner.run(self._script.first)
        (self.pid,) = set(children(os.getpid())) - before
        raise OSError(errno.ECHILD, "it ended")

    def close(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, _WALL)
        self.ours.close()
        self._theirs.close()


class Held(Dying):
    """One in a process of its own, which is held where it tells that the child is made, while its script is another."""

    def __init__(self, marker: Path) -> None:
        super().__init__()
        self._places = Places(1)
        self._marker = marker
        self.status = -1

    def script(self) -> Script:
        return Script(self._places.view(0))

    def carry_out(self, fds: tuple[int, ...]) -> None:
        self._theirs.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                self._theirs.send(bytes(4096))
        self._theirs.setblocking(True)
        socket.send_fds(self.ours, [b"c"], fds)
        maker = os.fork()
        if not maker:
            runner.run(self._places.first(0))
            os._exit(0)
        call = Path(f"/proc/{maker}/syscall")
        wait_until(lambda: call.read_text().split()[0] == str(NUMBERS["write"]), what="it tells that the child is made")
        (child,) = children(maker)
        os.kill(child, signal.SIGKILL)
        wait_until(lambda: state_of(child) in "ZX", what="the child has ended")
        other = self.script()
        for _ in range(100):
            other.call("mkdirat", AT_FDCWD, other.text(str(self._marker)), 0o700, tolerated=None)
        other.stop(0)
        self.ours.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                self.ours.recv(8192)
        self.status = os.waitpid(maker, 0)[1]
        raise OSError(errno.ECHILD, "it ended")


def test_who_has_made_the_child_looks_at_nothing_of_the_script_once_its_starter_knows(
    host: Host, container: Callable[..., Spec], tmp_path: Path
) -> None:
    """By then the start may have failed, and the next one's script be there: calls that are not for the host's root."""
    plan = child_plan.of(StartPlan.from_json(rehearsing.sample(host)), b"", ())
    groups = detect.open(host)
    groups.begin("000000000000", limits=Limits(), owner_uid=0)
    mother = Held(tmp_path / "made")
    try:
        tree = groups.birth("000000000000", privileged=False).tree
        with pytest.raises(SetupFailed, match="it ended"):
            cloning.clone(plan, 10 * 2**16, tree, mother=mother, own_memory=False)
        assert mother.status == 0
        assert not (tmp_path / "made").exists()
    finally:
        mother.close()
        groups.remove("000000000000")


def test_a_child_that_nobody_can_name_has_ended_before_its_script_is_another(
    host: Host, container: Callable[..., Spec]
) -> None:
    text = rehearsing.sample(host)
    plan = child_plan.of(StartPlan.from_json(text), b"", ())
    groups = detect.open(host)
    groups.begin("000000000000", limits=Limits(), owner_uid=0)
    mother = Dying()
    try:
        tree = groups.birth("000000000000", privileged=False).tree
        with pytest.raises(SetupFailed, match="it ended"):
            cloning.clone(plan, 10 * 2**16, tree, mother=mother, own_memory=False)
        # it has let go of its files, which a process does after its memory
        assert Path(f"/proc/{mother.pid}/maps").read_text() == ""
    finally:
        mother.close()
        groups.remove("000000000000")


def test_the_most_of_everything_that_a_container_can_have_finds_room_in_a_place(host: Host) -> None:
    plan = child_plan.of(StartPlan.from_json(rehearsing.sample(host)), b"", ())
    layers = 252
    most = dataclasses.replace(
        plan,
        mounts=layers + 1,
        before=mount_plan.before_network(layers=layers, upper="u", work="w", nesting=True, lxcfs="/var/lib/lxcfs"),
        links=tuple(f"eth{number}" for number in range(nics.MOST)),
        sysctls=tuple((f"net.{number}", "1" * 1024) for number in range(128)),
        ttys=TTYS_MAX,
        limits=tuple((number, 1, 1) for number in range(16)),
        capabilities=0,
        seccomp=(bytes(8 * 4096),) * 6,
    )
    places = Places(2)
    last = Script(places.view(1))
    setup.compose(last, most, 3, (4, 5))
    assert len(last) > 1000


def test_a_starter_at_work_finishes_it_without_its_launcher_and_ends_without_a_word(
    host: Host, container: Callable[..., Spec], capfd: pytest.CaptureFixture[str]
) -> None:
    spec = container()
    host.__dict__["test_launcher"].stop()
    # one that writes where this test reads
    host.__dict__["test_launcher"] = Launcher(host, forked=False)

    def kill_launcher(_: Meddling) -> None:
        process = host.__dict__["test_launcher"].process
        process.kill()
        process.wait()

    port = Meddling(host, kill_launcher)
    running.start(host, spec, network=port)
    wait_until(lambda: state_of(port.starter) in "ZX", what="the starter has ended")
    running.stop(host, spec.id, kill=True)
    assert "Traceback" not in capfd.readouterr().err


def test_a_starter_at_rest_ends_with_its_launcher(host: Host, container: Callable[..., Spec]) -> None:
    starter = once(host, container())
    wait_until(lambda: settled(host), what="all spares are there")
    forked = children(launcher_of(host))
    assert starter in forked
    host.__dict__["test_launcher"].process.kill()
    wait_until(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in forked), what="all have ended")
