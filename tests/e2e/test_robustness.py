"""Kill -9 of any part of the panel, one by one and all together: no container notices, and the panel is back."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from .instance import PATIENCE_SEC, Instance, call, delete, wait_until
from .terminal import Terminal

PARTS = ("daphne", "celery", "ticker", "redis-server", "launcher")
DEAF = {
    "init_command": ["/bin/sh", "-c", "while [ ! -e /tmp/end ]; do sleep 0.1; done"],
    # as the first process of its namespace it has only those signals that it asked for; a shell has asked for SIGINT
    "halt_signal": "SIGUSR1",
}
"""What makes a container whose stop lasts until let_go()."""


def healthy(instance: Instance) -> bool:
    try:
        return httpx.get(f"{instance.address}/healthz", timeout=20).status_code == 200
    except httpx.HTTPError:
        return False


def kill(pids: list[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def kill_parts(instance: Instance, *roles: str) -> None:
    """Kill -9 parts of the panel, and wait until others are in their place and the panel is healthy."""
    victims = {role: wait_until(lambda role=role: instance.pids(role), role) for role in roles}
    kill([pid for pids in victims.values() for pid in pids])
    wait_until(
        lambda: all(set(instance.pids(role)) - set(victims[role]) for role in roles) and healthy(instance),
        f"{', '.join(roles)} back again",
    )


def ended(api: httpx.Client, operation_id: str, timeout_sec: float = PATIENCE_SEC) -> dict[str, Any]:
    """Wait for an operation's end, through a panel that may be away."""

    def look() -> dict[str, Any] | None:
        try:
            answer = api.get(f"/operations/{operation_id}")
        except httpx.HTTPError:
            return None
        found: dict[str, Any] = answer.json() if answer.status_code == 200 else {"status": "queued"}
        return found if found["status"] not in ("queued", "running") else None

    found: dict[str, Any] = wait_until(look, "the operation's end", timeout_sec=timeout_sec)
    return found


@pytest.fixture
def running(api: httpx.Client, name: str) -> str:
    call(api, "POST", "/containers", {"name": name, "image": "busybox", "start": True})
    return name


@pytest.fixture
def deaf(api: httpx.Client, name: str) -> Iterator[str]:
    """A running container that takes its time to stop."""
    made = f"{name}-deaf"
    call(api, "POST", "/containers", {"name": made, "image": "busybox", "start": True, **DEAF})
    yield made
    let_go(api, made)
    delete(api, made)


def let_go(api: httpx.Client, deaf: str) -> None:
    """Let a deaf container end, so that its stop ends too."""

    def told() -> bool:
        try:
            answer = api.post(f"/containers/{deaf}/exec", json={"command": ["touch", "/tmp/end"]})
            return answer.status_code == 200 or api.get(f"/containers/{deaf}").json()["status"] == "stopped"
        except httpx.HTTPError:
            return False

    wait_until(told, f"{deaf} is told to end")


@pytest.mark.parametrize("roles", [*((part,) for part in PARTS), PARTS], ids=lambda roles: "+".join(roles))
def test_killed_parts_come_back_while_a_terminal_and_an_operation_are_open(
    instance: Instance, api: httpx.Client, running: str, deaf: str, roles: tuple[str, ...]
) -> None:
    before = api.get(f"/containers/{running}").json()["pid"]
    terminal = Terminal(instance, running)
    terminal.open()
    terminal.type("KEPT=$((40+2)); echo answer-$KEPT\n")
    terminal.expect("answer-42")
    stopping = api.post(f"/containers/{deaf}/stop", json={"timeout": 600}).json()
    wait_until(lambda: api.get(f"/operations/{stopping['id']}").json()["status"] == "running", "the stop to begin")

    kill_parts(instance, *roles)

    if "daphne" in roles:
        session = terminal.session
        terminal.open()
        assert terminal.session == session
        terminal.expect("answer-42")  # the scrollback
    else:
        assert terminal.alive()
    terminal.type("echo still-$KEPT\n")
    terminal.expect("still-42")
    terminal.close()

    row = api.get(f"/containers/{running}").json()
    assert (row["status"], row["pid"]) == ("running", before)
    let_go(api, deaf)
    operation = ended(api, stopping["id"])
    assert operation["status"] == "succeeded", operation
    assert ("resumed" in operation["message"]) == ("celery" in roles), operation
    wait_until(lambda: api.get(f"/containers/{deaf}").json()["status"] == "stopped", "it is seen to be stopped")
    call(api, "POST", f"/containers/{running}/restart")


