"""LXC's network keys: each of its interfaces becomes one of Boxroom's, of the same type. Pure.

A bridge of LXC's is a network here; a network card is called by its name in the host's policy, and taken over where the
policy gives it to the container's project.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Any, Final

from ..errors import SpecError
from ..model.nics import (
    IPV6_MTU_MIN,
    MODES,
    MOST,
    MTU_MAX,
    MTU_MIN,
    ON_PARENT,
    ROUTES_MOST,
    is_address,
    is_interface,
    is_subnet,
    mac_of_template,
)
from ..rules.grants import given_to, has_vlan, lies_in, routable
from .draft import Draft, Interface, Told, left_out, taken, translated
from .reading import Entry

_NAME: Final = re.compile(r"[a-z][a-z0-9._-]{0,14}", re.ASCII)
_WORDS: Final = {
    "ipvlan.isolation": "links of one card see each other here",
    "l2proxy": "the host answers for addresses of routed interfaces alone",
    "script.down": "host-side scripts of an interface are not run",
    "script.up": "host-side scripts of an interface are not run",
    "veth.pair": "Boxroom names the host's side itself, so that no two can clash",
    "veth.vlan.id": "bridges here have no VLANs of their own",
    "veth.vlan.tagged.id": "bridges here have no VLANs of their own",
}

Values = dict[str, Any]
_Translate = Callable[[Draft, Values, str], Told]


def translate(draft: Draft, entry: Entry) -> Told:
    """Say what becomes of a ``lxc.net.N.*``."""
    _lxc, _net, number, name = entry.key.split(".", 3)
    values = draft.config.interfaces()[int(number)]
    nic = draft.nics.get(int(number))
    if nic is None:
        nic, told = _begin(draft, values)
        draft.nics[int(number)] = nic
        draft.net_types[int(number)] = told
    if name == "type":
        return draft.net_types[int(number)]
    if not nic:
        return left_out(f"interface {number} is left out")
    if nic["type"] == "host":
        return left_out("the host's network is as it is")
    told = (
        _KEYS[name](draft, nic, entry.value) if name in _KEYS else left_out(_WORDS.get(name, f"it has no {name} here"))
    )
    if draft.interface is None or draft.first == int(number):
        _first(draft, int(number), nic)
    return told


def _first(draft: Draft, number: int, nic: Values) -> None:
    """Keep what the first interface is called and known by."""
    draft.first = number
    draft.interface = Interface(name=nic.get("name") or "eth0", mac=nic.get("mac"))


def _begin(draft: Draft, values: dict[str, list[str]]) -> tuple[Values, Told]:
    """Return an interface in the making, {} for none, and what becomes of its type."""
    kind, link = values.get("type", [""])[-1], values.get("link", [""])[-1]
    if kind == "empty":
        return {}, taken("a loopback, which every container has")
    if kind == "none":
        if not draft.only_none:
            return {}, taken("it says nothing beside other interfaces, as with LXC")
        if any(draft.nics.values()):
            return {}, taken("the host's network, as said before")
        if draft.facts.host_network:
            return {"type": "host"}, translated("the host's network")
        return {}, left_out("the policy gives no container the host's network")
    if sum(map(bool, draft.nics.values())) == MOST:
        return {}, left_out(f"a container has at most {MOST} network interfaces here")
    if kind == "veth" and values.get("veth.mode", ["bridge"])[-1] == "router":
        parent = _parent(draft, "routed", link)
        if not _routable(draft, {"parent": parent}):
            return {}, left_out(f"the policy routes no addresses to project {draft.facts.project}")
        return {"type": "routed", **({"parent": parent} if parent else {})}, translated("a routed interface")
    if kind == "veth":
        return {"type": "bridge", "network": draft.facts.network}, translated(
            f"a NIC on the network {draft.facts.network}"
        )
    if kind in ON_PARENT:
        parent = _parent(draft, kind, link)
        if parent is None:
            return {}, left_out(f"the policy gives project {draft.facts.project} no card {link} for {kind} interfaces")
        others = [nic for nic in draft.nics.values() if nic.get("parent") == parent]
        if any("phys" in (kind, nic["type"]) for nic in others):
            return {}, left_out(f"another interface of it has the card {link}")
        if kind == "vlan":
            number = values.get("vlan.id", [""])[-1]
            if not _is_vlan(number):
                return {}, left_out("a VLAN has a number from 1 to 4094")
            parent = _parent(draft, kind, link, vlan=int(number))
            if parent is None:
                return {}, left_out(f"the policy does not give the VLAN {number} of {link}")
        made: Values = {"type": kind, "parent": parent}
        if kind in MODES:
            made["mode"] = MODES[kind][0]
        return made, taken(f"the card {link}, which the policy calls {parent}")
    return {}, left_out(f"interfaces of type {kind or 'unknown'} are not taken over")


def _parent(draft: Draft, kind: str, link: str, vlan: int | None = None) -> str | None:
    """Return what the policy calls a link of the host, where it gives it for such interfaces; vlan: with that VLAN."""
    for name, parent in sorted(draft.facts.parents.items()):
        if parent.link == link and kind in parent.types and given_to(parent.projects, draft.facts.project):
            if vlan is None or has_vlan(parent, vlan):
                return name
    return None


def _routable(draft: Draft, nic: Values) -> list[str]:
    """Return the subnets that the policy routes to such a routed interface: its card's, without a card every one."""
    parents = draft.facts.parents
    if nic.get("parent"):
        parents = {nic["parent"]: parents[nic["parent"]]}
    return routable(parents, draft.facts.project)


