"""The text of /etc/hosts, and debootstrap's orders: pure."""

from __future__ import annotations

import pytest

from containers.core.errors import PolicyDenied, SpecError
from containers.core.images import debootstrap
from containers.core.rules import policy
from containers.core.storage.identity import with_name


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"127.0.0.1\tlocalhost\n", b"127.0.0.1\tlocalhost\n127.0.1.1\tnew\n"),
        (b"127.0.1.1 old.example old\n::1 x\n", b"127.0.1.1\tnew\n::1 x\n"),
        (b"", b"127.0.1.1\tnew\n"),
    ],
)
def test_the_own_name_stands_once_in_hosts(before, after):
    assert with_name(before, "new") == after


@pytest.mark.lxc("No field of an image's source becomes an option of a program", "CVE-2026-48755")
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("suite", "../etc"),
        ("suite", "--foreign"),
        ("suite", "nosuchsuite"),
        ("suite", "jammy"),
        ("suite", "debian-common"),
        ("suite", 12),
        ("variant", "fakechroot"),
        ("init", "upstart"),
        ("packages", "vim"),
        ("packages", ["vim;reboot"]),
        ("packages", ["--x"]),
        ("packages", ["vim"] * 201),
        ("mirror", "file:///etc"),
        ("mirror", "http://"),
        ("mirror", "http://user:pw@deb.debian.org/debian"),
        ("mirror", "http://deb.debian.org/debian?x=1"),
        ("mirror", "http://deb.debian.org:99999/debian"),
        ("script", "x"),
    ],
)
def test_a_bad_debootstrap_source_names_its_field(field, value):
    with pytest.raises(SpecError) as refused:
        debootstrap.parse({"type": "debootstrap", "suite": "bookworm", field: value})
    assert refused.value.field == f"source.{field}"


@pytest.mark.parametrize("host", ["127.0.0.1", "10.0.0.1", "[::1]", "169.254.169.254", "localhost"])
def test_a_mirror_of_a_private_network_needs_the_policy(host):
    source = {"type": "debootstrap", "suite": "bookworm", "mirror": f"http://{host}/debian/"}
    with pytest.raises(PolicyDenied):
        debootstrap.parse(source)
    named = policy.Policy(images=policy.Images(sources=(host.strip("[]"), "::1/128", "10.0.0.0/8")))
    if host != "[::1]":
        named = policy.Policy(images=policy.Images(sources=(host,)))
    assert debootstrap.parse(source, named).mirror == f"http://{host}/debian"


def test_packages_are_added_to_what_a_container_needs():
    recipe = debootstrap.parse({"type": "debootstrap", "suite": "bookworm", "packages": ["vim", "systemd"]})
    assert {"vim", "systemd", "dbus", "ifupdown"} <= set(recipe.packages)
    assert len(set(recipe.packages)) == len(recipe.packages)


@pytest.mark.parametrize(
    ("suite", "init", "there", "not_there"),
    [
        ("bookworm", "systemd", {"systemd-sysv", "isc-dhcp-client"}, {"sysvinit-core", "dhcpcd-base"}),
        ("trixie", "systemd", {"systemd-sysv", "dhcpcd-base"}, {"isc-dhcp-client"}),
        ("sid", "sysvinit", {"sysvinit-core", "dhcpcd-base"}, {"systemd", "systemd-sysv"}),
    ],
)
def test_packages_are_those_of_the_release_and_of_its_init(suite, init, there, not_there):
    recipe = debootstrap.parse({"type": "debootstrap", "suite": suite, "init": init})
    assert there <= set(recipe.packages)
    assert not not_there & set(recipe.packages)
    assert ("--exclude=systemd-sysv" in debootstrap.arguments(recipe)) == (init != "systemd")


def test_the_standard_system_is_systemds():
    with pytest.raises(SpecError) as refused:
        debootstrap.parse({"type": "debootstrap", "suite": "bookworm", "variant": "standard", "init": "openrc"})
    assert refused.value.field == "source.variant"


def test_a_suite_that_is_younger_than_debootstrap_has_the_script_of_sid(monkeypatch, tmp_path):
    (tmp_path / "sid").touch()
    (tmp_path / "bookworm").touch()
    monkeypatch.setattr(debootstrap, "SCRIPTS", tmp_path)
    for suite, script in (("bookworm", "bookworm"), ("forky", "sid")):
        recipe = debootstrap.parse({"type": "debootstrap", "suite": suite})
        assert debootstrap.arguments(recipe)[-1] == str(tmp_path / script)
