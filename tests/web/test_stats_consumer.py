"""/ws/stats against the ticker's real server; who sees what, and what is refused."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from asgiref.sync import sync_to_async

from containers.clients import history
from containers.clients.ticker_client import TickerUnavailable
from containers.consumers import base
from containers.consumers.stats import StatsConsumer
from containers.core.errors import SpecError
from containers.ticker.rings import COLUMNS, Rings
from containers.ticker.sampling import Tick
from containers.ticker.server import Server
from panel.accounts import tokens
from panel.accounts.models import Membership, Project
from tests.web.sockets import WAIT_SEC, Socket
from tests.web.world import make_container, make_host

pytestmark = pytest.mark.django_db(transaction=True)


class Ticker:
    """The server of the ticker's socket; seconds are published by hand."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.latest = Tick(0.0, {}, "{}")
        self.server = Server(
            directory / "ticker.sock",
            directory / "events.sock",
            history=self.history,
            recent=self.recent,
            limits=lambda container_id: {"memory_bytes": 42, "of": container_id},
            cgroup_file=lambda container_id, file: {"value": f"{container_id} {file}"},
            latest=lambda _wanted: self.latest,
            on_event=lambda _message: None,
        )
        self.server.start()

    def history(self, container_id: str, begin: int, end: int, points: int):
        rings = Rings(self.directory / f"{container_id}.rings")
        try:
            return rings.query(begin, end, points, now=int(time.time()))
        finally:
            rings.close()

    def recent(self, ids, seconds: int):
        end = int(time.time())
        found = {}
        for container_id in ids:
            rings = Rings(self.directory / f"{container_id}.rings")
            rings.append(end - 2, [0.5 if name == "cpu_cores" else None for name in COLUMNS])
            found[container_id] = rings.recent(end, seconds, ("cpu_cores", "memory_bytes"))
            rings.close()
        return {"from": end - seconds, "step_sec": 1, "containers": found, "host": {}}

    def publish(self, *ids: str) -> None:
        samples = {each: json.dumps({"at": time.time(), "memory_bytes": 42}) for each in ids}
        self.latest = Tick(time.time(), samples, '{"cpu_pct":1}')
        self.server.publish(self.latest)

    def stop(self) -> None:
        self.server.stop()
        self.server.join()


@pytest.fixture
def run_dir(settings) -> Iterator[Path]:
    # short: the path of a socket ends at 107 bytes
    path = Path("/tmp") / f"bx{secrets.token_hex(4)}"
    path.mkdir()
    settings.BOXROOM_RUN_DIR = path
    yield path
    shutil.rmtree(path)


@pytest.fixture
def ticker(run_dir: Path) -> Iterator[Ticker]:
    made = Ticker(run_dir)
    yield made
    made.stop()


@pytest.fixture
def pair(team):
    """One container of the team, one of somebody else's."""
    make_host()
    other = Project.objects.create(name="other")
    return make_container(team, "web-1"), make_container(other, "secret")


@contextlib.asynccontextmanager
async def connected(user, origin: str | None = None) -> AsyncIterator[Socket]:
    _row, secret = await sync_to_async(tokens.issue)(user, name=secrets.token_hex(4))
    headers = [(b"authorization", f"Bearer {secret}".encode())]
    socket = Socket(StatsConsumer.as_asgi(), "/ws/stats", headers=headers)
    assert (await socket.connect())[0]
    try:
        yield socket
    finally:
        await socket.disconnect()


async def subscribe(socket: Socket, containers: object) -> None:
    await socket.send_json_to({"type": "subscribe", "containers": containers})


async def next_stats(socket: Socket, ticker: Ticker, *ids: str) -> dict:
    """Publish seconds until one arrives that was made of them."""
    deadline = time.monotonic() + WAIT_SEC
    while time.monotonic() < deadline:
        ticker.publish(*ids)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                event = await socket.output_queue.get()
            message = json.loads(event["text"])
            if message["type"] != "stats" or message["containers"] or not ids:
                return message
    raise AssertionError("no second arrived")


async def test_each_sees_what_he_may(ticker, pair, bob, charlie, root):
    ids = [row.pk for row in pair]
    for user, names in ((bob, {"web-1"}), (root, {"web-1", "secret"})):
        async with connected(user) as socket:
            await subscribe(socket, "all")
            message = await next_stats(socket, ticker, *ids)
            assert message["type"] == "stats"
            assert set(message["containers"]) == names
            assert message["containers"]["web-1"]["memory_bytes"] == 42
            assert message["at"].endswith("Z")
    async with connected(charlie) as socket:
        await subscribe(socket, "all")
        ticker.publish(*ids)
        message = await next_stats(socket, ticker)
        assert message["containers"] == {}


async def test_only_the_containers_asked_for(ticker, pair, root):
    async with connected(root) as socket:
        await subscribe(socket, ["secret"])
        message = await next_stats(socket, ticker, *(row.pk for row in pair))
        assert set(message["containers"]) == {"secret"}


