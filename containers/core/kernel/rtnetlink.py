"""As much rtnetlink as runs without pyroute2: links, their names, addresses and routes, in any network namespace.

Supervisors have the standard library only, and what they make must be undone by whoever comes after them: the functions
here are theirs and the worker's. Each takes a socket, which belongs to the namespace in which it was opened.
Sources: rtnetlink(7), netdevice(7), include/uapi/linux/{netlink,rtnetlink,if_link,if_addr,neighbour}.h.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import ipaddress
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from .netlink import ACK, CREATE, EXCL, NESTED, ask, attribute, attributes, dump
from .syscalls import CLONE_NEWNET, setns

IFF_UP: Final = 1
_TIMEOUT_SEC: Final = 30.0
_SIOCGIFMTU, _SIOCGIFINDEX = 0x8921, 0x8933
_IFREQ: Final = struct.Struct("=16si20x")
_IFINFO: Final = struct.Struct("=BxHiII")
_IFADDR: Final = struct.Struct("=BBBBI")
_RTMSG: Final = struct.Struct("=BBBBBBBBI")
_NDMSG: Final = struct.Struct("=BxxxiHBB")

NEWLINK, _DELLINK, _GETLINK = 16, 17, 18
_NEWADDR, _DELADDR, _GETADDR = 20, 21, 22
_NEWROUTE, _DELROUTE = 24, 25
NEWNEIGH, _DELNEIGH = 28, 29
_NEWLINKPROP, _DELLINKPROP = 108, 109
_IFLA = {
    "address": 1,
    "ifname": 3,
    "mtu": 4,
    "link": 5,
    "master": 10,
    "linkinfo": 18,
    "netns": 28,
    "new_index": 49,
    "props": 52,
    "altname": 53,
}
_IFLA_PERM_ADDRESS: Final = 54
_IFLA_PARENT_DEV_NAME: Final = 56
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST, _IFA_FLAGS = 1, 2, 4, 8
_IFA_F_NODAD, _IFA_F_PERMANENT = 0x02, 0x80
_RTA_DST, _RTA_OIF, _RTA_GATEWAY = 1, 4, 5
_RT_TABLE_MAIN, _RTPROT_STATIC, _RTN_UNICAST = 254, 4, 1
_SCOPE_UNIVERSE, _SCOPE_LINK = 0, 253
_NDA_DST, _NDA_PROTOCOL = 1, 12
_NTF_PROXY: Final = 0x08
PROTOCOL: Final = 66
"""Marks the neighbour proxies that are ours (rtnetlink.h: numbers above 4 are for user space to share out)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A link as the kernel tells it. peer: IFLA_LINK, the other end's or the parent's number. kind: "" for hardware.

    permanent, device: what hardware has, whatever else of it is changed; "" for virtual links.
    """

    index: int
    name: str
    flags: int
    mtu: int = 0
    mac: str = ""
    peer: int = 0
    master: int = 0
    kind: str = ""
    altnames: tuple[str, ...] = ()
    permanent: str = ""
    device: str = ""


def own_netns() -> int:
    """Open this thread's network namespace; the descriptor is the caller's."""
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


@contextlib.contextmanager
def in_netns(netns_fd: int) -> Iterator[None]:
    """Have this thread, and no other, in another network namespace."""
    home_fd = own_netns()
    try:
        setns(netns_fd, CLONE_NEWNET)
        try:
            yield
        finally:
            setns(home_fd, CLONE_NEWNET)
    finally:
        os.close(home_fd)


def connect(netns_fd: int | None = None) -> socket.socket:
    """Return a socket for this thread's network namespace, or for another one; netns_fd is borrowed."""
    if netns_fd is not None:
        with in_netns(netns_fd):
            return connect()
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    sock.settimeout(_TIMEOUT_SEC)
    return sock


# -- links ------------------------------------------------------------------------------------------------------------


def find(sock: socket.socket, name: str = "", *, index: int = 0) -> Link | None:
    """Return a link by its name or its index; None where there is none."""
    attributes = text_of("ifname", name) if name else b""
    try:
        reply = ask(sock, _GETLINK, 0, ifinfo(index) + attributes)
    except OSError as error:
        if error.errno == errno.ENODEV:
            return None
        raise
    return _link(reply)


def index_of(sock: socket.socket, name: str) -> int | None:
    """Return a link's index; None where there is none. For the rest of it see find(), which takes ten times as long."""
    return _asked_by_ioctl(sock, _SIOCGIFINDEX, name)


