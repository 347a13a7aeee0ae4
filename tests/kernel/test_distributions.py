"""Whole systems, each with its own init and tools, on a real network: what a person expects of a machine works.

Debian 13 and busybox are of every run; the others are marked, and run by `manage.py test --distributions`, on both
cgroup versions.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import select
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from containers.core import images
from containers.core.errors import CoreError
from containers.core.host import Host
from containers.core.hoststore import store
from containers.core.lifecycle import running, stored
from containers.core.model import subnets
from containers.core.model.behaviour import Consoles
from containers.core.model.network_config import NetworkConfig, plain
from containers.core.model.spec import Spec
from containers.core.model.states import Status
from containers.core.network import networks

from .. import debian
from .conftest import make_spec
from .patience import patient, wait_until
from .test_exec_basics import execute
from .test_sessions_terminal import Terminal

PASSWORD = "let me in"
HALT_SEC = 60.0
"""A shutdown takes a few seconds; one that something holds up takes 90 and more (DefaultTimeoutStopSec=)."""


@dataclass
class System:
    """A container with a network card, and ways into it from outside."""

    host: Host
    spec: Spec

    @property
    def pid(self) -> int:
        return int(running.observe(self.host)[self.spec.id].init_pid or 0)

    @property
    def console(self) -> str:
        """What it said until a moment ago; empty as long as nothing was written down."""
        log = self.host.container_dir(self.spec.id) / "console.log"
        return log.read_text(errors="replace") if log.exists() else ""

    def start(self) -> None:
        running.start(self.host, self.spec, network=networks.Port(self.host))

    def sh(self, script: str) -> str:
        """Run a script as root inside; returns what it printed, of errors too; empty while nobody can enter."""
        try:
            done = execute(self.spec.id, ["/bin/sh", "-c", script])
        except CoreError:
            return ""
        return (done.stdout + done.stderr).decode(errors="replace").strip()

    def ended_by(self, script: str) -> None:
        """Run what ends this boot, and see that its init goes without waiting for anything to time out."""
        pid_fd = os.pidfd_open(self.pid)
        try:
            self.sh(script)
            wait_until(lambda: _gone(pid_fd), HALT_SEC, "init has gone")
        finally:
            os.close(pid_fd)


def _gone(pid_fd: int) -> bool:
    return bool(select.select([pid_fd], [], [], 0)[0])


@pytest.fixture
def system(host: Host, settings: Any) -> Iterator[Callable[..., System]]:
    """Return a function that puts an image into the host's store, and starts a container of it on a network."""
    settings.BOXROOM_RUN_DIR = host.run_dir

    def make(image: str, *, privileged: bool) -> System:
        if image == "busybox":
            built = images.build(host, image, {"type": "busybox"})
        else:
            built = debian.put(host, image)
        chosen = networks.choose_subnets(host, seed="default")
        config = NetworkConfig(name="default", number=0, ipv4=chosen.ipv4, ipv6=chosen.ipv6)
        networks.ensure(host, config, [config], [])
        defaults: dict[str, Any] = built.defaults
        spec = make_spec(
            built.layers[0],
            privileged=privileged,
            init_command=tuple(defaults["init_command"]),
            halt_signal=defaults["halt_signal"],
            environment=dict(defaults["environment"]),
            console=Consoles(**defaults.get("console", {})),
        )
        nic = subnets.plan_nic(host, config, container_id=spec.id, slot=spec.slot, taken=())
        spec = stored.create(host, Spec(**{**{n: getattr(spec, n) for n in spec.__dataclass_fields__}, "nics": (nic,)}))
        networks.register(host, spec)
        made = System(host, spec)
        made.start()
        return made

    yield make
    for container_id in store.container_ids(host):
        with contextlib.suppress(Exception):
            running.stop(host, container_id, kill=True)
    networks.remove_all(host)


def address_is_there(system: System) -> None:
    """See that the container's own DHCP client has got what the network reserved for it."""
    (nic,) = system.spec.nics
    wait_until(lambda: f"inet {plain(nic.ipv4 or '')}/" in system.sh("ip -4 addr show dev eth0"), what="an address")
    wait_until(
        lambda: f"inet6 {plain(nic.ipv6 or '')}/" in system.sh("ip -6 addr show dev eth0"), what="an IPv6 address"
    )
    wait_until(lambda: system.sh("ip route show default").split()[2:3] == [nic.ipv4_gateway], what="a way out")
    wait_until(lambda: f"nameserver {nic.ipv4_gateway}" in system.sh("cat /etc/resolv.conf"), what="names")
    assert system.sh("hostname") == system.spec.name


@contextlib.contextmanager
def signed_in(system: System, session: str = "console", place: str = "/dev/console") -> Iterator[Terminal]:
    """Sign in as root on the console, or on another terminal, by a password. place: what it is inside."""
    hashed = subprocess.run(["openssl", "passwd", "-6", PASSWORD], check=True, capture_output=True, text=True).stdout
    system.sh(f"sed -i 's|^root:[^:]*:|root:{hashed.strip()}:|' /etc/shadow")
    console = Terminal(system.host.supervisor_socket(system.spec.id))
    try:
        console.open(session=session)
        console.type("\n")
        console.expect(f"{system.spec.name} login:")
        console.type("root\n")
        console.expect("Password:")
        console.type(f"{PASSWORD}\n")
        console.expect("# ")
        console.type("echo I am $(id -un) on $(tty) with $((6 * 7))\n")
        console.expect(f"I am root on {place}")
        yield console
    finally:
        console.socket.close()