def _link(draft: Draft, nic: Values, value: str) -> Told:
    if nic["type"] == "bridge":
        return translated(f"the bridge of the network {draft.facts.network} instead of {value}")
    if nic.get("parent"):
        return translated(f"the network card {nic['parent']} of the host's policy")
    return left_out(f"the policy gives project {draft.facts.project} no card {value}")


def _name(draft: Draft, nic: Values, value: str) -> Told:
    others = [one.get("name") for one in draft.nics.values() if one is not nic]
    if not _NAME.fullmatch(value) or value in ("lo", "all", "default") or value in others:
        return left_out("interfaces have names like eth0 here, each its own")
    nic["name"] = value
    return taken("the name inside")


def _hwaddr(draft: Draft, nic: Values, value: str) -> Told:
    try:
        mac_of_template(value, "0" * 12)
    except SpecError:
        return left_out("not one MAC address; Boxroom gives it one")
    if "x" not in value.lower() and any(one.get("mac") == value.lower() for one in draft.nics.values()):
        return left_out("another interface of it has this MAC address; Boxroom gives it one")
    if value.lower() in draft.facts.macs:
        return left_out("another container has this MAC address; Boxroom gives it one")
    nic["mac"] = value.lower()
    return taken("the MAC address")


def _mtu(draft: Draft, nic: Values, value: str) -> Told:
    ipv6 = draft.facts.network_ipv6 if nic["type"] == "bridge" else "ipv6" in nic
    least = IPV6_MTU_MIN if ipv6 else MTU_MIN
    if not value.isascii() or not value.isdigit() or not least <= int(value) <= MTU_MAX:
        return left_out(f"an MTU is between {least} and {MTU_MAX} here")
    nic["mtu"] = int(value)
    return taken("the MTU")


def _flags(_draft: Draft, _nic: Values, value: str) -> Told:
    words = "Boxroom brings every interface up"
    return taken(words) if value == "up" else left_out(words)


def _address(version: int) -> _Translate:
    def function(draft: Draft, nic: Values, value: str) -> Told:
        key = f"ipv{version}"
        text = (value.split() or [""])[0]
        if nic["type"] == "bridge":
            network = draft.facts.network
            return left_out(f"the network {network} gives the container an address that is reserved for it")
        if key in nic:
            return left_out("one address of a kind is set; more can be set inside")
        if is_address(text, version):
            text = f"{text}/{32 if version == 4 else 128}"
        if not is_interface(text, version):
            return left_out("this is no address with prefix length")
        if version == 6 and nic.get("mtu", IPV6_MTU_MIN) < IPV6_MTU_MIN:
            return left_out(f"with IPv6 the MTU is {IPV6_MTU_MIN} at least")
        if nic["type"] == "routed":
            if not lies_in(_routable(draft, nic), text, whole=False):
                return left_out(f"the policy does not route it to project {draft.facts.project}")
            others = [one[key] for one in draft.nics.values() if one.get("type") == "routed" and key in one]
            if _bare(text) in {*map(_bare, others), *draft.facts.addresses}:
                return left_out("another interface here has this address")
        nic[key] = text
        return taken("the address, set before init runs")

    return function


