"""How many requests have a thread at once.

Each request has a thread of its own while it is worked on, with a connection to the database: half a megabyte. What is
slow, a busy database or files that a stuck disk holds back, would let them pile up without an end. So the others wait
for their turn in the event loop, where they cost a few kilobytes, and when too many wait the next one is told so.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, Final

THREADS_MAX: Final = 96
"""Requests that have a thread. More than may wait for the ticker's files, so that pages are answered meanwhile."""
WAITING_MAX: Final = 1000
"""Requests that may wait for one."""
RETRY_AFTER_SEC: Final = 2

_BODY: Final = json.dumps(
    {"code": "unavailable", "message": "Too many requests wait; try again.", "field": None}
).encode()

Send = Callable[[dict[str, Any]], Awaitable[None]]

current: ContextVar[Slot] = ContextVar("slot")
"""The slot of the request that is worked on."""


class Full(Exception):
    """Too many wait already."""


class Slots:
    """The slots of one process; its event loop alone takes them."""

    def __init__(self, threads: int = THREADS_MAX, waiting: int = WAITING_MAX) -> None:
        self._free = asyncio.Semaphore(threads)
        self.waiting, self._waiting_max = 0, waiting

    async def take(self) -> None:
        """Wait for a slot, in order. Raises Full where too many do."""
        if self._free.locked() and self.waiting >= self._waiting_max:
            raise Full
        self.waiting += 1
        try:
            await self._free.acquire()
        finally:
            self.waiting -= 1

    def give(self) -> None:
        """Give one back."""
        self._free.release()


class Slot:
    """What one request takes, once, and gives back, once.

    A client that goes away ends the request in the event loop, but not its thread: the slot comes back when that has
    ended.
    """

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._loop = asyncio.get_running_loop()
        self._taken = False
        self._claims = itertools.count()

    async def take(self) -> None:
        """Wait for the slot."""
        await self._slots.take()
        self._taken = True

    def claim(self) -> bool:
        """Tell the first who asks, the thread or the request's end, that it is the one to give the slot back."""
        return next(self._claims) == 0

    def give(self) -> None:
        """Give it back, from whatever thread, having claimed it."""
        if self._taken:
            self._loop.call_soon_threadsafe(self._slots.give)


async def tell_full(send: Send) -> None:
    """Answer that too many wait."""
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(_BODY)).encode()),
        (b"retry-after", str(RETRY_AFTER_SEC).encode()),
    ]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": _BODY})
