"""A restart from inside: the same supervisor, another init; the signal is the init's own, unless one is configured."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path

import pytest

from containers.core.errors import InvalidTransition, TimedOut
from containers.core.kernel import halt
from containers.core.lifecycle import running
from containers.core.model.behaviour import Init
from containers.core.model.states import Status
from containers.core.proc.records import RunFile

from .conftest import NoNetwork
from .patience import patient, wait_until

MASKS = "Name:\t{name}\nSigBlk:\t{blocked:016x}\nSigCgt:\t{caught:016x}\n"


def bits(*numbers: int) -> int:
    return sum(1 << number - 1 for number in numbers)


@pytest.mark.parametrize(
    ("name", "program", "blocked", "caught", "to_halt", "to_boot"),
    [
        ("systemd", "systemd", bits(signal.SIGRTMIN + 3, signal.SIGRTMIN + 5, signal.SIGTERM), 0, 37, 39),
        ("init", "init", 0, bits(signal.SIGPWR, signal.SIGINT, signal.SIGHUP), signal.SIGPWR, signal.SIGINT),
        ("init", "busybox", 0, 0, signal.SIGUSR2, signal.SIGTERM),
        ("init", "openrc-init", 0, bits(signal.SIGINT, signal.SIGTERM), signal.SIGTERM, signal.SIGINT),
    ],
)
def test_each_kind_of_init_has_its_signals(name, program, blocked, caught, to_halt, to_boot):
    status = MASKS.format(name=name, blocked=blocked, caught=caught)
    halting, booting = halt.choose(status, program), halt.choose_reboot(status, program)
    assert halting is not None
    assert booting is not None
    assert (halting.signal, booting.signal) == (to_halt, to_boot)
    sure = program != "busybox"
    assert (halting.sure, booting.sure) == (sure, sure)


def test_an_init_that_hears_nothing_yet_is_asked_later():
    status = MASKS.format(name="init", blocked=0, caught=0)
    assert halt.choose(status, "init") is None
    assert halt.choose_reboot(status, "init") is None


def supervisor(host, spec):
    return RunFile.read(host.run_path(spec.id)).supervisor


def rebooting(host, spec):
    before, keeper = running.observe(host)[spec.id].init_pid, supervisor(host, spec)
    running.reboot(host, spec.id, timeout_sec=patient(60))
    seen = running.observe(host)[spec.id]
    assert seen.status is Status.RUNNING
    assert seen.init_pid != before
    assert supervisor(host, spec) == keeper
    return seen


def test_busybox_init_boots_again(host, container):
    spec = container(init_command=("/sbin/init",))
    running.start(host, spec, network=NoNetwork())
    assert rebooting(host, spec).last_exit is None, "it did not end in between"


def caught(pid, field="SigCgt"):
    return int(re.search(rf"^{field}:\s*(\w+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)[1], 16)


@pytest.mark.parametrize(("configured", "name"), [(None, "INT"), ("SIGUSR1", "USR1")])
def test_what_init_catches_and_what_is_configured(host, container, configured, name):
    # the shell itself catches SIGINT from its first moment on, and ends by it
    script = f"trap 'reboot -f' {name}; echo set; while :; do sleep 0.05; done"
    spec = container(init_command=("/bin/sh", "-c", script), init=Init(reboot_signal=configured))
    running.start(host, spec, network=NoNetwork())
    log = host.container_dir(spec.id) / "console.log"
    wait_until(lambda: log.exists() and b"set" in log.read_bytes(), what="the trap is set")
    running.freeze(host, spec.id)
    rebooting(host, spec)


def test_the_time_is_kept_and_it_runs_on(host, container):
    spec = container(init_command=("/bin/sh", "-c", "trap '' INT; while :; do sleep 0.1; done"))
    pid = running.start(host, spec, network=NoNetwork()).init_pid
    wait_until(lambda: caught(pid, "SigIgn") >> (signal.SIGINT - 1) & 1, what="the shell ignores SIGINT")
    begun = time.monotonic()
    with pytest.raises(TimedOut):
        running.reboot(host, spec.id, timeout_sec=0.5)
    assert time.monotonic() - begun >= 0.5
    assert running.observe(host)[spec.id].init_pid == pid


def test_one_that_ends_instead_is_told(host, container):
    spec = container(init_command=("/bin/sh", "-c", "trap 'exit 3' INT; while :; do sleep 0.05; done"))
    pid = running.start(host, spec, network=NoNetwork()).init_pid
    wait_until(lambda: caught(pid) >> (signal.SIGINT - 1) & 1, what="init catches SIGINT")
    with pytest.raises(InvalidTransition, match="ended instead"):
        running.reboot(host, spec.id, timeout_sec=patient(60))
    with pytest.raises(InvalidTransition, match="not running"):
        running.reboot(host, spec.id)


def test_an_application_cannot(host, container):
    spec = container(init_command=("sleep",), init=Init(kind="application", arguments=("1000",)))
    running.start(host, spec, network=NoNetwork())
    with pytest.raises(InvalidTransition, match="application"):
        running.reboot(host, spec.id)
