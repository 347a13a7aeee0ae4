"""Sockets of the panel as a program opens them: JSON messages by condition, errors with their close code."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Self

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from ..kernel.patience import patient
from .instance import PATIENCE_SEC, Instance

Message = dict[str, Any]


class Socket:
    """One socket. Keeps every message, so that what was said before somebody asked is found too."""

    def __init__(self, instance: Instance, path: str, *, user: str = "admin", token: str | None = None, **more: Any):
        headers = more.pop("additional_headers", {"Authorization": f"Bearer {token or instance.token(user)}"})
        self._held = ExitStack()
        opening = connect(
            f"ws://127.0.0.1:{instance.port}{path}",
            additional_headers=headers,
            open_timeout=PATIENCE_SEC,
            max_size=None,
            **more,
        )
        self.raw: ClientConnection = self._held.enter_context(opening)
        self.messages: list[Message] = []
        self.data = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._held.close()

    def say(self, **message: Any) -> None:
        """Send a JSON message."""
        self.raw.send(json.dumps(message))

    def pump(self, timeout_sec: float) -> bool:
        """Take one frame; False where none came in time."""
        try:
            frame = self.raw.recv(timeout=timeout_sec)
        except TimeoutError:
            return False
        if isinstance(frame, bytes):
            self.data += frame
        else:
            self.messages.append(json.loads(frame))
        return True

    def until(self, condition: Callable[[], Any], timeout_sec: float = PATIENCE_SEC) -> Any:
        """Take frames until the condition holds; return its value."""
        deadline = time.monotonic() + patient(timeout_sec)
        while not (value := condition()):
            left = deadline - time.monotonic()
            assert left > 0, f"not in time; messages {self.messages[-20:]}, data {self.data[-500:]!r}"
            self.pump(left)
        return value

    def message(self, timeout_sec: float = PATIENCE_SEC, **wanted: Any) -> Message:
        """Return the first message with these values, which may have come already."""

        def found() -> Message | None:
            return next((m for m in self.messages if all(m.get(key) == value for key, value in wanted.items())), None)

        answer: Message = self.until(found, timeout_sec)
        return answer

    def closing(self, timeout_sec: float = PATIENCE_SEC) -> tuple[str, int]:
        """Read to the end; return the code of the error that was told, and the close code."""
        deadline = time.monotonic() + patient(timeout_sec)
        try:
            while (left := deadline - time.monotonic()) > 0:
                self.pump(left)
        except ConnectionClosed as error:
            code = error.rcvd.code if error.rcvd else 1006
            return next((str(m["code"]) for m in reversed(self.messages) if m["type"] == "error"), ""), code
        raise AssertionError(f"still open; {self.messages[-5:]}")


def events(instance: Instance, *, user: str = "admin", token: str | None = None) -> Socket:
    """Open the socket of events, and return it once it listens: to a position that nobody knows it tells a resync."""
    socket = Socket(instance, "/ws/events?since=none", user=user, token=token)
    socket.message(type="resync")
    return socket


def terminal(instance: Instance, name: str, *, user: str = "admin", **asked: Any) -> Socket:
    """Open a terminal socket and ask for a session; the answer is read by the caller."""
    socket = Socket(instance, f"/ws/containers/{name}/terminal", user=user)
    socket.say(**{"type": "open", "cols": 80, "rows": 24, **asked})
    return socket
