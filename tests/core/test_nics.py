from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from containers.core.errors import SpecError
from containers.core.model import nics
from containers.core.model.nics import Nic

MAC = "02:00:00:00:00:01"
BRIDGE = Nic(name="eth0", network="default", bridge="boxbrabcde0", host_link="vbabcde0.0", mac=MAC)
ROUTED = Nic(name="eth0", type="routed", host_link="vbabcde0.0", mac=MAC, ipv4="192.0.2.17/32")
MACVLAN = Nic(name="eth0", type="macvlan", parent="lan", mode="private", mac=MAC)
VLAN = Nic(name="eth0", type="vlan", parent="lan", vlan=10)
PHYS = Nic(name="eth0", type="phys", parent="lan")
HOST = Nic(name="eth0", type="host")


@pytest.mark.parametrize("nic", [BRIDGE, ROUTED, MACVLAN, VLAN, PHYS, HOST], ids=lambda nic: nic.type)
def test_what_is_whole_passes(nic: Nic) -> None:
    nic.check()
    with pytest.raises(SpecError):
        dataclasses.replace(nic, name="").check()


@pytest.mark.parametrize(
    ("nic", "change", "field"),
    [
        (BRIDGE, {"type": "none"}, "type"),
        (BRIDGE, {"name": "lo"}, "name"),
        (BRIDGE, {"name": "all"}, "name"),
        (BRIDGE, {"name": "../../ipv4/conf"}, "name"),
        (BRIDGE, {"name": "e" * 16}, "name"),
        (BRIDGE, {"network": ""}, "network"),
        (BRIDGE, {"parent": "lan"}, "parent"),
        (BRIDGE, {"mode": "bridge"}, "mode"),
        (BRIDGE, {"vlan": 10}, "vlan"),
        (BRIDGE, {"mtu": 575}, "mtu"),
        (BRIDGE, {"mtu": True}, "mtu"),
        (BRIDGE, {"index": 16}, "index"),
        (BRIDGE, {"mac": ""}, "mac"),
        (BRIDGE, {"routes": ("192.0.2.0/28",)}, "routes"),
        (BRIDGE, {"ingress_bytes_per_sec": 1}, "ingress_bytes_per_sec"),
        (ROUTED, {"ipv4": None}, "ipv4"),
        (ROUTED, {"network": "default"}, "network"),
        (ROUTED, {"routes": ("0.0.0.0/0",)}, "routes"),
        (ROUTED, {"ipv6": "2001:db8::1/128", "ipv6_gateway": "dev"}, "ipv6_gateway"),
        (ROUTED, {"ipv6_gateway": "auto"}, "ipv6_gateway"),
        (MACVLAN, {"parent": ""}, "parent"),
        (MACVLAN, {"parent": "eth0 up"}, "parent"),
        (MACVLAN, {"mode": "l3"}, "mode"),
        (MACVLAN, {"ipv4_gateway": "192.0.2.1"}, "ipv4_gateway"),
        (MACVLAN, {"ipv4": "192.0.2.1/24", "ipv4_gateway": "192.0.2.1/24"}, "ipv4_gateway"),
        (MACVLAN, {"ingress_bytes_per_sec": 10000}, "ingress_bytes_per_sec"),
        (VLAN, {"vlan": None}, "vlan"),
        (VLAN, {"vlan": 4095}, "vlan"),
        (VLAN, {"ipv4": "192.0.2.1/24", "ipv4_gateway": "auto"}, "ipv4_gateway"),
        (HOST, {"mtu": 1500}, "mtu"),
        (HOST, {"mac": MAC}, "type"),
    ],
)
def test_what_makes_no_nic_is_refused_by_its_field(nic: Nic, change: dict[str, Any], field: str) -> None:
    with pytest.raises(SpecError) as caught:
        dataclasses.replace(nic, **change).check("nics.3")
    assert caught.value.field == f"nics.3.{field}"


@pytest.mark.parametrize(
    "second",
    [
        dataclasses.replace(MACVLAN, index=1, mac="02:00:00:00:00:02"),
        dataclasses.replace(MACVLAN, index=1, name="eth1"),
        dataclasses.replace(MACVLAN, name="eth1", mac="02:00:00:00:00:02"),
        dataclasses.replace(HOST, name="eth1", index=1),
    ],
    ids=["name", "mac", "index", "host"],
)
def test_two_that_cannot_be_together(second: Nic) -> None:
    with pytest.raises(SpecError):
        nics.check_all((MACVLAN, second))
    nics.check_all((MACVLAN, dataclasses.replace(MACVLAN, index=1, name="eth1", mac="02:00:00:00:00:02")))


def test_a_card_goes_into_a_container_once() -> None:
    with pytest.raises(SpecError):
        nics.check_all((PHYS, dataclasses.replace(PHYS, name="eth1", index=1)))
    above = dataclasses.replace(MACVLAN, parent=PHYS.parent, name="eth1", index=1)
    for both in ((PHYS, above), (above, PHYS)):
        with pytest.raises(SpecError) as caught:
            nics.check_all(both)
        assert caught.value.field == "nics.1.parent"


def test_sysctls_of_the_network_are_not_for_the_hosts_own() -> None:
    nics.check_all((BRIDGE,), sysctls=("net.ipv4.ip_forward",))
    with pytest.raises(SpecError):
        nics.check_all((HOST,), sysctls=("net.ipv4.ip_forward",))
    nics.check_all((HOST,), sysctls=("kernel.shmmax",))


def test_each_x_of_a_mac_is_any_digit() -> None:
    assert nics.mac_of_template("02:00:00:xx:xx:xx", "abcdef012345") == "02:00:00:ab:cd:ef"
    assert nics.mac_of_template("02:00:5E:00:00:01", "0" * 12) == "02:00:5e:00:00:01"
    for digits in ("f" * 12, "0" * 12, "31" * 6):
        mac = nics.mac_of_template("xx:xx:xx:xx:xx:xx", digits)
        assert int(mac[:2], 16) & 3 == 2, mac
    assert nics.mac_of_template("1x:00:00:00:00:00", "f" * 12) == "1e:00:00:00:00:00"
    for wrong in ("01:00:00:00:00:01", "00:00:00:00:00:00", "02:00:00:00:00", "02:00:00:00:00:0g", "zz"):
        with pytest.raises(SpecError):
            nics.mac_of_template(wrong, "0" * 12)