def _bare(text: str) -> str:
    """Return an address as it is compared: without prefix length, and in one of its spellings."""
    return str(ipaddress.ip_interface(text).ip)


def _gateway(version: int) -> _Translate:
    def function(_draft: Draft, nic: Values, value: str) -> Told:
        if nic["type"] == "bridge":
            return left_out("the gateway is the network's own")
        if value not in ("auto", "dev") and not is_address(value, version):
            return left_out("this is no address of a gateway")
        if value == "auto" and nic["type"] in ("vlan", "phys"):
            return left_out("there is no address of the card's that could be the gateway")
        if value == "dev" and version == 6 and nic["type"] == "routed":
            return left_out("nobody answers for every IPv6 address")
        nic[f"ipv{version}_gateway"] = value
        return taken("the default route")

    return function


def _mode(kind: str) -> _Translate:
    def function(_draft: Draft, nic: Values, value: str) -> Told:
        if nic["type"] != kind or value not in MODES[kind]:
            return left_out(f"no mode of {nic['type']} interfaces")
        nic["mode"] = value
        return taken("the mode")

    return function


def _is_vlan(value: str) -> bool:
    return value.isascii() and value.isdigit() and 1 <= int(value) <= 4094


def _vlan(draft: Draft, nic: Values, value: str) -> Told:
    if nic["type"] != "vlan" or not _is_vlan(value):
        return left_out("a VLAN has a number from 1 to 4094")
    nic["vlan"] = int(value)
    return taken("the VLAN")


def _veth_mode(_draft: Draft, nic: Values, value: str) -> Told:
    if value not in ("bridge", "router"):
        return left_out("LXC knows no such mode")
    return taken("on no bridge") if nic["type"] == "routed" else taken("on a bridge")


def _route(draft: Draft, nic: Values, value: str) -> Told:
    if nic["type"] != "routed":
        return left_out("the host routes to routed interfaces alone")
    if not is_subnet(value):
        return left_out("this is no subnet")
    if not lies_in(_routable(draft, nic), value, whole=True):
        return left_out(f"the policy does not route it to project {draft.facts.project}")
    if len(nic.get("routes", ())) == ROUTES_MOST:
        return left_out(f"an interface has at most {ROUTES_MOST} of them")
    nic.setdefault("routes", []).append(value)
    return taken("a route of the host's")


def _l2proxy(_draft: Draft, nic: Values, value: str) -> Told:
    if value == "1" and nic["type"] == "routed" and nic.get("parent"):
        return taken("the host answers for the addresses on the card")
    return left_out(_WORDS["l2proxy"])


def finished(draft: Draft) -> tuple[Values, ...] | None:
    """Return the interfaces as asking.nics takes them, once every key has been looked at.

    None where there was none, or where nothing could be had of those that there were: it then gets one on the network.
    """
    if not any(draft.nics.values()) and (not draft.nics or any(t.fate == "left out" for t in draft.net_types.values())):
        return None
    found = []
    for number, nic in sorted(draft.nics.items()):
        if not nic:
            continue
        if nic["type"] == "routed" and not (nic.get("ipv4") or nic.get("ipv6")):
            nic["ipv6" if all(":" in subnet for subnet in _routable(draft, nic)) else "ipv4"] = "auto"
        for key in ("ipv4", "ipv6"):
            if nic["type"] != "bridge" and not nic.get(key) and nic.pop(f"{key}_gateway", None):
                draft.revised[f"lxc.net.{number}.{key}.gateway"] = left_out("there is no address of its kind")
        found.append(dict(nic))
    return tuple(found)


_KEYS: Final[dict[str, _Translate]] = {
    "flags": _flags,
    "hwaddr": _hwaddr,
    "ipv4.address": _address(4),
    "ipv4.gateway": _gateway(4),
    "ipv6.address": _address(6),
    "ipv6.gateway": _gateway(6),
    "ipvlan.mode": _mode("ipvlan"),
    "l2proxy": _l2proxy,
    "link": _link,
    "macvlan.mode": _mode("macvlan"),
    "mtu": _mtu,
    "name": _name,
    "veth.ipv4.route": _route,
    "veth.ipv6.route": _route,
    "veth.mode": _veth_mode,
    "vlan.id": _vlan,
}
