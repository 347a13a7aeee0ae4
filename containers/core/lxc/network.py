"""LXC's network keys: the first veth becomes a NIC on one of Boxroom's networks. Pure."""

from __future__ import annotations

import re
from typing import Final

from .draft import Draft, Interface, Told, left_out, taken, translated
from .reading import Entry

_NAME: Final = re.compile(r"[a-z][a-z0-9.]{0,14}", re.ASCII)
_MAC: Final = re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}", re.ASCII)
_WORDS: Final = {
    "flags": "Boxroom brings every interface up",
    "ipv4.gateway": "the gateway is the network's, told by DHCP",
    "ipv6.gateway": "the gateway is the network's, told by router advertisements",
    "l2proxy": "nothing is proxied on bridges",
    "mtu": "the interface has the bridge's MTU",
    "script.down": "host-side scripts of a container are not run",
    "script.up": "host-side scripts of a container are not run",
    "veth.mode": "interfaces are on a bridge here",
    "veth.pair": "Boxroom names the host's side itself, so that no two can clash",
}
_ADDRESSES: Final = ("ipv4.address", "ipv6.address")


def translate(draft: Draft, entry: Entry) -> Told:
    """Say what becomes of a ``lxc.net.N.*``."""
    _lxc, _net, number, name = entry.key.split(".", 3)
    interfaces = draft.config.interfaces()
    kinds = {index: values.get("type", [""])[-1] for index, values in interfaces.items()}
    chosen = next((index for index, kind in kinds.items() if kind == "veth"), None)
    kind = kinds[int(number)]
    if int(number) != chosen:
        if name == "type":
            return _other(kind, chosen)
        return left_out(f"interface {number} is left out")
    mine = draft.interface = draft.interface or Interface()
    if name == "type":
        return translated(f"a NIC on the network {draft.facts.network}")
    if name == "link":
        return translated(f"the bridge of the network {draft.facts.network} instead of {entry.value}")
    if name == "name":
        if not _NAME.fullmatch(entry.value):
            return left_out(f"interfaces have names like eth0 here; it is {mine.name}")
        draft.interface = Interface(name=entry.value, mac=mine.mac)
        return taken("the name inside")
    if name == "hwaddr":
        mac = entry.value.lower()
        if not _MAC.fullmatch(mac) or int(mac[:2], 16) & 1 or mac == "00:00:00:00:00:00":
            return left_out("not one MAC address; Boxroom gives it one")
        draft.interface = Interface(name=mine.name, mac=mac)
        return taken("the MAC address, unless another container has it")
    if name in _ADDRESSES:
        return left_out(f"the network {draft.facts.network} gives the container an address that is reserved for it")
    if name == "flags" and entry.value == "up":
        return taken(_WORDS[name])
    return left_out(_WORDS.get(name, f"a NIC has no {name} here"))


def _other(kind: str, chosen: int | None) -> Told:
    if kind in ("empty", "none"):
        if chosen is None and kind == "empty":
            return left_out("a container has one NIC here; take it away inside, or choose a network without NAT")
        if kind == "none":
            return left_out("no container shares the host's network; it gets a NIC of its own")
    if kind == "veth":
        return left_out("one NIC is taken over, the first")
    return left_out(f"interfaces of type {kind or 'unknown'} are not taken over")
