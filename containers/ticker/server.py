"""What the web asks the ticker for: the history of a container, the latest samples, and each second's as it comes.

Frames of core/protocol.py on host.ticker_socket. A client sends CONTROL frames, one after the other::

    {"cmd": "history", "container": ID, "from": T, "to": T, "points": N}   ID may be "host"; T: Unix time
    {"cmd": "latest", "containers": [ID, ...] | "all"}
    {"cmd": "recent", "containers": [ID, ...], "seconds": N}               at most RECENT_MAX of them
    {"cmd": "limits", "container": ID}                                     what the kernel holds it to now
    {"cmd": "cgroup", "container": ID, "file": "memory.max"}               a file of its cgroup, as it is
    {"cmd": "console", "container": ID, "bytes": N}                        the end of what it wrote to its console
    {"cmd": "room"}                                                        the disk, and what each container wrote of it
    {"cmd": "audit"}                                                       whether the audit trail is as it was sealed
    {"cmd": "subscribe", "containers": [ID, ...] | "all"}                  a new one replaces the one before

and gets, for each, CONTROL {"type": "stats" for latest and subscribe, else the command, "bytes": N} and DATA frames
with N bytes of JSON; for a subscription one such answer every second. {"type": "error", "code", "message"} ends the
conversation.
The JSON of stats: {"at", "containers": {ID: sample}, "host": sample}; of cgroup: {"value"} or {"refused": error}; of
console: {"text", "size_bytes"}; of room: {"kind", "total_bytes", "used_bytes", "free_bytes", "inodes", "inodes_free",
"containers": {ID: bytes}, "pools": [...]}; of audit: that of upkeep.sealcheck.Report, null before the first check.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from ..core.protocol import FRAME_MAX_BYTES, Decoder, Kind, ProtocolError, control, encode, parse_control
from .sampling import Tick
from .sockets import listen, peer_uid, web_uid

log = logging.getLogger(__name__)

BACKLOG_MAX_BYTES: Final = 1024 * 1024
"""A subscriber with more than this unsent misses seconds instead of growing the ticker."""
STALLED_SEC: Final = 30
_SUBSCRIBED_MAX: Final = 10_000
RECENT_MAX: Final = 100
RECENT_MAX_SEC: Final = 600

History = Callable[[str, int, int, int], dict[str, Any]]
Recent = Callable[[Sequence[str], int], dict[str, Any]]
Limits = Callable[[str], dict[str, Any]]
CgroupFile = Callable[[str, str], dict[str, Any]]
Console = Callable[[str, int], dict[str, Any]]
Audit = Callable[[], dict[str, Any] | None]
Room = Callable[[], dict[str, Any]]
Latest = Callable[[frozenset[str] | None], Tick]


class Refused(Exception):
    """The client asked for what is no request."""


def answer(kind: str, body: str) -> bytes:
    """Return the frames of one answer."""
    data = body.encode()
    frames = [control(type=kind, bytes=len(data))]
    frames += [encode(Kind.DATA, data[i : i + FRAME_MAX_BYTES]) for i in range(0, len(data), FRAME_MAX_BYTES)]
    return b"".join(frames)


def stats_body(tick: Tick, wanted: frozenset[str] | None) -> str:
    """Return the JSON text of one second for a client that wants these containers; None: all."""
    chosen = tick.containers if wanted is None else [name for name in tick.containers if name in wanted]
    containers = ",".join(f"{json.dumps(name)}:{tick.containers[name]}" for name in chosen)
    return f'{{"at":{tick.at},"containers":{{{containers}}},"host":{tick.host}}}'


class _Client:
    """One connection."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.subscribed = False
        self.wanted: frozenset[str] | None = None
        self.stalled_sec = 0

    def push(self, tick: Tick) -> None:
        """Send one second to a subscriber, unless it has too much unread."""
        if not self.subscribed:
            return
        if self.writer.transport.get_write_buffer_size() > BACKLOG_MAX_BYTES:
            self.stalled_sec += 1
            if self.stalled_sec >= STALLED_SEC:
                self.writer.transport.abort()
            return
        self.stalled_sec = 0
        self.writer.write(answer("stats", stats_body(tick, self.wanted)))


