"""Calls that wait until something has happened: in the event loop, without a thread, and one looks for all of them."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from weakref import WeakKeyDictionary

from asgiref.sync import SyncToAsync, sync_to_async
from django.db import connections
from django.http import HttpRequest, HttpResponse

from containers.messaging import notices
from panel import held

from . import errors

WAITING_MAX: Final = 1000
"""Calls that may wait in one process; more are answered at once, with what is so then."""
LOOK_EVERY_SEC: Final = 0.5
"""Notices may be lost, so everything that is waited for is looked at again this often anyway."""
RESTING: Final = 9
"""How much longer than a round the pause behind it is: looking takes a tenth of the time, at most."""
REST_EACH_SEC: Final = 0.002
"""The longest pause for each that is waited for: few who wait are told at once, however busy the machine is."""

Look = Callable[[], tuple[Any, bool]]
"""Returns what is so now, and whether that is what was waited for. Runs in a thread."""


async def hold(request: HttpRequest, finish: held.Finish) -> HttpResponse:
    """Return an answer that is held back; where nobody would finish it, wait here."""

    async def finish_or_tell() -> HttpResponse:
        try:
            return await finish()
        except Exception as error:  # noqa: BLE001  the edge: what the view would have raised
            return errors.of_exception(request, error)

    return held.Held(finish_or_tell) if held.promised(request) else await finish()


@dataclass(slots=True, eq=False)
class _Matter:
    """Something that is waited for, by some."""

    about: str
    look: Look
    seen: Any = None
    looked: asyncio.Event = field(default_factory=asyncio.Event)
    done: asyncio.Event = field(default_factory=asyncio.Event)
    error: Exception | None = None
    waiting: int = 0


class Lookout:
    """Looks for everybody who waits within one event loop."""

    def __init__(self) -> None:
        self._matters: dict[Hashable, _Matter] = {}
        self._rounds: asyncio.Task[None] | None = None
        self._news: notices.Subscription | None = None

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(matter.waiting for matter in self._matters.values())

    async def until(self, key: Hashable, about: str, look: Look, seconds: float) -> Any:
        """Return what is seen as soon as it is what was waited for, or as it is when the time is up.

        key: those who wait for the same give the same one, and are looked for once. about: the id of the object whose
        notices tell of it. What look raises is raised.
        """
        crowded = self.waiting >= WAITING_MAX
        with self._waiting(key, about, look) as matter:
            await matter.looked.wait()
            if not crowded:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await matter.done.wait()
            if matter.error is not None:
                raise matter.error
            return matter.seen

    @contextlib.contextmanager
    def _waiting(self, key: Hashable, about: str, look: Look) -> Iterator[_Matter]:
        matter = self._matters.get(key)
        if matter is None or matter.done.is_set():
            matter = self._matters[key] = _Matter(about, look)
            if self._news is not None:
                self._news.put({"kind": "waiting", "id": about})
        if self._rounds is None or self._rounds.done():
            # it belongs to no request, and does not use the thread of the one that came first
            context = contextvars.copy_context()
            context.run(SyncToAsync.thread_sensitive_context.set, None)  # type: ignore[arg-type]
            self._rounds = asyncio.get_running_loop().create_task(self._look_on(), context=context, name="lookout")
        matter.waiting += 1
        try:
            yield matter
        finally:
            matter.waiting -= 1
            if not matter.waiting and self._matters.get(key) is matter:
                del self._matters[key]

    async def _look_on(self) -> None:
        """Look, as long as anybody waits. Listens first, so that what happens in between is seen."""
        loop = asyncio.get_running_loop()
        with notices.hub().subscribe() as self._news:
            try:
                while self._matters:
                    began = loop.time()
                    await self._look([matter for matter in self._matters.values() if not matter.done.is_set()])
                    await asyncio.sleep(min((loop.time() - began) * RESTING, len(self._matters) * REST_EACH_SEC))
                    await self._told(self._news)
            except Exception as error:
                self._give_up(error)
                raise
        self._news = None

    def _give_up(self, error: Exception) -> None:
        """Let everybody go who waits: nobody looks any more, until somebody comes anew."""
        self._news = None
        while self._matters:
            _key, matter = self._matters.popitem()
            matter.error = error
            matter.looked.set()
            matter.done.set()

    async def _look(self, matters: Sequence[_Matter]) -> None:
        """Look at all of these in one thread, one after the other."""
        if not matters:
            return
        for matter, found in zip(matters, await sync_to_async(_look_at)(matters), strict=True):
            if isinstance(found, Exception):
                matter.error = found
            else:
                matter.seen = found[0]
            if isinstance(found, Exception) or found[1]:
                matter.done.set()
            matter.looked.set()

    async def _told(self, news: notices.Subscription) -> None:
        """Return when something was told about what is waited for, at the latest when it is time for the next round."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_EVERY_SEC):
                async for notice in news:
                    if notice["kind"] == "resync" or any(m.about == notice["id"] for m in self._matters.values()):
                        return


def _look_at(matters: Sequence[_Matter]) -> list[tuple[Any, bool] | Exception]:
    found: list[tuple[Any, bool] | Exception] = []
    for matter in matters:
        try:
            found.append(matter.look())
        except Exception as error:  # noqa: BLE001  whoever waits for it is told
            found.append(error)
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close_if_unusable_or_obsolete()
    return found


_lookouts: WeakKeyDictionary[asyncio.AbstractEventLoop, Lookout] = WeakKeyDictionary()


def lookout() -> Lookout:
    """Return the lookout of the running event loop: one per process in the web server."""
    return _lookouts.setdefault(asyncio.get_running_loop(), Lookout())
