"""A NIC in its container's network namespace: up, with MTU, addresses and default route, before init runs.

Standard library only: the worker does it at a start and when a NIC is plugged in, the supervisor after a reboot.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from typing import Final

from ..errors import SetupFailed
from ..kernel import rtnetlink
from ..model.nics import Nic
from ..sentences import say
from . import sysctls

ROUTED_GATEWAYS: Final = {4: "169.254.0.1", 6: "fe80::1"}
"""What the host is called by the other end of a routed pair."""
_NO_WAY: Final = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EINVAL)
_EVERYTHING: Final = {4: "0.0.0.0/0", 6: "::/0"}


def is_set(nic: Nic) -> bool:
    """Tell whether there is something to be set, beside bringing the link up."""
    return nic.mtu is not None or has_addresses(nic)


def has_addresses(nic: Nic) -> bool:
    """Tell whether the NIC's addresses are set by us, and not told by a network's DHCP."""
    return nic.static if nic.type == "bridge" else bool(nic.addresses)


def configure(sock: socket.socket, nic: Nic, index: int) -> None:
    """Make a link be as the NIC wants it, and up; twice is once. sock: of the container's namespace.

    Raises SetupFailed. Addresses that are not the NIC's stay: they are the container's own. On a host that does not
    speak IPv6 those of IPv6 are left out.
    """
    spoken = (4, 6) if sysctls.has_ipv6() else (4,)
    try:
        if nic.mtu is not None:
            rtnetlink.change(sock, index, mtu=nic.mtu)
        rtnetlink.change(sock, index, up=True)
        if has_addresses(nic):
            for text in nic.addresses:
                if ipaddress.ip_interface(text).version in spoken:
                    rtnetlink.add_address(sock, index, text)
            for version, gateway in ((4, nic.ipv4_gateway), (6, nic.ipv6_gateway)):
                if version in spoken and gateway and (nic.ipv4, nic.ipv6)[version == 6]:
                    _default_route(sock, index, version, gateway, routed=nic.type == "routed")
    except OSError as error:
        raise SetupFailed.from_oserror(_step(nic), error) from error


def unset(sock: socket.socket, before: Nic, after: Nic, index: int) -> None:
    """Take from a link the addresses and the default routes that it is not to have any more. Raises SetupFailed."""
    try:
        if not has_addresses(before):
            return
        kept = after.addresses if has_addresses(after) else ()
        for version, gateway, now in (
            (4, before.ipv4_gateway, after.ipv4_gateway),
            (6, before.ipv6_gateway, after.ipv6_gateway),
        ):
            if gateway and (gateway != now or not kept):
                via = _via(gateway, version)
                rtnetlink.route(sock, index, _EVERYTHING[version], via=via, remove=True)
                if via is not None and not _in_subnet(before, via):
                    _way_to(sock, index, via, remove=True)
        for text in before.addresses:
            if text not in kept:
                rtnetlink.remove_address(sock, index, text)
    except OSError as error:
        raise SetupFailed.from_oserror(_step(before), error) from error


def _step(nic: Nic) -> str:
    return say("configure the network interface %(name)s", name=nic.name)


def _via(gateway: str, version: int) -> str | None:
    return {"auto": ROUTED_GATEWAYS[version], "dev": None}.get(gateway, gateway)


def _default_route(sock: socket.socket, index: int, version: int, gateway: str, *, routed: bool) -> None:
    via = _via(gateway, version)
    if via is not None and routed:
        _way_to(sock, index, via)
    try:
        rtnetlink.route(sock, index, _EVERYTHING[version], via=via)
    except OSError as error:
        if via is None or error.errno not in _NO_WAY:
            raise
        # the gateway lies outside of the subnet: it is on this link all the same
        _way_to(sock, index, via)
        rtnetlink.route(sock, index, _EVERYTHING[version], via=via)


def _in_subnet(nic: Nic, gateway: str) -> bool:
    address = ipaddress.ip_address(gateway)
    return any(address in ipaddress.ip_interface(text).network for text in nic.addresses)


def _way_to(sock: socket.socket, index: int, gateway: str, *, remove: bool = False) -> None:
    address = ipaddress.ip_address(gateway)
    if not address.is_link_local or address.version == 4:
        rtnetlink.route(sock, index, f"{gateway}/{address.max_prefixlen}", remove=remove)