class Server(threading.Thread):
    """Serves the ticker's socket in a thread of its own.

    on_event: called, in this thread, with each datagram that a supervisor sent to events_path.
    """

    def __init__(
        self,
        socket_path: Path,
        events_path: Path,
        *,
        history: History,
        recent: Recent,
        limits: Limits,
        cgroup_file: CgroupFile,
        latest: Latest,
        on_event: Callable[[dict[str, Any]], None],
        console: Console = lambda _container, _size: {"text": "", "size_bytes": 0},
        audit: Audit = lambda: None,
        room: Room = dict,
    ) -> None:
        super().__init__(name="ticker-server", daemon=True)
        self._socket_path = socket_path
        self._events_path = events_path
        self._limits = limits
        self._latest = latest
        # answered off the loop: all of these may take some milliseconds
        self._answers: dict[str, Callable[[dict[str, Any]], object]] = {
            "history": lambda message: history(*_history_arguments(message)),
            "recent": lambda message: recent(*_recent_arguments(message)),
            "cgroup": lambda message: cgroup_file(_container(message), str(message.get("file"))),
            "console": lambda message: console(_container(message), _size(message)),
            "audit": lambda _message: audit(),
            "room": lambda _message: room(),
        }
        self._on_event = on_event
        self._clients: set[_Client] = set()
        self._web_uid = web_uid()
        self._listener = listen(socket_path, socket.SOCK_STREAM, 0o660)
        self._events = listen(events_path, socket.SOCK_DGRAM, 0o600)
        self._loop = asyncio.new_event_loop()
        self._stop_requested = asyncio.Event()

    def publish(self, tick: Tick) -> None:
        """Send a second to every subscriber; called from another thread."""
        with contextlib.suppress(RuntimeError):  # the loop has closed: nobody is left
            self._loop.call_soon_threadsafe(self._push, tick)

    def stop(self) -> None:
        """Ask the thread to end; called from another thread."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._stop_requested.set)

    def run(self) -> None:
        """Serve until stop()."""
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())
        for path in (self._socket_path, self._events_path):
            path.unlink(missing_ok=True)

    async def _serve(self) -> None:
        self._loop.add_reader(self._events.fileno(), self._read_events)
        server = await asyncio.start_unix_server(self._client, sock=self._listener)
        await self._stop_requested.wait()
        self._loop.remove_reader(self._events.fileno())
        self._events.close()
        server.close()
        for client in tuple(self._clients):
            client.writer.transport.abort()

    def _push(self, tick: Tick) -> None:
        for client in tuple(self._clients):
            client.push(tick)

    def _read_events(self) -> None:
        while True:
            try:
                data = self._events.recv(65536)
            except (BlockingIOError, InterruptedError):
                return
            try:
                self._on_event(parse_control(data))
            except ProtocolError as error:
                log.warning("not an event: %s", error)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = _Client(writer)
        self._clients.add(client)
        try:
            if peer_uid(writer.get_extra_info("socket")) not in (0, self._web_uid):
                raise Refused("Only root and the web may ask.")
            decoder = Decoder()
            while data := await reader.read(65536):
                for kind, payload in decoder.feed(data):
                    if kind is not Kind.CONTROL:
                        raise Refused("Only control frames are expected.")
                    await self._command(client, parse_control(payload))
        except (Refused, ProtocolError) as error:
            writer.write(control(type="error", code="bad-request", message=str(error)))
        except (ConnectionError, asyncio.CancelledError):
            pass
        except Exception:
            log.exception("a client of the ticker failed")
            writer.write(control(type="error", code="internal-error", message="See the ticker's log."))
        finally:
            self._clients.discard(client)
            writer.close()

    async def _command(self, client: _Client, message: dict[str, Any]) -> None:
        command = message.get("cmd")
        if isinstance(command, str) and command in self._answers:
            found = await asyncio.to_thread(self._answers[command], message)
            client.writer.write(answer(command, json.dumps(found, separators=(",", ":"))))
        elif command == "limits":
            client.writer.write(answer("limits", json.dumps(self._limits(_container(message)))))
        elif command == "latest":
            wanted = _wanted(message)
            # off the loop: what has only just started is measured now, which takes a moment
            tick = await asyncio.to_thread(self._latest, wanted)
            client.writer.write(answer("stats", stats_body(tick, wanted)))
        elif command == "subscribe":
            client.wanted, client.subscribed = _wanted(message), True
            client.push(self._latest(frozenset()))
        else:
            raise Refused(f"There is no command {command!r}.")
        await client.writer.drain()


def _container(message: dict[str, Any]) -> str:
    container = message.get("container")
    if not isinstance(container, str) or not container.isalnum() or not container.isascii():
        raise Refused("container: an id is expected.")
    return container


def _size(message: dict[str, Any]) -> int:
    size = message.get("bytes")
    if not isinstance(size, int) or size < 0:
        raise Refused("bytes: a whole number is expected.")
    return size


def _history_arguments(message: dict[str, Any]) -> tuple[str, int, int, int]:
    container = _container(message)
    begin, end, points = (message.get(key) for key in ("from", "to", "points"))
    if not all(isinstance(number, int) and 0 <= number < 2**32 for number in (begin, end, points)):
        raise Refused("from, to, points: whole numbers are expected.")
    assert isinstance(begin, int)
    assert isinstance(end, int)
    assert isinstance(points, int)
    return container, begin, end, points


def _recent_arguments(message: dict[str, Any]) -> tuple[list[str], int]:
    wanted, seconds = _wanted(message), message.get("seconds")
    if wanted is None or len(wanted) > RECENT_MAX:
        raise Refused(f"containers: at most {RECENT_MAX} ids are expected.")
    if not isinstance(seconds, int) or not 1 <= seconds <= RECENT_MAX_SEC:
        raise Refused(f"seconds: 1 to {RECENT_MAX_SEC} are expected.")
    return sorted(wanted), seconds


def _wanted(message: dict[str, Any]) -> frozenset[str] | None:
    containers = message.get("containers")
    if containers == "all":
        return None
    if not isinstance(containers, list) or len(containers) > _SUBSCRIBED_MAX:
        raise Refused('containers: a list of ids, or "all", is expected.')
    # an id becomes part of a path
    if not all(isinstance(name, str) and name.isalnum() and name.isascii() for name in containers):
        raise Refused("containers: ids are expected.")
    return frozenset(containers)
