"""DHCP leases: reading what dnsmasq has written down, and giving one back in the client's name."""

from __future__ import annotations

import fcntl
import ipaddress
import itertools
import os
import socket
import struct
from collections.abc import Container
from pathlib import Path
from typing import Final

from ..host import Host

SIOCGIFADDR: Final = 0x8915
SIOCGIFNETMASK: Final = 0x891B


def read(path: Path) -> list[tuple[str, str]]:
    """Return (MAC, IPv4 address) of the leases in dnsmasq's file; none where there is no file."""
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return []
    # "expiry MAC address name client-id"; behind the line "duid …" those of DHCPv6, which carry no MAC
    fields = [line.split() for line in itertools.takewhile(lambda line: not line.startswith("duid "), lines)]
    return [(words[1], words[2]) for words in fields if len(words) == 5]


def keep(path: Path, reserved: Container[tuple[str, str]], addresses: Container[str]) -> None:
    """Leave only the leases of what is reserved in dnsmasq's file. It must not run: it writes what it remembers.

    reserved: (MAC, IPv4 address); addresses: those of IPv6, whose leases carry no MAC. No file is an empty one.
    """
    try:
        lines = path.read_text().splitlines(keepends=True)
    except FileNotFoundError:
        return
    behind = False
    left = []
    for line in lines:
        words = line.split()
        behind = behind or line.startswith("duid ")
        if len(words) != 5 or (words[2] in addresses if behind else (words[1], words[2]) in reserved):
            left.append(line)
    if left != lines:
        # in its place: it is dnsmasq's own, which may not make one here
        path.write_text("".join(left))


def give_back(host: Host, mac: str, address: str) -> None:
    """Tell dnsmasq, in the client's name, that the client gives its address back (RFC 2131, DHCPRELEASE)."""
    bridge = _bridge_of(host, address)
    if bridge is None:
        return
    name, gateway = bridge
    client = bytes.fromhex(mac.replace(":", ""))
    message = bytes((1, 1, 6, 0)) + os.urandom(4) + bytes(4) + socket.inet_aton(address) + bytes(12)
    message += client + bytes(10 + 64 + 128)
    message += b"\x63\x82\x53\x63" + bytes((53, 1, 7, 54, 4)) + socket.inet_aton(gateway) + b"\xff"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        # bound to the bridge, what the host sends to itself arrives as if it had come over the bridge
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name.encode())
        sock.sendto(message, (gateway, 67))


def _bridge_of(host: Host, address: str) -> tuple[str, str] | None:
    """Return the instance's bridge on whose subnet an address is, and the bridge's own address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        for _index, name in socket.if_nameindex():
            if not name.startswith(f"boxbr{host.instance}"):
                continue
            request = struct.pack("16s240x", name.encode())
            try:
                own, mask = (
                    socket.inet_ntoa(fcntl.ioctl(sock, number, request)[20:24])
                    for number in (SIOCGIFADDR, SIOCGIFNETMASK)
                )
            except OSError:
                continue  # a bridge without IPv4
            if ipaddress.ip_address(address) in ipaddress.ip_network(f"{own}/{mask}", strict=False):
                return name, own
    return None
