"""NICs of every type in real containers, on a host that is a network namespace of the test's own."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from containers.core import images
from containers.core.errors import (
    CoreError,
    HostUnsupported,
    InUse,
    InvalidTransition,
    NotFound,
    PolicyDenied,
    SetupFailed,
)
from containers.core.failpoints import MARKER, VARIABLE
from containers.core.host import Host
from containers.core.hoststore import store
from containers.core.kernel import halt, rtnetlink
from containers.core.lifecycle import leaks, replugging, running, runs
from containers.core.model import subnets
from containers.core.model.hooks import Call, Hook
from containers.core.model.network_config import NetworkConfig, plain
from containers.core.model.nics import Nic
from containers.core.model.spec import Spec
from containers.core.network import bridge, dnsmasq, lending, networks, nft, nftrun, rates
from containers.core.plans.extras import Extras
from containers.core.proc.records import RunFile
from containers.operations import facts
from containers.ticker.cards import Cards

from .. import debian
from .netns import LEASE_SCRIPT, PATIENT, Place, reaches_from, run, set_netns
from .patience import patient, wait_until
from .test_exec_basics import execute

CARD_MAC = "02:11:22:33:44:55"
PARENTS = {"lan": "card0"}
REBOOTS = """#!/bin/sh
test -e /rebooted && exec /sbin/idle
touch /rebooted
while [ ! -e /go ]; do sleep 0.05; done
exec reboot -f
"""
"""An init that boots again once, when it is told to."""


@dataclass
class World:
    """The host's namespace, which this thread is in, with one network card, and what is at the card's other end."""

    host: Place
    beyond: Place
    places: list[Place] = field(default_factory=list)


@pytest.fixture
def world() -> Iterator[World]:
    own_fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    made = World(Place(), Place())
    set_netns(made.host.netns_fd)
    try:
        run(f"ip link add card0 type veth peer name far0; ip link set far0 netns {made.beyond.process.pid}")
        run(f"ip link set card0 address {CARD_MAC} mtu 1400; ip link property add dev card0 altname enp9card")
        run("ip addr add 203.0.113.1/24 dev card0; ip addr add 2001:db8:1::1/64 dev card0 nodad; ip link set card0 up")
        made.beyond.run("ip addr add 203.0.113.2/24 dev far0")
        made.beyond.run("ip addr add 2001:db8:1::2/64 dev far0 nodad")
        made.beyond.run("ip link set far0 up")
        yield made
    finally:
        set_netns(own_fd)
        os.close(own_fd)
        for place in (made.host, made.beyond, *made.places):
            place.close()


@pytest.fixture
def host(world: World, host: Host) -> Iterator[Host]:
    """The instance, whose launcher was started in the host's namespace; nothing of it is left there."""
    yield host
    for container_id in store.container_ids(host):
        running.stop(host, container_id, kill=True)
    networks.remove_all(host)
    assert lending.borrowers(host) == {}
    assert lending.pins(host) == []
    assert f"vb{host.instance}" not in run("ip -o link")
    assert run("ip neigh show proxy") == ""
    assert nftrun.listing("tables") == []


Begin = Callable[..., Spec]


@pytest.fixture
def begin(host: Host, container: Callable[..., Spec]) -> Begin:
    """Return a function that makes and starts a container with these NICs."""

    def start(*nics: Nic, **changes: object) -> Spec:
        slot = len(store.container_ids(host)) + 1
        own = [dataclasses.replace(nic, host_link=host.veth_name(slot, nic.index)) if nic.type in ("bridge", "routed")
               else nic for nic in nics]  # fmt: skip
        spec = container(nics=tuple(own), slot=slot, **changes)
        spec.check()
        networks.register(host, spec)
        running.start(host, spec, network=networks.Port(host, PARENTS))
        return spec

    return start


def inside(host: Host, spec: Spec, command: str, *, check: bool = True) -> str:
    return run(f"nsenter -t {pid_of(host, spec)} -n {command}", check=check)


def pid_of(host: Host, spec: Spec) -> int:
    found = RunFile.read(host.run_path(spec.id))
    assert found is not None
    return found.init.pid


def reaches(host: Host, spec: Spec, address: str, *options: str, tries: int = 1) -> bool:
    """Whether an echo comes back; see Place.reaches."""
    return reaches_from(lambda command, check: inside(host, spec, command, check=check), address, *options, tries=tries)


def reached(host: Host, spec: Spec, address: str, *options: str) -> bool:
    """Whether an echo comes back that is expected."""
    return reaches(host, spec, address, *options, tries=PATIENT)


def boots_again(host: Host, spec: Spec) -> None:
    """Have a container boot again whose init is REBOOTS; returns when the next init runs."""
    first = pid_of(host, spec)
    Path(f"/proc/{first}/root/go").touch()
    wait_until(lambda: pid_of(host, spec) != first, what="another init")


def card() -> dict[str, object]:
    """Return the host's network card as a test compares it."""
    found = json.loads(run("ip -j -d addr show card0"))[0]
    return {
        "address": found["address"],
        "mtu": found["mtu"],
        "altnames": found.get("altnames"),
        "up": "UP" in found["flags"],
        "addresses": [f"{one['local']}/{one['prefixlen']}" for one in found["addr_info"] if one["scope"] == "global"],
    }


AS_IT_WAS = {
    "address": CARD_MAC,
    "mtu": 1400,
    "altnames": ["enp9card"],
    "up": True,
    "addresses": ["203.0.113.1/24", "2001:db8:1::1/64"],
}


def phys(**changes: object) -> Nic:
    return Nic(**{"name": "eth0", "type": "phys", "parent": "lan", **changes})  # type: ignore[arg-type]


def macvlan(number: int = 1, **changes: object) -> Nic:
    mac = f"02:00:00:00:01:{number:02x}"
    values = {"name": "eth0", "type": "macvlan", "parent": "lan", "mode": "bridge", "mac": mac,
              "ipv4": f"203.0.113.{10 + number}/24", "ipv4_gateway": "203.0.113.2"}  # fmt: skip
    return Nic(**{**values, **changes})  # type: ignore[arg-type]


def routed_nic(**changes: object) -> Nic:
    values = {"name": "eth0", "type": "routed", "parent": "lan", "mac": "02:00:00:00:02:01", "host_link": "x",
              "ipv4": "203.0.113.77/32", "ipv4_gateway": "auto", "ipv6": "2001:db8:1::77/128",
              "ipv6_gateway": "auto"}  # fmt: skip
    return Nic(**{**values, **changes})  # type: ignore[arg-type]


