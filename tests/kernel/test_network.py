"""Networks in scratch network namespaces: a host side, a world beyond it, containers' ends. Not the real host."""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import json
import os
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from containers.core.errors import InUse, SetupFailed
from containers.core.failpoints import MARKER, VARIABLE
from containers.core.host import Host
from containers.core.hoststore import claims
from containers.core.kernel.netlink import CREATE, attribute
from containers.core.model import subnets
from containers.core.model.network_config import NetworkConfig, plain
from containers.core.model.spec import Spec
from containers.core.network import dnsmasq, findings, networks, nfnetlink, nft, nftrun, ruleset

from .netns import LEASE_SCRIPT, PATIENT, Place, run, set_netns
from .patience import wait_until


@pytest.fixture
def place() -> Iterator[Callable[[], Place]]:
    made: list[Place] = []

    def make() -> Place:
        made.append(Place())
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def world(place: Callable[[], Place]) -> Iterator[Place]:
    """Move this thread into a namespace that plays the host, with a default route to another that plays the world."""
    own_fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    host_side, beyond = place(), place()
    set_netns(host_side.netns_fd)
    try:
        run("ip link add up0 type veth peer name world0")
        run(f"ip link set world0 netns {beyond.process.pid}")
        run("ip addr add 203.0.113.1/24 dev up0; ip addr add 2001:db8::1/64 dev up0 nodad; ip link set up0 up")
        beyond.run("ip addr add 203.0.113.2/24 dev world0")
        beyond.run("ip addr add 2001:db8::2/64 dev world0 nodad")
        beyond.run("ip link set world0 up")
        run("ip route add default via 203.0.113.2; ip -6 route add default via 2001:db8::2")
        yield beyond
    finally:
        set_netns(own_fd)
        os.close(own_fd)


@pytest.fixture
def host(world: Place) -> Iterator[Host]:
    state = Path(tempfile.mkdtemp(prefix="boxroom-net-"))
    letters = "abcdefghijklmnopqrstuvwxyz234567"
    host = Host(state, "".join(secrets.choice(letters) for _ in range(5)))
    host.run_dir.mkdir(parents=True)
    yield host
    networks.remove_all(host)
    assert not run(f"ip -o link | grep -E 'vb{host.instance}|boxbr{host.instance}'", check=False)
    assert nftrun.listing("tables") == []
    claims.release(host)
    shutil.rmtree(host.run_dir)
    shutil.rmtree(state)


def network(host: Host, number: int = 0, name: str = "default", **changes: object) -> NetworkConfig:
    chosen = networks.choose_subnets(host, seed=name)
    values: dict[str, object] = {"ipv4": chosen.ipv4, "ipv6": chosen.ipv6, **changes}
    return NetworkConfig(name=name, number=number, **values)  # type: ignore[arg-type]


def container(host: Host, config: NetworkConfig, slot: int, taken: tuple[str, ...] = ()) -> Spec:
    identity = secrets.token_hex(6)
    nic = subnets.plan_nic(host, config, container_id=identity, slot=slot, taken=taken)
    return Spec(
        id=identity, name=f"box-{slot}", project="default", slot=slot, image="busybox", layers=(),
        machine_id="0" * 32, created_at="2026-11-21T00:00:00+00:00", nics=(nic,),
    )  # fmt: skip


def ipv4(spec: Spec) -> str:
    return plain(spec.nics[0].ipv4 or "")


def ipv6(spec: Spec) -> str:
    return plain(spec.nics[0].ipv6 or "")


class Lan:
    """A network with attached containers, all with their addresses."""

    def __init__(self, host: Host, place: Callable[[], Place], config: NetworkConfig) -> None:
        self.host, self.place, self.config = host, place, config
        self.specs: list[Spec] = []
        self.places: list[Place] = []

    def add(self, slot: int) -> tuple[Spec, Place]:
        spec = container(self.host, self.config, slot, tuple(ipv4(one) for one in self.specs))
        inside = self.place()
        networks.register(self.host, spec)
        networks.attach(self.host, spec, inside.netns_fd)
        inside.run("ip link set eth0 up")
        self.specs.append(spec)
        self.places.append(inside)
        return spec, inside

    def lease(self, inside: Place) -> str:
        script = self.host.state_dir / "lease.sh"
        script.write_text(LEASE_SCRIPT)
        script.chmod(0o755)
        return inside.run(f"busybox udhcpc -i eth0 -n -q -f -t 60 -T 1 -s {script}")


@pytest.fixture
def lan(host: Host, place: Callable[[], Place]) -> Lan:
    config = network(host)
    networks.ensure(host, config, [config], [])
    return Lan(host, place, config)


@pytest.fixture
def pair(lan: Lan) -> Lan:
    for slot in (1, 2):
        _spec, inside = lan.add(slot)
        lan.lease(inside)
    for spec, inside in zip(lan.specs, lan.places, strict=True):
        wait_until(
            lambda spec=spec, inside=inside: f"inet6 {ipv6(spec)}/" in inside.run("ip -6 addr show dev eth0 -tentative")
        )
    return lan


