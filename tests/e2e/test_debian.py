"""Debian 12 through a running panel: made on first use, booted by its systemd, networked, copied, switched off."""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from containers.core.host import Host

from .. import debian
from ..kernel.netns import Place
from .instance import Instance, call, wait_until
from .terminal import Terminal


def inside(api: httpx.Client, name: str, script: str, **more: Any) -> str:
    """Run a shell script in a container and return what it printed; empty while it cannot be entered."""
    answer = api.post(f"/containers/{name}/exec", json={"command": ["/bin/sh", "-c", script], **more})
    assert answer.status_code in (200, 409), answer.text
    return str(answer.json()["stdout"] + answer.json()["stderr"]).strip() if answer.status_code == 200 else ""


def booted(api: httpx.Client, name: str) -> None:
    """Wait for systemd, and fail unless everything came up."""
    state = wait_until(
        lambda: {"running", "degraded"} & {inside(api, name, "systemctl is-system-running")}, "systemd has booted"
    )
    assert state == {"running"}, inside(api, name, "systemctl --failed; journalctl -b -p err")


def address_of(api: httpx.Client, name: str, mark: str) -> str:
    """Return a container's IPv4 (mark ".") or IPv6 (mark ":") address, as the panel knows it."""
    return str(next(found for found in api.get(f"/containers/{name}").json()["addresses"] if mark in found))


def operations(api: httpx.Client, action: str) -> list[dict[str, Any]]:
    return [found for found in api.get("/operations?limit=1000").json()["items"] if found["action"] == action]


def ended(api: httpx.Client, operation_id: str) -> dict[str, Any]:
    path = f"/operations/{operation_id}"
    wait_until(lambda: api.get(path).json()["finished_at"], "the operation's end", timeout_sec=120)
    found: dict[str, Any] = api.get(path).json()
    return found


def delete(api: httpx.Client, name: str) -> None:
    call(api, "DELETE", f"/containers/{name}?force=true")


@pytest.fixture(scope="module")
def client(instance: Instance) -> Iterator[httpx.Client]:
    with instance.client() as made:
        yield made


@pytest.fixture(scope="module")
def image(instance: Instance, client: httpx.Client) -> None:
    """Debian 12 in the instance's store: found there by the next create, which then need not build it."""
    if client.get("/images/debian-12").json()["state"] != "ready":
        debian.put(Host.open(instance.state_dir))


@pytest.fixture(scope="module")
def deb(client: httpx.Client, image: None) -> Iterator[str]:
    """A running Debian, of all tests of this module."""
    name = f"deb-{secrets.token_hex(3)}"
    call(client, "POST", "/containers", {"name": name, "image": "debian-12", "start": True})
    booted(client, name)
    yield name
    delete(client, name)


@pytest.fixture(scope="module")
def box(client: httpx.Client) -> Iterator[str]:
    """A running busybox beside it."""
    name = f"box-{secrets.token_hex(3)}"
    call(client, "POST", "/containers", {"name": name, "image": "busybox", "start": True})
    yield name
    delete(client, name)


# making the image


def test_a_first_use_builds_it_once_for_all_who_wait_and_can_be_cancelled(instance: Instance) -> None:
    with instance.client() as api:
        if api.get("/images/debian-12").json()["state"] == "ready":
            pytest.fail("another test used debian-12 of this instance before")
        creates = [
            api.post("/containers", json={"name": f"first-{number}", "image": "debian-12", "start": True}).json()["id"]
            for number in range(2)
        ]
        for create in creates:
            path = f"/operations/{create}"
            wait_until(lambda path=path: "Retrieving" in api.get(f"{path}/log").json()["log"], "a live log")
            wait_until(lambda path=path: "debian-12: " in api.get(path).json()["message"], "what is being done")
        (build,) = operations(api, "image-build")
        assert build["status"] == "running"
        assert api.get("/images/debian-12").json()["state"] == "building"

        assert api.post(f"/operations/{build['id']}/cancel").status_code == 202
        for create in creates:
            operation = ended(api, create)
            assert operation["status"] == "failed"
            assert operation["error"]["step"] == "image"
            assert "cancelled" in operation["error"]["message"]
        assert [found["status"] for found in operations(api, "image-build")] == ["cancelled"]
        assert api.get("/images/debian-12").json()["state"] == "available"
        assert api.get("/containers/first-0").status_code == api.get("/containers/first-1").status_code == 404
        instance.nothing_left()

        again = api.post("/containers", json={"name": "first-0", "image": "debian-12"}).json()["id"]
        wait_until(lambda: api.get(f"/operations/{again}/log").json()["log"], "it builds again")
        assert api.post(f"/operations/{again}/cancel").status_code == 202
        assert ended(api, again)["status"] == "cancelled"
        assert api.get("/images/debian-12").json()["state"] == "available"
        instance.nothing_left()