def mtu_of(sock: socket.socket, name: str) -> int | None:
    """Return a link's MTU in bytes; None where there is none."""
    return _asked_by_ioctl(sock, _SIOCGIFMTU, name)


def _asked_by_ioctl(sock: socket.socket, request: int, name: str) -> int | None:
    """Return a number of a link's (netdevice(7)). Any socket takes it, for its own network namespace."""
    try:
        answer = fcntl.ioctl(sock, request, _IFREQ.pack(name.encode(), 0))
    except OSError as error:
        if error.errno == errno.ENODEV:
            return None
        raise
    number: int = _IFREQ.unpack(answer)[1]
    return number


def links(sock: socket.socket) -> list[Link]:
    """Return every link."""
    return [_link(payload) for payload in dump(sock, _GETLINK, ifinfo(0))]


def change(
    sock: socket.socket,
    index: int,
    *,
    up: bool | None = None,
    name: str = "",
    mtu: int | None = None,
    mac: str = "",
    netns_fd: int | None = None,
    new_index: int = 0,
) -> None:
    """Change a link, in one request: up or down, its name, MTU, MAC, or the namespace that it is in. Raises OSError.

    new_index: the number that it is to have in the other namespace.
    """
    body = ifinfo(index, flags=IFF_UP if up else 0, change=0 if up is None else IFF_UP)
    if netns_fd is not None:
        body += attribute(_IFLA["netns"], struct.pack("=I", netns_fd))
    if new_index:
        body += attribute(_IFLA["new_index"], struct.pack("=i", new_index))
    if name:
        body += text_of("ifname", name)
    if mtu is not None:
        body += attribute(_IFLA["mtu"], struct.pack("=I", mtu))
    if mac:
        body += attribute(_IFLA["address"], bytes.fromhex(mac.replace(":", "")))
    ask(sock, NEWLINK, ACK, body)


def delete(sock: socket.socket, name: str = "", *, index: int = 0) -> bool:
    """Delete a link; returns False where there is none. Takes about 20 ms (a grace period of the kernel)."""
    try:
        ask(sock, _DELLINK, ACK, ifinfo(index) + (text_of("ifname", name) if name else b""))
    except OSError as error:
        if error.errno == errno.ENODEV:
            return False
        error.filename = name or str(index)
        raise
    return True


def set_altnames(sock: socket.socket, link: Link, wanted: tuple[str, ...]) -> None:
    """Give a link these other names and no more; one that another link has by now is left out."""
    for kind, flags, names in (
        (_DELLINKPROP, ACK, set(link.altnames) - set(wanted)),
        (_NEWLINKPROP, ACK | CREATE | EXCL, set(wanted) - set(link.altnames)),
    ):
        for name in sorted(names):
            listed = attribute(_IFLA["props"] | NESTED, text_of("altname", name))
            with contextlib.suppress(FileExistsError):
                ask(sock, kind, flags, ifinfo(link.index) + listed)


def _link(payload: bytes) -> Link:
    _family, _type, index, flags, _change = _IFINFO.unpack_from(payload)
    values = dict(attributes(payload[_IFINFO.size :]))
    altnames = [_string(value) for kind, value in attributes(values.get(_IFLA["props"], b"")) if kind == 53]
    info = dict(attributes(values.get(_IFLA["linkinfo"], b"")))
    return Link(
        index=index,
        name=_string(values.get(_IFLA["ifname"], b"")),
        flags=flags,
        mtu=_number(values.get(_IFLA["mtu"])),
        mac=values.get(_IFLA["address"], b"").hex(":"),
        peer=_number(values.get(_IFLA["link"])),
        master=_number(values.get(_IFLA["master"])),
        kind=_string(info.get(1, b"")),
        altnames=tuple(altnames),
        permanent=values.get(_IFLA_PERM_ADDRESS, b"").hex(":"),
        device=_string(values.get(_IFLA_PARENT_DEV_NAME, b"")),
    )


# -- addresses, routes, proxies --------------------------------------------------------------------------------------


def addresses(sock: socket.socket, index: int | None = None, *, permanent: bool = False) -> list[str]:
    """Return a link's addresses with prefix lengths, but for link-local ones; permanent: those without an end only.

    index None: those of all links.
    """
    found = []
    for payload in dump(sock, _GETADDR, _IFADDR.pack(0, 0, 0, 0, 0)):
        _family, prefix, flags, scope, owner = _IFADDR.unpack_from(payload)
        values = dict(attributes(payload[_IFADDR.size :]))
        raw = values.get(_IFA_LOCAL) or values.get(_IFA_ADDRESS)
        if index in (None, owner) and raw and scope == _SCOPE_UNIVERSE and (flags & _IFA_F_PERMANENT or not permanent):
            found.append(f"{ipaddress.ip_address(raw)}/{prefix}")
    return found


