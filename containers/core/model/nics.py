"""A container's network interfaces: what is asked for, and the checks. Pure.

========  ================================================================================================
bridge    a veth pair with its host side on the bridge of one of the panel's networks
routed    a veth pair whose host side is on no bridge: the host routes the addresses to it
macvlan   a link of its own on a network card of the host's, with a MAC of its own
ipvlan    the same with the card's MAC
vlan      a tagged VLAN of a network card of the host's
phys      a network card of the host's itself, which the host has back when the container ends
host      no namespace of its own: the host's network as it is
========  ================================================================================================

A spec without any NIC has a network namespace with the loopback in it. Network cards of the host are called by their
names in the policy; which links they are stands there alone.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from ..errors import SpecError
from ..names import check_name
from ..sentences import say

NicType = Literal["bridge", "routed", "macvlan", "ipvlan", "vlan", "phys", "host"]
NIC_TYPES: Final[tuple[NicType, ...]] = get_args(NicType)
ON_PARENT: Final = frozenset({"macvlan", "ipvlan", "vlan", "phys"})
"""Those that take a network card of the host's; a routed one may."""
PAIRS: Final = frozenset({"bridge", "routed"})
"""Those with a link on the host's side."""
MODES: Final[dict[str, tuple[str, ...]]] = {
    "macvlan": ("private", "vepa", "bridge", "passthru"),
    "ipvlan": ("l3", "l3s", "l2"),
}
"""The first of each is what is taken where none is given."""
MOST: Final = 16
MTU_MIN: Final = 576
MTU_MAX: Final = 65535
IPV6_MTU_MIN: Final = 1280
RATE_MIN_BYTES_PER_SEC: Final = 1024
RATE_MAX_BYTES_PER_SEC: Final = 2**36
ROUTES_MOST: Final = 32

