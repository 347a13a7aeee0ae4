"""As much rtnetlink as a supervisor needs, from the standard library: delete a link, find one, move one.

The worker has pyroute2; importing it would cost each supervisor many times its memory.
Source: rtnetlink(7), include/uapi/linux/{netlink,rtnetlink,if_link}.h.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Iterator
from typing import Final

from ..syscalls import CLONE_NEWNET, setns

_HEADER: Final = struct.Struct("=IHHII")
_IFINFO: Final = struct.Struct("=BxHiII")
_ATTRIBUTE: Final = struct.Struct("=HH")
_IFLA_ADDRESS: Final = 1
_IFLA_IFNAME: Final = 3
_IFLA_LINK: Final = 5
_IFLA_NET_NS_FD: Final = 28
_NLM_F_ACK: Final = 4
_NLM_F_REQUEST: Final = 1
_NLMSG_ERROR: Final = 2
_RTM_DELLINK: Final = 17
_RTM_GETLINK: Final = 18
_RTM_NEWLINK: Final = 16
_TIMEOUT_SEC: Final = 10.0


def delete_link(name: str) -> bool:
    """Delete a link of this network namespace; returns False where there is none. Takes about 20 ms."""
    with _open() as sock:
        try:
            _ask(sock, _RTM_DELLINK, 0, _attribute(_IFLA_IFNAME, name.encode() + b"\0"))
        except OSError as error:
            if error.errno == errno.ENODEV:
                return False
            error.filename = name
            raise
    return True


def peer_index(name: str) -> int | None:
    """Return the index that the other end of a veth has in its own namespace; None where the link is gone."""
    with _open() as sock:
        try:
            reply = _ask(sock, _RTM_GETLINK, 0, _attribute(_IFLA_IFNAME, name.encode() + b"\0"))
        except OSError as error:
            if error.errno == errno.ENODEV:
                return None
            raise
    value = dict(_attributes(reply[_IFINFO.size :])).get(_IFLA_LINK)
    return struct.unpack("=i", value)[0] if value else None


def move_link(index: int, *, name: str, mac: str, from_netns_fd: int, to_netns_fd: int) -> None:
    """Move a link to another network namespace under this name and address; borrows both descriptors.

    The link arrives down and without addresses, its peer keeps its bridge.
    """
    with in_netns(from_netns_fd), _open() as sock:
        _ask(
            sock,
            _RTM_NEWLINK,
            index,
            _attribute(_IFLA_NET_NS_FD, struct.pack("=I", to_netns_fd))
            + _attribute(_IFLA_IFNAME, name.encode() + b"\0")
            + _attribute(_IFLA_ADDRESS, bytes.fromhex(mac.replace(":", ""))),
        )


@contextlib.contextmanager
def in_netns(netns_fd: int) -> Iterator[None]:
    """Work in another network namespace; the process must have one thread only."""
    home_fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(netns_fd, CLONE_NEWNET)
        try:
            yield
        finally:
            setns(home_fd, CLONE_NEWNET)
    finally:
        os.close(home_fd)


def _open() -> socket.socket:
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    sock.settimeout(_TIMEOUT_SEC)
    return sock


def _attribute(kind: int, value: bytes) -> bytes:
    padding = b"\0" * (-len(value) % 4)
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + padding


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if length < _ATTRIBUTE.size:
            return
        yield kind & 0x3FFF, data[_ATTRIBUTE.size : length]
        data = data[length + (-length % 4) :]


def _ask(sock: socket.socket, kind: int, index: int, attributes: bytes) -> bytes:
    """Send one request about a link and return the answer's payload; raises OSError with the kernel's errno."""
    flags = _NLM_F_REQUEST | (0 if kind == _RTM_GETLINK else _NLM_F_ACK)
    body = _IFINFO.pack(socket.AF_UNSPEC, 0, index, 0, 0) + attributes
    sock.send(_HEADER.pack(_HEADER.size + len(body), kind, flags, 1, 0) + body)
    answer = sock.recv(65536)
    length, answered, *_ = _HEADER.unpack_from(answer)
    payload = answer[_HEADER.size : length]
    if answered == _NLMSG_ERROR:
        (number,) = struct.unpack_from("=i", payload)
        if number:
            raise OSError(-number, os.strerror(-number))
    return payload
