"""Tells every open page that something changed: tiny JSON over one Redis channel, [{"kind", "id", ...}, ...].

A notice carries no data: who gets it reads the row again, under the rights of whoever looks. Notices may be lost; after
a loss of Redis every subscriber gets a `resync`, and reads everything again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator
from functools import cache, partial
from typing import Any, ClassVar, Final
from weakref import WeakKeyDictionary

import redis
import redis.asyncio
from django.conf import settings
from django.db import transaction
from redis.backoff import NoBackoff
from redis.retry import Retry

from .heard import Heard
from .outbox import Outbox

CHANNEL: Final = "boxroom.notices"
TIMEOUT_SEC: Final = 1.0
PUBLISH_SEC: Final = 10.0
"""How long a Redis may take: who tells does not wait for it, and what is given up is never told."""
PATIENT_SEC: Final = 0.1
"""How long a notice waits that will soon be outdated: that an operation was asked for, and that it was begun."""
QUEUE_MAX: Final = 1000
"""Different objects that may wait for one subscriber; past that it gets a resync instead."""
TOGETHER: Final = 100
"""Notices in one message at most."""
ID_MAX: Final = 128
"""Characters of a kind or an id."""
RESYNC: Final[dict[str, Any]] = {"kind": "resync", "id": ""}
RECONNECT_SEC: Final = (0.1, 0.3, 1.0)
PING_SEC: Final = 5.0

Notice = dict[str, Any]

log = logging.getLogger(__name__)


def redis_url() -> str:
    """Return the address of Redis as redis-py writes it, empty where there is none."""
    return settings.REDIS_URL.replace("redis+socket://", "unix://", 1)


def notify(kind: str, object_id: object, *, patient: bool = False, **more: Any) -> None:
    """Tell that an object changed, once the present transaction is committed. Never waits, never fails.

    kind: container, operation, event, image, network, project. patient: it may wait PATIENT_SEC for others that go
    with it. more: small JSON values that say which, not what.
    """
    if settings.REDIS_URL:
        notice = {"kind": kind, "id": str(object_id), **more}
        transaction.on_commit(partial(_post, notice, PATIENT_SEC if patient else 0.0), robust=True)


def flush(timeout_sec: float = TIMEOUT_SEC) -> bool:
    """Wait until what was told has been sent; return whether it has."""
    return _outbox.flush(timeout_sec)


def _post(notice: Notice, within_sec: float) -> None:
    _outbox.post(_key(notice), notice, within_sec=within_sec)


def _key(notice: Notice) -> tuple[str, ...]:
    """Return what makes two notices one: all their words."""
    return tuple(f"{name}={notice[name]}" for name in sorted(notice))


def _publish(found: list[Notice]) -> None:
    _client().publish(CHANNEL, json.dumps(found, separators=(",", ":")))


_outbox: Outbox[Notice] = Outbox("notices", _publish, together=TOGETHER)


@cache
def _client() -> redis.Redis:
    return redis.Redis.from_url(
        redis_url(), socket_timeout=PUBLISH_SEC, socket_connect_timeout=PUBLISH_SEC, retry=Retry(NoBackoff(), 0)
    )


class Subscription:
    """One subscriber's queue: bounded, and the same notice waits in it only once."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[tuple[str, ...], Notice] = OrderedDict()
        self._ready = asyncio.Event()

    def put(self, notice: Notice) -> None:
        """Add a notice; when there are too many they all become one resync."""
        if notice["kind"] == "resync" or len(self._waiting) >= QUEUE_MAX:
            self._waiting.clear()
            notice = RESYNC
        if _key(RESYNC) not in self._waiting:
            self._waiting[_key(notice)] = notice
        self._ready.set()

    async def get(self) -> Notice:
        """Return the next notice, waiting for one."""
        await self._some()
        return self._waiting.popitem(last=False)[1]

    async def get_all(self) -> list[Notice]:
        """Return all notices that wait, oldest first, waiting for one."""
        await self._some()
        found = list(self._waiting.values())
        self._waiting.clear()
        return found

    async def _some(self) -> None:
        while not self._waiting:
            self._ready.clear()
            await self._ready.wait()

    async def __aiter__(self) -> AsyncIterator[Notice]:
        while True:
            yield await self.get()