@pytest.mark.parametrize(
    ("message", "close"),
    [
        ({"type": "subscribe", "containers": ["secret"]}, 4404),
        ({"type": "subscribe", "containers": ["nothing"]}, 4404),
        ({"type": "subscribe", "containers": "some"}, 4400),
        ({"type": "subscribe", "containers": [1]}, 4400),
        ({"type": "subscribe"}, 4400),
        ({"type": "websocket.disconnect"}, 4400),
    ],
)
async def test_what_is_refused(ticker, pair, bob, message, close):
    async with connected(bob) as socket:
        await socket.send_json_to(message)
        answer = await socket.receive_json_from()
        assert answer["type"] == "error"
        assert (await socket.receive_output())["code"] == close


async def test_without_a_token_or_an_origin_nothing(ticker, pair):
    socket = Socket(StatsConsumer.as_asgi(), "/ws/stats")
    await socket.connect()
    assert (await socket.receive_json_from())["code"] == "forbidden"
    assert (await socket.receive_output())["code"] == 4403


async def test_withdrawn_rights_end_the_socket(ticker, pair, bob, team, monkeypatch):
    monkeypatch.setattr(base, "RECHECK_SEC", 0.1)
    async with connected(bob) as socket:
        await subscribe(socket, ["web-1"])
        await next_stats(socket, ticker, pair[0].pk)
        await sync_to_async(Membership.objects.filter(user=bob).delete)()
        async with asyncio.timeout(WAIT_SEC):
            while (event := await socket.output_queue.get())["type"] != "websocket.close":
                pass
        assert event["code"] == 4403


async def test_a_ticker_that_comes_back_is_heard_again(run_dir, pair, bob):
    first = Ticker(run_dir)
    async with connected(bob) as socket:
        await subscribe(socket, "all")
        await next_stats(socket, first, pair[0].pk)
        first.stop()
        second = Ticker(run_dir)
        try:
            message = await next_stats(socket, second, pair[0].pk)
            assert set(message["containers"]) == {"web-1"}
        finally:
            second.stop()


def test_history_with_its_events(ticker, pair, run_dir):
    now = int(time.time())
    rings = Rings(run_dir / f"{pair[0].pk}.rings")
    for second in range(now - 30, now):
        rings.append(second, [1.0] * len(COLUMNS))
    rings.close()
    pair[0].events.create(kind="oom", at=dt.datetime.fromtimestamp(now, dt.UTC))
    found = history.history(pair[0], now - 60, now + 30, 100)
    assert found["step_sec"] == 1
    assert found["series"]["memory_bytes"].count(1) == 30
    assert [event["kind"] for event in found["events"]] == ["oom"]
    assert found["cpus"] == 4


def test_the_latest_sample(ticker, pair):
    assert history.latest(pair[0]) is None
    ticker.publish(pair[0].pk)
    sample = history.latest(pair[0])
    assert sample is not None
    assert sample["memory_bytes"] == 42
    assert sample["at"].endswith("Z")


@pytest.mark.parametrize(
    ("begin", "end", "points", "field"), [(10, 10, 5, "from"), (0, 2**33, 5, "to"), (10, 20, 0, "points")]
)
def test_history_refuses(pair, begin, end, points, field):
    with pytest.raises(SpecError) as refused:
        history.history(pair[0], begin, end, points)
    assert refused.value.field == field


def test_without_a_ticker_it_says_so(run_dir, pair):
    with pytest.raises(TickerUnavailable):
        history.latest(pair[0])


async def test_the_minute_before_is_told_at_once_and_only_of_what_may_be_seen(ticker, pair, bob):
    mine, secret = pair
    async with connected(bob) as socket:
        await socket.send_json_to({"type": "recent", "containers": [mine.name, secret.name], "seconds": 10})
        answer = json.loads((await socket.output_queue.get())["text"])
    assert answer["type"] == "recent"
    assert list(answer["containers"]) == [mine.name]
    series = answer["containers"][mine.name]
    assert len(series["cpu_cores"]) == len(series["memory_bytes"]) == 10
    assert series["cpu_cores"][8] == 0.5
    assert series["memory_bytes"] == [None] * 10


@pytest.mark.parametrize(
    "asked", [{"containers": "all"}, {"containers": [f"c{n}" for n in range(101)]}, {"containers": [], "seconds": 0}]
)
async def test_too_much_of_the_minute_before_is_refused(ticker, pair, bob, asked):
    async with connected(bob) as socket:
        await socket.send_json_to({"type": "recent", **asked})
        answer = json.loads((await socket.output_queue.get())["text"])
    assert answer["type"] == "error"
    assert answer["field"] in ("containers", "seconds")


async def test_the_kernels_limits_are_asked_for_while_it_runs(ticker, pair):
    row = pair[0]
    assert await sync_to_async(history.present_limits)(row) == {}
    row.status = "running"
    assert await sync_to_async(history.present_limits)(row) == {"memory_bytes": 42, "of": row.pk}


async def test_without_a_ticker_the_kernels_limits_are_not_known(run_dir, pair):
    row = pair[0]
    row.status = "running"
    assert await sync_to_async(history.present_limits)(row) == {}
