"""Kill -9 of any part of the panel, one by one and all together: no container notices, and the panel is back."""

from __future__ import annotations

import os
import signal

import httpx
import pytest

from .instance import Instance, call, wait_until


def healthy(instance: Instance) -> bool:
    try:
        return httpx.get(f"{instance.address}/healthz", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def kill(pids: list[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


@pytest.mark.parametrize(
    "roles",
    [
        ("daphne",),
        ("celery",),
        ("ticker",),
        ("redis-server",),
        ("launcher",),
        ("daphne", "celery", "ticker", "redis-server", "launcher"),
    ],
)
def test_killed_parts_come_back_and_containers_do_not_notice(
    instance: Instance, api: httpx.Client, name: str, roles: tuple[str, ...]
) -> None:
    call(api, "POST", "/containers", {"name": name, "image": "busybox", "start": True})
    before = api.get(f"/containers/{name}").json()["pid"]
    victims = [pid for role in roles for pid in instance.pids(role)]
    assert victims
    kill(victims)
    wait_until(
        lambda: healthy(instance) and all(set(instance.pids(role)) - set(victims) for role in roles), 10, "back again"
    )
    row = api.get(f"/containers/{name}").json()
    assert (row["status"], row["pid"]) == ("running", before)
    assert api.post(f"/containers/{name}/exec", json={"command": ["true"]}).json()["exit_code"] == 0
    call(api, "POST", f"/containers/{name}/restart", {"timeout": 5})


def test_operations_end_when_the_worker_is_killed_in_the_middle(
    instance: Instance, api: httpx.Client, name: str
) -> None:
    for round_number in range(5):
        one = f"{name}-{round_number}"
        answer = api.post("/containers", json={"name": one, "image": "busybox", "start": True})
        assert answer.status_code == 202
        kill(instance.pids("celery"))
        operation = wait_until(
            lambda path=f"/operations/{answer.json()['id']}": (
                lambda found: found if found["status"] not in ("queued", "running") else None
            )(api.get(path).json()),
            20,
            "the operation's end",
        )
        assert operation["status"] in ("succeeded", "failed")
        row = api.get(f"/containers/{one}")
        if operation["status"] == "succeeded":
            assert row.json()["status"] == "running"
        if row.status_code == 200:
            wait_until(lambda path=f"/containers/{one}": api.get(path).json()["operation"] is None, 10, "idle")
            call(api, "DELETE", f"/containers/{one}?force=true")
    assert instance.manage("fsck", "--json").stdout.strip() == "[]"


def test_a_killed_supervisor_takes_its_container_along_and_leaves_nothing(
    instance: Instance, api: httpx.Client, name: str
) -> None:
    call(api, "POST", "/containers", {"name": name, "image": "busybox", "start": True})
    kill([pid for pid in instance.pids("supervisor") if name in open(f"/proc/{pid}/cmdline").read()])
    row = wait_until(
        lambda: (lambda r: r if r["status"] == "stopped" else None)(api.get(f"/containers/{name}").json()),
        10,
        "stopped",
    )
    assert row["last_exit"]["reason"] == "supervisor-lost"
    wait_until(lambda: instance.manage("fsck", "--json", check=False).stdout.strip() == "[]", 10, "nothing left")
    call(api, "POST", f"/containers/{name}/start")


def test_down_and_up_find_the_containers_again(own_instance: Instance) -> None:
    with own_instance.client() as api:
        call(api, "POST", "/containers", {"name": "stays", "image": "busybox", "start": True})
        call(api, "POST", "/containers", {"name": "frozen", "image": "busybox", "start": True})
        call(api, "POST", "/containers/frozen/freeze")
        before = api.get("/containers/stays").json()["pid"]
    own_instance.down()
    os.kill(before, 0)
    own_instance.up()
    with own_instance.client() as api:
        row = api.get("/containers/stays").json()
        assert (row["status"], row["pid"]) == ("running", before)
        assert api.get("/containers/frozen").json()["status"] == "frozen"
