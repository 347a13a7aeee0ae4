"""Netlink messages: attributes, requests with their answers, many requests at once.

Sources: netlink(7), include/uapi/linux/netlink.h.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import Final

_READ_BYTES: Final = 1 << 16
_HEADER: Final = struct.Struct("=IHHII")
_ATTRIBUTE: Final = struct.Struct("=HH")
ACK, EXCL, CREATE, APPEND = 0x4, 0x200, 0x400, 0x800
NESTED: Final = 0x8000
_REQUEST, _DUMP = 0x1, 0x300
_NLMSG_ERROR, _NLMSG_DONE = 2, 3


def attribute(kind: int, value: bytes) -> bytes:
    """Return an attribute, padded."""
    padding = b"\0" * (-len(value) % 4)
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + padding


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the attributes in a message as (kind, value)."""
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if length < _ATTRIBUTE.size:
            return
        yield kind & 0x3FFF, data[_ATTRIBUTE.size : length]
        data = data[length + (-length % 4) :]


def _message(kind: int, flags: int, body: bytes, number: int = 1) -> bytes:
    return _HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | flags, number, 0) + body


def _payload(answer: bytes) -> bytes:
    length, answered, *_ = _HEADER.unpack_from(answer)
    payload = answer[_HEADER.size : length]
    if answered == _NLMSG_ERROR:
        (number,) = struct.unpack_from("=i", payload)
        if number:
            raise OSError(-number, os.strerror(-number))
    return payload


def ask(sock: socket.socket, kind: int, flags: int, body: bytes) -> bytes:
    """Send one request and return the answer's payload; raises OSError with the kernel's errno."""
    sock.send(_message(kind, flags, body))
    return _payload(sock.recv(_READ_BYTES))


def ask_all(sock: socket.socket, requests: Sequence[tuple[int, int, bytes]]) -> None:
    """Send requests (kind, flags, body), of which the kernel tries all. Raises the first one's OSError that failed."""
    sock.send(b"".join(_padded(_message(kind, flags | ACK, body)) for kind, flags, body in requests))
    failed: OSError | None = None
    for _ in requests:
        try:
            _payload(sock.recv(_READ_BYTES))
        except TimeoutError:
            raise
        except OSError as error:
            failed = failed or error
    if failed is not None:
        raise failed


def _padded(message: bytes) -> bytes:
    return message + b"\0" * (-len(message) % 4)


def dump(sock: socket.socket, kind: int, body: bytes) -> Iterator[bytes]:
    """Yield the payloads of everything of a kind."""
    sock.send(_message(kind, _DUMP, body))
    while True:
        data = sock.recv(_READ_BYTES)
        while data:
            length, answered, *_ = _HEADER.unpack_from(data)
            if answered == _NLMSG_DONE:
                return
            if answered == _NLMSG_ERROR:
                (number,) = struct.unpack_from("=i", data, _HEADER.size)
                raise OSError(-number, os.strerror(-number))
            yield data[_HEADER.size : length]
            data = data[length + (-length % 4) :]
