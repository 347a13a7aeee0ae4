"""/ws/containers/NAME/terminal against a supervisor's real session server, whose console is a pty of this host."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import threading
import time
import tty
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from channels.routing import URLRouter
from django.conf import settings as django_settings
from django.test import Client

from containers.consumers import base
from containers.core.proc.loop import Loop
from containers.core.proc.sessions import SessionServer
from containers.core.protocol import WINDOW_BYTES
from panel.accounts import tokens
from panel.accounts.models import AuditRecord, Membership
from panel.routing import websocket_urlpatterns
from tests.web.sockets import WAIT_SEC, Socket, until
from tests.web.world import make_container, make_host

pytestmark = pytest.mark.django_db(transaction=True)

ORIGIN = django_settings.BOXROOM_ORIGINS[0]


class Supervisor:
    """A session server in a thread; self.inside is the program's side of the console."""

    def __init__(self, path: Path) -> None:
        self.loop = Loop()
        self.server = SessionServer(self.loop, None)
        self.master_fd, self.inside = os.openpty()
        tty.setraw(self.inside)
        self.server.consoles["console"].attach(self.master_fd, self.inside)
        self.server.listen(path)
        self._wake_fd, self._awake_fd = os.pipe()
        self.loop.watch(self._wake_fd, read=self.loop.stop)
        self.thread = threading.Thread(target=self.loop.run)
        self.thread.start()

    def show(self, data: bytes) -> None:
        """Write to the console as a program does, and wait until that is kept for whoever comes."""
        ring, deadline = self.server.consoles["console"].ring, time.monotonic() + WAIT_SEC
        end = ring.end + len(data)
        os.write(self.inside, data)
        while ring.end < end:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def stop(self) -> None:
        if self.thread.is_alive():
            os.write(self._awake_fd, b"x")
            self.thread.join()
            self.loop.forget(self._wake_fd)
            self.server.finish()
            for fd in (self.master_fd, self.inside, self._wake_fd, self._awake_fd):
                os.close(fd)


@pytest.fixture
def row(team: Any) -> Any:
    make_host()
    return make_container(team, "web-1", status="running")


@pytest.fixture
def supervisor(row: Any, settings: Any) -> Iterator[Supervisor]:
    path = Path("/tmp") / f"bx{secrets.token_hex(4)}"
    (path / "c").mkdir(parents=True)
    settings.BOXROOM_RUN_DIR = path
    made = Supervisor(path / "c" / f"{row.pk}.sock")
    yield made
    made.stop()
    shutil.rmtree(path)


@contextlib.asynccontextmanager
async def socket(headers: list[tuple[bytes, bytes]], name: str = "web-1") -> AsyncIterator[Socket]:
    made = Socket(URLRouter(websocket_urlpatterns), f"/ws/containers/{name}/terminal", headers=headers)
    assert (await made.connect())[0]
    try:
        yield made
    finally:
        await made.disconnect()


async def by_token(user: Any, *, read_only: bool = False) -> list[tuple[bytes, bytes]]:
    _row, secret = await sync_to_async(tokens.issue)(user, name=secrets.token_hex(4), read_only=read_only)
    return [(b"authorization", f"Bearer {secret}".encode())]


async def by_cookie(user: Any, origin: str | None = ORIGIN) -> list[tuple[bytes, bytes]]:
    client = Client()
    await sync_to_async(client.force_login)(user, django_settings.AUTHENTICATION_BACKENDS[0])
    name = django_settings.SESSION_COOKIE_NAME
    found = [(b"cookie", f"{name}={client.cookies[name].value}".encode())]
    return found + ([(b"origin", origin.encode())] if origin else [])


async def opened(made: Socket, **more: Any) -> dict[str, Any]:
    await made.send_json_to({"type": "open", "cols": 80, "rows": 24, "session": "console", **more})
    return await message(made)


async def message(made: Socket, kind: str | None = None) -> dict[str, Any]:
    while True:
        event = await asyncio.wait_for(made.output_queue.get(), WAIT_SEC)
        if event.get("text"):
            found: dict[str, Any] = json.loads(event["text"])
            if kind is None or found["type"] == kind:
                return found
        assert event["type"] == "websocket.send", event


