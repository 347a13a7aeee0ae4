"""Choosing subnets and addresses. Pure: what the host routes and what others hold is handed in."""

from __future__ import annotations

import hashlib
import ipaddress
import itertools
from collections.abc import Collection, Iterable, Iterator
from typing import Final, NamedTuple

from ..errors import HostUnsupported
from ..host import Host
from ..sentences import say
from .network_config import NetworkConfig, plain
from .nics import Nic

IPV4_POOLS: Final = ("10.64.0.0/10", "10.128.0.0/9", "172.16.0.0/12", "192.168.0.0/16", "10.0.0.0/10", "198.18.0.0/15")
"""Where an IPv4 subnet is looked for, in this order: private (RFC 1918), then the benchmarking range (RFC 2544)."""
IPV4_PREFIXES: Final = (22, 24)
"""A /22 has an address for each of an instance's 1024 slots; where none is free, a /24 will do."""


class Subnets(NamedTuple):
    """Gateways of a new network, with prefix length."""

    ipv4: str
    ipv6: str


def pick(seed: str, avoid: Collection[str]) -> Subnets:
    """Choose an IPv4 /22, or else a /24, and an IPv6 unique local /64 that touch nothing in avoid.

    seed: the same seed and the same avoid choose the same. avoid: subnets and single addresses of both families; the
    default route is not among them. Raises HostUnsupported where everything private is taken.
    """
    ipv4 = next((net for net in _ipv4_candidates(seed) if not overlaps(str(net), avoid)), None)
    ipv6 = next((net for net in _ipv6_candidates(seed) if not overlaps(str(net), avoid)), None)
    if ipv4 is None or ipv6 is None:
        raise HostUnsupported("No private subnet is free: give one yourself.", feature="subnet", field="ipv4")
    return Subnets(f"{ipv4[1]}/{ipv4.prefixlen}", f"{ipv6[1]}/{ipv6.prefixlen}")


def overlaps(subnet: str, others: Iterable[str]) -> bool:
    """Whether subnet shares an address with one of the others. Pure."""
    one = ipaddress.ip_network(subnet, strict=False)
    for text in others:
        other = ipaddress.ip_network(text, strict=False)
        if one.version == other.version and one.overlaps(other):
            return True
    return False


def _digest(*parts: object) -> int:
    text = "\0".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest(), "big")


def _ipv4_candidates(seed: str) -> Iterator[ipaddress.IPv4Network]:
    for prefix, text in itertools.product(IPV4_PREFIXES, IPV4_POOLS):
        pool = ipaddress.IPv4Network(text)
        count = 2 ** (prefix - pool.prefixlen)
        start = _digest(seed, text) % count
        for step in range(count):
            index = (start + step) % count
            yield ipaddress.IPv4Network((int(pool.network_address) + index * 2 ** (32 - prefix), prefix))


def _ipv6_candidates(seed: str) -> Iterator[ipaddress.IPv6Network]:
    for attempt in range(64):
        # RFC 4193: fd, 40 random bits, 16 bits of subnet
        bits = 0xFD << 120 | (_digest(seed, "ula", attempt) % 2**56) << 64
        yield ipaddress.IPv6Network((bits, 64))


def mac_address(instance: str, container_id: str, index: int = 0) -> str:
    """Return a NIC's MAC: locally administered, unicast, 40 bits from the instance, the container and the index."""
    number = _digest("mac", instance, container_id, index) % 2**40
    return ":".join(f"{byte:02x}" for byte in (0x02, *number.to_bytes(5, "big")))


def host_side_mac(mac: str) -> str:
    """Return the MAC of a veth's host side: fe first, so that a bridge never takes it for its own."""
    return "fe" + mac[2:]


def eui64(subnet: str, mac: str) -> str:
    """Return the address that stateless autoconfiguration makes of a MAC in a /64 (RFC 4291, appendix A)."""
    network = ipaddress.IPv6Interface(subnet).network
    if network.prefixlen != 64:
        raise ValueError(f"{subnet} is not a /64")
    return str(network[_identifier(mac)])


def link_local(mac: str) -> str:
    """Return the link-local address that the kernel gives a link with this MAC."""
    # a start asks for it, to which the reading of a subnet would be a tenth of a millisecond
    return str(ipaddress.IPv6Address(0xFE80 << 112 | _identifier(mac)))


def _identifier(mac: str) -> int:
    raw = bytes.fromhex(mac.replace(":", ""))
    return int.from_bytes((raw[0] ^ 2, *raw[1:3], 0xFF, 0xFE, *raw[3:]), "big")


def choose_address(gateway: str, taken: Iterable[str], seed: str = "") -> str:
    """Choose a free IPv4 address of the gateway's subnet, without prefix length.

    taken: addresses in use, with or without prefix length. With a seed the search begins where the seed says, so that
    a deleted container's address is not at once another's. Raises HostUnsupported (feature ``address``) when full.
    """
    interface = ipaddress.IPv4Interface(gateway)
    network = interface.network
    first, last = int(network.network_address) + 1, int(network.broadcast_address) - 1
    count = last - first + 1
    used = {int(ipaddress.IPv4Address(plain(text))) for text in taken} | {int(interface.ip)}
    start = _digest("address", seed) % count if seed else 0
    for step in range(count):
        number = first + (start + step) % count
        if number not in used:
            return str(ipaddress.IPv4Address(number))
    raise HostUnsupported(
        say("Every address of %(network)s is taken. Make another network, or delete a container.", network=network),
        feature="address",
        field="network",
    )


def plan_nic(
    host: Host,
    config: NetworkConfig,
    *,
    container_id: str,
    slot: int,
    taken: Iterable[str],
    index: int = 0,
    name: str = "eth0",
) -> Nic:
    """Return a new container's NIC on a network: link names, MAC and addresses, all decided here.

    taken: the IPv4 addresses of the network's other containers.
    """
    mac = mac_address(host.instance, container_id, index)
    ipv4 = gateway = ipv6 = None
    if config.ipv4:
        prefix = ipaddress.IPv4Interface(config.ipv4).network.prefixlen
        ipv4 = f"{choose_address(config.ipv4, taken, seed=container_id)}/{prefix}"
        gateway = plain(config.ipv4)
    if config.ipv6:
        ipv6 = f"{eui64(config.ipv6, mac)}/64"
    return Nic(
        name=name,
        network=config.name,
        bridge=host.bridge_name(config.number),
        host_link=host.veth_name(slot, index),
        mac=mac,
        ipv4=ipv4,
        ipv4_gateway=gateway,
        ipv6=ipv6,
        index=index,
    )


def routed(routes: Iterable[tuple[str, int]]) -> list[str]:
    """Return the subnets of (destination, prefix length) routes, without the default routes."""
    return [f"{destination}/{length}" for destination, length in routes if length]


def check_free(subnet: str, avoid: Iterable[str]) -> str | None:
    """Return the first of avoid that the subnet shares an address with, or None."""
    return next((other for other in avoid if overlaps(subnet, (other,))), None)
