"""Hands the web's questions about what is in containers' files to readers, one process for each.

A connection to host.reader_socket is one question: a line of JSON ``{"container", "verb", "after", "before", "path"}``
(core.lifecycle.reading), and gets the reader's own answer: a line of JSON, and bytes behind it. The reader writes to
the connection itself; this thread only looks who asks, and ends what takes too long.
"""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, get_args

from ..core.errors import Busy, CoreError, SpecError
from ..core.host import Host
from ..core.lifecycle import reading
from .sockets import listen, peer_uid, web_uid

log = logging.getLogger(__name__)

QUESTION_MAX_BYTES: Final = 64 * 1024
AT_ONCE: Final = 8
STALLED_SEC: Final = 60
"""A client that takes nothing for so long has gone."""
LONGEST_SEC: Final = 3600.0


class Readers(threading.Thread):
    """Serves the reader's socket in a thread of its own, and each question in one more."""

    def __init__(self, host: Host, path: Path | None = None, *, name: str = "readers") -> None:
        super().__init__(name=name, daemon=True)
        self._host = host
        self._path = path or host.reader_socket
        self._allowed = (0, web_uid())
        self._listener = listen(self._path, socket.SOCK_STREAM, 0o660)
        self._listener.settimeout(None)
        self._free = threading.BoundedSemaphore(AT_ONCE)
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopping = False

    def run(self) -> None:
        """Serve until stop()."""
        while True:
            try:
                connection = self._listener.accept()[0]
            except OSError:
                return
            if self._stopping:
                connection.close()
                return
            threading.Thread(target=self._serve, args=(connection,), name="reader", daemon=True).start()

    def stop(self) -> None:
        """End the thread, and the readers that are at work."""
        self._stopping = True
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for process in tuple(self._running):
            process.kill()
        self._path.unlink(missing_ok=True)

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                self._answer(connection)
            except CoreError as error:
                self._refused(connection, error)
            except (OSError, ValueError) as error:
                log.warning("a reader failed: %s", error)
                message = "The files cannot be read; see the ticker's log."
                refuse(connection, {"ok": False, "code": "setup-failed", "message": message})

    def _answer(self, connection: socket.socket) -> None:
        if peer_uid(connection) not in self._allowed:
            raise SpecError("Only root and the web may ask.")
        stall = struct.pack("ll", STALLED_SEC, 0)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, stall)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, stall)
        self._work(connection)

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Wait for one of the places; raises Busy where none becomes free."""
        if not self._free.acquire(timeout=STALLED_SEC / 2):
            raise Busy("Too many files are being read at once; try again.")
        try:
            yield
        finally:
            self._free.release()

    def _work(self, connection: socket.socket) -> None:
        """Answer a question of somebody who may ask."""
        asked = _question(connection)
        with self._turn():
            self._attend(reading.start(self._host, reading.request(self._host, **asked), connection.fileno()))

    def _attend(self, process: subprocess.Popen[bytes]) -> None:
        """Wait until a process has answered; it is ended where it takes too long, or the panel stops."""
        self._running.add(process)
        try:
            process.wait(LONGEST_SEC)
        except subprocess.TimeoutExpired:
            log.warning("%s: an answer took too long", self.name)
        finally:
            process.kill()
            process.wait()
            self._running.discard(process)

    def _refused(self, connection: socket.socket, error: CoreError) -> None:
        refuse(connection, {"ok": False, "code": error.code, "message": error.message})


def refuse(connection: socket.socket, answer: dict[str, Any]) -> None:
    """Tell somebody that nothing comes of it, and why, if he is still there."""
    with contextlib.suppress(OSError):
        connection.sendall(json.dumps(answer).encode() + b"\n")


def asked_on(connection: socket.socket) -> Any:
    """Return the JSON of a connection's first line, and read nothing that follows it; raises SpecError, ValueError."""
    data = b""
    while not data.endswith(b"\n"):
        ahead = connection.recv(QUESTION_MAX_BYTES, socket.MSG_PEEK)
        piece = connection.recv(ahead.find(b"\n") + 1 or len(ahead) or 1)
        data += piece
        if not piece or len(data) > QUESTION_MAX_BYTES:
            raise SpecError("This is no question.")
    return json.loads(data)


def _question(connection: socket.socket) -> dict[str, Any]:
    """Return the arguments of core.lifecycle.reading.request; raises SpecError for what is no question."""
    asked = asked_on(connection)
    fields = {"container", "verb", "after", "before", "path"}
    if not isinstance(asked, dict) or asked.keys() != fields or not all(isinstance(one, str) for one in asked.values()):
        raise SpecError("This is no question.")
    if asked["verb"] not in get_args(reading.Verb):
        raise SpecError("There is no such verb.")
    asked["container_id"] = asked.pop("container")
    return asked
