"""Notices over a real Redis: what is told arrives, a burst is one, a loss of Redis is a resync, nobody ever waits."""

from __future__ import annotations

import asyncio
import queue
import socket
import subprocess
import threading
import time

import pytest

from containers.messaging import notices
from containers.messaging.heard import KEPT_MAX, Heard
from containers.messaging.outbox import Outbox
from tests.web.sockets import WAIT_SEC


class Redis:
    """A redis-server of the test's own, on a unix socket."""

    def __init__(self, directory):
        self.socket = directory / "r.sock"
        self.process = None

    def start(self):
        command = ["redis-server", "--port", "0", "--unixsocket", str(self.socket), "--save", "", "--appendonly", "no"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=self.socket.parent)
        deadline = time.monotonic() + WAIT_SEC
        while not self._answers():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def _answers(self):
        # the socket is there a moment before anybody listens on it
        with socket.socket(socket.AF_UNIX) as link:
            return link.connect_ex(str(self.socket)) == 0

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.socket.unlink(missing_ok=True)


@pytest.fixture
def redis_server(tmp_path, settings):
    server = Redis(tmp_path)
    server.start()
    settings.REDIS_URL = f"redis+socket://{server.socket}"
    notices._client.cache_clear()
    yield server
    server.kill()
    notices._client().close()
    notices._client.cache_clear()


async def next_of(subscription, kind):
    """Return the next notice of a kind, leaving out others."""
    async with asyncio.timeout(WAIT_SEC):
        while (notice := await subscription.get())["kind"] != kind:
            pass
    return notice


def tell(kind, object_id, **more):
    """Notify as a request without a transaction does."""
    notices._post({"kind": kind, "id": str(object_id), **more}, 0.0)


async def test_what_another_process_tells_is_not_told_by_this_one_once_more(redis_server):
    notice = {"kind": "operation", "id": "1"}
    with notices.hub().subscribe() as subscription:
        await next_of(subscription, "resync")
        notices._post(notice, 10 * WAIT_SEC)
        notices._publish([notice])  # as the worker does, when it has ended
        await next_of(subscription, "operation")
        tell("network", 2)
        await next_of(subscription, "network")
        assert notices.flush(WAIT_SEC)
        tell("network", 3)
        assert (await subscription.get()) == {"kind": "network", "id": "3"}


async def test_what_is_told_arrives_after_a_first_resync(redis_server):
    hub = notices.hub()
    with hub.subscribe() as one, hub.subscribe() as two:
        for subscription in (one, two):
            # what is told while a resync waits is in it already
            await next_of(subscription, "resync")
        tell("container", "abc")
        assert await next_of(one, "container") == {"kind": "container", "id": "abc"}
        assert await next_of(two, "container") == {"kind": "container", "id": "abc"}
    await hub.close()


async def test_a_lost_redis_is_a_resync_and_all_is_well_again(redis_server):
    hub = notices.hub()
    with hub.subscribe() as subscription:
        await next_of(subscription, "resync")
        redis_server.kill()
        await asyncio.sleep(0.3)
        redis_server.start()
        await next_of(subscription, "resync")
        tell("operation", "1")
        assert (await next_of(subscription, "operation"))["id"] == "1"
    await hub.close()


async def test_a_page_hears_what_was_told_since_it_was_made(redis_server):
    hub = notices.hub()
    assert notices.position() == ""
    with hub.subscribe() as first:
        await next_of(first, "resync")
        tell("container", "before")
        await next_of(first, "container")
        assert notices.hub() is hub
        made = notices.position()
        tell("container", "one")
        tell("operation", "two")
        assert [(await next_of(first, kind))["id"] for kind in ("container", "operation")] == ["one", "two"]
    with hub.subscribe(made) as page:  # the hub goes on listening when nobody is there
        assert [(await page.get())["id"] for _each in range(2)] == ["one", "two"]
        tell("container", "three")
        assert (await page.get())["id"] == "three"
    with hub.subscribe(notices.position()) as current:
        tell("container", "four")
        assert (await current.get())["id"] == "four"
    for unknown in ("", "nonsense", "0-0", f"{made.partition('-')[0]}-99", f"{made}x"):
        with hub.subscribe(unknown) as lost:
            assert (await lost.get())["kind"] == "resync"
    redis_server.kill()
    with hub.subscribe(made) as page:
        await next_of(page, "container")  # it was not noticed yet
        redis_server.start()
        await next_of(page, "resync")
    with hub.subscribe(made) as page:
        assert (await page.get())["kind"] == "resync"
    await hub.close()
    assert notices.position() == ""


def test_only_the_newest_notices_are_kept():
    heard = Heard()
    heard.add({"kind": "container", "id": "nobody listens"})
    assert (heard.position, heard.since("")) == ("", None)
    heard.begin()
    start = heard.position
    for number in range(KEPT_MAX):
        heard.add({"kind": "container", "id": str(number)})
    assert [notice["id"] for notice in heard.since(start) or ()] == [str(n) for n in range(KEPT_MAX)]
    assert heard.since(heard.position) == []
    heard.add({"kind": "container", "id": "one too many"})
    assert heard.since(start) is None
    before = heard.position
    heard.end()
    assert (heard.position, heard.since(before)) == ("", None)
    heard.begin()
    assert heard.since(before) is None


