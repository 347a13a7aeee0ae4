"""One connection to the supervisor's socket: frames in, frames out, with bounds on both."""

from __future__ import annotations

import os
import select
import socket
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from ..protocol import FRAME_MAX_BYTES, Decoder, Kind, ProtocolError, control, encode, parse_control
from .loop import Loop

OUTPUT_MAX_BYTES: Final = 256 * 1024
"""What may wait for a client; who sends more looks at `room` first."""
_OUTPUT_HARD_MAX_BYTES: Final = 4 * OUTPUT_MAX_BYTES
_RECV_BYTES: Final = 64 * 1024
_SEND_PARTS: Final = 16
_LOOK_SEC: Final = 1.0
_LINGER_SEC: Final = 5.0


@dataclass(frozen=True, slots=True)
class Peer:
    """Who connected, as the kernel says."""

    pid: int
    uid: int
    gid: int

    @classmethod
    def of(cls, connection: socket.socket) -> Peer:
        """Return the peer of a connected unix socket."""
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return cls(*struct.unpack("iII", raw))


class Handler(Protocol):
    """What a client's frames go to."""

    def control(self, message: dict[str, Any]) -> None:
        """Handle a CONTROL frame."""

    def data(self, payload: bytes) -> None:
        """Handle a DATA frame."""

    def room(self) -> None:
        """Everything that waited for the client has been sent."""

    def closed(self) -> None:
        """The client is gone; called once."""


class Client:
    """A connection. Owns its socket. Until a handler is set, frames go to `first`."""

    def __init__(self, loop: Loop, connection: socket.socket, first: Callable[[Client, dict[str, Any]], None]) -> None:
        os.set_blocking(connection.fileno(), False)
        self.peer = Peer.of(connection)
        self.handler: Handler | None = None
        self.on_gone: Callable[[Client], None] = lambda _: None
        self._loop = loop
        self._socket = connection
        self._first = first
        self._decoder = Decoder()
        self._out: deque[memoryview] = deque()
        self._waiting_bytes = 0
        self._reading = True
        self._closing = False
        self.gone = False
        self._watch()

    @property
    def has_room(self) -> bool:
        """Whether more may be sent without much waiting."""
        return not self.gone and self._waiting_bytes < OUTPUT_MAX_BYTES

    @property
    def idle(self) -> bool:
        """Whether nothing waits to be sent."""
        return self.gone or not self._waiting_bytes

    def send(self, kind: Kind, payload: bytes | memoryview) -> None:
        """Send bytes in as many frames as they need."""
        for start in range(0, len(payload) or 1, FRAME_MAX_BYTES):
            self._put(encode(kind, payload[start : start + FRAME_MAX_BYTES]))

    def tell(self, **message: Any) -> None:
        """Send a CONTROL frame."""
        self._put(control(**message))

    def refuse(self, code: str, message: str, **more: Any) -> None:
        """Send an error and close once it is sent."""
        self.tell(type="error", code=code, message=message, **more)
        self.close_when_sent()

    def close_when_sent(self) -> None:
        """Close the connection as soon as everything has been sent; nothing is read any more."""
        self._closing = True
        if not self.gone and self.idle:
            self._linger()
        else:
            self._watch()

    def reading(self, *, wanted: bool) -> None:
        """Go on reading frames, or wait: the client's bytes then stay in the socket."""
        if wanted != self._reading:
            self._reading = wanted
            self._watch()
            if not wanted:
                self._loop.later(_LOOK_SEC, self._look)

    def _look(self) -> None:
        """Notice that the peer has gone although nothing is read: its bytes may stand before the end of file."""
        if self.gone or self._reading:
            return
        poll = select.poll()
        poll.register(self._socket, select.POLLRDHUP)
        if poll.poll(0):
            self.close()
        else:
            self._loop.later(_LOOK_SEC, self._look)

    def close(self) -> None:
        """Close the connection now, and tell the handler."""
        if self._socket.fileno() < 0:
            return
        self._loop.forget(self._socket.fileno())
        self._socket.close()
        self._leave()
        self.on_gone(self)

    def _leave(self) -> None:
        """Stop to be there for others."""
        if self.gone:
            return
        self.gone = True
        self._out.clear()
        self._waiting_bytes = 0
        if self.handler is not None:
            self.handler.closed()

    def _linger(self) -> None:
        """Say that no more will come, and take what is still on its way until the peer closes.

        Closed at once, the socket would answer a peer that is still sending with an error, and cost it our last words.
        """
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            self.close()
            return
        self._loop.watch(self._socket.fileno(), read=self._read)
        self._loop.later(_LINGER_SEC, self.close)
        self._leave()

    def _put(self, frame: bytes) -> None:
        if self.gone or self._closing:
            return
        self._out.append(memoryview(frame))
        self._waiting_bytes += len(frame)
        if self._waiting_bytes > _OUTPUT_HARD_MAX_BYTES:
            # only answers to a flood of questions get here
            self.close()
            return
        self._flush()

    def _flush(self) -> None:
        try:
            while self._out:
                sent = self._socket.sendmsg([self._out[index] for index in range(min(_SEND_PARTS, len(self._out)))])
                self._waiting_bytes -= sent
                while sent:
                    part = self._out[0]
                    if sent < len(part):
                        self._out[0] = part[sent:]
                        break
                    sent -= len(part)
                    self._out.popleft()
        except BlockingIOError:
            pass
        except OSError:
            self._loop.later(0, self.close)
            self._out.clear()
            self._waiting_bytes = 0
        self._watch()

    def _watch(self) -> None:
        if not self.gone:
            read = self._read if self._reading or self._closing else None
            self._loop.watch(self._socket.fileno(), read=read, write=self._write if self._out else None)

    def _write(self) -> None:
        self._flush()
        if not self._out and not self.gone:
            if self._closing:
                self._linger()
            elif self.handler is not None:
                self.handler.room()

    def _read(self) -> None:
        try:
            data = self._socket.recv(_RECV_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        if self._closing:
            return
        try:
            for kind, payload in self._decoder.feed(data):
                self._dispatch(kind, payload)
                if self.gone or self._closing:
                    return
        except ProtocolError as error:
            self.refuse("bad-frame", f"That is no frame: {error}.")

    def _dispatch(self, kind: Kind, payload: bytes) -> None:
        if kind is Kind.CONTROL:
            message = parse_control(payload)
            if self.handler is not None:
                self.handler.control(message)
            else:
                self._first(self, message)
        elif kind is Kind.DATA and self.handler is not None:
            self.handler.data(payload)
        else:
            raise ProtocolError("data before anything was opened")

    def shutdown(self) -> None:
        """Close without telling anybody: the process ends."""
        if self._socket.fileno() >= 0:
            self._loop.forget(self._socket.fileno())
            self._socket.close()
        self.gone = True
