"""A terminal over the panel's WebSocket, as a browser holds one: reads, acknowledges, types, comes back."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from typing import Any

from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import ClientConnection, connect

from ..kernel.patience import patient
from .instance import PATIENCE_SEC, Instance


class Terminal:
    """One viewer. session: its id, once it is open. seen: everything that was on the screen since it was opened."""

    def __init__(self, instance: Instance, name: str, *, user: str = "admin") -> None:
        self._address = f"ws://127.0.0.1:{instance.port}/ws/containers/{name}/terminal"
        self._headers = {"Authorization": f"Bearer {instance.token(user)}"}
        self._open = ExitStack()
        self._socket: ClientConnection | None = None
        self.session: str | None = None
        self.seen = b""

    def open(self, *, timeout_sec: float = PATIENCE_SEC, **more: Any) -> None:
        """Open a session, or come back to the one there is; tries again while the panel does not answer."""
        deadline = time.monotonic() + patient(timeout_sec)
        while True:
            try:
                self.close()
                self._socket = self._open.enter_context(
                    connect(self._address, additional_headers=self._headers, open_timeout=30, max_size=None)
                )
                asked = {"type": "open", "cols": 80, "rows": 24, **more}
                if self.session:
                    asked["session"] = self.session
                self._socket.send(json.dumps(asked))
                answer = json.loads(self._socket.recv(timeout=30))
                if answer["type"] == "opened":
                    break
                assert answer.get("code") == "unavailable", answer
            except (OSError, ConnectionClosed, InvalidHandshake, TimeoutError):
                pass
            assert time.monotonic() < deadline, "no terminal in time"
            time.sleep(0.1)
        self.session = answer["session"]
        self.seen = b""

    def type(self, text: str) -> None:
        """Send what somebody types."""
        assert self._socket is not None
        self._socket.send(text.encode())

    def expect(self, text: str, *, timeout_sec: float = PATIENCE_SEC) -> None:
        """Read until the text has been seen; fails where the socket closes first."""
        assert self._socket is not None
        deadline = time.monotonic() + patient(timeout_sec)
        while text.encode() not in self.seen:
            left = deadline - time.monotonic()
            assert left > 0, f"{text!r} not seen in {self.seen[-2000:]!r}"
            try:
                data = self._socket.recv(timeout=left)
            except TimeoutError:
                continue
            if isinstance(data, bytes):
                self.seen += data
                self._socket.send(json.dumps({"type": "ack", "bytes": len(data)}))
            else:
                assert json.loads(data)["type"] != "error", data

    def alive(self) -> bool:
        """Whether the socket still carries what is typed."""
        assert self._socket is not None
        try:
            mark = f"{time.monotonic_ns()}"
            self.type(f"echo a{mark}b\n")
            self.expect(f"a{mark}b\r\n")
        except (ConnectionClosed, OSError):
            return False
        return True

    def close(self) -> None:
        """Hang up, as a closed tab does."""
        self._open.close()
