"""What dnsmasq is told: its configuration, and the lines of each container. Pure. Source: dnsmasq(8), version 2.90."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ..host import Host
from ..model.network_config import DOMAIN, NetworkConfig, bridged, plain
from ..model.spec import Spec

LEASE_SEC: Final = 3600
NO_ROUTE: Final = "noroute"
"""The tag of those that are not told a default route."""


def render(host: Host, here: Path, configs: Sequence[NetworkConfig], user: str, *, ipv6: bool) -> str:
    """Return the configuration file. Pure: made of validated names, numbers and addresses only.

    here: the directory of its files. ipv6: whether the host speaks it; dnsmasq does not start where it is to advertise
    routers and cannot.
    """
    lines = [
        f"pid-file={here}/dnsmasq.pid",
        f"user={user}",
        "bind-dynamic",
        # With a single interface dnsmasq binds its DHCP socket to that link. Sockets of several instances that are not
        # bound to a link share port 67, and the kernel gives what a client sends to one of them by chance.
        *(f"interface={host.bridge_name(config.number)}" for config in sorted(configs, key=lambda one: one.number)),
        "except-interface=lo",
        "no-hosts",
        f"hostsdir={here}/names",
        f"dhcp-hostsdir={here}/reservations",
        f"dhcp-leasefile={here}/leases",
        "dhcp-authoritative",
        "dhcp-ignore-names",
        "domain-needed",
        "localise-queries",
        f"domain={DOMAIN}",
        f"local=/{DOMAIN}/",
        "cache-size=1000",
        "dns-forward-max=500",
        "quiet-dhcp",
        "quiet-dhcp6",
        "quiet-ra",
    ]
    if ipv6 and any(config.ipv6 for config in configs):
        lines.append("enable-ra")
    for config in sorted(configs, key=lambda config: config.number):
        tag = f"n{config.number}"
        if config.ipv4:
            network = ipaddress.IPv4Interface(config.ipv4).network
            lines.append(f"dhcp-range=set:{tag},{network.network_address},static,{network.netmask},{LEASE_SEC}")
        if ipv6 and config.ipv6:
            subnet = ipaddress.IPv6Interface(config.ipv6).network
            lines.append(f"dhcp-range=set:{tag},{subnet.network_address},static,slaac,64,{LEASE_SEC}")
            lines.append(f"dhcp-option=tag:{tag},option6:dns-server,[{plain(config.ipv6)}]")
            lines.append(f"dhcp-option=tag:{tag},option6:domain-search,{DOMAIN}")
        lines.append(f"dhcp-option=tag:{tag},option:domain-search,{DOMAIN}")
    # without a value: it is not told of any router
    lines.append(f"dhcp-option=tag:{NO_ROUTE},option:router")
    return "\n".join(lines) + "\n"


def reservations(spec: Spec) -> str:
    """Return the container's lines for dhcp-hostsdir. Pure."""
    lines = []
    for nic in bridged(spec):
        addresses = [] if nic.ipv4_gateway else [f"set:{NO_ROUTE}"]
        addresses += [plain(nic.ipv4)] if nic.ipv4 else []
        addresses += [f"[{plain(nic.ipv6)}]"] if nic.ipv6 else []
        # id:*: what a client calls itself does not matter; clones may still share a DUID
        lines.append(",".join([nic.mac, "id:*", *addresses, spec.name]))
    return "".join(f"{line}\n" for line in lines)


def names(spec: Spec) -> str:
    """Return the container's lines for hostsdir: its names from the moment it exists, running or not. Pure."""
    addresses = [plain(text) for nic in spec.nics for text in (nic.ipv4, nic.ipv6) if text]
    return "".join(f"{address} {spec.name}.{DOMAIN} {spec.name}\n" for address in addresses)