def logins_are_everywhere(system: System) -> None:
    """Sign in on the first and on the last of its terminals, too."""
    for number in sorted({1, system.spec.console.ttys}):
        with signed_in(system, f"tty{number}", "/dev/") as terminal:
            terminal.type("exit\n")


def stops_and_starts(system: System) -> None:
    """Stop it as the panel does, and see that its own shutdown ended it, in the time that there is."""
    ended = running.stop(system.host, system.spec.id, timeout_sec=patient(HALT_SEC))
    assert ended.reason == "stopped", system.console[-1000:]


def powers_off(system: System) -> None:
    system.ended_by("poweroff")
    wait_until(lambda: running.observe(system.host)[system.spec.id].status is Status.STOPPED, what="it is off")
    assert running.observe(system.host)[system.spec.id].last_exit.reason == "poweroff"


def reboots(system: System, up: Callable[[], None]) -> None:
    before = system.pid
    system.ended_by("reboot")
    wait_until(lambda: system.pid not in (0, before), what="another init")
    up()


SYSTEMD = "debian-12 debian-13 sid".split()
OTHERS = "debian-12-sysvinit debian-12-openrc".split()


def systemd_is_up(system: System) -> None:
    states = ("running", "degraded")
    wait_until(lambda: system.sh("systemctl is-system-running") in states, 120, "systemd is up")
    assert system.sh("systemctl --failed --no-legend") == "", system.sh("journalctl -b -p warning --no-pager")
    assert system.sh("systemctl is-system-running") == "running"


@pytest.mark.lxc(
    "Debian 12, 13 and sid: no failed unit; DHCP, journal, scopes, a login with its session, reboot and halt",
    "L#2342",
    "L#1085",
)
@pytest.mark.parametrize(
    "privileged", [False, pytest.param(True, marks=pytest.mark.distributions)], ids=["unprivileged", "privileged"]
)
@pytest.mark.parametrize(
    "image", [pytest.param(one, marks=[] if one == "debian-13" else pytest.mark.distributions) for one in SYSTEMD]
)
def test_systemd(system: Callable[..., System], image: str, *, privileged: bool) -> None:
    made = system(image, privileged=privileged)
    systemd_is_up(made)
    assert made.sh("systemd-detect-virt") == "lxc"
    address_is_there(made)

    # the journal
    assert made.sh("journalctl -b -p err -q --no-pager") == ""
    made.sh("logger -t boxroom said so")
    wait_until(lambda: "said so" in made.sh("journalctl -b -t boxroom -o cat -q --no-pager"), what="the journal has it")

    # control groups of its own making
    scope = "systemd-run -q --scope -p TasksMax=33 --unit=mine cat /proc/self/cgroup"
    assert "mine.scope" in made.sh(scope)
    confined = (
        "systemd-run -q --wait --pipe -p DynamicUser=yes -p PrivateTmp=yes -p ProtectSystem=strict -p MemoryMax=1G"
    )
    assert made.sh(f"{confined} echo confined") == "confined", made.sh("journalctl -b -n 30 --no-pager")
    assert made.sh("systemctl is-system-running") == "running"

    # a login, which is a session with a manager of its own
    with signed_in(made) as console:
        console.type("loginctl --no-legend list-sessions | cat\n")
        console.expect("console")
        console.type("echo its manager is $(systemctl --user is-system-running --wait)\n")
        console.expect("its manager is running")
        console.type("echo $(systemd-run -q --user --scope -- echo a scope) of its own\n")
        console.expect("a scope of its own")
        console.type("exit\n")
    logins_are_everywhere(made)

    reboots(made, lambda: systemd_is_up(made))
    stops_and_starts(made)
    made.start()
    systemd_is_up(made)
    powers_off(made)


@pytest.mark.lxc("sysvinit and OpenRC hear SIGPWR, not systemd's signal", "D#2947", "lxc.signal.halt")
@pytest.mark.distributions
@pytest.mark.parametrize("privileged", [False, True], ids=["unprivileged", "privileged"])
@pytest.mark.parametrize("image", OTHERS)
def test_sysvinit(system: Callable[..., System], image: str, *, privileged: bool) -> None:
    made = system(image, privileged=privileged)

    def up() -> None:
        wait_until(lambda: made.sh("runlevel").split()[-1:] == ["2"], what="its runlevel")
        wait_until(lambda: "login:" in made.console, what="a login")

    up()
    assert made.sh("cat /proc/1/comm") == "init"
    address_is_there(made)
    assert not re.search(r"(?i)\bfail|\berror|cannot|denied|not permitted", made.console), made.console
    with signed_in(made) as console:
        console.type("exit\n")
    logins_are_everywhere(made)
    reboots(made, up)
    stops_and_starts(made)
    made.spec = dataclasses.replace(made.spec, console=Consoles(ttys=2))
    made.start()
    up()
    offered = "ps ax -o args= | sed -n 's/.*agetty.* \\(tty[0-9]*\\) .*/\\1/p' | sort"
    wait_until(lambda: made.sh(offered).split() == ["tty1", "tty2"], what="a login on each terminal that there is")
    powers_off(made)


@pytest.mark.lxc("busybox: DHCP, login, reboot and halt in time", "D#2081", "lxc.signal.halt")
@pytest.mark.parametrize("privileged", [False, True], ids=["unprivileged", "privileged"])
def test_busybox(system: Callable[..., System], *, privileged: bool) -> None:
    made = system("busybox", privileged=privileged)

    def up() -> None:
        wait_until(lambda: "getty" in made.sh("ps -o args"), what="a login")

    up()
    address_is_there(made)
    with signed_in(made) as console:
        console.type("exit\n")
    reboots(made, up)
    stops_and_starts(made)
    made.start()
    up()
    powers_off(made)
