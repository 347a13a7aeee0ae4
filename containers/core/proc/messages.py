"""Messages between the processes of a start, an exec, an errand: JSON with descriptors over a SOCK_SEQPACKET socket."""

from __future__ import annotations

import contextlib
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


def report(connection: socket.socket, step: str, error: OSError) -> None:
    """Tell a starter which step has failed, from a process that is about to end."""
    path = error.filename if isinstance(error.filename, str) else None
    message = {
        "type": "error",
        "step": step,
        "path": path,
        "errno": error.errno,
        "message": error.strerror or str(error),
    }
    with contextlib.suppress(OSError):
        send(connection, message)