def test_a_hook_of_the_end_still_finds_the_link_and_nobody_after_it(
    host: Host, container: Callable[..., Spec], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    links = {"hooked": host.veth_name(1, 0), "plain": host.veth_name(2, 0)}
    host.hooks_dir.mkdir(exist_ok=True, mode=0o700)
    note = host.hooks_dir / "note"
    note.write_text(f"#!/bin/sh\nip link show {links['hooked']} >/dev/null 2>&1; echo $3 $? >>{log}\n")
    note.chmod(0o700)
    points = ("stop", "post-stop")
    for slot, (name, link) in enumerate(links.items(), 1):
        nic = routed_nic(host_link=link)
        wanted = points if name == "hooked" else ()
        spec = container(nics=(nic,), slot=slot, name=name, hooks=tuple(Hook(point=one, hook="note") for one in wanted))
        networks.register(host, spec)
        extras = Extras(hooks=tuple(Call(point=one, hook="note") for one in wanted))
        running.start(host, spec, network=networks.Port(host, PARENTS), extras=extras)
        assert link in run("ip -o link")
        running.stop(host, spec.id, kill=True)
        assert link not in run("ip -o link")
    assert log.read_text().splitlines() == ["stop 0", "post-stop 1"]


@pytest.fixture
def lans(host: Host) -> list[NetworkConfig]:
    """Two networks of the panel's."""
    made: list[NetworkConfig] = []
    for number, name in enumerate(("default", "backend")):
        chosen = networks.choose_subnets(host, [net for one in made for net in one.subnets()], seed=name)
        made.append(NetworkConfig(name=name, number=number, ipv4=chosen.ipv4, ipv6=chosen.ipv6))
        networks.ensure(host, made[-1], made, [])
    return made


def bridge_nic(host: Host, config: NetworkConfig, index: int = 0, owner: str = "a", **changes: object) -> Nic:
    nic = subnets.plan_nic(
        host, config, container_id=f"{owner}{index}", slot=1, taken=(), index=index, name=f"eth{index}"
    )
    return dataclasses.replace(nic, **changes)  # type: ignore[arg-type]


# -- cards that are lent ----------------------------------------------------------------------------------------------


def mistreat(host: Host, spec: Spec) -> None:
    """Do to a lent card what root in the container may do."""
    inside(host, spec, "ip link set eth0 down")
    inside(host, spec, "ip link set eth0 name mine0 mtu 900 address 02:00:00:00:00:99")
    inside(host, spec, "ip link property del dev mine0 altname enp9card")
    inside(host, spec, "ip link property add dev mine0 altname stolen")


@pytest.mark.parametrize("privileged", [False, True])
def test_a_card_is_in_the_container_alone_while_it_runs(host: Host, begin: Begin, *, privileged: bool) -> None:
    spec = begin(phys(ipv4="203.0.113.9/24", ipv4_gateway="203.0.113.2", mtu=1300), privileged=privileged)
    assert "card0" not in run("ip -br link")
    told = inside(host, spec, "ip addr show eth0")
    assert "mtu 1300" in told
    assert "inet 203.0.113.9/24" in told
    assert "default via 203.0.113.2 dev eth0" in inside(host, spec, "ip route")
    assert reached(host, spec, "203.0.113.2")
    running.stop(host, spec.id, kill=True)
    assert card() == AS_IT_WAS


@pytest.mark.parametrize("how", ["stop", "kill", "supervisor killed", "halt inside"])
def test_a_card_is_given_back_as_it_was(host: Host, begin: Begin, how: str) -> None:
    spec = begin(phys())
    mistreat(host, spec)
    found = RunFile.read(host.run_path(spec.id))
    assert found is not None
    if how == "supervisor killed":
        os.kill(found.supervisor.pid, signal.SIGKILL)
        wait_until(lambda: running.sweep(host) or card_is_home(), what="the reconciler gives it back")
    elif how == "halt inside":
        term = halt.Choice(signal.SIGTERM, sure=True)
        wait_until(lambda: halt.choose_for(found.init.pid) == term, what="init catches SIGTERM")
        os.kill(found.init.pid, signal.SIGTERM)
    else:
        running.stop(host, spec.id, timeout_sec=patient(60), kill=how == "kill")
    wait_until(card_is_home)
    wait_until(lambda: card() == AS_IT_WAS, what="the card is as it was")
    assert "stolen" not in run("ip link show card0")


@pytest.mark.parametrize("name", ["uplink0", "card0"])
def test_a_card_that_was_called_as_a_link_of_the_hosts_comes_home(host: Host, begin: Begin, name: str) -> None:
    """Root inside may give it any further name: one of another link there, or the one that it had itself."""
    run("ip link add uplink0 type bridge")
    spec = begin(phys())
    inside(host, spec, f"ip link property add dev eth0 altname {name}")
    running.stop(host, spec.id, kill=True)
    assert card() == AS_IT_WAS
    assert lending.borrowers(host) == {}


def test_a_supervisor_that_ends_between_two_looks_is_told_of_once(
    host: Host, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep looks at all run files, and then at who was lent a card: whoever it buries there is told as well."""
    spec = begin(phys())
    found = RunFile.read(host.run_path(spec.id))
    assert found is not None
    os.kill(found.supervisor.pid, signal.SIGKILL)
    wait_until(lambda: not runs.look(host, spec.id)[1], what="it is gone")
    looks = []

    def late(of: Host, container_id: str) -> tuple[RunFile | None, bool]:
        looks.append(container_id)
        return (found, True) if len(looks) == 1 else real(of, container_id)

    real = runs.look
    monkeypatch.setattr(runs, "look", late)
    assert running.sweep(host) == (spec.id,)
    assert running.sweep(host) == ()
    assert card() == AS_IT_WAS


def test_what_a_change_had_put_in_goes_with_a_killed_supervisor(
    host: Host, begin: Begin, lans: list[NetworkConfig]
) -> None:
    """The host's side of a NIC that no stored configuration names yet; the kernel would take it at its own time."""
    spec = begin(bridge_nic(host, lans[0], static=True))
    link = host.veth_name(spec.slot, 1)
    other = host.veth_name(spec.slot + 16, 0)
    run(f"ip link add {link} type veth peer name stays0")
    run(f"ip link add {other} type veth peer name stays1")
    try:
        found = RunFile.read(host.run_path(spec.id))
        assert found is not None
        os.kill(found.supervisor.pid, signal.SIGKILL)
        wait_until(lambda: running.sweep(host), what="the reconciler clears away")
        names = {name for _index, name in socket.if_nameindex()}
        assert link not in names
        assert other in names, "it is of another container"
    finally:
        for name in ("stays0", "stays1"):
            subprocess.run(["ip", "link", "delete", name], check=False, capture_output=True)


def card_is_home() -> bool:
    return re.search(r"^card0\b", run("ip -br link"), re.MULTILINE) is not None


def test_lxc_4409_a_card_that_is_a_veth_survives_a_start_that_fails(host: Host, begin: Begin) -> None:
    with pytest.raises(SetupFailed):
        begin(phys(), init_command=("/sbin/nothing",))
    assert card() == AS_IT_WAS
    assert lending.pins(host) == []


def test_a_start_that_fails_at_the_second_nic_gives_the_first_back(host: Host, begin: Begin) -> None:
    with pytest.raises(PolicyDenied):
        begin(phys(), macvlan(2, name="eth1", index=1, parent="other"))
    assert card() == AS_IT_WAS


def test_a_card_moves_over_when_its_container_reboots(host: Host, layer: str, begin: Begin) -> None:
    script = store.rootfs(host, layer) / "sbin/again"
    script.write_text(REBOOTS)
    script.chmod(0o755)
    spec = begin(phys(ipv4="203.0.113.9/24"), init_command=("/sbin/again",), privileged=True)
    boots_again(host, spec)
    assert "inet 203.0.113.9/24" in inside(host, spec, "ip addr show eth0")
    assert reached(host, spec, "203.0.113.2")
    assert len(lending.pins(host)) == 1
    running.stop(host, spec.id, kill=True)
    assert card() == AS_IT_WAS


def test_a_card_is_lent_to_one_at_a_time_and_not_from_below_others(host: Host, begin: Begin) -> None:
    spec = begin(phys())
    with pytest.raises(InUse):
        begin(phys(mac="02:00:00:00:00:08"))
    running.stop(host, spec.id, kill=True)
    run("ip link add link card0 name above0 type macvlan")
    with pytest.raises(InUse):
        begin(phys(mac="02:00:00:00:00:07"))
    run("ip link del above0")
    run("ip link set card0 name gone0 2>/dev/null || (ip link set card0 down; ip link set card0 name gone0)")
    with pytest.raises(NotFound):
        begin(phys())
    run("ip link set gone0 name card0; ip link set card0 up")


def test_a_card_whose_name_was_taken_meanwhile_comes_back_under_another(host: Host, begin: Begin) -> None:
    spec = begin(phys())
    run("ip link add card0 type bridge")
    running.stop(host, spec.id, kill=True)
    links = json.loads(run("ip -j -d link"))
    back = [link for link in links if link["address"] == CARD_MAC]
    assert [link["ifname"].startswith("bxcard0") for link in back] == [True]
    run("ip link del card0")


LENDS = """
import os, sys
sys.path.insert(0, {project!r})
from containers.core.host import Host
from containers.core.network import lending
from pathlib import Path
host = Host.open(Path({state!r}))
fd = os.open("/proc/{pid}/ns/net", os.O_RDONLY)
{call}
"""


@pytest.mark.parametrize("place", ["lend.written", "lend.pinned", "lend.moved"])
def test_whoever_lends_may_be_killed_at_any_step(host: Host, world: World, place: str) -> None:
    world.places.append(Place())
    _killed(host, world.places[-1], place, "lending.lend(host, 'a' * 12, fd, nic=0, link='card0', inside='eth0')")
    assert lending.borrowers(host).keys() == {"a" * 12}
    running.sweep(host)
    assert card() == AS_IT_WAS
    assert running.sweep(host) == ()


def test_whoever_gives_back_may_be_killed_too(host: Host, world: World) -> None:
    world.places.append(Place())
    lending.lend(host, "a" * 12, world.places[-1].netns_fd, nic=0, link="card0", inside="eth0")
    _killed(host, world.places[-1], "give-back.moved", "lending.give_back(host, 'a' * 12)")
    assert card_is_home()
    running.sweep(host)
    assert card() == AS_IT_WAS


def _killed(host: Host, place: Place, failpoint: str, call: str) -> None:
    (host.state_dir / MARKER).touch(mode=0o600)
    project = str(Path(__file__).resolve().parents[2])
    program = LENDS.format(project=project, state=str(host.state_dir), pid=place.process.pid, call=call)
    done = subprocess.run(
        [sys.executable, "-B", "-c", program], env={**os.environ, VARIABLE: f"{failpoint}=kill9"}, check=False
    )
    assert done.returncode == -signal.SIGKILL


def test_fsck_knows_what_was_lent_and_gives_it_back(host: Host, world: World) -> None:
    world.places.append(Place())
    lending.lend(host, "a" * 12, world.places[-1].netns_fd, nic=0, link="card0", inside="eth0")
    found = leaks.find(host)
    assert [(leak.kind, leak.name) for leak in found] == [("lent", "a" * 12)]
    assert leaks.repair(host, found) == []
    assert leaks.find(host) == []
    assert card() == AS_IT_WAS


# -- links on a card --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "privileged"),
    [("private", False), ("vepa", False), ("bridge", False), ("bridge", True), ("passthru", False)],
)
def test_macvlan_in_its_modes(host: Host, begin: Begin, mode: str, *, privileged: bool) -> None:
    spec = begin(macvlan(mode=mode), privileged=privileged)
    assert f"macvlan mode {mode}" in inside(host, spec, "ip -d link show eth0")
    assert "default via 203.0.113.2 dev eth0" in inside(host, spec, "ip route")
    assert reached(host, spec, "203.0.113.2", "-s", "1000")
    assert min(Cards(host).carried(spec.id)) > 1000
    if mode in ("private", "bridge"):
        other = begin(macvlan(2, mode=mode))
        assert (reached if mode == "bridge" else reaches)(host, spec, "203.0.113.12") is (mode == "bridge")
        running.stop(host, other.id, kill=True)


def test_the_dhcp_of_the_image_busybox_leaves_addresses_that_are_set(
    host: Host, begin: Begin, lans: list[NetworkConfig]
) -> None:
    """It runs on each card, and tells those names alone; without a server on a card it goes on asking there."""
    built = images.build(host, "busybox", {"type": "busybox"})
    bridged = bridge_nic(host, lans[0], 1, static=True, ipv4_gateway=None)
    spec = begin(
        routed_nic(),
        bridged,
        layers=built.layers[:1],
        init_command=("/sbin/init",),
        halt_signal="SIGINT",
    )
    root = Path(f"/proc/{pid_of(host, spec)}/root")
    wait_until(lambda: (root / "run/udhcpc.eth0.pid").exists(), what="a client on the first")
    # a lease on the second comes later than the first's beginning
    names = f"nameserver {plain(lans[0].ipv4 or '')}"
    wait_until(lambda: names in run(f"cat {root}/etc/resolv.conf", check=False), what="names")
    assert "inet 203.0.113.77/32" in inside(host, spec, "ip addr show eth0")
    assert f"inet {bridged.ipv4}" in inside(host, spec, "ip addr show eth1")
    assert "default via 169.254.0.1 dev eth0" in inside(host, spec, "ip route")
    assert reached(host, spec, "203.0.113.2")


@pytest.fixture
def trixie() -> None:
    """Debian 13, made while there is still another network than a test's."""
    debian.cached("debian-13")


@pytest.mark.distributions
@pytest.mark.usefixtures("trixie")
def test_a_dhcp_client_that_nobody_answers_leaves_what_is_set(host: Host, begin: Begin, settings: Any) -> None:
    """Debian 13's dhcpcd, on a routed interface: it goes on for a quarter of a minute."""
    settings.BOXROOM_RUN_DIR = host.run_dir
    built = debian.put(host, "debian-13")
    init = tuple(built.defaults["init_command"])
    spec = begin(routed_nic(), layers=built.layers[:1], init_command=init, halt_signal="SIGRTMIN+3")

    def gave_up() -> bool:
        with contextlib.suppress(CoreError):
            log = execute(spec.id, ["journalctl", "-b", "--no-pager", "-t", "dhcpcd"])
            return b"no IPv6 Routers available" in log.stdout
        return False

    wait_until(gave_up, 60, "its client gives up")
    assert "default via 169.254.0.1 dev eth0" in inside(host, spec, "ip route")
    assert "203.0.113.77/32" in inside(host, spec, "ip -4 -o addr show eth0")
    assert " 169.254." not in inside(host, spec, "ip -4 -o addr show eth0")
    assert reached(host, spec, "203.0.113.2")


@pytest.mark.parametrize("modes", [("passthru", "bridge"), ("private", "passthru"), ("passthru", "passthru")])
def test_a_card_in_the_mode_passthru_is_ones_alone(host: Host, begin: Begin, modes: tuple[str, str]) -> None:
    begin(macvlan(mode=modes[0]))
    with pytest.raises(InUse, match="passthru") as refused:
        begin(macvlan(2, mode=modes[1]))
    assert refused.value.details["users"] == ["card0"]


def test_a_gateway_outside_of_the_subnet_and_none_but_the_link(host: Host, begin: Begin) -> None:
    spec = begin(
        macvlan(ipv4="198.51.100.7/32", ipv4_gateway="203.0.113.2"),
        macvlan(2, index=1, name="eth1", ipv4=None, ipv4_gateway=None, ipv6="2001:db8:2::7/64", ipv6_gateway="dev"),
    )
    told = inside(host, spec, "ip route")
    assert "default via 203.0.113.2 dev eth0" in told
    assert "203.0.113.2 dev eth0" in told
    assert "default dev eth1" in inside(host, spec, "ip -6 route")


def test_a_gateway_that_is_changed_leaves_no_way_to_the_former_one(host: Host, begin: Begin) -> None:
    nic = macvlan(ipv4="198.51.100.7/32", ipv4_gateway="203.0.113.2")
    spec = begin(nic)
    assert "203.0.113.2" in inside(host, spec, "ip route")
    spec = replug(host, spec, dataclasses.replace(nic, ipv4_gateway="dev"))
    told = inside(host, spec, "ip route")
    assert "default dev eth0" in told
    assert "203.0.113.2" not in told
    spec = replug(host, spec, nic)
    assert "default via 203.0.113.2 dev eth0" in inside(host, spec, "ip route")


def test_the_hosts_own_addresses_that_could_be_given_away_are_told(host: Host) -> None:
    """For the web, which chooses a routed interface's address."""
    assert facts.of(host)["routed_own"] == []
    rules = '[parents.lan]\nlink = "card0"\ntypes = ["routed"]\naddresses = ["203.0.113.0/24", "2001:db8:1::/64"]\n'
    host.policy_path.write_text(rules)
    assert sorted(facts.of(host)["routed_own"]) == ["2001:db8:1::1", "203.0.113.1"]


def test_the_gateway_auto_is_the_cards_own_address(host: Host, begin: Begin) -> None:
    spec = begin(macvlan(ipv4_gateway="auto"))
    assert "default via 203.0.113.1 dev eth0" in inside(host, spec, "ip route")


@pytest.mark.lxc("No address is in use at a fast restart", "D#8427")
def test_lxc_4694_no_address_in_use_at_a_fast_restart(host: Host, begin: Begin) -> None:
    spec = begin(macvlan())
    for _ in range(5):
        running.stop(host, spec.id, kill=True)
        running.start(host, spec, network=networks.Port(host, PARENTS))
    assert reached(host, spec, "203.0.113.2")
    found = RunFile.read(host.run_path(spec.id))
    assert found is not None
    os.kill(found.supervisor.pid, signal.SIGKILL)
    wait_until(lambda: running.sweep(host))
    running.start(host, spec, network=networks.Port(host, PARENTS))
    assert reached(host, spec, "203.0.113.2")


def test_static_links_of_all_kinds_survive_a_reboot(
    host: Host, layer: str, begin: Begin, lans: list[NetworkConfig]
) -> None:
    script = store.rootfs(host, layer) / "sbin/again"
    script.write_text(REBOOTS)
    script.chmod(0o755)
    spec = begin(
        bridge_nic(host, lans[0], static=True),
        macvlan(index=1, name="eth1", ipv4_gateway=None),
        routed_nic(index=2, name="eth2", ipv4_gateway=None, ipv6_gateway=None),
        init_command=("/sbin/again",),
        privileged=True,
    )
    boots_again(host, spec)
    assert f"inet {spec.nics[0].ipv4}" in inside(host, spec, "ip addr show eth0")
    assert f"default via {plain(lans[0].ipv4 or '')} dev eth0" in inside(host, spec, "ip route")
    assert reached(host, spec, "203.0.113.2", "-I eth1")
    assert "203.0.113.77/32" in inside(host, spec, "ip addr show eth2")
    assert reached(host, spec, plain(lans[0].ipv4 or ""))


@pytest.mark.parametrize(
    ("kind", "nic"),
    [
        ("ipvlan", Nic(name="eth0", type="ipvlan", parent="lan", mode="l2", ipv4="203.0.113.20/24")),
        ("vlan", Nic(name="eth0", type="vlan", parent="lan", vlan=7, ipv4="192.0.2.20/24")),
    ],
)
def test_ipvlan_and_vlan_where_the_kernel_has_them(host: Host, world: World, begin: Begin, kind: str, nic: Nic) -> None:
    option = "mode l2" if kind == "ipvlan" else "id 7"
    has = "no" not in run(f"ip link add link card0 name probe0 type {kind} {option} || echo no", check=False)
    if not has:
        with pytest.raises(HostUnsupported) as caught:
            begin(nic)
        assert caught.value.details["feature"] == kind
        return
    run("ip link del probe0")
    spec = begin(nic)
    assert f"{kind} " in inside(host, spec, "ip -d link show eth0")
    if kind == "vlan":
        world.beyond.run("ip link add link far0 name far0.7 type vlan id 7")
        world.beyond.run("ip addr add 192.0.2.2/24 dev far0.7")
        world.beyond.run("ip link set far0.7 up")
        assert reached(host, spec, "192.0.2.2")
    else:
        assert reached(host, spec, "203.0.113.2")
    running.stop(host, spec.id, kill=True)
    running.start(host, spec, network=networks.Port(host, PARENTS))


# -- routed -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("privileged", [False, True])
def test_a_routed_nic_is_found_by_the_cards_neighbours(
    host: Host, world: World, begin: Begin, *, privileged: bool
) -> None:
    spec = begin(routed_nic(routes=("198.51.100.0/28",)), privileged=privileged)
    link = spec.nics[0].host_link
    told = run("ip route")
    assert f"203.0.113.77 dev {link}" in told
    assert f"198.51.100.0/28 via 203.0.113.77 dev {link}" in told
    assert run("ip neigh show proxy").split("\n")[0].startswith("203.0.113.77 dev card0")
    # nobody beyond has a route: the host answers for the address
    assert world.beyond.reaches("203.0.113.77", tries=PATIENT)
    assert world.beyond.reaches("2001:db8:1::77", tries=PATIENT)
    assert reached(host, spec, "203.0.113.2")
    assert reached(host, spec, "2001:db8:1::2")
    running.stop(host, spec.id, kill=True)
    assert run("ip neigh show proxy") == ""
    assert "203.0.113.77" not in run("ip route")


def test_a_card_is_as_before_when_nobody_is_answered_for_on_it(host: Host, world: World) -> None:
    """Two containers are answered for; whoever begins or ends it may be killed; what somebody else has set stays."""
    settings = {"accept_ra": "1", "forwarding": "0", "proxy_ndp": "0"}
    where = Path("/proc/sys/net/ipv6/conf/card0")
    for key, value in settings.items():
        (where / key).write_text(value)

    def now() -> dict[str, str]:
        return {key: (where / key).read_text().strip() for key in settings}

    def call(name: str, owner: str, address: str) -> str:
        middle = "'card0', " if name == "answer_for" else ""
        return f"lending.{name}(host, {owner * 12!r}, {middle}[{address!r}])"

    world.places.append(Place())
    _killed(host, world.places[-1], "lend.settings", call("answer_for", "a", "2001:db8:1::7"))
    lending.answer_for(host, "b" * 12, "card0", ["203.0.113.8", "2001:db8:1::8"])
    assert now() == {"accept_ra": "2", "forwarding": "1", "proxy_ndp": "1"}
    lending.give_back(host, "a" * 12)
    assert now()["proxy_ndp"] == "1", "the other one is answered for"
    (where / "accept_ra").write_text("0")
    lending.stop_answering(host, "b" * 12, ["2001:db8:1::8"])
    assert now() == {**settings, "accept_ra": "0"}
    lending.give_back(host, "b" * 12)
    assert run("ip neigh show proxy") == ""
    assert not lending.borrowers(host)


def test_a_routed_nic_sends_from_its_own_addresses_only(host: Host, world: World, begin: Begin) -> None:
    world.beyond.run("ip route add 198.51.100.0/24 via 203.0.113.1")
    world.beyond.run("ip route add 2001:db8:3::/64 via 2001:db8:1::1")
    spec = begin(routed_nic())
    inside(host, spec, "ip addr add 198.51.100.9/32 dev eth0")
    inside(host, spec, "ip addr add 2001:db8:3::9/128 dev eth0 nodad")
    counted = "iifname card0 ip saddr 198.51.100.9"
    world.beyond.run("nft add table inet seen")
    world.beyond.run("nft 'add chain inet seen in { type filter hook prerouting priority -400 ; }'")
    world.beyond.run("nft add rule inet seen in ip saddr 198.51.100.9 counter")
    world.beyond.run("nft add rule inet seen in ip6 saddr 2001:db8:3::9 counter")
    assert not reaches(host, spec, "203.0.113.2", "-I 198.51.100.9")
    assert not reaches(host, spec, "2001:db8:1::2", "-I 2001:db8:3::9")
    told = world.beyond.run("nft list table inet seen")
    assert re.findall(r"packets (\d+)", told) == ["0", "0"], (counted, told)
    # the first question for the gateway may still be one from the wrong address
    assert reached(host, spec, "203.0.113.2", "-I 203.0.113.77")


def test_a_routed_nic_and_a_network_of_the_panels_are_apart(
    host: Host, begin: Begin, lans: list[NetworkConfig]
) -> None:
    spec = begin(routed_nic())
    other = begin(bridge_nic(host, lans[0], static=True, owner="b"))
    assert not reaches(host, spec, plain(other.nics[0].ipv4 or ""))
    assert not reaches(host, spec, "203.0.113.1"), "the host answers on its own side of the pair only"
    assert reached(host, spec, "169.254.0.1")


@pytest.mark.parametrize("gateway", ["203.0.113.2", "dev"])
def test_a_routed_nic_with_the_networks_own_gateway_or_none(
    host: Host, world: World, begin: Begin, gateway: str
) -> None:
    run("ip route add default via 203.0.113.2")
    world.beyond.run("ip addr add 192.0.2.1/32 dev lo")
    spec = begin(routed_nic(ipv4="203.0.113.77/24", ipv4_gateway=gateway, ipv6=None, ipv6_gateway=None))
    assert reached(host, spec, "203.0.113.2")
    assert reached(host, spec, "192.0.2.1")


def test_without_the_packet_filter_a_routed_nic_brings_it_along(host: Host, begin: Begin) -> None:
    spec = begin(routed_nic())
    running.stop(host, spec.id, kill=True)
    nft.remove_tables(host)
    running.start(host, spec, network=networks.Port(host, PARENTS))
    assert any("rule" in entry for entry in nftrun.listing("chain", "inet", host.nft_table, "source"))


# -- the host's own, and none ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("privileged", [False, True])
def test_lxc_2463_the_hosts_network_in_a_container(
    host: Host, container: Callable[..., Spec], *, privileged: bool
) -> None:
    spec = container(nics=(Nic(name="eth0", type="host"),), privileged=privileged)
    running.start(host, spec, network=networks.Port(host, PARENTS))
    pid = pid_of(host, spec)
    assert os.stat(f"/proc/{pid}/ns/net").st_ino == os.stat("/proc/thread-self/ns/net").st_ino
    assert os.path.isdir(f"/proc/{pid}/root/sys/fs/cgroup")
    assert os.path.exists(f"/proc/{pid}/root/sys/fs/cgroup/cgroup.procs")
    with pytest.raises(InvalidTransition):
        replugging.change(host, spec, dataclasses.replace(spec, nics=()), PARENTS)
    running.stop(host, spec.id, kill=True)
    assert card() == AS_IT_WAS


def test_without_any_nic_there_is_the_loopback(host: Host, begin: Begin) -> None:
    spec = begin()
    assert [link["ifname"] for link in json.loads(inside(host, spec, "ip -j link"))] == ["lo"]
    assert reached(host, spec, "127.0.0.1")


# -- several on the panel's networks ----------------------------------------------------------------------------------


def lease(host: Host, spec: Spec, link: str) -> str:
    script = host.state_dir / "lease.sh"
    script.write_text(LEASE_SCRIPT)
    script.chmod(0o755)
    return inside(host, spec, f"busybox udhcpc -i {link} -n -q -f -t 60 -T 1 -s {script}", check=False)


def test_several_nics_on_several_networks(host: Host, begin: Begin, lans: list[NetworkConfig]) -> None:
    front, back = (bridge_nic(host, lan, number) for number, lan in enumerate(lans))
    spec = begin(front, dataclasses.replace(back, ipv4_gateway=None))
    other = begin(bridge_nic(host, lans[1], owner="b"))
    for link in ("eth0", "eth1"):
        lease(host, spec, link)
    lease(host, other, "eth0")
    for link, nic in (("eth0", front), ("eth1", back)):
        assert f"inet {plain(nic.ipv4 or '')}/" in inside(host, spec, f"ip addr show {link}")
    routes = inside(host, spec, "ip route")
    assert f"default via {plain(lans[0].ipv4 or '')} dev eth0" in routes
    assert routes.count("default") == 1
    assert reached(host, spec, plain(other.nics[0].ipv4 or ""))
    # who asks on a network is told the address there
    answer = inside(host, other, f"busybox nslookup {spec.name} {plain(lans[1].ipv4 or '')}")
    assert f"Address: {plain(back.ipv4 or '')}" in answer


@pytest.mark.parametrize("which", [0, 1])
def test_each_nic_is_held_to_its_own_addresses(host: Host, begin: Begin, lans: list[NetworkConfig], which: int) -> None:
    nics = [bridge_nic(host, lan, number, static=True) for number, lan in enumerate(lans)]
    spec = begin(*nics)
    gateway = plain(lans[which].ipv4 or "")
    assert reached(host, spec, gateway, f"-I eth{which}")
    inside(host, spec, f"ip addr add {plain(nics[1 - which].ipv4 or '')}/32 dev eth{which}")
    assert not reaches(host, spec, gateway, f"-I {plain(nics[1 - which].ipv4 or '')} -I eth{which}")
    inside(host, spec, f"ip link set eth{which} address {nics[1 - which].mac[:-2]}fe")
    assert not reaches(host, spec, gateway, f"-I eth{which}")


# -- while it runs ----------------------------------------------------------------------------------------------------


def replug(host: Host, spec: Spec, *nics: Nic) -> Spec:
    own = [dataclasses.replace(nic, host_link=host.veth_name(spec.slot, nic.index)) if nic.type in ("bridge", "routed")
           else nic for nic in nics]  # fmt: skip
    after = dataclasses.replace(spec, nics=tuple(own))
    after.check()
    assert replugging.change(host, spec, after, PARENTS)
    store.save(host, after)
    networks.register(host, after)
    return after


@pytest.mark.parametrize("privileged", [False, True])
def test_nics_come_and_go_while_it_runs(
    host: Host, begin: Begin, lans: list[NetworkConfig], *, privileged: bool
) -> None:
    front, back = (bridge_nic(host, lan, number, static=True) for number, lan in enumerate(lans))
    spec = begin(front, privileged=privileged)
    spec = replug(host, spec, front, back, macvlan(index=2, name="lan0", ipv4_gateway=None))
    assert reached(host, spec, plain(lans[1].ipv4 or ""))
    assert reached(host, spec, "203.0.113.2", "-I lan0")
    spec = replug(host, spec, back)
    assert "eth0" not in inside(host, spec, "ip -br link")
    assert "lan0" not in inside(host, spec, "ip -br link")
    assert reached(host, spec, plain(lans[1].ipv4 or ""))
    assert not any(front.mac in element for _set, element in nft.elements(host))
    assert front.mac not in (dnsmasq.directory(host) / "reservations" / spec.id).read_text()
    spec = replug(host, spec)
    assert [link["ifname"] for link in json.loads(inside(host, spec, "ip -j link"))] == ["lo"]
    spec = replug(host, spec, front)
    assert reached(host, spec, plain(lans[0].ipv4 or ""))
    running.stop(host, spec.id, kill=True)
    assert leaks.find(host, lans) == []


def test_a_card_comes_and_goes_while_it_runs(host: Host, begin: Begin) -> None:
    spec = begin()
    cards = Cards(host)
    assert cards.carried(spec.id) == (0, 0)
    spec = replug(host, spec, phys(name="eth5"))
    assert "eth5" in inside(host, spec, "ip -br link show up")
    cards.forget(())
    assert cards.carried(spec.id) == (0, 0)  # what it carried before is not the container's
    inside(host, spec, "ip addr add 203.0.113.9/24 dev eth5")
    assert reached(host, spec, "203.0.113.2", "-s", "1000")
    assert all(1000 <= bytes_ < 50_000 for bytes_ in cards.carried(spec.id))
    mistreat_name(host, spec)
    spec = replug(host, spec)
    assert card() == AS_IT_WAS
    spec = replug(host, spec, phys(name="eth5"))
    running.stop(host, spec.id, kill=True)
    assert card() == AS_IT_WAS


def mistreat_name(host: Host, spec: Spec) -> None:
    inside(host, spec, "ip link set eth5 down")
    inside(host, spec, "ip link set eth5 name other0 mtu 1000")


def test_a_nic_is_changed_in_place_and_stays_the_link_it_is(
    host: Host, begin: Begin, lans: list[NetworkConfig]
) -> None:
    nic = bridge_nic(host, lans[0], static=True)
    spec = begin(nic)
    before = json.loads(inside(host, spec, "ip -j link show eth0"))[0]["ifindex"]
    gateway = plain(lans[0].ipv4 or "")
    other = subnets.choose_address(lans[0].ipv4 or "", [nic.ipv4 or ""])
    spec = replug(host, spec, dataclasses.replace(nic, ipv4=f"{other}/22", mtu=1300, ipv4_gateway=None))
    told = json.loads(inside(host, spec, "ip -j addr show eth0"))[0]
    assert told["ifindex"] == before
    assert told["mtu"] == 1300
    assert [one["local"] for one in told["addr_info"] if one["family"] == "inet"] == [other]
    assert "default" not in inside(host, spec, "ip route")
    assert reached(host, spec, gateway)
    spec = replug(host, spec, nic)
    assert json.loads(inside(host, spec, "ip -j link show eth0"))[0]["mtu"] == 1500
    assert f"default via {gateway}" in inside(host, spec, "ip route")
    assert reached(host, spec, gateway)


@pytest.mark.parametrize("kind", ["macvlan", "phys"])
def test_a_nic_on_a_card_is_changed_in_place_and_has_the_cards_again(host: Host, begin: Begin, kind: str) -> None:
    """Its MTU where none is asked for, and the gateway "auto", which is the card's own address."""
    nic = macvlan(ipv4_gateway="auto", mtu=1300) if kind == "macvlan" else phys(ipv4="203.0.113.9/24", mtu=1300)
    spec = begin(nic)
    spec = replug(host, spec, dataclasses.replace(nic, mtu=None))
    assert json.loads(inside(host, spec, "ip -j link show eth0"))[0]["mtu"] == 1400
    assert reached(host, spec, "203.0.113.2")
    if kind == "macvlan":
        assert [one["gateway"] for one in json.loads(inside(host, spec, "ip -j route show default"))] == ["203.0.113.1"]
        spec = replug(host, spec, dataclasses.replace(nic, mtu=None, ipv4_gateway=None))
        assert inside(host, spec, "ip route show default") == ""
    running.stop(host, spec.id, kill=True)
    assert card_is_home()
    assert card() == AS_IT_WAS


def test_what_cannot_be_put_in_leaves_all_as_it_was(host: Host, begin: Begin, lans: list[NetworkConfig]) -> None:
    nic = bridge_nic(host, lans[0], static=True)
    spec = begin(nic)
    after = dataclasses.replace(spec, nics=(macvlan(index=1, name="eth1"), macvlan(2, index=2, name="x0", parent="no")))
    with pytest.raises(PolicyDenied):
        replugging.change(host, spec, after, PARENTS)
    assert {link["ifname"] for link in json.loads(inside(host, spec, "ip -j link"))} == {"lo", "eth0"}
    assert reached(host, spec, plain(lans[0].ipv4 or ""))
    running.stop(host, spec.id, kill=True)
    assert leaks.find(host, lans) == []


def test_a_stopped_container_has_nothing_to_change(host: Host, container: Callable[..., Spec]) -> None:
    spec = container()
    assert not replugging.change(host, spec, dataclasses.replace(spec, nics=(macvlan(),)), PARENTS)


REPLUGS = """
import dataclasses, sys
sys.path.insert(0, {project!r})
from pathlib import Path
from containers.core import images
from containers.core.hoststore import store
from containers.core.host import Host
from containers.core.lifecycle import replugging
from containers.core.model.spec import Spec
from containers.ticker.cards import Cards
host = Host.open(Path({state!r}))
after = Spec.from_json(Path({after!r}).read_text())
replugging.change(host, store.load(host, after.id), after, {parents!r})
"""


@pytest.mark.parametrize(
    ("place", "then"),
    [
        *((place, "again") for place in ("replug.told", "replug.taken", "plug.pairs", "lend.moved", "replug.done")),
        ("lend.moved", "stop"),
        ("replug.put", "supervisor killed"),
    ],
)
def test_whoever_changes_nics_may_be_killed_at_any_step(
    host: Host, begin: Begin, lans: list[NetworkConfig], tmp_path: Path, place: str, then: str
) -> None:
    front, back = (bridge_nic(host, lan, number, static=True) for number, lan in enumerate(lans))
    spec = begin(front)
    nics = (dataclasses.replace(back, host_link=host.veth_name(spec.slot, 1)), phys(index=2, name="eth2"))
    after = dataclasses.replace(spec, nics=nics)
    (tmp_path / "after.json").write_text(after.to_json())
    (host.state_dir / MARKER).touch(mode=0o600)
    program = REPLUGS.format(
        project=str(Path(__file__).resolve().parents[2]),
        state=str(host.state_dir), after=str(tmp_path / "after.json"), parents=PARENTS,
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-B", "-c", program], env={**os.environ, VARIABLE: f"{place}=kill9"}, check=False
    )
    assert done.returncode == -signal.SIGKILL
    if then == "again":
        assert replugging.change(host, spec, after, PARENTS)
        store.save(host, after)
        names = {link["ifname"] for link in json.loads(inside(host, spec, "ip -j link"))}
        assert names == {"lo", "eth1", "eth2"}
        assert reached(host, spec, plain(lans[1].ipv4 or ""))
    elif then == "supervisor killed":
        found = RunFile.read(host.run_path(spec.id))
        assert found is not None
        os.kill(found.supervisor.pid, signal.SIGKILL)
        wait_until(lambda: running.sweep(host))
    running.stop(host, spec.id, kill=True)
    assert card() == AS_IT_WAS
    networks.register(host, store.load(host, spec.id))
    assert leaks.find(host, lans) == []


# -- rates ------------------------------------------------------------------------------------------------------------


def test_a_nic_is_held_to_its_rates(
    host: Host, begin: Begin, lans: list[NetworkConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    nic = bridge_nic(host, lans[0], static=True, ingress_bytes_per_sec=2_000_000, egress_bytes_per_sec=1_000_000)
    spec = begin(nic)
    link = spec.nics[0].host_link
    assert "rate 16Mbit" in run(f"tc qdisc show dev {link}")
    chain = rates.chain(spec.id, 0)
    assert rates.chains(host) == [chain]
    assert "limit rate over 1000000 bytes/second" in run(f"nft list chain netdev {host.nft_table} {chain}")
    gateway = plain(lans[0].ipv4 or "")
    assert reached(host, spec, gateway)

    def dropped() -> bool:
        inside(host, spec, f"ping -q -f -c 3000 -s 1400 -w 3 {gateway}", check=False)
        found = re.search(r"counter packets (\d+)", run(f"nft list chain netdev {host.nft_table} {chain}"))
        assert found is not None
        return int(found[1]) > 0

    wait_until(dropped, what="a flood is cut")
    spec = replug(host, spec, dataclasses.replace(nic, ingress_bytes_per_sec=None, egress_bytes_per_sec=None))
    assert "tbf" not in run(f"tc qdisc show dev {link}")
    assert rates.chains(host) == []
    spec = replug(host, spec, nic)
    with monkeypatch.context() as without_nft, bridge.netlink("trial") as ip:
        without_nft.setattr(nftrun, "_ENVIRONMENT", {"PATH": "/nowhere"})
        rates.set_rates(host, spec, spec.nics[0], ip, bridge.link_index(ip, link) or 0)
        assert rates.chains(host) == [chain]
    running.stop(host, spec.id, kill=True)
    networks.unregister(host, spec.id)
    assert rates.chains(host) == []


def test_a_rate_that_is_left_over_is_found(host: Host, begin: Begin, lans: list[NetworkConfig]) -> None:
    spec = begin(bridge_nic(host, lans[0], egress_bytes_per_sec=1_000_000))
    running.stop(host, spec.id, kill=True)
    store.save(host, dataclasses.replace(spec, nics=()))
    found = [leak for leak in leaks.find(host, lans) if leak.kind == "rate"]
    assert [leak.name for leak in found] == [rates.chain(spec.id, 0)]
    assert leaks.repair(host, found) == []
    assert rates.chains(host) == []


# -- LXC's own history ------------------------------------------------------------------------------------------------


@pytest.mark.lxc("No veth is left of a start that fails", "D#12546", "D#16136", "I#3521")
def test_lxc_2878_no_veth_is_left_of_a_start_that_fails(host: Host, begin: Begin, lans: list[NetworkConfig]) -> None:
    with pytest.raises(SetupFailed):
        begin(bridge_nic(host, lans[0]), init_command=("/sbin/nothing",))
    assert f"vb{host.instance}" not in run("ip -o link")


@pytest.mark.lxc("A fast restart never says that a link exists", "D#8924", "D#2439", "systemd#2173")
def test_lxc_374_a_fast_restart_never_says_file_exists(host: Host, begin: Begin, lans: list[NetworkConfig]) -> None:
    spec = begin(bridge_nic(host, lans[0], static=True))
    for _ in range(5):
        running.stop(host, spec.id, kill=True)
        # what udev, or a namespace that is cleared away late, may have left
        run(f"ip link add {spec.nics[0].host_link} type veth peer name left0")
        running.start(host, spec, network=networks.Port(host, PARENTS))
    assert reached(host, spec, plain(lans[0].ipv4 or ""))


def test_lxc_1477_the_host_sides_name_is_the_same_after_a_reboot(
    host: Host, layer: str, begin: Begin, lans: list[NetworkConfig]
) -> None:
    script = store.rootfs(host, layer) / "sbin/again"
    script.write_text(REBOOTS)
    script.chmod(0o755)
    spec = begin(bridge_nic(host, lans[0]), init_command=("/sbin/again",), privileged=True)
    boots_again(host, spec)
    assert spec.nics[0].host_link in run("ip -br link")
    assert "eth0" in inside(host, spec, "ip -br link")


def test_lxc_1600_a_clone_does_not_take_the_first_ones_link_away(
    host: Host, begin: Begin, lans: list[NetworkConfig]
) -> None:
    first = begin(bridge_nic(host, lans[0], static=True))
    second = begin(bridge_nic(host, lans[0], static=True, owner="b"))
    assert first.nics[0].host_link != second.nics[0].host_link
    assert reached(host, first, plain(second.nics[0].ipv4 or ""))


def test_lxd_3387_another_firewalls_drop_is_told_and_its_mend_mends(
    host: Host, world: World, begin: Begin, lans: list[NetworkConfig]
) -> None:
    from containers.core.network import findings

    run("ip route add default via 203.0.113.2")
    spec = begin(bridge_nic(host, lans[0], static=True))
    assert reached(host, spec, "203.0.113.2")
    run(
        "nft add table ip filter; "
        "nft 'add chain ip filter FORWARD { type filter hook forward priority 0 ; policy drop ; }'"
    )
    try:
        assert not reaches(host, spec, "203.0.113.2")
        told = [one for one in findings.network_findings(host, lans) if one.bridge == spec.nics[0].bridge]
        assert [one.id.startswith("forward-drop") for one in told] == [True]
        for command in (told[0].mend or "").splitlines():
            run(
                command.replace("iptables -I", "iptables-nft -I")
                if "iptables-nft" in os.listdir("/usr/sbin")
                else command
            )
        assert reached(host, spec, "203.0.113.2")
    finally:
        run("nft delete table ip filter")


def test_the_links_of_a_namespace_are_seen_from_outside(world: World) -> None:
    with rtnetlink.connect(world.beyond.netns_fd) as sock, contextlib.closing(rtnetlink.connect()) as here:
        found = rtnetlink.find(sock, "far0")
        assert found is not None
        assert rtnetlink.addresses(sock, found.index) == ["203.0.113.2/24", "2001:db8:1::2/64"]
        assert rtnetlink.find(here, "far0") is None
        known = rtnetlink.find(here, "card0")
        assert known is not None
        assert known.altnames == ("enp9card",)
