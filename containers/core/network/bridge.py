"""The bridge of a network, and the kernel settings it needs. Root; pyroute2 is loaded at the first use."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from ..errors import SetupFailed
from ..host import Host
from ..model.network_config import NetworkConfig
from ..model.subnets import mac_address
from . import sysctls

if TYPE_CHECKING:
    from pyroute2 import IPRoute

DEFAULT_MTU: Final = 1500
MIN_MTU: Final = 1280
"""The least that IPv6 allows."""
IFA_F_NODAD: Final = 0x02


@contextlib.contextmanager
def netlink(step: str) -> Iterator[IPRoute]:
    """Open rtnetlink; a refusal by the kernel becomes SetupFailed naming the step."""
    # half a second at the first import: only the worker pays it
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    with IPRoute() as ip:
        try:
            yield ip
        except NetlinkError as error:
            raise SetupFailed.from_oserror(step, OSError(error.code, error.args[1])) from error


def link_index(ip: IPRoute, name: str) -> int | None:
    """Return a link's index, or None where there is none of that name."""
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        found: int = ip.link("get", ifname=name)[0]["index"]
    except NetlinkError as error:
        if error.code == errno.ENODEV:
            return None
        raise
    return found


def ensure(host: Host, config: NetworkConfig) -> list[str]:
    """Make the bridge be as the network wants it, and up; return what was changed of the host's settings, in words.

    Raises SetupFailed. Twice changes nothing the second time.
    """
    name = host.bridge_name(config.number)
    with netlink(f"bridge {name}") as ip:
        index = link_index(ip, name)
        if index is None:
            ip.link("add", ifname=name, kind="bridge", address=_bridge_mac(host, config))
            index = link_index(ip, name)
            # a bridge whose MTU was changed keeps it; another takes the least of its ports'
            ip.link("set", index=index, mtu=MIN_MTU)
        assert index is not None
        # multicast is flooded: without a querier a snooping bridge would lose neighbour solicitations
        ip.link("set", index=index, kind="bridge", br_stp_state=0, br_forward_delay=0, br_mcast_snooping=0)
        ip.link("set", index=index, mtu=uplink_mtu(ip), ifalias=f"boxroom:{host.instance}:network:{config.number}")
        _bridge_sysctls(name, config)
        _ensure_addresses(ip, index, config)
        ip.link("set", index=index, state="up")
        return _forwarding(ip, name, config)


def remove(host: Host, number: int) -> None:
    """Delete the bridge; twice is once. Its ports lose their network."""
    name = host.bridge_name(number)
    with netlink(f"bridge {name}") as ip:
        index = link_index(ip, name)
        if index is not None:
            ip.link("del", index=index)


def routes(ip: IPRoute) -> list[str]:
    """Return every subnet of every routing table and of every link's addresses, without default routes."""
    found = set()
    for message in ip.get_routes():
        destination = message.get("dst")
        if destination and message["dst_len"]:
            found.add(f"{destination}/{message['dst_len']}")
    for message in ip.get_addr():
        found.add(f"{message.get('address')}/{message['prefixlen']}")
    return sorted(text for text in found if not _everywhere(text))


def _everywhere(text: str) -> bool:
    """Whether a subnet is one that every host has, and that no network would be chosen from."""
    network = ipaddress.ip_network(text, strict=False)
    return network.is_loopback or network.is_link_local or network.is_multicast


def uplink_mtu(ip: IPRoute) -> int:
    """Return the MTU that containers can use without fragments: the default route's link's, at most 1500."""
    smallest = DEFAULT_MTU
    for message in ip.get_default_routes():
        out = message.get("oif")
        if out:
            smallest = min(smallest, ip.link("get", index=out)[0].get("mtu") or DEFAULT_MTU)
    return max(smallest, MIN_MTU)


def _bridge_mac(host: Host, config: NetworkConfig) -> str:
    return mac_address(host.instance, "bridge", config.number)


def _ensure_addresses(ip: IPRoute, index: int, config: NetworkConfig) -> None:
    wanted = {
        str(ipaddress.ip_interface(text)) for text in (config.ipv4, config.ipv6 if sysctls.has_ipv6() else None) if text
    }
    present = set()
    for message in ip.get_addr(index=index):
        text = f"{message.get('address')}/{message['prefixlen']}"
        if text in wanted:
            present.add(text)
        elif message["scope"] == 0:
            ip.addr("del", index=index, address=message.get("address"), prefixlen=message["prefixlen"])
    for text in sorted(wanted - present):
        interface = ipaddress.ip_interface(text)
        # no duplicate detection: nobody else may have it, and it would stay tentative until a container starts
        extra: dict[str, Any] = {"flags": IFA_F_NODAD} if interface.version == 6 else {"broadcast": _broadcast(text)}
        ip.addr("add", index=index, address=str(interface.ip), prefixlen=interface.network.prefixlen, **extra)


def _broadcast(text: str) -> str:
    return str(ipaddress.ip_interface(text).network.broadcast_address)


def _bridge_sysctls(name: str, config: NetworkConfig) -> None:
    sysctls.write(f"ipv4/conf/{name}/rp_filter", "1")
    sysctls.write(f"ipv4/conf/{name}/accept_redirects", "0")
    sysctls.write(f"ipv4/conf/{name}/route_localnet", "0")
    sysctls.write(f"ipv4/conf/{name}/forwarding", "1")
    if sysctls.has_ipv6():
        sysctls.write(f"ipv6/conf/{name}/disable_ipv6", "0" if config.ipv6 else "1")
    if sysctls.has_ipv6() and config.ipv6:
        for key, value in (("accept_ra", "0"), ("accept_redirects", "0"), ("accept_dad", "0"), ("dad_transmits", "0")):
            sysctls.write(f"ipv6/conf/{name}/{key}", value)
        # the router flag in our neighbour advertisements; without it Linux drops its default route
        sysctls.write(f"ipv6/conf/{name}/forwarding", "1")


def _forwarding(ip: IPRoute, name: str, config: NetworkConfig) -> list[str]:
    """Switch forwarding on between the bridge and the uplinks; return what was changed on the host itself."""
    changed = []
    uplinks: dict[int, set[str]] = {4: set(), 6: set()}
    for family, version in ((2, 4), (10, 6)):
        for message in ip.get_default_routes(family=family):
            if message.get("oif"):
                uplinks[version].add(ip.link("get", index=message.get("oif"))[0].get("ifname"))
    if config.ipv4 and sysctls.write("ipv4/ip_forward", "1"):
        changed.append("net.ipv4.ip_forward=1")
    if config.ipv6 and sysctls.has_ipv6():
        changed += sysctls.forward_ipv6([name], uplinks[6])
    return changed
