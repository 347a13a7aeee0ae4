"""Bad input over the real web server: WebSockets, and bodies that would not fit into memory."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from .instance import Instance, call, wait_until

SIZE = {"type": "open", "cols": 80, "rows": 24}


@pytest.fixture(scope="module")
def running(instance: Instance) -> Iterator[str]:
    """A running container that none of this may harm."""
    name = f"w-{uuid.uuid4().hex[:8]}"
    with instance.client() as api:
        call(api, "POST", "/containers", {"name": name, "image": "busybox", "start": True})
        yield name
        assert api.post(f"/containers/{name}/exec", json={"command": ["true"]}).json()["exit_code"] == 0
        wait_until(lambda: not terminals(api, name), "no terminal is left")
        call(api, "DELETE", f"/containers/{name}?force=true")
    instance.nothing_left()


def terminals(api: httpx.Client, name: str) -> list[str]:
    """Return the ids of a container's terminals, without its console and what has ended."""
    items = api.get(f"/containers/{name}/sessions").json()["items"]
    return [one["session"] for one in items if one["session"] != "console" and not one["ended"]]


def refusal(
    instance: Instance, path: str, *messages: str | bytes, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, Any]]:
    """Send messages to a socket; return the code it closes with and the error it tells before."""
    if headers is None:
        headers = {"Authorization": f"Bearer {instance.token()}"}
    told: dict[str, Any] = {}
    address = f"ws://127.0.0.1:{instance.port}{path}"
    with connect(address, additional_headers=headers, open_timeout=60, max_size=None) as socket:
        try:
            for message in messages:
                socket.send(message)
            while True:
                data = socket.recv(timeout=60)
                if isinstance(data, str) and json.loads(data)["type"] == "error":
                    told = json.loads(data)
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd else 0, told


@pytest.mark.parametrize(
    ("more", "code", "field"),
    [
        *(({side: size}, 4400, side) for side in ("cols", "rows") for size in (0, -1, 65535, 1.5, "80", None, True)),
        ({"session": "f" * 16}, 4404, "session"),
        ({"session": "../../etc"}, 4404, "session"),
        ({"session": 5}, 4400, "session"),
        ({"session": "\ud800"}, 4404, "session"),
        ({"user": "nobody-here"}, 4400, "user"),
        ({"user": "\ud800"}, 4400, "user"),
        ({"command": []}, 4400, "command"),
        ({"command": ["no-such-program"]}, 4400, "command"),
        ({"command": ["a\0b"]}, 4400, "command"),
        ({"command": ["\ud800"]}, 4400, "command"),
        ({"command": "sh"}, 4400, "command"),
        ({"command": ["é" * 4000] * 4}, 4413, None),
    ],
)
def test_a_terminal_that_cannot_be(
    instance: Instance, running: str, more: dict[str, Any], code: int, field: str | None
) -> None:
    closed, told = refusal(instance, f"/ws/containers/{running}/terminal", json.dumps({**SIZE, **more}))
    assert (closed, told["field"]) == (code, field), told
    assert told["message"]


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("{", 4400),
        ("[]", 4400),
        ("{}", 4400),
        ('{"type": 1}', 4400),
        ('{"type": "open", "cols": NaN, "rows": 24}', 4400),
        ("[" * 15_000, 4400),
        ('{"type":' * 1_800, 4400),
        ("x" * 20_000, 4413),
        (b"typed before anything is open", 4400),
        (b"x" * 70_000, 4413),
        ('{"type": "resize", "cols": 80, "rows": 24}', 4400),
    ],
)
def test_a_first_message_that_is_none(instance: Instance, running: str, message: str | bytes, code: int) -> None:
    closed, told = refusal(instance, f"/ws/containers/{running}/terminal", message)
    assert closed == code, told
    assert told["message"]


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ('{"type": "resize", "cols": 0, "rows": 0}', 4400),
        ('{"type": "resize", "cols": 65535, "rows": 65535}', 4400),
        ('{"type": "resize", "cols": ' + "9" * 5000 + ', "rows": 24}', 4400),
        ('{"type": "ack", "bytes": -1}', 4400),
        ('{"type": "nonsense"}', 4400),
        (json.dumps(SIZE), 4400),
        (b"x" * 70_000, 4413),
    ],
)
def test_a_later_message_that_is_none(
    instance: Instance, api: httpx.Client, running: str, message: str | bytes, code: int
) -> None:
    closed, told = refusal(instance, f"/ws/containers/{running}/terminal", json.dumps(SIZE), message)
    assert closed == code, told
    for session in terminals(api, running):
        assert api.delete(f"/containers/{running}/sessions/{session}").status_code == 204


def test_who_may_open_a_socket(instance: Instance, running: str) -> None:
    """No credentials, a foreign Origin with a cookie, a forged cookie, a token that is none."""
    own, cookie = instance.address, "boxroom_sessionid=" + "a" * 32
    cases = (
        ({}, 4403),
        ({"Origin": own}, 4401),
        ({"Origin": own, "Cookie": cookie}, 4401),
        ({"Origin": "http://evil.example", "Cookie": cookie}, 4403),
        ({"Origin": "null", "Cookie": cookie}, 4403),
        ({"Origin": f"http://127.0.0.1:{instance.port + 1}", "Cookie": cookie}, 4403),
        ({"Origin": own.replace("http:", "https:"), "Cookie": cookie}, 4403),
        ({"Authorization": "Bearer forged"}, 4401),
    )
    for path in (f"/ws/containers/{running}/terminal", "/ws/events", "/ws/stats"):
        for headers, code in cases:
            assert refusal(instance, path, headers=headers)[0] == code, (path, headers)


@pytest.mark.parametrize(
    ("path", "code"),
    [("/ws/nothing", 4404), ("/ws/containers/not-there/terminal", 4404), ("/ws/containers/%2e%2e/terminal", 4404)],
)
def test_a_socket_that_is_not_there(instance: Instance, path: str, code: int) -> None:
    assert refusal(instance, path)[0] == code


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


@pytest.mark.lxc("What is sent and too large is refused and costs no memory", "CVE-2026-41685")
def test_100_megabytes_are_refused_and_cost_no_memory(instance: Instance, api: httpx.Client) -> None:
    (web,) = instance.pids("daphne")
    before = resident_bytes(web)

    def body() -> Iterator[bytes]:
        for _ in range(100):
            yield bytes(1024**2)

    for headers in ({}, {"Content-Length": str(100 * 1024**2)}):
        for path in ("/containers", "/nothing"):
            answer = api.post(path, content=body(), headers={"Content-Type": "application/json", **headers})
            assert (answer.status_code, answer.json()["code"]) == (413, "too-large")
    assert resident_bytes(web) - before < 40 * 1024**2
