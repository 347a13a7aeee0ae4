"""A container's NIC: a veth pair with one end on the host, on a bridge or not, and one straight in the container.

Without pyroute2, whose messages cost a start milliseconds: what a pair needs is asked of the kernel in a few messages.
Sources: include/uapi/linux/{if_link,neighbour,veth}.h.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Final

from ..errors import SetupFailed
from ..host import Host
from ..kernel import rtnetlink
from ..kernel.netlink import ACK, APPEND, CREATE, EXCL, NESTED, ask, ask_all, attribute
from ..kernel.rtnetlink import NEWLINK, NEWNEIGH, ifinfo, text_of
from ..model.nics import Nic
from ..model.spec import Spec
from ..model.subnets import host_side_mac
from ..sentences import say
from .bridge import DEFAULT_MTU

_NDMSG: Final = struct.Struct("=BxxxiHBB")
_NTF_MASTER: Final = 0x04
_NUD_NOARP: Final = 0x40
"""With NTF_MASTER: a static entry of the bridge. (NUD_PERMANENT would mean the host itself.)"""
_NDA_LLADDR: Final = 2
_ADDRESS, _MTU, _MASTER, _LINKINFO, _ALIAS, _NETNS_FD = 1, 4, 10, 18, 20, 28
_KIND, _DATA, _SLAVE_KIND, _SLAVE_DATA = 1, 2, 4, 5
_VETH_PEER: Final = 1
_PORT: Final = {"guard": (5, 1), "learning": (8, 0), "unicast_flood": (9, 0), "isolated": (33, 0)}
"""A port's settings. The one known MAC is entered by hand: a container can neither learn its way in nor receive what is
for others."""


def create(sock: socket.socket, host: Host, spec: Spec, nics: Iterable[Nic], netns_fd: int) -> list[int]:
    """Make NICs of the container, host sides down and on their bridges; return the host sides' indexes.

    nics: of the types bridge and routed. sock: rtnetlink of the host's namespace. netns_fd: the container's network
    namespace; borrowed. A leftover link of the same name is deleted first.
    Raises SetupFailed or OSError, and then leaves no link.
    """
    made: list[int] = []
    with ExitStack() as undo:
        for nic in nics:
            made.append(_create(sock, host, spec, nic, netns_fd))
            undo.callback(rtnetlink.delete, sock, nic.host_link)
        undo.pop_all()
    return made


def bring_up(sock: socket.socket, indexes: Iterable[int]) -> None:
    """Let traffic through: call it when the packet filter is in place. Raises OSError."""
    for index in indexes:
        rtnetlink.change(sock, index, up=True)


def delete(names: Iterable[str]) -> None:
    """Delete links by name; what is gone already is fine. Takes about 20 ms each (a grace period of the kernel).

    One that cannot be deleted does not keep the others; then its error is raised at the end, as SetupFailed.
    """
    try:
        with rtnetlink.connect() as sock, ExitStack() as each:
            for name in reversed(list(names)):
                each.callback(rtnetlink.delete, sock, name)
    except OSError as error:
        raise SetupFailed.from_oserror("deleting links", error) from error


def _create(sock: socket.socket, host: Host, spec: Spec, nic: Nic, netns_fd: int) -> int:
    body = _pair(nic, _bridge(sock, nic) if nic.type == "bridge" else None, netns_fd)
    try:
        ask(sock, NEWLINK, ACK | CREATE | EXCL, body)
    except FileExistsError:
        rtnetlink.delete(sock, nic.host_link)
        ask(sock, NEWLINK, ACK | CREATE | EXCL, body)
    index = rtnetlink.index_of(sock, nic.host_link)
    if index is None:
        raise SetupFailed(
            say("The link %(host_link)s went away while it was made.", host_link=nic.host_link),
            step="network",
            path=nic.host_link,
        )
    with ExitStack() as undo:
        undo.callback(rtnetlink.delete, sock, nic.host_link)
        # before it is up, so that the host never speaks IPv6 on it
        _disable_ipv6(nic.host_link)
        ask_all(sock, _settings(nic, host.link_alias(spec.id), index))
        undo.pop_all()
    return index


def _pair(nic: Nic, bridge: tuple[int, int] | None, netns_fd: int) -> bytes:
    mtu = attribute(_MTU, struct.pack("=I", nic.mtu or (bridge[1] if bridge else DEFAULT_MTU)))
    inside = ifinfo(0) + text_of("ifname", nic.name) + _mac(nic.mac) + mtu
    inside += attribute(_NETNS_FD, struct.pack("=I", netns_fd))
    outside = ifinfo(0) + text_of("ifname", nic.host_link) + _mac(host_side_mac(nic.mac)) + mtu
    if bridge is not None:
        outside += attribute(_MASTER, struct.pack("=I", bridge[0]))
    data = attribute(_DATA | NESTED, attribute(_VETH_PEER | NESTED, inside))
    return outside + attribute(_LINKINFO | NESTED, attribute(_KIND, b"veth\0") + data)


def _mac(text: str) -> bytes:
    return attribute(_ADDRESS, bytes.fromhex(text.replace(":", ""))) if text else b""


def _settings(nic: Nic, alias: str, index: int) -> list[tuple[int, int, bytes]]:
    """Return the requests for what a host side is to be before it is up."""
    body = ifinfo(index) + attribute(_ALIAS, alias.encode())
    if nic.type != "bridge":
        return [(NEWLINK, 0, body)]
    port = b"".join(attribute(number, bytes((value,))) for number, value in _PORT.values())
    slave = attribute(_SLAVE_KIND, b"bridge\0") + attribute(_SLAVE_DATA | NESTED, port)
    entry = _NDMSG.pack(socket.AF_BRIDGE, index, _NUD_NOARP, _NTF_MASTER, 0)
    entry += attribute(_NDA_LLADDR, bytes.fromhex(nic.mac.replace(":", "")))
    return [
        (NEWLINK, 0, body + attribute(_LINKINFO | NESTED, slave)),
        (NEWNEIGH, CREATE | APPEND, entry),
    ]


def _bridge(sock: socket.socket, nic: Nic) -> tuple[int, int]:
    """Return the index and the MTU of a NIC's bridge. Raises SetupFailed."""
    index, mtu = rtnetlink.index_of(sock, nic.bridge), rtnetlink.mtu_of(sock, nic.bridge)
    if index is None or mtu is None:
        raise SetupFailed(
            say("The bridge %(bridge)s of network %(network)s is not there.", bridge=nic.bridge, network=nic.network),
            step="network",
            path=nic.bridge,
        )
    return index, mtu


def _disable_ipv6(link: str) -> None:
    try:
        fd = os.open(f"/proc/sys/net/ipv6/conf/{link}/disable_ipv6", os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return  # a host without IPv6
    except OSError as error:
        raise SetupFailed.from_oserror("network", error) from error
    try:
        os.write(fd, b"1")
    except OSError as error:
        raise SetupFailed.from_oserror("network", error) from error
    finally:
        os.close(fd)
