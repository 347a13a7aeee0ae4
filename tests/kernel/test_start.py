"""Starting, stopping and ending, seen from outside."""

from __future__ import annotations

import errno
import os
import re
import signal
import time
from pathlib import Path

import pytest

from containers.core.cgroups import detect
from containers.core.errors import SetupFailed, TimedOut
from containers.core.hoststore import store
from containers.core.kernel import halt
from containers.core.lifecycle import running
from containers.core.model.behaviour import TTYS_MAX, Consoles
from containers.core.model.security import Security
from containers.core.model.spec import Limits
from containers.core.model.states import Status
from containers.core.proc.records import RunFile

from .conftest import Launcher, NoNetwork
from .leftovers import leftovers
from .patience import patient, wait_until
from .test_handing_over import BY_A_CHILD


def test_a_started_container_runs_in_its_own_id_range(host, container):
    spec = container()
    state = running.start(host, spec, network=NoNetwork())
    seen = running.observe(host)[spec.id]
    assert (seen.status, seen.init_pid) == (Status.RUNNING, state.init_pid)
    assert os.stat(f"/proc/{state.init_pid}").st_uid >= 2**28
    term = halt.Choice(signal.SIGTERM, sure=True)
    wait_until(lambda: halt.choose_for(state.init_pid) == term, what="init catches SIGTERM")
    last = running.stop(host, spec.id, timeout_sec=patient(60))
    assert (last.reason, last.exit_code) == ("stopped", 0)
    assert running.observe(host)[spec.id].status is Status.STOPPED
    assert not Path(f"/proc/{state.init_pid}").exists()


def wait_stopped(host, spec):
    wait_until(lambda: running.observe(host)[spec.id].status is Status.STOPPED, what="the container stops")
    return running.observe(host)[spec.id].last_exit


