"""Looking every second: each start, end and loss is seen once, whatever caused it."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable

import pytest

from containers.core.cgroups import detect
from containers.core.host import Host
from containers.core.lifecycle import running
from containers.core.lifecycle.watching import Watch
from containers.core.model.spec import Spec
from containers.core.model.states import Status
from containers.core.proc.records import RunFile

from .conftest import NoNetwork
from .patience import patient, wait_until


@pytest.mark.lxc("Each change of state is told, once", "L#3747", "lxc-monitor")
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
        running.restart(host, running_container, network=NoNetwork(), timeout_sec=patient(60))
        assert watch.changed() == {running_container.id}
    finally:
        watch.close()


@pytest.mark.lxc("A container that ended with its supervisor is told", "L#2885")
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


def test_a_supervisor_tells_of_a_freeze_whoever_did_it(host: Host, container: Callable[..., Spec]) -> None:
    spec = container()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as news:
        news.bind(str(host.events_socket))
        news.settimeout(patient(60))
        running.start(host, spec, network=NoNetwork())
        assert json.loads(news.recv(4096))["event"] == "started"
        groups = detect.open(host)
        for path in (groups.container_tree(spec.id), groups.namespace_dir(spec.id)):
            for value, event, status in (("1", "frozen", Status.FROZEN), ("0", "thawed", Status.RUNNING)):
                (path / "cgroup.freeze").write_text(value)
                assert json.loads(news.recv(4096)) == {"id": spec.id, "event": event}
                assert running.observe(host)[spec.id].status is status
        running.stop(host, spec.id, kill=True)
        assert json.loads(news.recv(4096))["event"] == "stopped"
    host.events_socket.unlink()


def test_it_does_so_after_a_reboot_inside_too(host: Host, container: Callable[..., Spec]) -> None:
    once = "[ -e /rebooted ] && exec sleep 3600; touch /rebooted; reboot -f"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as news:
        news.bind(str(host.events_socket))
        news.settimeout(patient(60))
        spec = container(init_command=("/bin/sh", "-c", once))
        running.start(host, spec, network=NoNetwork())
        assert [json.loads(news.recv(4096))["event"] for _ in range(2)] == ["started", "rebooted"]
        (detect.open(host).container_tree(spec.id) / "cgroup.freeze").write_text("1")
        assert json.loads(news.recv(4096))["event"] == "frozen"
    host.events_socket.unlink()


def test_what_was_seen_is_not_told_again_and_what_came_after_is(host: Host, container: Callable[..., Spec]) -> None:
    spec, other = container(), container()
    watch = Watch(host)
    try:
        assert watch.changed() == set()
        for one in (spec, other):
            running.start(host, one, network=NoNetwork())
        watch.seen([spec.id, "not-there"])
        assert watch.changed() == {other.id}
        running.stop(host, spec.id, kill=True)
        assert watch.changed() == {spec.id}
        running.stop(host, other.id, kill=True)
        watch.seen([other.id])
        assert watch.changed() == set()
    finally:
        watch.close()


def test_a_supervisor_that_is_killed_after_its_container_was_seen_is_told(
    host: Host, container: Callable[..., Spec]
) -> None:
    spec = container()
    watch = Watch(host)
    try:
        assert watch.changed() == set()
        running.start(host, spec, network=NoNetwork())
        watch.seen([spec.id])
        run = RunFile.read(host.run_path(spec.id))
        assert run is not None
        os.kill(run.supervisor.pid, signal.SIGKILL)
        wait_until(lambda: spec.id in watch.changed(), what="the loss is told")
    finally:
        watch.close()