async def test_what_is_no_notice_is_dropped(redis_server):
    hub = notices.hub()
    with hub.subscribe() as subscription:
        await next_of(subscription, "resync")
        for text in ("{", "{}", "[]", "[3]", '[{"kind": 3, "id": "x"}, {"kind": "image", "id": "beside it"}]'):
            notices._client().publish(notices.CHANNEL, text)
        assert (await next_of(subscription, "image"))["id"] == "beside it"
        notices._client().publish(notices.CHANNEL, '[{"kind": "container"}]')
        tell("container", "good")
        assert (await next_of(subscription, "container"))["id"] == "good"
    await hub.close()


async def test_a_burst_about_one_object_waits_once():
    subscription = notices.Subscription()
    for _again in range(100):
        subscription.put({"kind": "container", "id": "a"})
    subscription.put({"kind": "container", "id": "b"})
    assert [await subscription.get(), await subscription.get()] == [
        {"kind": "container", "id": "a"},
        {"kind": "container", "id": "b"},
    ]
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(subscription.get(), 0.05)


async def test_too_many_become_one_resync():
    subscription = notices.Subscription()
    for number in range(notices.QUEUE_MAX + 10):
        subscription.put({"kind": "container", "id": str(number)})
    assert (await subscription.get())["kind"] == "resync"
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(subscription.get(), 0.05)


def test_a_redis_that_hangs_keeps_nobody_waiting(redis_server):
    redis_server.process.send_signal(19)
    try:
        began = time.monotonic()
        for number in range(100):
            tell("container", number)
        # whoever waited for it would wait for the minute that is set for tests
        assert time.monotonic() - began < 10
    finally:
        redis_server.process.send_signal(18)
    assert notices.flush(WAIT_SEC)


def test_an_outbox_coalesces_keeps_order_and_survives_errors():
    outbox, got, gate = Outbox("test", lambda calls: calls[0]()), [], threading.Event()

    def fail():
        raise OSError("down")

    outbox.post("first", gate.wait)
    for number in range(5):
        outbox.post("same", lambda number=number: got.append(number))
    outbox.post("bad", fail)
    outbox.post("last", lambda: got.append("last"))
    gate.set()
    assert outbox.flush(WAIT_SEC)
    assert got == [4, "last"]


def test_an_outbox_sends_what_waits_together():
    gate, sent = threading.Event(), []

    def send(items):
        gate.wait()
        sent.append(items)

    outbox = Outbox("test", send, together=3)
    outbox.post("first", 0)
    while not outbox._working:
        time.sleep(0.001)
    for number in range(1, 8):
        outbox.post(number, number)
    gate.set()
    assert outbox.flush(WAIT_SEC)
    assert sent == [[0], [1, 2, 3], [4, 5, 6], [7]]


def test_what_is_patient_goes_with_what_is_not_and_after_it():
    sent = []
    outbox = Outbox("test", sent.append, together=9)
    outbox.post("asked", "asked", within_sec=WAIT_SEC)
    outbox.post("begun", "begun", within_sec=WAIT_SEC)
    with outbox._changed:  # so that its thread sees both at once
        outbox.post("runs", "runs")
        outbox.post("asked", "ended")
    assert outbox.flush(WAIT_SEC)
    assert sent == [["runs", "ended", "begun"]]


def test_what_is_patient_goes_by_itself_when_its_time_is_up():
    sent = queue.SimpleQueue()
    outbox = Outbox("test", sent.put, together=9)
    began = time.monotonic()
    outbox.post("one", 1, within_sec=0.2)
    outbox.post("other", 2, within_sec=WAIT_SEC)
    assert sent.get(timeout=WAIT_SEC) == [1, 2]
    assert time.monotonic() - began >= 0.2


def test_what_was_sent_by_another_since_is_not_sent_again():
    sent = []
    outbox = Outbox("test", sent.append)
    outbox.post("asked", 1, within_sec=WAIT_SEC)
    outbox.post("other", 2, within_sec=WAIT_SEC)
    outbox.overtaken("asked")
    outbox.overtaken("unknown")
    assert outbox.flush(WAIT_SEC)
    assert sent == [[2]]


def test_a_flush_waits_for_nothing_that_is_patient():
    sent = []
    outbox = Outbox("test", sent.append)
    outbox.post("one", 1, within_sec=10 * WAIT_SEC)
    outbox.post("one", 2, within_sec=10 * WAIT_SEC)
    assert outbox.flush(WAIT_SEC)
    assert sent == [[2]]


def test_an_outbox_that_is_stuck_is_not_waited_for_long():
    outbox, gate = Outbox("test", lambda calls: calls[0]()), threading.Event()
    outbox.post("stuck", gate.wait)
    assert outbox.flush(0.1) is False
    gate.set()
    assert outbox.flush(WAIT_SEC)
