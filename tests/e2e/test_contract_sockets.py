"""What docs/api.md promises of the three sockets: messages, close codes, windows, and who is told what."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import httpx
import pytest
from websockets.exceptions import ConnectionClosed

from .instance import Instance, call, idle, wait_until
from .sockets import Socket, terminal
from .sockets import events as listening

KIB = 1024


@pytest.fixture(scope="module")
def box(instance: Instance) -> Iterator[str]:
    """A running container."""
    with instance.client() as api:
        call(api, "POST", "/containers", {"name": "s-box", "image": "busybox", "start": True})
        yield "s-box"
        call(api, "DELETE", "/containers/s-box?force=true")


@pytest.fixture(scope="module")
def stranger(instance: Instance) -> str:
    """A user without any project."""
    with instance.client() as api:
        api.post("/users", json={"username": "s-stranger"})
    instance.token("s-stranger")
    return "s-stranger"


def test_a_terminal_opens_resizes_carries_bytes_and_tells_the_exit(instance: Instance, box: str) -> None:
    with terminal(instance, box, command=["/bin/sh"], cols=91, rows=33) as shell:
        opened = shell.message(type="opened")
        assert isinstance(opened["session"], str)
        shell.raw.send(b"stty size; tty; echo $TERM\n")
        shell.until(lambda: b"33 91" in shell.data and b"/dev/pts/" in shell.data and b"xterm-256color" in shell.data)
        shell.say(type="resize", cols=120, rows=40)
        shell.raw.send(b"stty size\n")
        shell.until(lambda: b"40 120" in shell.data)
        shell.say(type="ack", bytes=len(shell.data))
        shell.raw.send(b"exit 7\n")
        assert shell.message(type="exit")["code"] == 7


def test_coming_back_replays_the_scrollback_first(instance: Instance, api: httpx.Client, box: str) -> None:
    with terminal(instance, box) as first:
        session = first.message(type="opened")["session"]
        first.raw.send(b"echo mar''ker\n")
        first.until(lambda: b"marker" in first.data)
    listed = api.get(f"/containers/{box}/sessions").json()["items"]
    assert session in [item.get("id", item.get("session")) for item in listed]
    with terminal(instance, box, session=session) as again, terminal(instance, box, session=session) as other:
        assert again.message(type="opened")["session"] == session
        again.until(lambda: b"marker" in again.data)
        other.until(lambda: b"marker" in other.data)
        other.raw.send(b"echo bo''th\n")
        again.until(lambda: b"both" in again.data)
        other.until(lambda: b"both" in other.data)
        assert api.delete(f"/containers/{box}/sessions/{session}").status_code == 204
        again.message(type="exit")
    assert api.delete(f"/containers/{box}/sessions/no-such").status_code == 404


def test_no_more_than_the_window_is_sent_unacknowledged(instance: Instance, box: str) -> None:
    with terminal(
        instance, box, command=["sh", "-c", "head -c 2000000 /dev/zero | tr '\\0' z; echo; echo END"]
    ) as shell:
        shell.message(type="opened")
        shell.until(lambda: len(shell.data) >= 200 * KIB)
        while shell.pump(0.7):
            pass
        assert len(shell.data) <= 256 * KIB
        acknowledged = 0
        while b"END" not in shell.data:
            with contextlib.suppress(ConnectionClosed):  # the command has ended; what it printed is still to be read
                shell.say(type="ack", bytes=len(shell.data) - acknowledged)
            acknowledged = len(shell.data)
            assert shell.pump(60)
        assert shell.data.count(b"z") == 2_000_000


@pytest.mark.parametrize(("frame", "code", "closed"), [
    ("{no json", "bad-request", 4400), ("[]", "bad-request", 4400),
    ('{"type": "resize", "cols": 1, "rows": 1}', "bad-request", 4400),
    (b"bytes first", "bad-request", 4400), ('{"type": "open", "cols": 0, "rows": 24}', "bad-request", 4400),
    ('{"type": "open", "cols": 65535, "rows": 24}', "bad-request", 4400),
    ('{"type": "open", "cols": 80, "rows": 24, "session": "no-such-session"}', "not-found", 4404),
    ("x" * 20000, "too-large", 4413),
])  # fmt: skip
def test_a_bad_frame_is_told_and_closed(
    frame: str | bytes, code: str, closed: int, instance: Instance, box: str
) -> None:
    with Socket(instance, f"/ws/containers/{box}/terminal") as socket:
        socket.raw.send(frame)
        assert socket.closing() == (code, closed)


def test_sockets_refuse_whom_they_must(
    instance: Instance, api: httpx.Client, box: str, stranger: str, name: str
) -> None:
    path = f"/ws/containers/{box}/terminal"
    for more, told in (
        ({"token": "wrong"}, ("unauthenticated", 4401)),
        ({"additional_headers": {}}, ("forbidden", 4403)),
        ({"additional_headers": {"Origin": "http://evil.example"}}, ("forbidden", 4403)),
        ({"additional_headers": {"Origin": instance.address}}, ("unauthenticated", 4401)),
        ({"user": stranger}, ("not-found", 4404)),
    ):
        with Socket(instance, path, **more) as socket:
            assert socket.closing() == told, more
    for path in ("/ws/containers/not-there/terminal", "/ws/nothing"):
        with Socket(instance, path) as socket:
            assert socket.closing() == ("not-found", 4404)
    reader = api.post("/tokens", json={"name": "s-reader", "read_only": True}).json()["token"]
    with Socket(instance, f"/ws/containers/{box}/terminal", token=reader) as socket:
        assert socket.closing() == ("forbidden", 4403)
    call(api, "POST", "/containers", {"name": name, "image": "busybox"})
    with terminal(instance, name) as socket:
        assert socket.closing() == ("invalid-transition", 4409)
    call(api, "POST", f"/containers/{name}/start")
    with terminal(instance, name) as socket:
        foreign = socket.message(type="opened")["session"]
        with terminal(instance, box, session=foreign) as forged:
            assert forged.closing() == ("not-found", 4404)


def test_events_come_at_once_whoever_caused_them(
    instance: Instance, api: httpx.Client, stranger: str, name: str
) -> None:
    with listening(instance) as events, listening(instance, user=stranger) as none:
        operation = call(api, "POST", "/containers", {"name": name, "image": "busybox", "start": True, "restart": "no"})
        told = events.message(type="container.changed", name=name, status="running")
        assert {"type", "name", "project", "status", "operation"} <= told.keys()
        ended = events.message(type="operation.changed", id=operation["id"], status="succeeded")
        assert {"type", "id", "action", "container", "status", "progress_pct"} <= ended.keys()
        assert (ended["action"], ended["container"]) == ("create", name)
        for command in ("reboot", "poweroff"):
            events.messages.clear()
            row = idle(api, name)
            asked = {"command": [command]}
            wait_until(
                lambda asked=asked, pid=row["pid"]: (
                    api.post(f"/containers/{name}/exec", json=asked).status_code == 200
                    or api.get(f"/containers/{name}").json()["pid"] != pid
                ),
                f"{command} is asked for",
            )
            if command == "reboot":
                events.message(type="container.event", name=name, event="rebooted")
            else:
                events.message(type="container.changed", name=name, status="stopped")
        call(api, "DELETE", f"/containers/{name}")
        events.message(type="container.deleted", name=name)
        while none.pump(0.2):
            pass
        assert {m["type"] for m in none.messages} <= {"resync"}


def test_running_out_of_memory_is_told(instance: Instance, api: httpx.Client, name: str) -> None:
    call(api, "POST", "/containers", {
        "name": name, "image": "busybox", "start": True, "limits": {"memory_bytes": 16 * KIB**2}
    })  # fmt: skip
    with listening(instance) as events:
        killed = api.post(f"/containers/{name}/exec", json={"command": ["sh", "-c", "tail /dev/zero"]}).json()
        assert killed["exit_code"] == 137
        events.message(type="container.event", name=name, event="oom")
    wait_until(lambda: api.get(f"/containers/{name}/stats").json()["oom_kills"] >= 1, "oom_kills")
    assert api.get(f"/containers/{name}").json()["status"] == "running"


def test_stats_come_once_a_second(instance: Instance, box: str, stranger: str) -> None:
    with Socket(instance, "/ws/stats") as stats, Socket(instance, "/ws/stats", user=stranger) as none:
        stats.say(type="subscribe", containers=[box])
        none.say(type="subscribe", containers="all")
        stats.until(lambda: len(stats.messages) >= 4)
        assert {m["type"] for m in stats.messages} == {"stats"}
        assert all(m["containers"].keys() == {box} for m in stats.messages)
        assert stats.messages[-1]["containers"][box]["processes"] >= 1
        none.until(lambda: none.messages)
        assert all(not m.get("containers") for m in none.messages)
    with Socket(instance, "/ws/stats") as stats:
        stats.say(type="subscribe", containers="all")
        stats.until(lambda: any(box in m["containers"] for m in stats.messages))
        stats.say(type="nonsense")
        assert stats.closing() == ("bad-request", 4400)


def test_what_is_withdrawn_is_closed_within_ten_seconds(instance: Instance, api: httpx.Client, box: str) -> None:
    user = "s-leaver"
    api.post("/users", json={"username": user})
    api.put(f"/projects/default/members/{user}", json={"role": "operator"})
    extra = api.post("/tokens", json={"name": "s-extra"}).json()
    with (
        terminal(instance, box, user=user) as shell,
        Socket(instance, "/ws/events", user=user) as events,
        Socket(instance, "/ws/events", token=extra["token"]) as by_token,
    ):
        shell.message(type="opened")
        shell.raw.send(b"echo he''re\n")
        shell.until(lambda: b"here" in shell.data)
        api.put(f"/projects/default/members/{user}", json={"role": "viewer"})
        api.delete(f"/tokens/{extra['id']}")
        assert shell.closing() == ("forbidden", 4403)
        assert by_token.closing() == ("unauthenticated", 4401)
        api.patch(f"/users/{user}", json={"active": False})
        assert events.closing() == ("unauthenticated", 4401)


def test_a_frame_that_is_no_subscription_closes_events(instance: Instance) -> None:
    with Socket(instance, "/ws/events") as events:
        events.say(type="hello")
        assert events.closing() == ("bad-request", 4400)