def ignores_term(pid):
    """Whether a process has come to the point where it ignores SIGTERM; before that a signal may end it."""
    ignored = re.search(r"^SigIgn:\s*(\w+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(ignored[1], 16) >> (signal.SIGTERM - 1) & 1


IGNORES_TERM = "trap '' INT PWR TERM; while :; do sleep 1; done"


def sh(script):
    return ("/bin/sh", "-c", script)


@pytest.mark.lxc("A second start changes nothing of the first", "lxc-start")
def test_starting_twice_keeps_the_first(host, running_container):
    first = running.observe(host)[running_container.id].init_pid
    assert running.start(host, running_container, network=NoNetwork()).init_pid == first


@pytest.mark.lxc("A failed start names step, path and cause", "L#4314")
def test_an_init_that_is_missing_is_told_in_words(host, container):
    spec = container(init_command=("/sbin/nothing",))
    with pytest.raises(SetupFailed) as failed:
        running.start(host, spec, network=NoNetwork())
    assert failed.value.details["step"] == "run the init command"
    assert failed.value.details["path"] == "/sbin/nothing"
    assert failed.value.details["errno"] == errno.ENOENT
    assert running.observe(host)[spec.id].status is Status.STOPPED
    assert not host.run_path(spec.id).exists()


WAYS = {
    "stays": {},
    "child": {"security": Security(sysctls={"kernel.msgmax": "8192"})},
    "fork": BY_A_CHILD,
}
"""A start by a starter that stays, by a child of the supervisor's, and with memory of its own from the beginning."""
_LAYERS = 252
"""What one message carries (SCM_MAX_FD), but for the container's own."""


@pytest.mark.parametrize("values", WAYS.values(), ids=WAYS)
def test_a_container_with_the_most_layers_and_terminals_starts(host, container, layer, values):
    layers = [layer]
    while len(layers) < _LAYERS:
        layers.append(store.new_layer_id())
        store.rootfs(host, layers[-1]).mkdir(parents=True)
    spec = container(layers=tuple(layers), console=Consoles(ttys=TTYS_MAX), **values)
    state = running.start(host, spec, network=NoNetwork())
    assert len(os.listdir(f"/proc/{state.init_pid}/root/dev/pts")) >= TTYS_MAX


@pytest.mark.parametrize("values", WAYS.values(), ids=WAYS)
def test_an_environment_that_is_too_large_is_told_in_words(host, container, values):
    spec = container(environment={f"A{number}": "x" * 32000 for number in range(256)}, **values)
    with pytest.raises(SetupFailed) as failed:
        running.start(host, spec, network=NoNetwork())
    found = {name: failed.value.details[name] for name in ("step", "path", "errno")}
    assert found == {"step": "run the init command", "path": "/sbin/idle", "errno": errno.E2BIG}


def test_an_init_that_exits_at_once_is_a_run_with_its_status(host, container):
    spec = container(init_command=sh("echo last words; exit 7"))
    running.start(host, spec, network=NoNetwork())
    last = wait_stopped(host, spec)
    assert (last.reason, last.exit_code, last.signal) == ("exit", 7, None)
    assert "last words" in last.console


@pytest.mark.lxc("A poweroff inside is a stop", "lxc-stop")
@pytest.mark.parametrize(("command", "reason"), [("poweroff -f", "poweroff"), ("halt -f", "poweroff")])
def test_poweroff_inside_stops(host, container, command, reason):
    spec = container(init_command=sh(f"{command}; sleep 100"))
    running.start(host, spec, network=NoNetwork())
    assert wait_stopped(host, spec).reason == reason


@pytest.mark.lxc("A reboot inside boots again, in the same container", "lxc-stop")
def test_reboot_inside_boots_again(host, container):
    script = "n=$(cat /boots 2>/dev/null); n=$((n+1)); echo $n > /boots; [ $n -ge 2 ] && exec sleep 1000; reboot -f"
    spec = container(init_command=sh(script))
    first = running.start(host, spec, network=NoNetwork()).init_pid
    wait_until(lambda: running.observe(host)[spec.id].init_pid != first, what="a new init")
    again = running.observe(host)[spec.id]
    assert again.status is Status.RUNNING
    running.stop(host, spec.id, kill=True)
    assert running.observe(host)[spec.id].last_exit.reason == "killed"


@pytest.mark.lxc("A stop's time-out is kept exactly, then init is killed", "L#2456", "lxc-stop")
def test_an_init_that_ignores_the_signal_is_killed_when_the_time_is_over(host, container):
    spec = container(init_command=sh(IGNORES_TERM))
    pid = running.start(host, spec, network=NoNetwork()).init_pid
    wait_until(lambda: ignores_term(pid), what="init ignores SIGTERM")
    begun = time.monotonic()
    with pytest.raises(TimedOut):
        running.stop(host, spec.id, timeout_sec=0.5, force=False)
    assert time.monotonic() - begun >= 0.5
    assert running.observe(host)[spec.id].status is Status.RUNNING
    last = running.stop(host, spec.id, timeout_sec=0.3)
    assert (last.reason, last.signal) == ("killed", 9)


@pytest.mark.lxc("A frozen container is thawed for a clean stop", "L#2644", "D#3658")
def test_a_frozen_container_stops_cleanly(host, running_container):
    spec = running_container
    running.freeze(host, spec.id)
    running.freeze(host, spec.id)
    assert running.observe(host)[spec.id].status is Status.FROZEN
    assert running.stop(host, spec.id, timeout_sec=patient(60)).reason == "stopped"


def test_thawed_it_runs_on(host, running_container):
    running.freeze(host, running_container.id)
    running.thaw(host, running_container.id)
    assert running.observe(host)[running_container.id].status is Status.RUNNING


@pytest.mark.lxc("A frozen container can be killed", "L#3471", "runc#3134")
def test_a_frozen_container_can_be_killed(host, running_container):
    running.freeze(host, running_container.id)
    assert running.stop(host, running_container.id, kill=True).reason == "killed"


@pytest.mark.lxc("Stopping what is stopped is no error", "lxc-stop")
def test_stopping_what_is_stopped_is_fine(host, container):
    spec = container()
    assert running.stop(host, spec.id) is None
    running.start(host, spec, network=NoNetwork())
    first = running.stop(host, spec.id, timeout_sec=patient(60))
    assert running.stop(host, spec.id) == first


def test_busybox_init_powers_off_cleanly(host, container):
    spec = container(init_command=("/sbin/init",))
    running.start(host, spec, network=NoNetwork())
    last = running.stop(host, spec.id, timeout_sec=patient(60))
    assert (last.reason, last.signal) == ("stopped", 2)


FULL = "trap '/bin/true && exit 0' TERM; for i in 1 2 3 4 5 6 7 8 9; do sleep 1000 & done; wait; while :; do wait; done"


@pytest.mark.lxc("A container at its limit of processes still shuts down", "lxc-stop")
def test_a_container_at_its_limit_of_processes_still_shuts_down(host, container):
    spec = container(init_command=sh(FULL), limits=Limits(pids=10))
    running.start(host, spec, network=NoNetwork())
    pids = Path(detect.open(host).stat_paths(spec.id).pids)
    wait_until(lambda: pids.read_text().strip() == "10", what="the limit is reached")
    last = running.stop(host, spec.id, timeout_sec=patient(60))
    assert (last.reason, last.exit_code) == ("stopped", 0)


def test_a_stop_that_gives_up_leaves_the_limit_of_processes(host, container):
    spec = container(init_command=sh(IGNORES_TERM), limits=Limits(pids=10))
    pid = running.start(host, spec, network=NoNetwork()).init_pid
    wait_until(lambda: ignores_term(pid), what="init ignores SIGTERM")
    limit = Path(detect.open(host).stat_paths(spec.id).pids).with_name("pids.max")
    with pytest.raises(TimedOut):
        running.stop(host, spec.id, timeout_sec=0.2, force=False)
    assert limit.read_text().strip() == "10"


@pytest.mark.lxc("Containers run on when the panel's processes go", "L#2491")
def test_containers_outlive_the_launcher(host, running_container):
    launcher = host.__dict__["test_launcher"]
    launcher.process.kill()
    launcher.process.wait()
    assert running.observe(host)[running_container.id].status is Status.RUNNING
    host.__dict__["test_launcher"] = Launcher(host)
    assert running.stop(host, running_container.id, timeout_sec=patient(60)).reason == "stopped"
    running.start(host, running_container, network=NoNetwork())


@pytest.mark.parametrize("frozen", [False, True])
def test_a_host_that_goes_down_halts_its_containers(host, container, frozen):
    spec = container(init_command=sh("trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.1; done"))
    running.start(host, spec, network=NoNetwork())
    log = host.container_dir(spec.id) / "console.log"
    wait_until(lambda: log.exists() and b"up" in log.read_bytes())
    if frozen:
        running.freeze(host, spec.id)
    run = RunFile.read(host.run_path(spec.id))
    os.kill(run.supervisor.pid, signal.SIGTERM)
    last = wait_stopped(host, spec)
    assert (last.reason, last.exit_code) == ("host-reboot", 3)
    assert "bye" in last.console


@pytest.mark.lxc(
    "A container does not run on unsupervised: it ends with its supervisor", "L#2902", "lxc.monitor.signal.pdeath"
)
def test_a_killed_supervisor_takes_its_container_along(host, running_container):
    run = RunFile.read(host.run_path(running_container.id))
    os.kill(run.supervisor.pid, 9)
    wait_until(lambda: running.observe(host)[running_container.id].status is Status.STOPPED)
    assert running.observe(host)[running_container.id].reason == "lost"
    assert running.sweep(host) == (running_container.id,)
    wait_until(lambda: not Path(f"/proc/{run.init.pid}").exists(), what="the launcher reaps it")
    running.start(host, running_container, network=NoNetwork())


class Failing(NoNetwork):
    def __init__(self, error):
        self.error = error

    def attach(self, spec, netns_fd):
        raise self.error


def test_a_network_that_fails_is_the_reason_only_where_the_container_has_none_of_its_own(host, container, layer):
    port = Failing(SetupFailed("There is no bridge.", step="attach"))
    spec = container()
    with pytest.raises(SetupFailed, match="There is no bridge"):
        running.start(host, spec, network=port)
    assert not leftovers(host.instance, host.state_dir, None)
    proc = store.rootfs(host, layer) / "proc"
    proc.rmdir()
    proc.symlink_to("/tmp")
    with pytest.raises(SetupFailed) as failed:
        running.start(host, spec, network=port)
    assert failed.value.details["path"] == "proc", failed.value.as_dict()


@pytest.mark.lxc("Whoever starts a container may be killed at any time, and nothing is left", "L#2878")
def test_a_worker_that_dies_during_a_start_leaves_nothing(host, container):
    spec = container()
    with pytest.raises(RuntimeError, match="no bridge"):
        running.start(host, spec, network=Failing(RuntimeError("no bridge")))
    assert running.observe(host)[spec.id].status is Status.STOPPED
    wait_until(lambda: not leftovers(host.instance, host.state_dir, None), what="nothing is left")
