"""The host's side of a routed NIC: no bridge, but a route to each of the container's addresses.

The container finds its gateway behind the link: either an address that is the host's on every such link, or one of the
network beyond, for which the host answers there. With a parent the host answers for the container's addresses on that
card (proxy ARP, proxy NDP), so that its neighbours find the container without a route of their own.
What a container sends must be routed back to it (ruleset.py); and the host forwards for it.
"""

from __future__ import annotations

import ipaddress
import socket

from ..errors import SetupFailed
from ..host import Host
from ..kernel import rtnetlink
from ..model.network_config import plain
from ..model.nics import Nic
from ..model.spec import Spec
from ..sentences import say
from . import lending, sysctls
from .inside import ROUTED_GATEWAYS


def settle(host: Host, spec: Spec, nic: Nic, index: int, parent: str | None) -> None:
    """Bring the host's side up, with routes and answers. index: of the link; parent: the card's link, or None.

    The packet filter is in place. Raises SetupFailed, NotFound; routes go with the link, answers with the container.
    """
    link = nic.host_link
    _settings(link, nic, parent)
    with rtnetlink.connect() as sock:
        try:
            rtnetlink.change(sock, index, up=True)
            for version, gateway in ((4, nic.ipv4_gateway), (6, nic.ipv6_gateway)):
                _be_gateway(sock, index, link, version, gateway)
            for text in nic.addresses:
                rtnetlink.route(sock, index, plain(text))
            for text in nic.routes:
                rtnetlink.route(sock, index, text, via=_next_hop(nic, text))
        except OSError as error:
            step = say("route to the network interface %(name)s", name=nic.name)
            raise SetupFailed.from_oserror(step, error) from error
    if parent is not None:
        lending.answer_for(host, spec.id, parent, answers(nic))


def answers(nic: Nic) -> list[str]:
    """Return the addresses that the host answers for on a routed NIC's parent."""
    return [plain(text) for text in nic.addresses] if nic.type == "routed" and nic.parent else []


def _settings(link: str, nic: Nic, parent: str | None) -> None:
    sysctls.write("ipv4/ip_forward", "1")
    sysctls.write(f"ipv4/conf/{link}/forwarding", "1")
    sysctls.write(f"ipv4/conf/{link}/rp_filter", "1")
    sysctls.write(f"ipv4/conf/{link}/accept_redirects", "0")
    sysctls.write(f"ipv4/conf/{link}/route_localnet", "0")
    # nobody else could answer there: no need to let others go first
    sysctls.write(f"ipv4/neigh/{link}/proxy_delay", "0")
    if not sysctls.has_ipv6():
        return
    sysctls.write(f"ipv6/conf/{link}/disable_ipv6", "1" if nic.ipv6 is None else "0")
    if nic.ipv6 is not None:
        for key, value in (("accept_ra", "0"), ("accept_redirects", "0"), ("accept_dad", "0"), ("dad_transmits", "0")):
            sysctls.write(f"ipv6/conf/{link}/{key}", value)
        sysctls.write(f"ipv6/conf/{link}/forwarding", "1")
        sysctls.write(f"ipv6/neigh/{link}/proxy_delay", "0")
        sysctls.forward_ipv6([link, *([parent] if parent else [])])
        sysctls.write(f"ipv6/conf/{link}/proxy_ndp", "1")


def _be_gateway(sock: socket.socket, index: int, link: str, version: int, gateway: str | None) -> None:
    if gateway == "auto":
        rtnetlink.add_address(sock, index, f"{ROUTED_GATEWAYS[version]}/{32 if version == 4 else 64}")
    elif gateway == "dev":
        sysctls.write(f"ipv4/conf/{link}/proxy_arp", "1")
    elif gateway is not None:
        rtnetlink.proxy(sock, index, gateway)


def _next_hop(nic: Nic, subnet: str) -> str | None:
    """Return the container's own address, by which it is told what is for the subnets behind it."""
    version = ipaddress.ip_network(subnet).version
    text = nic.ipv4 if version == 4 else nic.ipv6
    return plain(text) if text else None