def test_operations_end_when_the_worker_is_killed_in_the_middle(
    instance: Instance, api: httpx.Client, name: str
) -> None:
    """At whatever instant: a create and start either is done in the end, or leaves nothing."""
    for round_number in range(5):
        one = f"{name}-{round_number}"
        answer = api.post("/containers", json={"name": one, "image": "busybox", "start": True})
        assert answer.status_code == 202
        time.sleep(round_number * 0.04)
        kill(instance.pids("celery"))
        operation = ended(api, answer.json()["id"])
        assert operation["status"] == "succeeded", operation
        assert api.get(f"/containers/{one}").json()["status"] == "running"
    for round_number in range(5):
        call(api, "DELETE", f"/containers/{name}-{round_number}?force=true")
    instance.nothing_left()


def test_two_clicks_at_once_make_one_start(instance: Instance, api: httpx.Client, name: str) -> None:
    from concurrent.futures import ThreadPoolExecutor

    call(api, "POST", "/containers", {"name": name, "image": "busybox"})
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _n: api.post(f"/containers/{name}/start?wait=60"), range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 7
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} <= {"busy", "invalid-transition"}
    wait_until(lambda: len(instance.pids("supervisor", name)) == 1, "one supervisor")
    events = api.get(f"/operations?container={name}").json()["items"]
    assert [event["action"] for event in events].count("start") == 1


def test_redis_loses_all_its_data_and_nothing_else_is_lost(
    instance: Instance, api: httpx.Client, running: str, deaf: str
) -> None:
    """Its data is in memory only: what dies with it is what a new one lacks."""
    stopping = api.post(f"/containers/{deaf}/stop", json={"timeout": 600}).json()
    (redis,) = wait_until(lambda: instance.pids("redis-server"), "Redis")
    os.kill(redis, signal.SIGSTOP)  # the doorbells of what is asked for now are lost
    try:
        asked = [api.post(f"/containers/{running}/{action}").json()["id"] for action in ("freeze",)]
    finally:
        kill([redis])
    let_go(api, deaf)
    assert ended(api, stopping["id"])["status"] == "succeeded"
    for operation_id in asked:
        assert ended(api, operation_id)["status"] == "succeeded"
    wait_until(lambda: api.get(f"/containers/{running}").json()["status"] == "frozen", "it is seen to be frozen")
    wait_until(lambda: healthy(instance), "healthy")
    call(api, "POST", f"/containers/{running}/unfreeze")


def test_a_killed_supervisor_takes_its_container_along_and_leaves_nothing(
    instance: Instance, api: httpx.Client, running: str
) -> None:
    kill(instance.pids("supervisor", running))
    row = wait_until(
        lambda: (lambda r: r if r["status"] == "stopped" else None)(api.get(f"/containers/{running}").json()),
        "stopped",
    )
    assert row["last_exit"]["reason"] == "supervisor-lost"
    instance.nothing_left()
    call(api, "POST", f"/containers/{running}/start")


def test_a_killed_watcher_s_panel_is_taken_over(own_instance: Instance) -> None:
    """kill -9 of `up` itself: the next `up` meets none of the old one's processes, and all containers."""
    with own_instance.client() as api:
        call(api, "POST", "/containers", {"name": "stays", "image": "busybox", "start": True})
        before = api.get("/containers/stays").json()["pid"]
    kill(own_instance.pids("manage.py up"))
    wait_until(lambda: not own_instance.pids("daphne"), "the end of what it had started")
    own_instance.up()
    with own_instance.client() as api:
        row = api.get("/containers/stays").json()
        assert (row["status"], row["pid"]) == ("running", before)
        call(api, "POST", "/containers/stays/restart")


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
