"""The web's side of the ticker's socket: history and samples. Frames as in containers/ticker/server.py."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, Final

from django.conf import settings

from ..core.errors import CoreError
from ..core.protocol import Decoder, Kind, ProtocolError, control, parse_control

TIMEOUT_SEC: Final = 5.0
ANSWER_MAX_BYTES: Final = 64 * 1024**2
_FAILURES: Final = (OSError, ValueError, TimeoutError)


class TickerUnavailable(CoreError):
    """The ticker does not answer: it is being started again."""

    code = "unavailable"

    def __init__(self) -> None:
        super().__init__("Measurements are not available at the moment; try again.")


class _Answers:
    """Puts frames together to answers: (type, JSON value)."""

    def __init__(self) -> None:
        self._decoder = Decoder()
        self._kind = ""
        self._expected = 0
        self._body = bytearray()

    def feed(self, data: bytes) -> list[tuple[str, Any]]:
        """Return the answers that are complete now; raises ProtocolError for an error or nonsense."""
        complete: list[tuple[str, Any]] = []
        for kind, payload in self._decoder.feed(data):
            if kind is Kind.CONTROL:
                message = parse_control(payload)
                if message.get("type") == "error":
                    raise ProtocolError(str(message.get("message")))
                self._kind, self._expected = str(message.get("type")), int(message.get("bytes", 0))
                self._body.clear()
                if self._expected > ANSWER_MAX_BYTES:
                    raise ProtocolError(f"an answer of {self._expected} bytes")
            else:
                self._body += payload
            if self._expected and len(self._body) >= self._expected:
                complete.append((self._kind, json.loads(self._body)))
                self._body.clear()
                self._expected = 0
        return complete


def socket_path() -> Path:
    """Return where the ticker listens."""
    return Path(settings.BOXROOM_RUN_DIR) / "ticker.sock"


def check_peer(link: Any) -> None:
    """Raise OSError unless root is at the other end: whoever else listens there is not believed."""
    _pid, uid, _gid = struct.unpack("3i", link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    if uid != 0:
        raise PermissionError("what listens on the ticker's socket is not the ticker")


def ask(*, timeout_sec: float | None = None, **command: Any) -> dict[str, Any]:
    """Send one command and return the answer's JSON value; raises TickerUnavailable within timeout_sec a step.

    timeout_sec None: TIMEOUT_SEC.
    """
    answers = _Answers()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as link:
            link.settimeout(TIMEOUT_SEC if timeout_sec is None else timeout_sec)
            link.connect(str(socket_path()))
            check_peer(link)
            link.sendall(control(**command))
            while data := link.recv(65536):
                for _kind, value in answers.feed(data):
                    found: dict[str, Any] = value
                    return found
    except _FAILURES as error:
        raise TickerUnavailable from error
    raise TickerUnavailable


async def seconds() -> AsyncGenerator[dict[str, Any], None]:
    """Yield every second's samples of all containers: {"at", "containers": {id: sample}, "host": sample}.

    Connects again, for ever, when the ticker goes away; ends only when it is closed.
    """
    while True:
        with contextlib.suppress(*_FAILURES):
            reader, writer = await asyncio.open_unix_connection(str(socket_path()))
            try:
                check_peer(writer.get_extra_info("socket"))
                writer.write(control(cmd="subscribe", containers="all"))
                answers = _Answers()
                # a live ticker sends once a second; one that hangs is left
                while data := await asyncio.wait_for(reader.read(256 * 1024), 15):
                    for _kind, value in answers.feed(data):
                        yield value
            finally:
                writer.close()
        await asyncio.sleep(1)
