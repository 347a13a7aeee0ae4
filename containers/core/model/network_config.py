"""What a network is, and the few words that its parts share."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from ..errors import SpecError
from ..names import check_name
from ..sentences import say
from .nics import Nic
from .spec import Spec

MAX_NETWORKS: Final = 1000
DOMAIN: Final = "boxroom"
"""Containers find each other as NAME and as NAME.boxroom."""

Level = Literal["error", "warning", "info"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkConfig:
    """A bridge with its subnets.

    number: 0..999, unique in the instance, makes the bridge's name. ipv4, ipv6: the gateway's address with prefix
    length (``10.90.3.1/24``), or None. nat: whether what leaves the host takes the host's address.
    """

    name: str
    number: int
    ipv4: str | None = None
    ipv6: str | None = None
    nat: bool = True

    def check(self) -> None:
        """Raise SpecError naming the field where the values make no network."""
        check_name(self.name)
        if not isinstance(self.number, int) or not 0 <= self.number < MAX_NETWORKS:
            raise SpecError(say("number must be between 0 and %(most)s.", most=MAX_NETWORKS - 1), field="number")
        for field, text, version, most in (("ipv4", self.ipv4, 4, 29), ("ipv6", self.ipv6, 6, 64)):
            if text is None:
                continue
            try:
                interface = ipaddress.ip_interface(text)
            except ValueError:
                raise SpecError("Give the gateway's address with prefix length.", field=field) from None
            if interface.version != version or "/" not in text or "%" in text:
                raise SpecError(
                    say("This is not an IPv%(version)s address with prefix length.", version=version), field=field
                )
            network = interface.network
            least = 8 if version == 4 else 64
            if not least <= network.prefixlen <= most:
                raise SpecError(
                    say("The prefix length must be between %(least)s and %(most)s.", least=least, most=most),
                    field=field,
                )
            if interface.ip in (network.network_address, network.broadcast_address):
                raise SpecError("The gateway cannot be the subnet's first or last address.", field=field)
            if interface.ip.is_loopback or interface.ip.is_multicast or interface.ip.is_link_local:
                raise SpecError("Loopback, multicast and link-local subnets cannot be used.", field=field)

    def subnets(self) -> tuple[str, ...]:
        """Return the network's subnets (``10.90.3.0/24``)."""
        return tuple(str(ipaddress.ip_interface(text).network) for text in (self.ipv4, self.ipv6) if text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something about the host's network that a person should know.

    id: stable kebab-case. what: what was found. why: what does not work because of it. mend: a command, or None.
    bridge: the one that it is about; "" where it is about all.
    """

    id: str
    level: Level
    what: str
    why: str
    mend: str | None = None
    bridge: str = ""


def members(config: NetworkConfig, specs: Iterable[Spec]) -> list[tuple[Spec, Nic]]:
    """Return the NICs that are on the network, with their containers. Pure."""
    return [(spec, nic) for spec in specs for nic in spec.nics if nic.network == config.name]


def bridged(spec: Spec) -> tuple[Nic, ...]:
    """Return the container's NICs that are on the panel's networks. Pure."""
    return tuple(nic for nic in spec.nics if nic.type == "bridge")


def plain(address: str) -> str:
    """Return an address without its prefix length. Pure."""
    return address.partition("/")[0]
