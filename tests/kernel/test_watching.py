"""Looking every second: each start, end and loss is seen once, whatever caused it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from containers.core.host import Host
from containers.core.lifecycle import running
from containers.core.lifecycle.watching import Watch
from containers.core.proc.records import RunFile
from containers.core.spec import Spec

from .conftest import NoNetwork
from .patience import wait_until


def test_what_changed_is_told_once(host: Host, container: Callable[..., Spec]) -> None:
    spec = container()
    watch = Watch(host)
    try:
        assert watch.changed() == set()
        running.start(host, spec, network=NoNetwork())
        assert watch.changed() == {spec.id}
        # a second look in the same tick of the clock reads the directory again, and finds nothing new
        assert watch.changed() == set()
        running.stop(host, spec.id, kill=True)
        assert watch.changed() == {spec.id}
        assert watch.changed() == set()
    finally:
        watch.close()


def test_a_start_again_between_two_looks_is_told(host: Host, running_container: Spec) -> None:
    watch = Watch(host)
    try:
        assert watch.changed() == {running_container.id}
        running.restart(host, running_container, network=NoNetwork(), timeout_sec=5)
        assert watch.changed() == {running_container.id}
    finally:
        watch.close()


def test_a_supervisor_that_is_killed_is_told(host: Host, running_container: Spec) -> None:
    watch = Watch(host)
    try:
        assert watch.changed() == {running_container.id}
        run = RunFile.read(host.run_path(running_container.id))
        assert run is not None
        os.kill(run.supervisor.pid, signal.SIGKILL)
        wait_until(lambda: running_container.id in watch.changed(), what="the loss is told")
        assert host.run_path(running_container.id).exists()
        assert running.sweep(host) == (running_container.id,)
        assert watch.changed() == {running_container.id}
    finally:
        watch.close()