_MAC: Final = re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}", re.ASCII)
_TEMPLATE: Final = re.compile(r"[0-9a-fx]{2}(?::[0-9a-fx]{2}){5}", re.ASCII)
_HOST_LINK: Final = re.compile(r"[a-z][a-z0-9.]{0,14}", re.ASCII)
_NAME: Final = re.compile(r"[a-z][a-z0-9._-]{0,14}", re.ASCII)
_TAKEN_NAMES: Final = frozenset({"all", "default", "lo"})
"""lo is there already; the other two are directories of sysctls."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Nic:
    """One network interface of a container.

    name: inside. type: see the module. index: 0..15, unique in the container, never changes: makes the host link's
    name. network, bridge: of type bridge. host_link: the host's side of a pair. mac: "" keeps what the card has.
    ipv4, ipv6: with prefix length, or None: reserved in the network, or those to be set. *_gateway: an address, "dev",
    "auto" (resolved when it starts), or None for no default route. static: addresses and gateway are set before init
    runs; else the network's DHCP tells them.
    parent: a network card by its name in the policy. mode: of macvlan and ipvlan. vlan: 1..4094. mtu: in bytes, or None
    for that of the bridge or the card. routes: more subnets that the host sends to a routed one.
    ingress, egress: ceilings in bytes per second, seen from the container.
    """

    name: str
    network: str = ""
    bridge: str = ""
    host_link: str = ""
    mac: str = ""
    ipv4: str | None = None
    ipv4_gateway: str | None = None
    ipv6: str | None = None
    ipv6_gateway: str | None = None
    index: int = 0
    type: NicType = "bridge"
    static: bool = False
    parent: str = ""
    mode: str = ""
    vlan: int | None = None
    mtu: int | None = None
    routes: tuple[str, ...] = ()
    ingress_bytes_per_sec: int | None = None
    egress_bytes_per_sec: int | None = None

    def check(self, field: str = "nics.0") -> None:
        """Raise SpecError (``nics.N.NAME``) for what makes no NIC, no line of dnsmasq's and no name of a link."""
        if self.type not in NIC_TYPES:
            raise SpecError(say("Use %(names)s.", names=", ".join(NIC_TYPES)), field=f"{field}.type")
        if not _NAME.fullmatch(self.name) or self.name in _TAKEN_NAMES:
            raise SpecError("Give a name like eth0, of at most 15 characters.", field=f"{field}.name")
        if not isinstance(self.index, int) or not 0 <= self.index < MOST:
            raise SpecError(say("The index must be between 0 and %(most)s.", most=MOST - 1), field=f"{field}.index")
        if self.mac and not _MAC.fullmatch(self.mac):
            raise SpecError("This is no MAC address.", field=f"{field}.mac")
        if not self.mac and self.type in ("bridge", "routed", "macvlan"):
            raise SpecError("The network interface has no MAC address.", field=f"{field}.mac")
        self._check_place(field)
        self._check_addresses(field)
        self._check_numbers(field)

    def _check_place(self, field: str) -> None:
        if self.type == "bridge":
            check_name(self.network, field=f"{field}.network")
            if not _HOST_LINK.fullmatch(self.bridge):
                raise SpecError("The network has no valid bridge.", field=f"{field}.network")
        elif self.network or self.bridge:
            raise SpecError(say("A %(type)s interface is on no network.", type=self.type), field=f"{field}.network")
        if self.type in PAIRS and not _HOST_LINK.fullmatch(self.host_link):
            raise SpecError("The network interface has no valid host side.", field=f"{field}.name")
        if self.parent:
            check_name(self.parent, field=f"{field}.parent")
        if self.type in ON_PARENT and not self.parent:
            raise SpecError("Name a network card of the host's policy.", field=f"{field}.parent")
        if self.parent and self.type not in (*ON_PARENT, "routed"):
            raise SpecError(say("A %(type)s interface has no parent.", type=self.type), field=f"{field}.parent")
        if self.mode not in MODES.get(self.type, ("",)):
            modes = ", ".join(MODES.get(self.type, ())) or "no mode"
            raise SpecError(say("Use %(names)s.", names=modes), field=f"{field}.mode")
        if (self.vlan is not None) != (self.type == "vlan"):
            raise SpecError("A vlan interface has a number from 1 to 4094, others none.", field=f"{field}.vlan")

    def _check_addresses(self, field: str) -> None:
        for name, version in (("ipv4", 4), ("ipv6", 6)):
            text, gateway = getattr(self, name), getattr(self, f"{name}_gateway")
            if text is not None and not is_interface(text, version):
                raise SpecError(
                    say("Give an IPv%(version)s address with prefix length.", version=version), field=f"{field}.{name}"
                )
            if gateway not in (None, "auto", "dev") and not is_address(gateway, version):
                raise SpecError(
                    say("Give an IPv%(version)s address, auto, dev or none.", version=version),
                    field=f"{field}.{name}_gateway",
                )
            if gateway is not None and text is None and self.type not in ("bridge", "host"):
                raise SpecError("A gateway needs an address of its kind.", field=f"{field}.{name}_gateway")
            if gateway == "auto" and self.type in ("vlan", "phys"):
                raise SpecError("Give an address, or dev.", field=f"{field}.{name}_gateway")
        if self.type == "routed":
            if self.ipv4 is None and self.ipv6 is None:
                raise SpecError("A routed interface needs an address.", field=f"{field}.ipv4")
            if self.ipv6_gateway == "dev":
                raise SpecError("Nobody answers for every IPv6 address: give auto.", field=f"{field}.ipv6_gateway")
        if self.type == "host" and (self.ipv4 or self.ipv6 or self.mac or self.static):
            raise SpecError("The host's network is as it is.", field=f"{field}.type")
        if self.routes and self.type != "routed":
            raise SpecError("Routes are for routed interfaces.", field=f"{field}.routes")
        if len(self.routes) > ROUTES_MOST or not all(map(is_subnet, self.routes)):
            raise SpecError(
                say("Give at most %(most)s subnets, such as 192.0.2.64/28.", most=ROUTES_MOST), field=f"{field}.routes"
            )

    def _check_numbers(self, field: str) -> None:
        for name, least, most in (
            ("vlan", 1, 4094),
            ("mtu", MTU_MIN, MTU_MAX),
            ("ingress_bytes_per_sec", RATE_MIN_BYTES_PER_SEC, RATE_MAX_BYTES_PER_SEC),
            ("egress_bytes_per_sec", RATE_MIN_BYTES_PER_SEC, RATE_MAX_BYTES_PER_SEC),
        ):
            value = getattr(self, name)
            if value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
                raise SpecError(
                    say("%(name)s must be between %(least)s and %(most)s.", name=name, least=least, most=most),
                    field=f"{field}.{name}",
                )
            if name.endswith("_per_sec") and self.type not in PAIRS:
                raise SpecError("Only bridge and routed interfaces can be held to a rate.", field=f"{field}.{name}")
        if self.ipv6 is not None and self.mtu is not None and self.mtu < IPV6_MTU_MIN:
            raise SpecError(say("With IPv6 the MTU is %(least)s at least.", least=IPV6_MTU_MIN), field=f"{field}.mtu")
        if self.mtu is not None and self.type == "host":
            raise SpecError("The host's network is as it is.", field=f"{field}.mtu")

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses, with prefix length, IPv4 first."""
        return tuple(text for text in (self.ipv4, self.ipv6) if text)


def build_nic(values: dict[str, Any]) -> Nic:
    """Make a NIC from JSON values; raises TypeError for unknown and missing fields."""
    return Nic(**{**values, "routes": tuple(values.get("routes", ()))})


def check_all(nics: Sequence[Nic], *, privileged: bool = False, sysctls: Sequence[str] = ()) -> None:
    """Raise SpecError for a NIC that is none, for too many, and for two that cannot be together.

    sysctls: names of those that the container is to be given.
    """
    del privileged
    if len(nics) > MOST:
        raise SpecError(say("Use at most %(most)s network interfaces.", most=MOST), field="nics")
    for number, nic in enumerate(nics):
        nic.check(f"nics.{number}")
        for key in ("name", "index", "mac"):
            same = [other for other in nics[:number] if getattr(other, key) == getattr(nic, key)]
            if same and getattr(nic, key) != "":
                raise SpecError(
                    say("Two network interfaces have the same %(key)s.", key=key), field=f"nics.{number}.{key}"
                )
        # a card that is moved in is not there for others to sit on
        if any(
            nic.parent and other.parent == nic.parent and "phys" in (nic.type, other.type) for other in nics[:number]
        ):
            raise SpecError("This card is there twice.", field=f"nics.{number}.parent")
    if host_network(nics):
        if len(nics) > 1:
            raise SpecError("Beside the host's network there is no other.", field="nics")
        if any(name.startswith("net.") for name in sysctls):
            raise SpecError("Sysctls of the network would be the host's own.", field="security.sysctls")


def host_network(nics: Sequence[Nic]) -> bool:
    """Tell whether a container with these NICs has the host's network."""
    return any(nic.type == "host" for nic in nics)


