"""Refuses bodies that are too large before they are held in memory.

Daphne takes a whole body in before the application sees the request, so that an application cannot refuse early. The
length is looked at where Twisted learns it (after the headers), and counted as it comes in where it is not told.
Behind that, `BodyLimit` does the same for any other ASGI server.
"""

from __future__ import annotations

import io
import json
from collections.abc import Awaitable, Callable
from typing import Any, Final

from daphne import http_protocol

API_MAX_BYTES: Final = 9 * 1024**2
"""An upload's piece (8 MiB), or exec's standard input."""
FORM_MAX_BYTES: Final = 1024**2
DISCARD_MAX_BYTES: Final = 512 * 1024**2
"""How much of a refused body is thrown away before the connection is cut."""

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_BODY: Final = json.dumps({"code": "too-large", "message": "The body is too large.", "field": None}).encode()


def limit_of(path: str) -> int:
    """Return how many bytes a body on this path may have."""
    return API_MAX_BYTES if path.startswith("/api/") else FORM_MAX_BYTES


class LimitedRequest(http_protocol.WebRequest):  # type: ignore[misc]  # daphne has no types
    """Daphne's request, with a limit on what it takes in.

    A refused request is answered at once; what still comes in is thrown away, because closing while a client sends
    would make its system drop the answer.
    """

    _refused = False
    _received_bytes = 0
    _limit_bytes = FORM_MAX_BYTES

    def gotLength(self, length: int | None) -> None:
        """Refuse by the length that the headers tell (None: they do not); the path is known by now."""
        self._limit_bytes = limit_of(getattr(self.channel, "_path", b"").decode("latin-1"))
        if length is not None and length > self._limit_bytes:
            self._refuse()
            length = 0
        super().gotLength(length)

    def handleContentChunk(self, data: bytes) -> None:
        """Count what comes in, whatever the headers told."""
        self._received_bytes += len(data)
        if not self._refused and self._received_bytes > self._limit_bytes:
            self._refuse()
        if not self._refused:
            super().handleContentChunk(data)
        elif self._received_bytes > DISCARD_MAX_BYTES:
            self.channel.transport.loseConnection()

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """Go on to the application, unless the request was refused."""
        if self._refused:
            self.channel.transport.loseConnection()
        else:
            super().requestReceived(command, path, version)

    def _refuse(self) -> None:
        self._refused = True
        self.content = io.BytesIO()
        head = (
            "HTTP/1.1 413 Content Too Large\r\nContent-Type: application/json\r\nConnection: close\r\n"
            f"Content-Length: {len(_BODY)}\r\n\r\n"
        )
        self.channel.transport.write(head.encode() + _BODY)


def install() -> None:
    """Make daphne use limited requests; called where the ASGI application is made, before daphne listens."""
    http_protocol.WebRequest = LimitedRequest


class BodyLimit:
    """ASGI middleware: refuses by Content-Length, and while reading."""

    def __init__(self, application: Application) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on whose body is within the limit; answer 413 to any other."""
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        limit = limit_of(scope["path"])
        told = dict(scope["headers"]).get(b"content-length", b"0")
        if told.isdigit() and int(told) > limit:
            await _too_large(send)
            return
        received, started = 0, False

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise _TooLarge
            return message

        async def noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._application(scope, counted, noted)
        except _TooLarge:
            if not started:
                await _too_large(send)


class _TooLarge(Exception):
    """More came in than the limit."""


async def _too_large(send: Send) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(_BODY)).encode())]
    await send({"type": "http.response.start", "status": 413, "headers": [*headers, (b"connection", b"close")]})
    await send({"type": "http.response.body", "body": _BODY})