async def output(made: Socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        event = await asyncio.wait_for(made.output_queue.get(), WAIT_SEC)
        assert event["type"] == "websocket.send", (event, len(found))
        found += event.get("bytes") or b""
    return found


async def refusal(made: Socket) -> tuple[str, int]:
    """Return the error's code and the close code."""
    error = await message(made, "error")
    event = await asyncio.wait_for(made.output_queue.get(), WAIT_SEC)
    assert event["type"] == "websocket.close"
    return error["code"], event["code"]


async def test_bytes_go_both_ways_and_scrollback_comes_first(supervisor: Supervisor, olga: Any) -> None:
    await asyncio.to_thread(supervisor.show, b"booting")
    async with socket(await by_cookie(olga)) as one:
        answer = await opened(one)
        assert (answer["type"], answer["session"], answer["replay"]) == ("opened", "console", 7)
        assert await output(one, 7) == b"booting"
        await one.send_to(bytes_data=b"typed\xff")
        assert await asyncio.to_thread(os.read, supervisor.inside, 100) == b"typed\xff"
        os.write(supervisor.inside, b"\x00\xffraw")
        assert await output(one, 5) == b"\x00\xffraw"
        async with socket(await by_token(olga)) as two:
            await opened(two)
            assert await output(two, 12) == b"booting\x00\xffraw"
            found = await message(two, "viewers")
            assert [each["user"] for each in found["items"]] == [olga.username, olga.username]


async def test_no_more_than_the_window_is_under_way(supervisor: Supervisor, olga: Any) -> None:
    async with socket(await by_token(olga)) as one:
        await opened(one)
        await asyncio.to_thread(_write_all, supervisor.inside, b"x" * (2 * WINDOW_BYTES))
        assert len(await output(one, WINDOW_BYTES)) == WINDOW_BYTES
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(one.output_queue.get(), 0.5)


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


async def test_who_may_not_is_refused(supervisor: Supervisor, bob: Any, charlie: Any) -> None:
    async with socket(await by_token(charlie)) as one:
        assert await refusal(one) == ("not-found", 4404)
    async with socket(await by_cookie(bob)) as one:
        assert await refusal(one) == ("forbidden", 4403)
    async with socket([(b"authorization", b"Bearer nonsense")]) as one:
        assert await refusal(one) == ("unauthenticated", 4401)
    async with socket([(b"origin", ORIGIN.encode())]) as one:
        assert await refusal(one) == ("unauthenticated", 4401)


@pytest.mark.parametrize(
    "origin", [None, "null", "https://evil.example", ORIGIN + "0", ORIGIN.replace("http:", "https:"), "", ORIGIN + "/"]
)
async def test_a_cookie_needs_the_whole_origin(supervisor: Supervisor, olga: Any, origin: str | None) -> None:
    async with socket(await by_cookie(olga, origin)) as one:
        assert await refusal(one) == ("forbidden", 4403)


async def test_withdrawn_rights_close_the_socket(
    supervisor: Supervisor, olga: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert base.RECHECK_SEC <= 10
    monkeypatch.setattr(base, "RECHECK_SEC", 0.1)
    async with socket(await by_cookie(olga)) as one:
        await opened(one)
        await sync_to_async(Membership.objects.filter(user=olga).delete)()
        assert await refusal(one) == ("not-found", 4404)


async def test_a_token_that_only_reads_is_refused(supervisor: Supervisor, olga: Any) -> None:
    async with socket(await by_token(olga, read_only=True)) as one:
        assert await refusal(one) == ("forbidden", 4403)


@pytest.mark.parametrize(
    ("sent", "code", "close"),
    [
        ("{", "bad-request", 4400),
        ("[]", "bad-request", 4400),
        ('{"type": "websocket.disconnect"}', "bad-request", 4400),
        ('{"type": "open", "cols": 0, "rows": 24}', "bad-request", 4400),
        ('{"type": "open", "cols": 65535, "rows": 24}', "bad-request", 4400),
        ('{"type": "open", "cols": 80, "rows": 24, "session": "0123456789abcdef"}', "not-found", 4404),
        ('{"type": "open", "cols": 80, "rows": 24, "session": "../../x"}', "not-found", 4404),
        ('{"type": "open", "cols": 80, "rows": 24, "command": "sh"}', "bad-request", 4400),
        ('{"type": "open", "cols": 80, "rows": 24}', "invalid-transition", 4409),
        ('{"type": "ack", "bytes": 5}', "bad-request", 4400),
        ('{"type": "' + "x" * 20000 + '"}', "too-large", 4413),
    ],
)
async def test_bad_messages_are_answered_and_closed(
    supervisor: Supervisor, olga: Any, sent: str, code: str, close: int
) -> None:
    async with socket(await by_token(olga)) as one:
        await one.send_to(text_data=sent)
        assert await refusal(one) == (code, close)


async def test_bytes_before_open_and_too_many_bytes(supervisor: Supervisor, olga: Any) -> None:
    async with socket(await by_token(olga)) as one:
        await one.send_to(bytes_data=b"x")
        assert await refusal(one) == ("bad-request", 4400)
    async with socket(await by_token(olga)) as one:
        await opened(one)
        await one.send_to(bytes_data=b"x" * (base.BINARY_MAX_BYTES + 1))
        assert await refusal(one) == ("too-large", 4413)


async def test_a_viewer_who_goes_leaves_the_session(supervisor: Supervisor, olga: Any) -> None:
    async with socket(await by_token(olga)) as one:
        await opened(one)
    await until(lambda: not supervisor.server.consoles["console"].viewers)


async def test_who_sits_down_at_a_console_stands_in_the_audit_trail(
    supervisor: Supervisor, olga: Any, bob: Any
) -> None:
    async with socket(await by_token(olga)) as one:
        await opened(one)
    found = await AuditRecord.objects.aget(action="session.open")
    assert (found.actor_name, found.detail["session"]) == ("olga", "console")


async def test_a_console_for_one_at_a_time_is_refused_to_others(supervisor: Supervisor, olga: Any) -> None:
    supervisor.server.consoles["console"].exclusive = True
    async with socket(await by_token(olga)) as one, socket(await by_token(olga)) as two:
        await opened(one)
        await two.send_json_to({"type": "open", "cols": 80, "rows": 24, "session": "console"})
        assert await refusal(two) == ("in-use", 4409)


async def test_no_supervisor_is_a_conflict(row: Any, olga: Any, settings: Any) -> None:
    settings.BOXROOM_RUN_DIR = Path("/nonexistent")
    async with socket(await by_token(olga)) as one:
        await one.send_json_to({"type": "open", "cols": 80, "rows": 24})
        assert await refusal(one) == ("invalid-transition", 4409)
    assert not await AuditRecord.objects.filter(action="session.open").aexists()