def test_a_lease_is_the_reserved_address_with_gateway_and_names(pair: Lan) -> None:
    first, inside = pair.specs[0], pair.places[0]
    prefix = (pair.config.ipv4 or "").partition("/")[2]
    assert f"inet {ipv4(first)}/{prefix} " in inside.run("ip -4 addr show eth0")
    assert pair.config.ipv4
    gateway = plain(pair.config.ipv4)
    assert f"default via {gateway}" in inside.run("ip route")
    assert "default via fe80:" in inside.run("ip -6 route")
    assert f"{gateway} boxroom" in pair.lease(inside)
    for name in ("box-2", "box-2.boxroom"):
        answer = inside.run(f"busybox nslookup {name} {gateway}")
        assert f"Address: {ipv4(pair.specs[1])}" in answer
        assert f"Address: {ipv6(pair.specs[1])}" in answer


def test_containers_of_one_network_reach_each_other(pair: Lan) -> None:
    assert pair.places[0].reaches(ipv4(pair.specs[1]), tries=PATIENT)
    assert pair.places[0].reaches(ipv6(pair.specs[1]), tries=PATIENT)
    assert pair.places[1].reaches(ipv4(pair.specs[0]), tries=PATIENT)


def test_the_world_is_reached_by_nat_and_does_not_reach_in(pair: Lan, world: Place) -> None:
    # the world has no route back: an answer proves that the host's address was taken
    assert pair.places[0].reaches("203.0.113.2", tries=PATIENT)
    assert pair.places[0].reaches("2001:db8::2", tries=PATIENT)
    world.run(f"ip route add {pair.config.subnets()[0]} via 203.0.113.1")
    assert not world.reaches(ipv4(pair.specs[0]))
    assert pair.places[0].reaches("203.0.113.2", tries=PATIENT)


def test_nat_is_switched_while_containers_run(pair: Lan, world: Place) -> None:
    world.run(f"ip route add {pair.config.subnets()[0]} via 203.0.113.1")
    assert not world.reaches(ipv4(pair.specs[0]))
    plainly = dataclasses.replace(pair.config, nat=False)
    for old, new in ((pair.config, plainly), (plainly, plainly)):
        networks.change(pair.host, old, new, [new], pair.specs)
        assert world.reaches(ipv4(pair.specs[0]), tries=PATIENT), "its own address, both ways"
    assert pair.places[0].reaches("203.0.113.2", tries=PATIENT)
    networks.change(pair.host, plainly, pair.config, [pair.config], pair.specs)
    assert not world.reaches(ipv4(pair.specs[1]))
    assert pair.places[1].reaches("2001:db8::2", tries=PATIENT), "the host's address again: there is no way back"