class Hub:
    """Hears the channel once for a whole process, and passes on what it hears. Once begun it goes on listening."""

    newest: ClassVar[Hub | None] = None
    """The one that was made last: the web process has one."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription] = set()
        self._listener: asyncio.Task[None] | None = None
        self.heard = Heard()
        Hub.newest = self

    def listen(self) -> None:
        """Begin to listen, unless that was done already. Use it within the loop that the hub belongs to."""
        if settings.REDIS_URL and (self._listener is None or self._listener.done()):
            self._listener = asyncio.get_running_loop().create_task(self._listen(), name="notices")

    async def close(self) -> None:
        """Listen no more."""
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.wait([self._listener])
            self._listener = None

    @contextlib.contextmanager
    def subscribe(self, since: str = "") -> Iterator[Subscription]:
        """Give a queue of everything told from now on. Use it within the loop that the hub belongs to.

        since: a position; what was told after it comes first. Where that is not known any more, and where nothing is
        asked for and nobody else is there, a resync does.
        """
        subscription = Subscription()
        missed = self.heard.since(since)
        if missed is None and (since or not self._subscriptions):
            missed = [RESYNC] if self.heard.position else []  # whoever begins to listen tells one by itself
        for notice in missed or ():
            subscription.put(notice)
        self._subscriptions.add(subscription)
        self.listen()
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)

    def tell(self, notice: Notice) -> None:
        """Give a notice to every subscriber of this process, the only one that has any."""
        # who hears it reads the row now: what this process meant to tell of it is told by that
        _outbox.overtaken(_key(notice))
        self.heard.add(notice)
        for subscription in self._subscriptions:
            subscription.put(notice)

    async def _listen(self) -> None:
        failures = 0
        while True:
            client = redis.asyncio.Redis.from_url(
                redis_url(), socket_connect_timeout=TIMEOUT_SEC, retry=_no_retry(), health_check_interval=0
            )
            try:
                async with client.pubsub() as channel:
                    await channel.subscribe(CHANNEL)
                    failures = 0
                    # what was told while nobody listened is lost: let everybody look again
                    self.tell(RESYNC)
                    self.heard.begin()
                    await self._pass_on(channel)
            except (redis.RedisError, OSError, TimeoutError) as error:
                if failures == 0:
                    log.warning("notices: %s: %s", type(error).__name__, error)
            finally:
                self.heard.end()
                with contextlib.suppress(redis.RedisError, OSError):
                    await client.aclose()
            await asyncio.sleep(RECONNECT_SEC[min(failures, len(RECONNECT_SEC) - 1)])
            failures += 1

    async def _pass_on(self, channel: Any) -> None:
        """Pass on until the connection is lost; a ping every few seconds finds a Redis that hangs."""
        unanswered = False
        while True:
            message = await channel.get_message(timeout=PING_SEC)
            if message is None:
                if unanswered:
                    raise TimeoutError("Redis does not answer")
                await asyncio.wait_for(channel.ping(), TIMEOUT_SEC)
                unanswered = True
                continue
            unanswered = False
            if message["type"] == "message":
                for notice in _parse(message["data"]):
                    self.tell(notice)


def _no_retry() -> Any:
    from redis.asyncio.retry import Retry as AsyncRetry

    return AsyncRetry(NoBackoff(), 0)


def _parse(data: bytes) -> list[Notice]:
    """Return the notices of a message, without what is none: any holder of a Redis password could publish."""
    try:
        found = json.loads(data)
    except ValueError:
        return []
    return [one for one in found if _good(one)] if isinstance(found, list) else []


def _good(notice: object) -> bool:
    if not isinstance(notice, dict):
        return False
    words = (notice.get("kind"), notice.get("id"))
    return all(isinstance(word, str) and word.isprintable() and len(word) <= ID_MAX for word in words)


def position() -> str:
    """Return where the web process's listening is now; empty where it does not listen. Any thread may ask."""
    return Hub.newest.heard.position if Hub.newest else ""


_hubs: WeakKeyDictionary[asyncio.AbstractEventLoop, Hub] = WeakKeyDictionary()


def hub() -> Hub:
    """Return the hub of the running event loop: one per process in the web server."""
    loop = asyncio.get_running_loop()
    found = _hubs.get(loop)
    if found is None:
        found = _hubs[loop] = Hub()
    return found
