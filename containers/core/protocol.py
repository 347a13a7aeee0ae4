"""The frames between a supervisor and those who talk to it (the web's consumers, the worker, the ticker).

A frame is a kind (1 byte), a length (4 bytes, big endian) and that many bytes::

    CONTROL   a JSON object in UTF-8, at most 64 KiB
    DATA      terminal bytes, or standard input; an empty one is end of file
    STDERR    standard error of a command without a terminal

The first frame of a client is CONTROL ``{"cmd": ...}``; the answer is CONTROL ``{"type": ...}``, where
``{"type": "error", "code", "message", ...}`` ends the conversation. Messages stand in docs/architecture.md.
"""

from __future__ import annotations

import enum
import json
import struct
from collections.abc import Iterator
from typing import Any, Final

HEADER: Final = struct.Struct("!BI")
FRAME_MAX_BYTES: Final = 64 * 1024
WINDOW_BYTES: Final = 256 * 1024
"""How many bytes a viewer may have un-acknowledged before its sender waits."""
SCROLLBACK_BYTES: Final = 1024 * 1024


class Kind(enum.IntEnum):
    """What a frame carries."""

    CONTROL = 0
    DATA = 1
    STDERR = 2


class ProtocolError(ValueError):
    """The peer sent what is no frame."""


def encode(kind: Kind, payload: bytes | bytearray | memoryview) -> bytes:
    """Return one frame; payload is at most FRAME_MAX_BYTES."""
    if len(payload) > FRAME_MAX_BYTES:
        raise ValueError(f"a frame holds at most {FRAME_MAX_BYTES} bytes, not {len(payload)}")
    return HEADER.pack(kind, len(payload)) + bytes(payload)


def control(**message: Any) -> bytes:
    """Return a CONTROL frame."""
    return encode(Kind.CONTROL, json.dumps(message, separators=(",", ":")).encode())


class Decoder:
    """Cuts a stream of bytes into frames; holds at most one incomplete frame."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[Kind, bytes]]:
        """Yield every frame that is complete now; raises ProtocolError for an unknown kind or an over-long frame."""
        self._buffer += data
        while len(self._buffer) >= HEADER.size:
            number, length = HEADER.unpack_from(self._buffer)
            if number not in Kind._value2member_map_ or length > FRAME_MAX_BYTES:
                raise ProtocolError(f"kind {number}, length {length}")
            end = HEADER.size + length
            if len(self._buffer) < end:
                return
            payload = bytes(self._buffer[HEADER.size : end])
            del self._buffer[:end]
            yield Kind(number), payload


def parse_control(payload: bytes) -> dict[str, Any]:
    """Return the object of a CONTROL frame; raises ProtocolError where it is none."""
    try:
        message = json.loads(payload)
    except ValueError as error:
        raise ProtocolError(f"not JSON: {error}") from None
    if not isinstance(message, dict):
        raise ProtocolError("not a JSON object")
    return message