def test_a_bad_mirror_fails_with_the_step_and_the_last_lines(instance: Instance, client: httpx.Client) -> None:
    source = {"type": "debootstrap", "suite": "bookworm", "mirror": "http://127.0.0.1:9/debian"}
    policy = instance.state_dir / "policy.toml"
    policy.write_text('[images]\nsources = ["127.0.0.1"]\n')
    try:
        for pid in instance.pids("ticker"):  # it reads the policy when it starts, and from time to time
            os.kill(pid, signal.SIGTERM)
        asked = {"name": "bad-mirror", "source": source}
        answer = wait_until(
            lambda: (lambda got: got.json() if got.status_code != 403 else None)(
                client.post("/images?wait=60", json=asked)
            ),
            "the policy names the mirror",
        )
    finally:
        policy.unlink()
    assert answer["status"] == "failed", answer
    assert answer["error"]["step"] == "debootstrap"
    assert "E: " in answer["error"]["console"]
    assert "127.0.0.1:9" in client.get(f"/operations/{answer['id']}/log").json()["log"]
    assert client.delete("/images/bad-mirror?wait=60").status_code == 200
    instance.nothing_left()


# running


def test_it_has_its_addresses_by_its_own_tools_and_a_login_on_its_console(
    instance: Instance, client: httpx.Client, deb: str
) -> None:
    ipv4, ipv6 = address_of(client, deb, "."), address_of(client, deb, ":")
    assert ipv4 in inside(client, deb, "ip -4 addr show dev eth0")
    assert "dhclient" in inside(client, deb, "ps axo args")
    wait_until(lambda: ipv6 in inside(client, deb, "ip -6 addr show dev eth0"), "an IPv6 address")
    gateway = inside(client, deb, "ip route show default").split()[2]
    assert f"nameserver {gateway}" in inside(client, deb, "cat /etc/resolv.conf")
    assert inside(client, deb, "hostname") == deb
    assert inside(client, deb, "systemctl --failed --no-legend; journalctl -b -p err -q --no-pager") == ""
    console = Terminal(instance, deb)
    try:
        console.open(session="console")
        console.type("\n")
        console.expect(f"{deb} login:")
    finally:
        console.close()


@pytest.mark.parametrize("family", ["-4", "-6"])
def test_it_and_a_busybox_reach_each_other_by_name(client: httpx.Client, deb: str, box: str, family: str) -> None:
    def reaches(source: str, target: str) -> Callable[[], bool]:
        return lambda: (
            "1 received"
            in inside(client, source, f"ping {family} -c1 -W1 {target}").replace("1 packets received", "1 received")
        )

    wait_until(reaches(deb, box), "from Debian to busybox")
    wait_until(reaches(box, deb), "from busybox to Debian")


def test_it_reaches_out_through_the_hosts_address(client: httpx.Client, deb: str) -> None:
    """To a network that knows no way back to the containers."""
    world, link = Place(), f"w{secrets.token_hex(4)}"
    subnet = f"198.18.{secrets.randbelow(256)}"  # RFC 2544: for tests between networks
    try:
        for command in (
            f"ip link add {link} type veth peer name out0 netns {world.process.pid}",
            f"ip addr add {subnet}.1/30 dev {link}",
            f"ip link set {link} up",
        ):
            subprocess.run(command.split(), check=True)
        world.run(f"ip addr add {subnet}.2/30 dev out0")
        world.run("ip link set out0 up")
        wait_until(lambda: "1 received" in inside(client, deb, f"ping -c1 -W1 {subnet}.2"), "the world")
        assert "default" not in world.run("ip route")
    finally:
        subprocess.run(["ip", "link", "delete", link], check=False)
        world.close()


def processes(client: httpx.Client, deb: str) -> int:
    """How many processes there are; more than it may have while there is no room for the question."""
    told = inside(client, deb, "echo /proc/[0-9]* | wc -w").strip()
    return int(told) if told.isdecimal() else 99


def test_limits_hold_and_cannot_be_changed_from_inside(client: httpx.Client, deb: str) -> None:
    limits = {"memory_bytes": 192 << 20, "cpus": 0.5, "pids": 60}
    call(client, "PATCH", f"/containers/{deb}", {"limits": limits})
    try:
        inside(
            client,
            deb,
            "for file in $(find /sys/fs/cgroup -name memory.max -o -name pids.max -o -name cpu.max"
            " -o -name memory.limit_in_bytes -o -name pids.max -o -name cpu.cfs_quota_us); do echo max >$file; done; "
            "mkdir -p /mnt/x; for kind in memory pids cpu; do mount -t cgroup -o $kind x /mnt/x && umount /mnt/x; done",
        )
        assert "Cannot fork" in inside(client, deb, "for n in $(seq 80); do sleep 10 & done")
        wait_until(lambda: processes(client, deb) < 40, "they have ended")
        assert "Killed" in inside(client, deb, "head -c 400M /dev/zero | tail -c 400M | wc -c", timeout=300)
        loop = "timeout 2 sh -c 'while :; do :; done'"
        clock = "read up idle </proc/uptime; echo $up"
        began, *_own, spent, ended_at = inside(
            client, deb, f"{clock}; {loop} & {loop} & wait; times; {clock}"
        ).splitlines()
        minutes, seconds = zip(*(part.rstrip("s").split("m") for part in spent.split()), strict=True)
        used_sec = 60 * sum(map(int, minutes)) + sum(map(float, seconds))
        assert used_sec < 0.8 * (float(ended_at) - float(began)), "two busy loops on half a processor"
        wait_until(lambda: inside(client, deb, "systemctl is-system-running") == "running", "it is still well")
        assert client.get(f"/containers/{deb}").json()["limits"]["memory_bytes"] == limits["memory_bytes"]
    finally:
        call(client, "PATCH", f"/containers/{deb}", {"limits": {"memory_bytes": None, "cpus": None, "pids": None}})