@pytest.mark.parametrize("point", ["filter", "bridge"])
def test_a_change_of_subnets_that_is_killed_is_done_by_whoever_does_it_again(lan: Lan, point: str) -> None:
    host, old = lan.host, lan.config
    other = network(host, 1, "other")
    networks.ensure(host, other, [old, other], [])
    assert old.ipv4
    wider = str(ipaddress.ip_interface(f"{plain(old.ipv4)}/23"))
    new = dataclasses.replace(old, ipv4=wider, ipv6=None)
    program = CHANGES.format(state=str(host.state_dir), instance=host.instance, old=old, new=new, other=other)
    (host.state_dir / MARKER).touch(mode=0o600)
    done = subprocess.run(
        [sys.executable, "-B", "-c", program],
        env={**os.environ, VARIABLE: f"network-change.{point}=kill9"},
        cwd=Path(__file__).resolve().parents[2],
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    networks.change(host, old, new, [new, other], [])
    both = {*new.subnets(), *other.subnets()}
    assert _subnets(host, new) == ([wider], both, both)
    once = run("nft list ruleset | sed 's/packets.*bytes [0-9]*//'")
    networks.ensure_all(host, [new, other], [])
    assert run("nft list ruleset | sed 's/packets.*bytes [0-9]*//'") == once, "as if it had been so from the beginning"
    networks.change(host, new, old, [old, other], [])
    both = {*old.subnets(), *other.subnets()}
    assert _subnets(host, old) == ([old.ipv4, old.ipv6], both, both)


CHANGES = """
from pathlib import Path
from containers.core.host import Host
from containers.core.model.network_config import NetworkConfig
from containers.core.network import networks
host, new = Host(Path({state!r}), {instance!r}), {new!r}
networks.change(host, {old!r}, new, [new, {other!r}], [])
"""


def _subnets(host: Host, config: NetworkConfig) -> tuple[list[str], set[str], set[str]]:
    """Return a bridge's addresses, what the filter gives the host's address to, and what the instance claims."""
    links = json.loads(run(f"ip -j addr show dev {host.bridge_name(config.number)}"))
    found = [f"{one['local']}/{one['prefixlen']}" for one in links[0]["addr_info"] if one["scope"] == "global"]
    sets = [one["set"] for name in ("nat4", "nat6") for one in nftrun.listing("set", "inet", host.nft_table, name)]
    prefixes = [element["prefix"] for one in sets for element in one["elem"]]
    masked = {f"{one['addr']}/{one['len']}" for one in prefixes}
    return found, masked, set(claims.claims()[host.instance].subnets)


def test_a_table_of_somebody_elses_that_kills_nft_holds_nobody_up(
    pair: Lan, world: Place, place: Callable[[], Place]
) -> None:
    """A set that says of its key what no nft of today understands: 1.0.6 ends by a signal where it reads all tables."""
    foreign = struct.pack("=BBBBIBBI", 3, 12, 0, 4, 200, 1, 4, 0)  # the key's type is that of expression 200
    _make_set("foreign", foreign)
    assert nft.present(pair.host)
    _spec, inside = pair.add(3)
    pair.lease(inside)
    assert inside.reaches(ipv4(pair.specs[0]), tries=PATIENT)
    assert inside.reaches("203.0.113.2", tries=PATIENT), "NAT is there"
    inside.run(f"ip addr add {ipv4(pair.specs[1])}/24 dev eth0")
    assert not inside.reaches(ipv4(pair.specs[0]), f"-I {ipv4(pair.specs[1])}"), "and so is the filter"
    networks.unregister(pair.host, pair.specs[0].id)
    networks.change(pair.host, pair.config, pair.config, [pair.config], pair.specs)
    # whether or not this nft dies of it
    nftrun._run_apart(ruleset.base(pair.host, ipv6=True) + ruleset.network(pair.host, pair.config))
    with nfnetlink.connect() as sock:
        nfnetlink.commit(sock, nfnetlink.gone("inet", "foreign"))
    told = "nft list ruleset | sed 's/packets.*bytes [0-9]*//'"
    carried = run(told)
    networks.ensure_all(pair.host, [pair.config], pair.specs[1:])
    assert sorted(run(told).splitlines()) == sorted(carried.splitlines()), "word for word what nft itself makes"
    assert findings.network_findings(pair.host, [pair.config]) == []


def _make_set(table: str, userdata: bytes) -> None:
    body = struct.pack("=BBH", nfnetlink.FAMILIES["inet"], 0, 0)
    name = [attribute(kind, text.encode() + b"\0") for kind, text in ((1, table), (2, "keys"))]
    numbers = [attribute(kind, struct.pack("!I", value)) for kind, value in ((3, 0), (4, 7), (5, 4), (10, 1))]
    made = [(10 << 8, CREATE, body + name[0])]
    made.append((10 << 8 | 9, CREATE, body + b"".join(name + numbers) + attribute(13, userdata)))
    with nfnetlink.connect() as sock:
        nfnetlink.commit(sock, made)


def test_the_host_answers_on_the_bridge_only(pair: Lan) -> None:
    inside = pair.places[0]
    assert pair.config.ipv4
    assert inside.reaches(plain(pair.config.ipv4), tries=PATIENT)
    assert not inside.reaches("203.0.113.1"), "another address of the host"
    listener = socket.create_server(("0.0.0.0", 0))
    with listener:
        port = listener.getsockname()[1]
        refused = inside.run(
            f"busybox timeout 1 busybox nc {plain(pair.config.ipv4)} {port} </dev/null && echo open", check=False
        )
    assert "open" not in refused


def test_a_spoofed_mac_is_dropped_and_the_victim_stays_reachable(pair: Lan) -> None:
    (first, second), (inside, other) = pair.specs, pair.places
    inside.run(f"ip link set eth0 address {second.nics[0].mac}")
    assert not inside.reaches(ipv4(second), tries=2)
    other.run("ip neigh flush all")
    assert other.reaches(plain(pair.config.ipv4 or ""), tries=PATIENT)
    inside.run(f"ip link set eth0 address {first.nics[0].mac}")
    assert inside.reaches(ipv4(second), tries=PATIENT)


def test_a_spoofed_ipv4_source_and_arp_are_dropped(pair: Lan) -> None:
    second, (inside, other) = pair.specs[1], pair.places
    free = subnets.choose_address(pair.config.ipv4 or "", [ipv4(one) for one in pair.specs])
    inside.run(f"ip addr add {free}/22 dev eth0")
    with Sniffer(other) as seen:
        assert not inside.reaches(ipv4(second), "-I", free, tries=2)
        inside.run(f"busybox arping -c 2 -w 2 -U -s {ipv4(second)} -I eth0 {free}", check=False)
        inside.run(f"busybox arping -c 2 -w 2 -s {free} -I eth0 {ipv4(second)}", check=False)
        # what may pass does pass, so that the silence above means something
        inside.run(f"ip addr del {free}/22 dev eth0")
        assert inside.reaches(ipv4(second), tries=PATIENT)
    senders = seen.senders()
    assert ipv4(pair.specs[0]) in senders
    assert free not in senders
    assert ipv4(second) not in senders


def test_a_spoofed_ipv6_source_is_dropped(pair: Lan) -> None:
    second, (inside, _other) = pair.specs[1], pair.places
    forged = str(next(iter(__import__("ipaddress").ip_network(pair.config.subnets()[1]).hosts())) + 0xBAD)
    inside.run(f"ip addr add {forged}/64 dev eth0 nodad")
    assert not inside.reaches(ipv6(second), "-I", forged, tries=2)
    assert inside.reaches(ipv6(second), "-I", ipv6(pair.specs[0]), tries=PATIENT)


def test_forged_neighbour_advertisements_and_router_advertisements_are_dropped(pair: Lan) -> None:
    (first, second), (inside, other) = pair.specs, pair.places
    gateway = plain(pair.config.ipv6 or "")
    own, source = first.nics[0].mac, subnets.link_local(first.nics[0].mac)
    with Sniffer(other) as seen:
        inside.run(inject(own, source, advertisement(ipv6(first), own)))
        inside.run(inject(own, source, advertisement(gateway, own)))
        inside.run(inject(own, source, advertisement(ipv6(second), own)))
        inside.run(inject(own, source, advertisement(ipv6(first), "02:00:00:00:00:99")))
        # a second option, in which a forged link address would hide
        inside.run(inject(own, source, advertisement(ipv6(first), own) + option("02:00:00:00:00:99")))
        inside.run(inject(own, source, bytes((134, 0, 0, 0, 64, 0, 7, 8)) + bytes(8)))
        # what may pass, before and after what may not: the second has come when all have
        inside.run(inject(own, source, advertisement(ipv6(first), own)))
        wait_until(lambda: len(seen.neighbours(own)) >= 2)
    assert seen.neighbours(own) == [(136, socket.inet_pton(socket.AF_INET6, ipv6(first)), own)] * 2


def test_dhcp_for_somebody_elses_mac_is_not_answered(pair: Lan) -> None:
    """The client's own address in the frame, the victim's in the message."""
    (_first, second), (inside, _other) = pair.specs, pair.places
    counted = _dropped(pair, "@th,288,48")
    victim = second.nics[0].mac.replace(":", "")
    code = (
        "import socket,sys;m=bytes.fromhex(sys.argv[1]);s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM);"
        "s.setsockopt(1,6,1);s.setsockopt(1,25,b'eth0');s.bind(('0.0.0.0',68));"
        "s.sendto(b'\\x01\\x01\\x06\\x00'+b'abcd'+bytes(20)+m+bytes(10+192)+bytes.fromhex('63825363350101ff'),('255.255.255.255',67))"
    )
    inside.run("ip addr flush dev eth0 scope global; true")
    inside.run("ip route add 255.255.255.255 dev eth0", check=False)
    inside.run(f'/usr/bin/python3 -c "{code}" {victim}')
    wait_until(lambda: _dropped(pair, "@th,288,48") > counted)


def _dropped(lan: Lan, rule: str) -> int:
    text = run(f"nft list table bridge {lan.host.nft_table}")
    return sum(
        int(line.split("packets ")[1].split()[0]) for line in text.splitlines() if rule in line and "packets " in line
    )


def test_vlan_tags_and_bridge_control_frames_are_dropped(pair: Lan) -> None:
    first, (inside, other) = pair.specs[0], pair.places
    mac = bytes.fromhex(first.nics[0].mac.replace(":", ""))
    with Sniffer(other) as seen:
        for destination, kind in (("ff" * 6, "8100"), ("ff" * 6, "88a8"), ("0180c2000000", "0026"), ("ff" * 6, "88b5")):
            frame = bytes.fromhex(destination) + mac + bytes.fromhex(kind) + bytes(60)
            inside.run(raw_frame(frame))
        assert inside.reaches(ipv4(pair.specs[1]), tries=PATIENT)
    assert seen.kinds() <= {0x0800, 0x0806, 0x86DD}
    assert 0x0800 in seen.kinds()


def test_two_networks_are_apart(pair: Lan, place: Callable[[], Place]) -> None:
    other = network(pair.host, 1, "other")
    networks.ensure(pair.host, other, [pair.config, other], pair.specs)
    second = Lan(pair.host, place, other)
    spec, inside = second.add(9)
    second.lease(inside)
    assert inside.reaches(plain(other.ipv4 or ""), tries=PATIENT)
    assert not inside.reaches(ipv4(pair.specs[0]), tries=2)
    assert not inside.reaches(plain(pair.config.ipv4 or "")), "the other network's gateway"
    assert not pair.places[0].reaches(ipv4(spec), tries=2)
    networks.detach(pair.host, spec)
    networks.unregister(pair.host, spec.id)
    networks.remove(pair.host, other, [pair.config], pair.specs)
    networks.remove(pair.host, other, [pair.config], pair.specs)
    assert pair.host.bridge_name(1) not in run("ip -br link")
    assert pair.places[0].reaches(ipv4(pair.specs[1]), tries=PATIENT)


@pytest.mark.lxc("A link that was left over is replaced", "L#374")
def test_attach_over_a_stale_link_and_detach_twice(lan: Lan, place: Callable[[], Place]) -> None:
    spec, _inside = lan.add(3)
    again = place()
    networks.attach(lan.host, spec, again.netns_fd)
    again.run("ip link set eth0 up")
    lan.lease(again)
    link = json.loads(run(f"ip -j -d link show {spec.nics[0].host_link}"))[0]
    assert link["ifalias"] == lan.host.link_alias(spec.id)
    port = link["linkinfo"]["info_slave_data"]
    assert (port["learning"], port["flood"], port["isolated"], port["guard"]) == (False, False, False, True)
    assert Path(f"/proc/sys/net/ipv6/conf/{spec.nics[0].host_link}/disable_ipv6").read_text() == "1\n"
    networks.detach(lan.host, spec)
    networks.detach(lan.host, spec)
    assert spec.nics[0].host_link not in run("ip -br link")


def test_attach_without_the_bridge_leaves_nothing(host: Host, place: Callable[[], Place]) -> None:
    spec = container(host, network(host), 4)
    inside = place()
    with pytest.raises(SetupFailed, match="is not there"):
        networks.attach(host, spec, inside.netns_fd)
    assert "eth0" not in inside.run("ip -br link")
    assert spec.nics[0].host_link not in run("ip -br link")


def test_the_filter_is_back_before_a_link_comes_up(lan: Lan, place: Callable[[], Place]) -> None:
    spec = container(lan.host, lan.config, 5)
    networks.register(lan.host, spec)
    run("nft flush ruleset")
    assert "filter-missing" in {one.id for one in findings.network_findings(lan.host, [lan.config])}
    inside = place()
    networks.attach(lan.host, spec, inside.netns_fd)
    assert nft.complete(lan.host, spec)
    networks.ensure_all(lan.host, [lan.config], [spec])
    assert findings.network_findings(lan.host, [lan.config]) == []


def test_unregister_leaves_nothing_of_the_container(lan: Lan) -> None:
    spec, inside = lan.add(6)
    lan.lease(inside)
    assert dnsmasq.leases(lan.host) == [(spec.nics[0].mac, ipv4(spec))]
    assert nft.own_chains(lan.host)
    assert dnsmasq.registered(lan.host) == {spec.id}
    networks.detach(lan.host, spec)
    networks.unregister(lan.host, spec.id)
    networks.unregister(lan.host, spec.id)
    assert nft.elements(lan.host) == []
    assert nft.own_chains(lan.host) == []
    assert dnsmasq.registered(lan.host) == set()
    wait_until(lambda: dnsmasq.leases(lan.host) == [])


def test_a_reused_slot_takes_nothing_over(lan: Lan) -> None:
    gone = container(lan.host, lan.config, 7)
    networks.register(lan.host, gone)
    heir = container(lan.host, lan.config, 7)
    networks.register(lan.host, heir)
    assert all(gone.nics[0].mac not in element for _name, element in nft.elements(lan.host))


def test_ensure_all_twice_changes_nothing_and_keeps_dnsmasq(lan: Lan) -> None:
    spec, inside = lan.add(8)
    lan.lease(inside)
    pid = dnsmasq.running(lan.host)
    assert pid
    networks.ensure_all(lan.host, [lan.config], [spec])
    before = run("nft list ruleset | sed 's/packets.*bytes [0-9]*//'")
    assert networks.ensure_all(lan.host, [lan.config], [spec]) == []
    assert run("nft list ruleset | sed 's/packets.*bytes [0-9]*//'") == before
    assert dnsmasq.running(lan.host) == pid
    # nothing is even asked for twice; what somebody else takes away comes back, and so does what is new
    made = nft.generation()
    networks.ensure_all(lan.host, [lan.config], [spec])
    assert nft.generation() == made
    run(f"nft flush map bridge {lan.host.nft_table} own")
    networks.ensure_all(lan.host, [lan.config], [spec])
    assert run("nft list ruleset | sed 's/packets.*bytes [0-9]*//'") == before
    networks.ensure_all(lan.host, [lan.config], [])
    assert nft.elements(lan.host) == []
    networks.ensure_all(lan.host, [lan.config], [spec])
    assert run("nft list ruleset | sed 's/packets.*bytes [0-9]*//'") == before
    os.kill(pid, 9)
    wait_until(lambda: dnsmasq.running(lan.host) is None)
    networks.ensure_all(lan.host, [lan.config], [spec])
    assert dnsmasq.running(lan.host) not in (None, pid)
    lan.lease(inside)


def test_dnsmasq_is_on_its_bridges_only_and_has_no_privileges(lan: Lan) -> None:
    pid = dnsmasq.running(lan.host)
    names = run("ss -H -lntu 'sport = 53'")
    assert "203.0.113.1" not in names
    assert "127.0.0.1" not in names
    assert plain(lan.config.ipv4 or "") in names
    status = Path(f"/proc/{pid}/status").read_text()
    assert "Uid:\t0" not in status
    assert f"BOXROOM_STATE_DIR={lan.host.state_dir}".encode() in Path(f"/proc/{pid}/environ").read_bytes()
    assert str(lan.host.run_dir) in Path(f"/proc/{pid}/cmdline").read_text()
    assert os.getsid(pid or 0) != os.getsid(0)


def test_a_routed_subnet_is_not_chosen_and_not_taken(host: Host) -> None:
    chosen = networks.choose_subnets(host, seed="default")
    run(f"ip route add {NetworkConfig(name='a', number=0, ipv4=chosen.ipv4).subnets()[0]} dev up0 table 77")
    assert networks.choose_subnets(host, seed="default").ipv4 != chosen.ipv4
    config = NetworkConfig(name="default", number=0, ipv4=chosen.ipv4)
    with pytest.raises(InUse, match="already routes"):
        networks.ensure(host, config, [config], [])
    run("ip route add 10.0.0.0/8 dev up0; ip route add 172.16.0.0/12 dev up0")
    assert networks.choose_subnets(host, seed="default").ipv4.startswith("192.168.")


def test_two_instances_do_not_clash(lan: Lan) -> None:
    state = Path(tempfile.mkdtemp(prefix="boxroom-net-"))
    other = Host(state, lan.host.instance[:-1] + ("a" if lan.host.instance[-1] != "a" else "b"))
    try:
        config = network(other, ipv4=lan.config.ipv4)
        with pytest.raises(InUse):
            networks.ensure_all(other, [config], [])
        assert claims.id_block(other) != claims.id_block(lan.host)
        networks.ensure_all(other, [network(other)], [])
        assert dnsmasq.running(other) != dnsmasq.running(lan.host)
        spec, inside = lan.add(1)
        lan.lease(inside)
        assert f"{ipv4(spec)}/" in inside.run("ip -4 addr show eth0")
    finally:
        networks.remove_all(other)
        claims.release(other)
        shutil.rmtree(other.run_dir)
        shutil.rmtree(state)


@pytest.mark.lxc("A firewall that drops what is forwarded is found and told", "D#8716", "docker#103")
@pytest.mark.parametrize("family", ["ip", "inet"])
def test_a_forward_policy_of_drop_is_found_and_its_mend_works(pair: Lan, world: Place, family: str) -> None:
    chain = "FORWARD" if family == "ip" else "forward"
    table = "filter" if family == "ip" else "foreign"
    assert findings.network_findings(pair.host, [pair.config]) == []
    run(f"nft add table {family} {table}")
    run(f"nft 'add chain {family} {table} {chain} {{ type filter hook forward priority 0; policy drop; }}'")
    try:
        assert not pair.places[0].reaches("203.0.113.2")
        found = findings.network_findings(pair.host, [pair.config])
        assert [one.level for one in found] == ["warning"]
        bridge = pair.host.bridge_name(0)
        assert found[0].mend
        assert bridge in found[0].mend
        assert table in found[0].what
        if family == "inet":
            run(found[0].mend)
        else:
            assert f"iptables -I FORWARD -i {bridge} -j ACCEPT" in found[0].mend
            run(f"nft add rule ip filter FORWARD iifname {bridge} counter accept")
            run(f"nft add rule ip filter FORWARD oifname {bridge} ct state related,established counter accept")
        assert findings.network_findings(pair.host, [pair.config]) == []
        assert pair.places[0].reaches("203.0.113.2", tries=PATIENT)
    finally:
        run(f"nft delete table {family} {table}")


def test_a_host_without_ipv6_works(lan: Lan) -> None:
    config = dataclasses.replace(
        lan.config,
        ipv6=None,
        name="four",
        number=2,
        ipv4=networks.choose_subnets(lan.host, lan.config.subnets(), "four").ipv4,
    )
    networks.ensure_all(lan.host, [config], [])
    four = Lan(lan.host, lan.place, config)
    spec, inside = four.add(1)
    four.lease(inside)
    assert f"{ipv4(spec)}/" in inside.run("ip -4 addr show eth0")
    assert spec.nics[0].ipv6 is None
    assert "default" not in inside.run("ip -6 route")


WITHOUT_IPV6 = """
import os, socket, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from containers.core.kernel import libseccomp, syscalls
from containers.core.host import Host
from containers.core.plans.mount_flags import MS_PRIVATE, MS_REC
from containers.core.network import networks
from containers.core.model.network_config import NetworkConfig
from containers.core.model.spec import Spec

# as a kernel with ipv6.disable=1 is: no settings, and no socket of that family
syscalls.unshare(syscalls.CLONE_NEWNS)
syscalls.mount(None, "/", None, MS_REC | MS_PRIVATE)
syscalls.mount("tmpfs", "/proc/sys/net/ipv6", "tmpfs", 0, None)
with libseccomp.Filter(libseccomp.ACT_ALLOW) as rules:
    rules.add(libseccomp.act_errno(97), "socket", (0, libseccomp.CMP_EQ, socket.AF_INET6, 0))
    syscalls.load_seccomp(syscalls.pack_filters([rules.export()]))
host = Host(Path(sys.argv[2]), sys.argv[3])
config = NetworkConfig(name="default", number=0, ipv4=sys.argv[4], ipv6=sys.argv[5])
networks.ensure_all(host, [config], [])
for path, pid in zip(sys.argv[6::2], sys.argv[7::2]):
    spec = Spec.from_json(Path(path).read_text())
    networks.register(host, spec)
    networks.attach(host, spec, os.open(f"/proc/{pid}/ns/net", os.O_RDONLY))
"""


def test_networks_with_ipv6_addresses_serve_ipv4_on_a_host_that_was_booted_without_ipv6(
    host: Host, place: Callable[[], Place]
) -> None:
    config = network(host)
    leased = container(host, config, 1)
    asked = container(host, config, 2, (ipv4(leased),))
    nic = dataclasses.replace(asked.nics[0], static=True, ipv6_gateway=plain(config.ipv6 or ""))
    insides, words = [], []
    for spec in (leased, dataclasses.replace(asked, nics=(nic,))):
        insides.append(place())
        file = host.state_dir / spec.id
        file.write_text(spec.to_json())
        words += [str(file), str(insides[-1].process.pid)]
    program = [sys.executable, "-B", "-c", WITHOUT_IPV6, str(Path(__file__).resolve().parents[2])]
    subprocess.run(
        [*program, str(host.state_dir), host.instance, str(config.ipv4), str(config.ipv6), *words], check=True
    )
    insides[0].run("ip link set eth0 up")
    Lan(host, place, config).lease(insides[0])
    for spec, inside in zip((leased, asked), insides, strict=True):
        assert f"{ipv4(spec)}/" in inside.run("ip -4 addr show eth0")
    assert ipv6(asked) not in insides[1].run("ip -6 addr show eth0")


# -- frames -----------------------------------------------------------------------------------------------------------


class Sniffer:
    """Collects every frame that arrives on a place's eth0."""

    def __init__(self, inside: Place) -> None:
        own_fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        set_netns(inside.netns_fd)
        try:
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            self.socket.bind(("eth0", 3))
        finally:
            set_netns(own_fd)
            os.close(own_fd)
        self.socket.setblocking(False)
        self.frames: list[bytes] = []

    def __enter__(self) -> Sniffer:
        return self

    def __exit__(self, *_error: object) -> None:
        self.collect()
        self.socket.close()

    def collect(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self.socket.fileno() >= 0:
                frame, address = self.socket.recvfrom(65536)
                if address[2] != socket.PACKET_OUTGOING:
                    self.frames.append(frame)

    def kinds(self) -> set[int]:
        return {int.from_bytes(frame[12:14], "big") for frame in self.frames}

    def senders(self) -> set[str]:
        found = set()
        for frame in self.frames:
            kind = int.from_bytes(frame[12:14], "big")
            at = {0x0800: 26, 0x0806: 28}.get(kind)
            if at:
                found.add(socket.inet_ntoa(frame[at : at + 4]))
        return found

    def neighbours(self, sender: str) -> list[tuple[int, bytes, str]]:
        """Return (type, target, link address option) of the router and neighbour advertisements from this MAC."""
        self.collect()
        found = []
        for frame in self.frames:
            known = frame[6:12] == bytes.fromhex(sender.replace(":", "")) and frame[12:14] == b"\x86\xdd"
            if known and frame[20] == 58 and frame[54] in (134, 136):
                found.append((frame[54], frame[62:78], ":".join(f"{byte:02x}" for byte in frame[80:86])))
        return found


def option(mac: str) -> bytes:
    return bytes((2, 1)) + bytes.fromhex(mac.replace(":", ""))


def advertisement(target: str, mac: str) -> bytes:
    return bytes((136, 0, 0, 0, 0x20, 0, 0, 0)) + socket.inet_pton(socket.AF_INET6, target) + option(mac)


def inject(mac: str, source: str, message: bytes) -> str:
    """Return a command that sends an ICMPv6 message to all nodes from eth0, whatever the kernel thinks of it."""
    ends = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, "ff02::1")
    pseudo = ends + struct.pack(">IHBB", len(message), 0, 0, 58)
    total = sum(struct.unpack(f">{len(pseudo + message) // 2}H", pseudo + message))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    message = message[:2] + struct.pack(">H", ~total & 0xFFFF) + message[4:]
    header = struct.pack(">IHBB", 6 << 28, len(message), 58, 255) + ends
    return raw_frame(
        bytes.fromhex("333300000001") + bytes.fromhex(mac.replace(":", "")) + b"\x86\xdd" + header + message
    )


def raw_frame(frame: bytes) -> str:
    code = 'import socket,sys;s=socket.socket(17,3);s.bind((\\"eth0\\",0));s.send(bytes.fromhex(sys.argv[1]))'
    return f'/usr/bin/python3 -I -S -c "{code}" {frame.hex()}'


def test_what_comes_and_goes_while_all_is_ensured_is_known_and_forgotten(lan: Lan) -> None:
    """Neither does what was read before bring back what was deleted, nor take away what was made since."""
    old, gone = (lan.add(slot)[0] for slot in (1, 2))
    new = container(lan.host, lan.config, 3, tuple(ipv4(spec) for spec in lan.specs))
    lan.lease(lan.places[1])
    stored = {spec.id: spec for spec in (old, gone)}
    looks = []

    def ensure(specs: Sequence[Spec]) -> None:
        looks.append([spec.id for spec in specs])
        del stored[gone.id]
        networks.detach(lan.host, gone)
        networks.unregister(lan.host, gone.id)
        stored[new.id] = new
        networks.register(lan.host, new)
        networks.ensure_all(lan.host, [lan.config], specs)
        assert dnsmasq.registered(lan.host) == {old.id, gone.id}

    networks.keep_up(lan.host, lambda: dict(stored), ensure)
    assert looks == [[old.id, gone.id]]
    assert dnsmasq.registered(lan.host) == {old.id, new.id}
    wait_until(lambda: dnsmasq.leases(lan.host) == [])
    assert all(nft.complete(lan.host, spec) for spec in (old, new))
    assert not any(gone.nics[0].host_link in element for _name, element in nft.elements(lan.host))


def test_a_lease_goes_with_a_reservation_that_another_takes_away(lan: Lan) -> None:
    spec, inside = lan.add(1)
    lan.lease(inside)
    networks.detach(lan.host, spec)
    networks.ensure_all(lan.host, [lan.config], [])
    networks.unregister(lan.host, spec.id)
    assert dnsmasq.registered(lan.host) == set()
    wait_until(lambda: dnsmasq.leases(lan.host) == [])


def test_a_lease_goes_with_what_was_deleted_while_dnsmasq_was_away(lan: Lan) -> None:
    spec, inside = lan.add(1)
    other, elsewhere = lan.add(2)
    lan.lease(inside)
    lan.lease(elsewhere)
    pid = dnsmasq.running(lan.host)
    assert pid
    os.kill(pid, 9)
    wait_until(lambda: dnsmasq.running(lan.host) is None)
    networks.detach(lan.host, spec)
    networks.unregister(lan.host, spec.id)
    networks.ensure_all(lan.host, [lan.config], [other])
    assert dnsmasq.running(lan.host)
    assert dnsmasq.leases(lan.host) == [(other.nics[0].mac, ipv4(other))]


def test_a_lease_of_the_former_subnet_goes_with_it(lan: Lan) -> None:
    spec, inside = lan.add(1)
    lan.lease(inside)
    networks.detach(lan.host, spec)
    chosen = networks.choose_subnets(lan.host, lan.config.subnets(), "another")
    new = dataclasses.replace(lan.config, ipv4=chosen.ipv4, ipv6=chosen.ipv6)
    (nic,) = container(lan.host, new, 1).nics
    moved = dataclasses.replace(spec, nics=(dataclasses.replace(nic, mac=spec.nics[0].mac),))
    networks.change(lan.host, lan.config, new, [new], [moved])
    assert dnsmasq.leases(lan.host) == []


def test_a_lease_goes_with_what_was_deleted_while_dnsmasq_was_started_anew(lan: Lan) -> None:
    spec, inside = lan.add(1)
    lan.lease(inside)
    stored = {spec.id: spec}

    def ensure(specs: Sequence[Spec]) -> None:
        networks.detach(lan.host, spec)
        del stored[spec.id]
        before = (dnsmasq.directory(lan.host) / "leases").read_text()
        networks.unregister(lan.host, spec.id)
        dnsmasq.stop(lan.host)
        # as it is when that comes to nobody
        (dnsmasq.directory(lan.host) / "leases").write_text(before)
        dnsmasq.ensure(lan.host, [lan.config], specs)
        for name in ("reservations", "names"):
            (dnsmasq.directory(lan.host) / name / spec.id).unlink()

    networks.keep_up(lan.host, lambda: dict(stored), ensure)
    wait_until(lambda: dnsmasq.leases(lan.host) == [])


def test_what_was_made_since_keeps_its_reservation_at_every_moment(lan: Lan) -> None:
    new = container(lan.host, lan.config, 3)
    lan.host.spec_path(new.id).parent.mkdir(parents=True)
    lan.host.spec_path(new.id).touch()
    networks.register(lan.host, new)
    reservation = dnsmasq.directory(lan.host) / "reservations" / new.id
    made = reservation.stat().st_ino
    networks.keep_up(lan.host, dict, lambda specs: networks.ensure_all(lan.host, [lan.config], specs))
    assert reservation.stat().st_ino == made


def test_a_dnsmasq_that_left_the_panel_s_service_leaves_no_cgroup(lan: Lan) -> None:
    pid = dnsmasq.running(lan.host)
    root = Path("/sys/fs/cgroup/unified")
    own = (root if root.exists() else root.parent) / lan.host.cgroup_name / "dnsmasq"
    own.mkdir(parents=True, exist_ok=True)
    (own / "cgroup.procs").write_text(str(pid))
    dnsmasq.stop(lan.host)
    assert not own.exists()
    own.parent.rmdir()
