"""Hosts that are not empty: another instance beside, a firewall that drops, subnets that are routed already."""

from __future__ import annotations

import contextlib
import html
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.kernel.netns import Place, set_netns

from ..ports import free_port
from .instance import PATIENCE_SEC, PROJECT, Instance, call, wait_until


def facts(instance: Instance, name: str) -> dict[str, Any]:
    """Return what of a running container must be its own on the whole host."""
    with instance.client() as api:
        row = api.get(f"/containers/{name}").json()
        network = api.get("/networks/default").json()
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    return {
        "addresses": set(row["addresses"]),
        "macs": {nic["mac"] for nic in row["networks"]},
        "ids": {Path(f"/proc/{row['pid']}/uid_map").read_text().split()[1]},
        "subnets": {network["ipv4"], network["ipv6"]},
        "bridges": set(re.findall(rf"boxbr{instance.name}\d+", links)),
    }


@pytest.mark.lxc("Two instances on one host share no socket, name, range or subnet", "stacker#645")
def test_two_instances_side_by_side_share_nothing_but_the_host(
    instance: Instance, api: httpx.Client, name: str, request: pytest.FixtureRequest
) -> None:
    call(api, "POST", "/containers", {"name": name, "image": "busybox", "start": True})
    pid = api.get(f"/containers/{name}").json()["pid"]
    other: Instance = request.getfixturevalue("own_instance")
    with other.client() as its:
        call(its, "POST", "/containers", {"name": name, "image": "busybox", "start": True})
        mine, others = facts(instance, name), facts(other, name)
        for what, values in mine.items():
            assert values, what
            assert others[what], what
            assert values.isdisjoint(others[what]), what
        asked = {"command": ["nslookup", name]}
        for client, own, foreign in ((api, mine, others), (its, others, mine)):
            answer = wait_until(
                lambda client=client, own=own: (
                    any(
                        address in (told := client.post(f"/containers/{name}/exec", json=asked).json()["stdout"])
                        for address in own["addresses"]
                    )
                    and told
                ),
                "its name is known",
            )
            assert not any(address in answer for address in foreign["addresses"])
    other.down(containers=True)
    other.nothing_left()
    instance.nothing_left()
    row = api.get(f"/containers/{name}").json()
    assert (row["status"], row["pid"]) == ("running", pid)
    shows = {"command": ["ip", "-4", "addr", "show", "eth0"]}
    wait_until(
        lambda: any(a in api.post(f"/containers/{name}/exec", json=shows).json()["stdout"] for a in row["addresses"]),
        "its address",
    )
    call(api, "POST", f"/containers/{name}/restart")


@pytest.fixture
def place() -> Iterator[Place]:
    """A network of its own for a whole instance, in which 10.64.0.0/10 and 10.128.0.0/9 are routed already."""
    made = Place()
    try:
        made.run("ip link add lan0 type bridge")
        made.run("ip link set lan0 up")
        for subnet in ROUTED:
            made.run(f"ip route add {subnet} dev lan0")
        made.run("nft add table ip filter")
        made.run("nft 'add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }'")
        yield made
    finally:
        made.close()


ROUTED = ("10.64.0.0/10", "10.128.0.0/9")


@contextlib.contextmanager
def inside(place: Place) -> Iterator[None]:
    """Be in that network meanwhile, with this thread."""
    own_fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        set_netns(place.netns_fd)
        yield
    finally:
        set_netns(own_fd)
        os.close(own_fd)


def private_clone(target: Path) -> Path:
    """Copy what the panel is made of, readable by its owner only: as a clone that root makes with umask 077."""
    for part in ("containers", "locale", "panel", "static", "templates"):
        shutil.copytree(PROJECT / part, target / part, symlinks=True)
    for part in ("manage.py", "pyproject.toml", "requirements.txt", "requirements-dev.txt"):
        shutil.copy2(PROJECT / part, target / part)
    subprocess.run(["chmod", "-R", "go=", target], check=True)
    (target / ".venv").symlink_to(sys.prefix)
    return target


def test_a_host_that_routes_our_subnets_and_drops_what_is_forwarded(place: Place, tmp_path: Path) -> None:
    """The clone and the state lie where nobody but root may go, and root's umask is narrow."""
    tmp_path.chmod(0o700)
    instance = Instance(tmp_path / "state", free_port(), umask=0o077, project=private_clone(tmp_path / "clone"))
    instance.wrapper = ("nsenter", "--net", "--target", str(place.process.pid), "--")
    instance.up()
    bridge = f"boxbr{instance.name}0"
    rules = [
        f"iptables -I FORWARD -i {bridge} -j ACCEPT",
        f"iptables -I FORWARD -o {bridge} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    ]
    told = [check for check in json.loads(instance.manage("doctor", "--json").stdout) if "FORWARD" in check["what"]]
    assert [(check["ok"], check["mend"].splitlines()) for check in told] == [(False, rules)]
    instance.token()
    with inside(place), instance.client() as api:
        network = api.get("/networks/default").json()
        assert network["ipv4"].startswith("172.")
        assert [problem["mend"].splitlines() for problem in network["problems"]] == [rules]
        with httpx.Client(base_url=instance.address, follow_redirects=True, timeout=PATIENCE_SEC) as page:
            form = page.get(instance.sign_in_link).text
            token = re.findall(r'name="csrfmiddlewaretoken" value="([^"]+)"', form)[0]
            own = {"Origin": instance.address, "Sec-Fetch-Site": "same-origin"}
            page.post(instance.sign_in_link, data={"csrfmiddlewaretoken": token}, headers=own)
            shown = html.unescape(page.get("/networks").text)
        assert all(rule in shown for rule in rules)
        call(api, "POST", "/containers", {"name": "one", "image": "busybox", "start": True})
    instance.remove()
