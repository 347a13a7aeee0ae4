"""What may be asked for of the host's directories and devices, and what it comes to under a policy."""

from __future__ import annotations

from typing import Any

import pytest

from containers.core.errors import PolicyDenied, SpecError
from containers.core.model.attachments import Attachments, Device, Mount, check_all
from containers.core.model.spec import Spec
from containers.core.rules import policy, policy_file

RULES = policy_file.parse(
    """
    [shares.media]
    path = "/srv/media"
    projects = ["web"]
    read_only = true
    [shares.all]
    path = "/srv/all"
    projects = ["*"]
    submounts = true
    [shares.nobody]
    path = "/srv/nobody"
    [devices.tun]
    projects = ["web"]
    [devices.kvm]
    path = "/dev/kvm"
    projects = ["web"]
    [devices.modem]
    path = "/dev/ttyUSB0"
    projects = ["web"]
    """
)


def spec(project: str = "web", **more: Any) -> Spec:
    values = {"id": "0" * 12, "name": "c", "slot": 0, "image": "i", "layers": ("l",), "machine_id": "0" * 32}
    return Spec(project=project, created_at="", **values, **more)


def mount(**more: Any) -> Mount:
    return Mount(**{"share": "media", "target": "/srv", **more})


def device(**more: Any) -> Device:
    return Device(**{"device": "fuse", **more})


@pytest.mark.parametrize(
    ("mounts", "devices", "field"),
    [
        ([mount(share="../etc")], [], "mounts.0.share"),
        ([mount(target="srv")], [], "mounts.0.target"),
        ([mount(target="/")], [], "mounts.0.target"),
        ([mount(target="/a/../b")], [], "mounts.0.target"),
        ([mount(target="//a")], [], "mounts.0.target"),
        ([mount(target="/a/")], [], "mounts.0.target"),
        ([mount(target="/a\nb")], [], "mounts.0.target"),
        ([mount(target="/a\0b")], [], "mounts.0.target"),
        ([mount(target="/a\ud800")], [], "mounts.0.target"),
        ([mount(target="/" + "a" * 70000)], [], "mounts.0.target"),
        ([mount(target="/proc")], [], "mounts.0.target"),
        ([mount(target="/sys/fs/cgroup")], [], "mounts.0.target"),
        ([mount(target="/dev/shm")], [], "mounts.0.target"),
        ([mount(subpath="../x")], [], "mounts.0.subpath"),
        ([mount(subpath="/x")], [], "mounts.0.subpath"),
        ([mount(subpath="a/./b")], [], "mounts.0.subpath"),
        ([mount(propagation="shared")], [], "mounts.0.propagation"),
        ([mount(read_only="yes")], [], "mounts.0.read_only"),
        ([mount(), mount(share="all")], [], "mounts.1.target"),
        ([mount(target=f"/m/{number}") for number in range(33)], [], "mounts"),
        ([], [device(device="Fuse")], "devices.0.device"),
        ([], [device(path="/etc/fuse")], "devices.0.path"),
        ([], [device(path="/dev/null")], "devices.0.path"),
        ([], [device(path="/dev/pts/0")], "devices.0.path"),
        ([], [device(path="/dev/tty1")], "devices.0.path"),
        ([], [device(path="/dev/tty63")], "devices.0.path"),
        ([], [device(path="/dev/../etc/x")], "devices.0.path"),
        ([], [device(mode="rw")], "devices.0.mode"),
        ([], [device(mode="4666")], "devices.0.mode"),
        ([], [device(uid=65536)], "devices.0.uid"),
        ([], [device(gid=-1)], "devices.0.gid"),
        ([], [device(), device(path="/dev/other")], "devices.1.device"),
    ],
)
def test_what_could_not_be_attached_is_refused_by_name(mounts: list[Mount], devices: list[Device], field: str) -> None:
    with pytest.raises(SpecError) as caught:
        check_all(mounts, devices)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        (spec(mounts=(mount(share="gone"),)), "mounts.0.share"),
        (spec(mounts=(mount(share="nobody"),)), "mounts.0.share"),
        (spec("other", mounts=(mount(),)), "mounts.0.share"),
        (spec(mounts=(mount(propagation="slave"),)), "mounts.0.propagation"),
        (spec(mounts=(mount(share="all", propagation="slave", read_only=True),)), "mounts.0.propagation"),
        (spec(devices=(device(device="disk"),)), "devices.0.device"),
        (spec("other", devices=(device(device="tun"),)), "devices.0.device"),
    ],
)
def test_what_the_policy_does_not_give_is_denied(asked: Spec, field: str) -> None:
    asked.check()
    with pytest.raises(PolicyDenied) as caught:
        policy.check(RULES, asked)
    assert caught.value.field == field


def test_what_is_missing_and_what_is_anothers_are_denied_in_the_same_words() -> None:
    texts = set()
    for name, project in (("media", "other"), ("nobody", "other"), ("gone", "other")):
        with pytest.raises(PolicyDenied) as caught:
            policy.check(RULES, spec(project, mounts=(mount(share=name),)))
        texts.add(caught.value.message.replace(name, "NAME"))
    assert len(texts) == 1


def test_what_is_given_comes_to_the_policys_paths() -> None:
    asked = spec(mounts=(mount(subpath="a"), mount(share="all", target="/all")), devices=(device(mode="0600", uid=7),))
    policy.check(RULES, asked)
    found = policy.resolve(RULES, asked)
    assert [(bind.path, bind.subpath, bind.target, bind.read_only) for bind in found.binds] == [
        ("/srv/media", "a", "/srv", True),
        ("/srv/all", "", "/all", False),
    ]
    assert [(node.path, node.target, node.mode, node.uid) for node in found.nodes] == [
        ("/dev/fuse", "/dev/fuse", 0o600, 7)
    ]
    assert Attachments.from_dict(found.to_dict()) == found
    assert Spec.from_json(asked.to_json()) == asked


def test_a_serial_line_is_no_terminal_of_the_containers() -> None:
    asked = spec(devices=(device(device="modem"), device(device="kvm", path="/dev/ttyS0")))
    asked.check()
    policy.check(RULES, asked)
    assert [node.target for node in policy.resolve(RULES, asked).nodes] == ["/dev/ttyUSB0", "/dev/ttyS0"]


@pytest.mark.parametrize(
    "devices",
    [
        (device(path="/dev/x"), device(device="tun", path="/dev/x")),
        (device(), device(device="tun", path="/dev/fuse")),
        (device(path="/dev/x"), device(device="tun", path="/dev/x/y")),
        (device(path="/dev/x/y"), device(device="tun", path="/dev/x")),
    ],
)
def test_two_devices_have_no_place_together(devices: tuple[Device, ...]) -> None:
    asked = spec(devices=devices)
    asked.check()
    with pytest.raises(SpecError) as caught:
        policy.check(RULES, asked)
    assert caught.value.field == "devices.1.path"


def test_fuse_and_tun_are_everybodys_by_default() -> None:
    asked = spec("any", devices=(device(), device(device="tun")))
    policy.check(policy.DEFAULT, asked)
    assert [node.target for node in policy.resolve(policy.DEFAULT, asked).nodes] == ["/dev/fuse", "/dev/net/tun"]
