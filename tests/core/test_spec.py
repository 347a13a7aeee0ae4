"""What of a spec becomes a path, a name or a line is looked at before root uses it: rows are the web's to write."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from containers.core.errors import SetupFailed, SpecError
from containers.core.host import Host
from containers.core.model.network_config import NetworkConfig
from containers.core.model.spec import Limits, Nic, Spec
from containers.core.storage import overlay

NIC = Nic(
    name="eth0",
    network="default",
    bridge="boxbrk3v9q0",
    host_link="vbk3v9q1.0",
    mac="02:00:00:00:00:01",
    ipv4="10.90.3.7/24",
    ipv4_gateway="10.90.3.1",
    ipv6="fd00::7/64",
)
SPEC = Spec(
    id="0123456789ab",
    name="web-1",
    project="default",
    slot=1,
    image="busybox",
    layers=("0" * 32,),
    machine_id="0" * 32,
    created_at="2026-11-21T00:00:00+00:00",
    nics=(NIC,),
)


def test_a_whole_spec_passes():
    SPEC.check()
    assert Spec.from_json(SPEC.to_json()) == SPEC, "and is the same after it was written down"


@pytest.mark.lxc("No name or id leads elsewhere", "CVE-2026-33945")
@pytest.mark.parametrize(
    "change",
    [
        {"id": "../../../etc"},
        {"slot": -4096},
        {"slot": 1024},
        {"slot": "1"},
        {"machine_id": "0" * 31 + "\n"},
        {"hostname": "a\nb"},
        {"name": "a/b"},
        {"limits": Limits(memory_bytes="1\n2")},  # type: ignore[arg-type]
        {"limits": Limits(pids=-1)},
        {"limits": Limits(cpus=float("nan"))},
    ],
)
def test_what_would_lead_elsewhere_is_refused(change: dict[str, Any]):
    with pytest.raises(SpecError):
        dataclasses.replace(SPEC, **change).check()


@pytest.mark.lxc("No value becomes a line of somebody's configuration", "CVE-2026-23953")
@pytest.mark.parametrize(
    "change",
    [
        {"name": "eth0\ndhcp-script=/tmp/x"},
        {"mac": "02:00:00:00:00:01,set:known"},
        {"mac": "02:00:00:00:00:01\n"},
        {"bridge": "../x"},
        {"host_link": ""},
        {"ipv4": "10.90.3.7/24,other"},
        {"ipv4": "fd00::7/64"},
        {"ipv4_gateway": "10.90.3.1\n"},
        {"ipv6": "fe80::1%eth0"},
    ],
)
def test_a_nic_is_no_line_of_configuration(change: dict[str, Any]):
    with pytest.raises(SpecError):
        dataclasses.replace(SPEC, nics=(dataclasses.replace(NIC, **change),)).check()


@pytest.mark.parametrize("number", ["0\ndhcp-script=/tmp/x", -1, 1000])
def test_a_networks_number_is_a_number(number: Any):
    with pytest.raises(SpecError):
        NetworkConfig(name="default", number=number, ipv4="10.90.3.1/24").check()


def test_a_layer_is_named_by_its_id_alone(tmp_path):
    host = Host(tmp_path, "k3v9q")
    outside = tmp_path / "outside"
    (outside / "rootfs").mkdir(parents=True)
    good = "0" * 32
    (host.layers_dir / good / "rootfs").mkdir(parents=True)
    overlay.require(host, good)
    for layer in ("../../outside", str(outside), good + "/../" + good):
        assert (host.layers_dir / layer / "rootfs").is_dir()
        with pytest.raises(SetupFailed):
            overlay.require(host, layer)
