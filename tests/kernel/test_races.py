"""start, stop, freeze, thaw, kill and delete of one container at the same time, by threads and by processes.

Whoever wins, each call ends, with a success or one of the errors that fit; and when all have, the container is in a
state that it may be in, can be started and stopped, and nothing of the race is left.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from containers.core.errors import Busy, CoreError, InvalidTransition, NotFound, SetupFailed, TimedOut
from containers.core.host import Host
from containers.core.lifecycle import running, stored
from containers.core.model.spec import Spec
from containers.core.model.states import Status
from containers.core.proc import records

from .conftest import NoNetwork
from .patience import patient

FITS = (InvalidTransition, Busy, NotFound, SetupFailed, TimedOut)
"""What a call may raise that lost: never a bare OSError, and nothing else."""
ROUNDS = 6
SECONDS = 300.0
"""How long all calls of a test may take: one that hangs does so for good."""


def actions(host: Host, spec: Spec) -> list[Callable[[], Any]]:
    return [
        lambda: running.start(host, spec, network=NoNetwork()),
        lambda: running.stop(host, spec.id, timeout_sec=patient(2)),
        lambda: running.stop(host, spec.id, kill=True),
        lambda: running.freeze(host, spec.id),
        lambda: running.thaw(host, spec.id),
    ]


def works_afterwards(host: Host, spec: Spec) -> None:
    assert running.observe(host)[spec.id].status in (Status.STOPPED, Status.RUNNING, Status.FROZEN)
    running.stop(host, spec.id, kill=True)
    assert running.observe(host)[spec.id].status is Status.STOPPED
    assert not host.run_path(spec.id).exists()
    running.start(host, spec, network=NoNetwork())
    assert running.observe(host)[spec.id].status is Status.RUNNING
    running.stop(host, spec.id, kill=True)


def test_in_threads(host: Host, container: Any) -> None:
    spec = container()
    unfit: list[BaseException] = []

    def race(seed: int) -> None:
        chosen = random.Random(seed)
        for _ in range(ROUNDS):
            try:
                chosen.choice(actions(host, spec))()
            except FITS:
                pass
            except BaseException as error:  # noqa: BLE001  it is told below
                unfit.append(error)

    threads = [threading.Thread(target=race, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + patient(SECONDS)
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
        assert not thread.is_alive(), "a call does not end"
    assert unfit == []
    works_afterwards(host, spec)


def test_in_processes(host: Host, container: Any) -> None:
    spec = container()
    children = []
    for seed in range(4):
        pid = os.fork()
        if pid == 0:
            status = 0
            chosen = random.Random(100 + seed)
            for _ in range(ROUNDS):
                try:
                    chosen.choice(actions(host, spec))()
                except FITS:
                    pass
                except BaseException as error:  # noqa: BLE001  the fork's last frame
                    os.write(2, f"{error!r}\n".encode())
                    status = 1
            os._exit(status)
        children.append(pid)
    deadline = time.monotonic() + patient(SECONDS)
    while children and time.monotonic() < deadline:
        done, status = os.waitpid(-1, os.WNOHANG)
        if done in children:
            children.remove(done)
            assert status == 0
        else:
            time.sleep(0.02)
    assert not children, "a call does not end"
    works_afterwards(host, spec)


def test_many_starts_at_once_make_one(host: Host, container: Any) -> None:
    spec = container()
    pids: list[int] = []
    threads = [
        threading.Thread(target=lambda: pids.append(running.start(host, spec, network=NoNetwork()).init_pid))
        for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(patient(SECONDS))
    assert len(pids) == 5
    assert len(set(pids)) == 1


def test_many_stops_at_once_tell_the_same_end(host: Host, running_container: Spec) -> None:
    ends: list[Any] = []
    threads = [
        threading.Thread(target=lambda: ends.append(running.stop(host, running_container.id, timeout_sec=patient(10))))
        for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(patient(SECONDS))
    assert len(ends) == 5
    assert len({end.at for end in ends}) == 1
    assert ends[0].reason in ("stopped", "killed")


def test_a_frozen_one_is_deleted_after_a_stop_by_force(host: Host, running_container: Spec) -> None:
    running.freeze(host, running_container.id)
    with pytest.raises(CoreError):
        stored.delete(host, running_container.id)
    running.stop(host, running_container.id, kill=True)
    stored.delete(host, running_container.id)
    assert running.observe_one(host, running_container.id) is None


@pytest.mark.parametrize("runs", [True, False])
def test_who_is_killed_while_it_tells_of_a_stop_leaves_nothing(host: Host, running_container: Spec, runs: bool) -> None:
    expect = records.expect_path(host, running_container.id)
    if not runs:
        running.stop(host, running_container.id, kill=True)
    left = expect.with_name(f".{expect.name}.tmp")
    left.touch()
    if runs:
        running.stop(host, running_container.id, kill=True)
    else:
        stored.delete(host, running_container.id)
    assert not left.exists()