def test_frozen_it_stands_still(client: httpx.Client, deb: str) -> None:
    inside(
        client, deb, "(while :; do date +%s%N >>/run/ticks; sleep 0.05; done) >/dev/null 2>&1 & echo $! >/run/ticker"
    )

    def ticks() -> list[int]:
        return [int(tick) for tick in inside(client, deb, "cat /run/ticks 2>/dev/null").split()]

    wait_until(ticks, "it ticks")
    call(client, "POST", f"/containers/{deb}/freeze")
    time.sleep(1.5)
    call(client, "POST", f"/containers/{deb}/unfreeze")
    at = int(inside(client, deb, "date +%s%N"))
    wait_until(lambda: ticks()[-1] > at, "it goes on afterwards")
    assert max(later - earlier for earlier, later in itertools.pairwise(ticks())) > 1.4e9
    inside(client, deb, "kill $(cat /run/ticker)")
    booted(client, deb)


# copies


def test_snapshot_break_restore_and_a_clone_beside_it(client: httpx.Client, deb: str) -> None:
    inside(client, deb, "mkdir -p /etc/ssh; echo secret >/etc/ssh/ssh_host_ed25519_key; echo kept >/root/file")
    call(client, "POST", f"/containers/{deb}/snapshots", {"name": "good", "note": "before the accident"})
    inside(client, deb, "rm -rf /root/file /etc/network /usr/bin/systemctl; sync")
    clone = f"{deb}-twin"
    call(client, "POST", f"/containers/{deb}/clone", {"name": clone, "snapshot": "good"})
    try:
        machine = inside(client, deb, "cat /etc/machine-id")
        call(client, "POST", f"/containers/{deb}/snapshots/good/restore")
        call(client, "POST", f"/containers/{clone}/start")
        for name in (deb, clone):
            booted(client, name)
            assert inside(client, name, "cat /root/file; hostname; cat /etc/hostname") == f"kept\n{name}\n{name}"
            assert f"127.0.1.1\t{name}" in inside(client, name, "cat /etc/hosts")
        assert inside(client, deb, "cat /etc/machine-id /etc/ssh/ssh_host_ed25519_key") == f"{machine}\nsecret"
        for question in (
            "cat /etc/machine-id",
            "cat /sys/class/net/eth0/address",
            "ip -4 -o addr show dev eth0 | awk '{print $4}'",
            "cat /proc/self/uid_map",
        ):
            answers = {inside(client, name, question) for name in (deb, clone)}
            assert len(answers) == 2, question
            assert all(answers), question
        assert "No such file" in inside(client, clone, "cat /etc/ssh/ssh_host_ed25519_key"), "a key of its twin"
        wait_until(lambda: "1 received" in inside(client, clone, f"ping -c1 -W1 {deb}"), "its twin")
        inside(client, clone, "echo changed >/root/file")
        assert inside(client, deb, "cat /root/file") == "kept"
    finally:
        delete(client, clone)


# the end


def test_it_runs_on_while_the_panel_restarts_and_reboots_meanwhile(
    instance: Instance, client: httpx.Client, deb: str
) -> None:
    before = client.get(f"/containers/{deb}").json()["pid"]
    inside(client, deb, "systemctl reboot")
    instance.down()
    instance.up()
    row = wait_until(
        lambda: (lambda found: found if found["pid"] not in (before, None) else None)(
            client.get(f"/containers/{deb}").json()
        ),
        "another init",
    )
    assert row["status"] == "running"
    booted(client, deb)
    assert address_of(client, deb, ".") in inside(client, deb, "ip -4 addr show dev eth0")


def test_it_stops_cleanly_and_powers_off_from_inside(client: httpx.Client, deb: str) -> None:
    call(client, "POST", f"/containers/{deb}/stop", {"timeout": 300, "kill": False})
    row = client.get(f"/containers/{deb}").json()
    assert (row["status"], row["last_exit"]["reason"]) == ("stopped", "stopped")
    assert "Halting system" in row["last_exit"]["console"]
    call(client, "POST", f"/containers/{deb}/start")
    booted(client, deb)
    with contextlib.suppress(httpx.HTTPError):
        inside(client, deb, "systemctl poweroff")
    wait_until(lambda: client.get(f"/containers/{deb}").json()["status"] == "stopped", "it is off")
    assert client.get(f"/containers/{deb}").json()["last_exit"]["reason"] == "poweroff"