def add_address(sock: socket.socket, index: int, text: str) -> None:
    """Give a link an address (with prefix length); one that it has already is fine."""
    interface = ipaddress.ip_interface(text)
    packed = interface.ip.packed
    flags = _IFA_F_NODAD if interface.version == 6 else 0
    body = _IFADDR.pack(_family(interface), interface.network.prefixlen, flags, _SCOPE_UNIVERSE, index)
    body += attribute(_IFA_LOCAL, packed) + attribute(_IFA_ADDRESS, packed)
    if interface.version == 4 and interface.network.prefixlen < 31:
        body += attribute(_IFA_BROADCAST, interface.network.broadcast_address.packed)
    with contextlib.suppress(FileExistsError):
        ask(sock, _NEWADDR, ACK | CREATE | EXCL, body)


def remove_address(sock: socket.socket, index: int, text: str) -> None:
    """Take an address from a link; one that it does not have is fine."""
    interface = ipaddress.ip_interface(text)
    body = _IFADDR.pack(_family(interface), interface.network.prefixlen, 0, 0, index)
    body += attribute(_IFA_LOCAL, interface.ip.packed) + attribute(_IFA_ADDRESS, interface.ip.packed)
    try:
        ask(sock, _DELADDR, ACK, body)
    except OSError as error:
        if error.errno not in (errno.EADDRNOTAVAIL, errno.ENODEV):
            raise


def route(sock: socket.socket, index: int, destination: str, *, via: str | None = None, remove: bool = False) -> None:
    """Add a route over a link, or remove it; what is so already is fine. destination: a subnet. via: a gateway."""
    network = ipaddress.ip_network(destination, strict=False)
    scope = _SCOPE_UNIVERSE if via or network.version == 6 else _SCOPE_LINK
    kind = _RTN_UNICAST if not remove or network.version == 6 else 0
    body = _RTMSG.pack(_family(network), network.prefixlen, 0, 0, _RT_TABLE_MAIN, _RTPROT_STATIC, scope, kind, 0)
    if network.prefixlen:
        body += attribute(_RTA_DST, network.network_address.packed)
    body += attribute(_RTA_OIF, struct.pack("=I", index))
    if via:
        body += attribute(_RTA_GATEWAY, ipaddress.ip_address(via).packed)
    try:
        ask(sock, _DELROUTE if remove else _NEWROUTE, ACK if remove else ACK | CREATE | EXCL, body)
    except FileExistsError:
        pass
    except OSError as error:
        if not (remove and error.errno in (errno.ESRCH, errno.ENODEV)):
            raise


def proxy(sock: socket.socket, index: int, address: str, *, remove: bool = False) -> None:
    """Have the host answer for an address on a link (proxy ARP, proxy NDP), or not any more; what is so is fine."""
    one = ipaddress.ip_address(address)
    body = _NDMSG.pack(_family(one), index, 0, _NTF_PROXY, 0)
    body += attribute(_NDA_DST, one.packed) + attribute(_NDA_PROTOCOL, bytes((PROTOCOL,)))
    try:
        ask(sock, _DELNEIGH if remove else NEWNEIGH, ACK if remove else ACK | CREATE, body)
    except OSError as error:
        if not (remove and error.errno in (errno.ENOENT, errno.ENODEV)):
            raise


def _family(one: ipaddress.IPv4Interface | ipaddress.IPv6Interface | ipaddress.IPv4Network | ipaddress.IPv6Network
            | ipaddress.IPv4Address | ipaddress.IPv6Address) -> int:  # fmt: skip
    return socket.AF_INET if one.version == 4 else socket.AF_INET6


def ifinfo(index: int, *, flags: int = 0, change: int = 0) -> bytes:
    """Return the head of a message about a link."""
    return _IFINFO.pack(socket.AF_UNSPEC, 0, index, flags, change)


def text_of(name: str, value: str) -> bytes:
    """Return an attribute of a link with text in it."""
    return attribute(_IFLA[name], value.encode() + b"\0")


def _string(value: bytes) -> str:
    return value.partition(b"\0")[0].decode(errors="replace")


def _number(value: bytes | None) -> int:
    return int(struct.unpack("=I", value)[0]) if value else 0
