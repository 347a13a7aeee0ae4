"""Debian 12's systemd, unprivileged. The image is built once by debootstrap and kept (tests/debian.py)."""

from __future__ import annotations

import dataclasses
import subprocess

import pytest

from containers.core.lifecycle import running, stored
from containers.core.model.behaviour import Consoles
from containers.core.model.states import Status

from .. import debian
from .conftest import NoNetwork, make_spec
from .patience import patient, wait_until
from .test_sessions_terminal import Terminal


@pytest.fixture
def spec(host):
    """A container of Debian 12."""
    built = debian.put(host)
    init, signal = built.defaults["init_command"], built.defaults["halt_signal"]
    return stored.create(host, make_spec(built.layers[0], init_command=tuple(init), halt_signal=signal))


def enter(pid, *command):
    """Run a command as the container's root, from outside."""
    nsenter = ("nsenter", "-t", str(pid), "-a", "-S", "0", "-G", "0")
    return subprocess.run([*nsenter, *command], capture_output=True, text=True, check=False).stdout.strip()


@pytest.mark.lxc(
    "Debian 12: systemd runs with no failed unit, reboots, and halts by its own signal", "L#2342", "L#4402"
)
def test_systemd_comes_up_reboots_and_halts(host, spec):
    first = running.start(host, spec, network=NoNetwork()).init_pid
    wait_until(lambda: enter(first, "systemctl", "is-system-running") in ("running", "degraded"), 120, "systemd is up")
    assert enter(first, "systemctl", "--failed", "--no-legend") == ""
    assert enter(first, "systemctl", "is-system-running") == "running"
    assert enter(first, "systemd-detect-virt") == "lxc"
    assert enter(first, "cat", "/etc/machine-id") == spec.machine_id
    log = host.container_dir(spec.id) / "console.log"
    wait_until(lambda: b"login" in log.read_bytes(), what="a login is offered")

    enter(first, "systemctl", "reboot")
    wait_until(lambda: running.observe(host)[spec.id].init_pid not in (None, first), 120, "it boots again")
    again = running.observe(host)[spec.id].init_pid
    wait_until(lambda: enter(again, "systemctl", "is-system-running") == "running", 120, "systemd is up again")

    assert running.stop(host, spec.id, timeout_sec=patient(120)).reason == "stopped"


def test_a_login_is_offered_on_the_console_and_on_each_tty_and_a_poweroff_inside_is_told_as_such(host, spec):
    spec = dataclasses.replace(spec, console=Consoles(ttys=2))
    pid = running.start(host, spec, network=NoNetwork()).init_pid
    for name in ("console", "tty1", "tty2"):
        term = Terminal(host.supervisor_socket(spec.id))
        try:
            assert term.open(session=name)["type"] == "opened"
            term.expect("login: ")
            # who is refused leaves a terminal that asks again
            term.type("nobody-here\n")
            term.expect("Password: ")
            term.type("wrong\n")
            term.expect("Login incorrect")
        finally:
            term.socket.close()
    wait_until(lambda: enter(pid, "systemctl", "is-system-running") == "running", 120, "systemd is up")
    enter(pid, "systemctl", "poweroff")
    wait_until(lambda: running.observe(host)[spec.id].status is Status.STOPPED, 120, "it is off")
    assert running.observe(host)[spec.id].last_exit.reason == "poweroff"
