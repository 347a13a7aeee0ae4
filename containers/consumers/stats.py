"""/ws/stats: what the containers use, once a second, for whom may see them.

The page sends {"type": "subscribe", "containers": [names] or "all"} and gets {"type": "stats", "at", "containers":
{name: sample}, "host": sample} each second. {"type": "recent", "containers": [names], "seconds": N} is answered once by
{"type": "recent", "from", "step_sec", "containers": {name: {column: [value or null]}}, "host": {…}}: what happened just
before, for the small lines; at most 100 names and 600 seconds.

One subscription to the ticker serves all sockets of the process; a socket that is slower than a second misses seconds,
and nothing piles up.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any, Final
from weakref import WeakKeyDictionary

from containers.clients import ticker_client
from containers.clients.history import rfc3339
from containers.core.errors import NotFound
from containers.messaging.notices import hub
from containers.models import Container
from panel.accounts.models import User

from .base import Consumer, Refusal, in_database

NAMES_MAX: Final = 2000
RECENT_MAX: Final = 100
RECENT_MAX_SEC: Final = 600


class Feed:
    """The ticker's seconds, for every socket of one event loop. Listens only while somebody does."""

    def __init__(self) -> None:
        self._latest: dict[str, Any] | None = None
        self._listeners: set[asyncio.Event] = set()
        self._task: asyncio.Task[None] | None = None

    async def seconds(self) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the newest second again and again; who is slow misses some."""
        fresh = asyncio.Event()
        self._listeners.add(fresh)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._listen())
        elif self._latest is not None:
            fresh.set()
        try:
            while True:
                await fresh.wait()
                fresh.clear()
                if self._latest is not None:
                    yield self._latest
        finally:
            self._listeners.discard(fresh)
            if not self._listeners and self._task is not None:
                self._task.cancel()
                self._task = self._latest = None

    async def _listen(self) -> None:
        async with contextlib.aclosing(ticker_client.seconds()) as seconds:
            async for second in seconds:
                self._latest = second
                for fresh in self._listeners:
                    fresh.set()


_feeds: WeakKeyDictionary[asyncio.AbstractEventLoop, Feed] = WeakKeyDictionary()


def feed() -> Feed:
    """Return the feed of the running event loop."""
    return _feeds.setdefault(asyncio.get_running_loop(), Feed())


class StatsConsumer(Consumer):
    """Sends each second's samples of what its viewer may see."""

    async def opened(self) -> None:
        """Wait for the first subscription."""
        self._names: dict[str, str] = {}
        self._wanted: frozenset[str] | None = None
        self._subscribed = False
        self._stale = False

    async def authorise(self) -> None:
        """Look again at what the viewer may see: what was withdrawn ends the socket."""
        if self._subscribed:
            await self._look()

    async def got_text(self, message: dict[str, Any]) -> None:
        """Handle subscribe, of which another one replaces the one before, and recent."""
        if message["type"] == "recent":
            await self._tell_recent(message)
            return
        if message["type"] != "subscribe":
            raise Refusal("bad-request", f"{message['type']!r} is not a message of this socket.", field="type")
        wanted = _wanted(message)
        names = await in_database(visible_names)(self.actor.user)
        if wanted is not None and (unseen := wanted - set(names.values())):
            raise NotFound(f"There is no container {min(unseen)!r}.", field="containers")
        self._names = _chosen(names, wanted)
        self._wanted = wanted
        if not self._subscribed:
            self._subscribed = True
            self.beside(self._send())
            self.beside(self._hear())

    async def _tell_recent(self, message: dict[str, Any]) -> None:
        """Answer with the last seconds; without the ticker there is no answer, the lines then begin as they come."""
        wanted, seconds = _wanted(message), message.get("seconds", 60)
        if wanted is None or len(wanted) > RECENT_MAX:
            raise Refusal("too-large", f"Ask for at most {RECENT_MAX} containers by name.", field="containers")
        if not isinstance(seconds, int) or not 1 <= seconds <= RECENT_MAX_SEC:
            raise Refusal("invalid-value", f"seconds must be between 1 and {RECENT_MAX_SEC}.", field="seconds")
        names = _chosen(await in_database(visible_names)(self.actor.user), wanted)
        try:
            found = await asyncio.to_thread(ticker_client.ask, cmd="recent", containers=list(names), seconds=seconds)
        except ticker_client.TickerUnavailable:
            return
        found["containers"] = {names[container_id]: series for container_id, series in found["containers"].items()}
        await self.tell(type="recent", **found)

    async def _send(self) -> None:
        async with contextlib.aclosing(feed().seconds()) as seconds:
            async for second in seconds:
                if self._stale:
                    self._stale = False
                    await self._look()
                await self.tell(type="stats", **self._mine(second))

    def _mine(self, second: dict[str, Any]) -> dict[str, Any]:
        """Return one second as this viewer may see it, by names."""
        samples = second["containers"]
        found = {
            name: {**samples[container_id], "at": rfc3339(samples[container_id]["at"])}
            for container_id, name in self._names.items()
            if container_id in samples
        }
        return {"at": rfc3339(second["at"]), "containers": found, "host": second["host"]}

    async def _look(self) -> None:
        """Read the names again; raises Refusal where a container he subscribed to by name is not his to see now."""
        names = await in_database(visible_names)(self.actor.user)
        chosen = _chosen(names, self._wanted)
        lost = self._names.keys() - chosen.keys()
        if self._wanted is not None and lost and await in_database(still_there)(lost - names.keys()):
            raise Refusal("forbidden", "You may not see this container any more.")
        self._names = chosen

    async def _hear(self) -> None:
        """Take notice of new and renamed containers, and of changed rights, at the next second."""
        with hub().subscribe() as notices:
            async for notice in notices:
                if notice["kind"] in ("user", "project", "resync", "container"):
                    self._stale = True


def _wanted(message: dict[str, Any]) -> frozenset[str] | None:
    """Return the names that a message asks for; None: all that may be seen."""
    containers = message.get("containers")
    if containers == "all":
        return None
    if not isinstance(containers, list) or not all(isinstance(name, str) for name in containers):
        raise Refusal("bad-request", 'containers must be a list of names, or "all".', field="containers")
    if len(containers) > NAMES_MAX:
        raise Refusal("too-large", f"At most {NAMES_MAX} names.", field="containers")
    return frozenset(containers)


def _chosen(names: dict[str, str], wanted: frozenset[str] | None) -> dict[str, str]:
    if wanted is None:
        return names
    return {container_id: name for container_id, name in names.items() if name in wanted}


def visible_names(user: User) -> dict[str, str]:
    """Return id → name of every container that the user may see."""
    return dict(Container.objects.visible_to(user).values_list("pk", "name"))


def still_there(ids: set[str]) -> bool:
    """Return whether any of these containers has a row."""
    return bool(ids) and Container.objects.filter(pk__in=ids).exists()
