"""Choosing subnets, addresses and MACs."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from containers.core.errors import HostUnsupported, SpecError
from containers.core.host import Host
from containers.core.model import subnets
from containers.core.model.network_config import NetworkConfig

HOST = Host(Path("/nowhere"), "abcde")
CONFIG = NetworkConfig(name="default", number=0, ipv4="10.90.3.1/24", ipv6="fd00:1:2:3::1/64")


def test_the_same_seed_chooses_the_same_and_others_others() -> None:
    assert subnets.pick("one", []) == subnets.pick("one", [])
    assert subnets.pick("one", []) != subnets.pick("two", [])


@given(st.text(max_size=20), st.lists(st.integers(0, 2**16 - 1), max_size=20))
def test_what_is_to_be_avoided_is_avoided(seed: str, numbers: list[int]) -> None:
    avoid = [f"10.{number >> 8}.{number & 255}.0/24" for number in numbers]
    first = subnets.pick(seed, avoid)
    again = subnets.pick(seed, [*avoid, first.ipv4, first.ipv6])
    for chosen in (first, again):
        assert not subnets.overlaps(chosen.ipv4, avoid)
        assert ipaddress.ip_interface(chosen.ipv4).ip.is_private
        assert ipaddress.ip_interface(chosen.ipv6).network.subnet_of(ipaddress.ip_network("fd00::/8"))
    assert first.ipv4 != again.ipv4
    assert first.ipv6 != again.ipv6


def test_a_single_address_is_avoided_with_its_whole_subnet() -> None:
    chosen = subnets.pick("one", [])
    inside = str(ipaddress.ip_interface(chosen.ipv4).network[77])
    assert not subnets.overlaps(subnets.pick("one", [inside]).ipv4, [inside])


def test_where_everything_is_routed_it_says_so() -> None:
    with pytest.raises(HostUnsupported):
        subnets.pick("one", ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "198.18.0.0/15"])


def test_the_mac_is_local_unicast_and_different_for_each() -> None:
    macs = {subnets.mac_address(i, c, n) for i in ("abcde", "abcdf") for c in ("0" * 12, "1" * 12) for n in (0, 1)}
    assert len(macs) == 8
    assert all(int(mac[:2], 16) & 3 == 2 for mac in macs)


def test_eui64_is_what_the_kernel_makes() -> None:
    # RFC 4291, appendix A: 34-56-78-9A-BC-DE gives 3656:78FF:FE9A:BCDE
    assert subnets.link_local("34:56:78:9a:bc:de") == "fe80::3656:78ff:fe9a:bcde"
    assert subnets.eui64("fd00:1::1/64", "34:56:78:9a:bc:de") == "fd00:1::3656:78ff:fe9a:bcde"
    with pytest.raises(ValueError, match="not a /64"):
        subnets.eui64("fd00::/48", "34:56:78:9a:bc:de")


def test_every_address_of_a_subnet_is_given_once_and_then_it_is_full() -> None:
    taken: list[str] = []
    for number in range(5):
        taken.append(subnets.choose_address("10.0.0.1/29", taken, seed=str(number)))
    assert sorted(taken) == [f"10.0.0.{number}" for number in range(2, 7)]
    with pytest.raises(HostUnsupported):
        subnets.choose_address("10.0.0.1/29", [f"{address}/29" for address in taken])


def test_a_nic_is_planned_whole() -> None:
    nic = subnets.plan_nic(HOST, CONFIG, container_id="0123456789ab", slot=1023, taken=["10.90.3.2"])
    assert (nic.bridge, nic.host_link) == ("boxbrabcde0", "vbabcde3ff.0")
    assert len(nic.host_link) <= 15
    assert nic.ipv4_gateway == "10.90.3.1"
    assert ipaddress.ip_interface(nic.ipv4 or "").network == ipaddress.ip_network("10.90.3.0/24")
    assert nic.ipv6 == f"{subnets.eui64('fd00:1:2:3::/64', nic.mac)}/64"


def test_a_network_without_addresses_gives_a_nic_without() -> None:
    nic = subnets.plan_nic(HOST, NetworkConfig(name="l2", number=1), container_id="0" * 12, slot=0, taken=[])
    assert (nic.ipv4, nic.ipv4_gateway, nic.ipv6) == (None, None, None)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("ipv4", "10.0.0.1"),
        ("ipv4", "10.0.0.0/24"),
        ("ipv4", "10.0.0.255/24"),
        ("ipv4", "10.0.0.1/30"),
        ("ipv4", "fd00::1/64"),
        ("ipv4", "127.0.0.1/8"),
        ("ipv4", "x"),
        ("ipv6", "fd00::1/48"),
        ("ipv6", "fd00::/64"),
        ("ipv6", "fe80::1/64"),
        ("ipv6", "10.0.0.1/24"),
        ("number", 1000),
        ("number", -1),
        ("name", "Default"),
    ],
)
def test_a_bad_network_names_the_field(field: str, value: object) -> None:
    values: dict[str, object] = {"name": "default", "number": 0, field: value}
    with pytest.raises(SpecError) as caught:
        NetworkConfig(**values).check()  # type: ignore[arg-type]
    assert caught.value.field == field


def test_a_good_network_passes() -> None:
    CONFIG.check()
    assert CONFIG.subnets() == ("10.90.3.0/24", "fd00:1:2:3::/64")
