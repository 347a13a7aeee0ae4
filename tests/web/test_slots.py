"""Requests beyond the threads there are wait in the event loop; too many are told so; who leaves frees no thread."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.urls import path

from panel.handler import Handler

PATIENCE_SEC = 60.0
THREADS, WAITING = 3, 4


@dataclass
class Gate:
    """A view that holds its thread until the gate is opened, and counts who is in it."""

    opened: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    inside: int = 0
    most: int = 0

    def __call__(self, _request: HttpRequest) -> HttpResponse:
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        assert self.opened.wait(PATIENCE_SEC)
        with self.lock:
            self.inside -= 1
        return HttpResponse("through")


gate = Gate()
urlpatterns = [path("gate", lambda request: gate(request))]


async def ask(handler: Handler, gone: asyncio.Event | None = None) -> list[dict[str, Any]]:
    """Ask for the gate's page as daphne does. gone: set when the client has left."""
    told: list[dict[str, Any]] = []
    incoming = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> dict[str, Any]:
        if incoming:
            return incoming.pop()
        await (gone or asyncio.Event()).wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        told.append(message)

    scope = {"type": "http", "method": "GET", "path": "/gate", "query_string": b"", "headers": []}
    await handler(scope, receive, send)
    return told


async def until(condition: Any) -> None:
    """Wait for what threads bring about."""
    async with asyncio.timeout(PATIENCE_SEC):
        while not condition():
            await asyncio.sleep(0.005)


def statuses(answers: list[list[dict[str, Any]]]) -> list[int]:
    """Return the status of each answer."""
    return [answer[0]["status"] for answer in answers]


@override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=[])
def test_no_more_threads_than_slots_and_the_others_wait_or_are_told():
    gate.__init__()

    async def story() -> None:
        handler = Handler(THREADS, WAITING)
        first = [asyncio.create_task(ask(handler)) for _ in range(THREADS)]
        await until(lambda: gate.inside == THREADS)
        second = [asyncio.create_task(ask(handler)) for _ in range(WAITING)]
        await until(lambda: handler.slots.waiting == WAITING)
        refused = await ask(handler)
        assert refused[0]["status"] == 503
        assert (b"retry-after", b"2") in refused[0]["headers"]
        assert b'"unavailable"' in refused[1]["body"]
        assert gate.inside == THREADS
        gate.opened.set()
        assert statuses(await asyncio.gather(*first, *second)) == [200] * (THREADS + WAITING)
        assert gate.most == THREADS
        assert statuses([await ask(handler) for _ in range(2 * THREADS)]) == [200] * 2 * THREADS

    asyncio.run(story())


@override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=[])
def test_who_leaves_frees_no_slot_before_the_thread_has_ended():
    gate.__init__()

    async def story() -> None:
        handler = Handler(THREADS, WAITING)
        gone = asyncio.Event()
        leaving = [asyncio.create_task(ask(handler, gone)) for _ in range(THREADS)]
        await until(lambda: gate.inside == THREADS)
        gone.set()
        staying = [asyncio.create_task(ask(handler)) for _ in range(WAITING)]
        await until(lambda: handler.slots.waiting == WAITING)
        assert gate.inside == gate.most == THREADS
        gate.opened.set()
        await asyncio.gather(*leaving)
        assert statuses(await asyncio.gather(*staying)) == [200] * WAITING
        assert gate.most == THREADS
        # every slot came back, and none twice: as many are inside again, and no more
        gate.__init__()
        again = [asyncio.create_task(ask(handler)) for _ in range(THREADS + 1)]
        await until(lambda: gate.inside == THREADS and handler.slots.waiting == 1)
        gate.opened.set()
        assert statuses(await asyncio.gather(*again)) == [200] * (THREADS + 1)
        assert gate.most == THREADS

    asyncio.run(story())
