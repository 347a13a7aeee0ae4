"""Messages between the processes of a start, an exec, an errand: JSON with descriptors over a SOCK_SEQPACKET socket."""

from __future__ import annotations

import json
import socket
from typing import Any, Final

MESSAGE_BYTES: Final = 64 * 1024


def encode(message: dict[str, Any]) -> bytes:
    """Return a message as it is sent."""
    return json.dumps(message).encode()


def send(connection: socket.socket, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
    """Send one JSON message with descriptors, which stay the sender's."""
    socket.send_fds(connection, [encode(message)], fds)


def receive(connection: socket.socket, *, fds_max: int = 0) -> tuple[dict[str, Any] | None, list[int]]:
    """Return the next message and its descriptors (the caller's, close-on-exec); None at end of file."""
    data, fds, _, _ = socket.recv_fds(connection, MESSAGE_BYTES, fds_max, socket.MSG_CMSG_CLOEXEC)
    return (json.loads(data) if data else None), fds