def is_interface(text: Any, version: int) -> bool:
    """Tell whether a text is an address with prefix length."""
    if not isinstance(text, str) or "%" in text or "/" not in text:
        return False
    try:
        interface = ipaddress.ip_interface(text)
    except ValueError:
        return False
    ip = interface.ip
    return interface.version == version and not (ip.is_multicast or ip.is_loopback or ip.is_unspecified)


def is_address(text: Any, version: int) -> bool:
    """Tell whether a text is an address without prefix length."""
    return isinstance(text, str) and "/" not in text and is_interface(f"{text}/{32 if version == 4 else 128}", version)


def is_subnet(text: Any) -> bool:
    """Tell whether a text is a subnet, and not everything."""
    try:
        return isinstance(text, str) and ipaddress.ip_network(text).prefixlen > 0
    except ValueError:
        return False


def mac_of_template(template: str, random_hex: str, *, field: str = "mac") -> str:
    """Return a MAC: each x of the template is replaced by one of 12 random hexadecimal digits.

    The address is one NIC's: where the bit for groups comes out of an x it is taken away. Raises SpecError.
    """
    text = template.lower()
    if not _TEMPLATE.fullmatch(text):
        raise SpecError("Give a MAC address, such as 02:00:00:xx:xx:xx with x for any digit.", field=field)
    digits = iter(random_hex)
    mac = "".join(next(digits) if char == "x" else char for char in text)
    if text[1] == "x":
        mac = f"{mac[0]}{int(mac[1], 16) & 0xE | (0x2 if text[0] == 'x' else 0):x}{mac[2:]}"
    if int(mac[:2], 16) & 1 or mac == "00:00:00:00:00:00":
        raise SpecError("This is not the address of one interface.", field=field)
    return mac
