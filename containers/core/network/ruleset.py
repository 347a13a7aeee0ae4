"""The instance's packet filter as nftables JSON. Pure: it makes commands and runs none.

Two tables, both named after the instance. `bridge` sees every frame that a container sends, before the bridge does
anything with it::

    prerouting: link is ours ─▶ container:  1 source MAC      2 ethertype, link-local groups   3 ARP
                                            4 IPv4 source     5 DHCP     6 RA, ND, IPv6 source
                                            own_ID_N (per NIC): what no set can say: ND targets and options, chaddr

`inet` sees packets: NAT, isolation between networks, the little that the host itself answers, and the sources of
routed NICs, which are on no bridge.

The order in `container` is fixed: accepting DHCP before the source checks is what CVE-2025-52889 was, ARP after an
accept what CVE-2025-52890 was. Sources: nft(8), libnftables-json(5), RFC 4861, RFC 6980.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from typing import Any, Final

from ..host import Host
from ..model.network_config import NetworkConfig, bridged, plain
from ..model.nics import Nic
from ..model.spec import Spec
from ..model.subnets import link_local

Json = dict[str, Any]

CONNECTIONS_PER_ADDRESS: Final = 16384
"""Entries of the host's one connection table that one container address may hold."""
DHCP_PER_SECOND: Final = 20
_ND = {"set": ["nd-neighbor-solicit", "nd-neighbor-advert"]}
_MISSING: Final = False
"""What a look-up of a route comes to where there is none."""
_DROP: Final[Json] = {"drop": None}
_ACCEPT: Final[Json] = {"accept": None}
_COUNTER: Final[Json] = {"counter": None}
BRIDGE_SETS: Final = {
    "macs": ["ifname", "ether_addr"],
    "v4": ["ifname", "ether_addr", "ipv4_addr"],
    "v6": ["ifname", "ether_addr", "ipv6_addr"],
}


def _meta(key: str) -> Json:
    return {"meta": {"key": key}}


def _field(protocol: str, field: str) -> Json:
    return {"payload": {"protocol": protocol, "field": field}}


def _raw(offset_bits: int, length_bits: int) -> Json:
    """Bits of the transport header and what follows it; extension headers before it don't shift them."""
    return {"payload": {"base": "th", "offset": offset_bits, "len": length_bits}}


def _is(left: Json, right: Any, op: str = "==") -> Json:
    return {"match": {"op": op, "left": left, "right": right}}


def _join(*parts: Json) -> Json:
    return {"concat": list(parts)}


def _in_set(values: Sequence[Any]) -> Json:
    return {"set": list(values)}


class Table:
    """Collects commands for one table."""

    def __init__(self, family: str, name: str) -> None:
        self.at: Json = {"family": family, "table": name}
        self.commands: list[Json] = [{"add": {"table": {"family": family, "name": name}}}]

    def set(self, name: str, type_: str | list[str], *, interval: bool = False) -> None:
        """Add a named set where it is not there."""
        flags: Json = {"flags": ["interval"]} if interval else {}
        self.commands.append({"add": {"set": {**self.at, "name": name, "type": type_, **flags}}})

    def map(self, name: str, type_: str, to: str) -> None:
        """Add a named map where it is not there."""
        self.commands.append({"add": {"map": {**self.at, "name": name, "type": type_, "map": to}}})

    def chain(self, name: str, hook: str | None = None, prio: int = 0, type_: str = "filter") -> None:
        """Add a chain where it is not there, and empty it."""
        base: Json = {"type": type_, "hook": hook, "prio": prio, "policy": "accept"} if hook else {}
        self.commands.append({"add": {"chain": {**self.at, "name": name, **base}}})
        self.commands.append({"flush": {"chain": {**self.at, "name": name}}})

    def rule(self, chain: str, *expressions: Json) -> None:
        """Append a rule."""
        self.commands.append({"add": {"rule": {**self.at, "chain": chain, "expr": list(expressions)}}})

    def elements(self, name: str, elements: list[Any], verb: str = "add") -> None:
        """Add elements to a set or map, or delete them from it."""
        if elements:
            self.commands.append({verb: {"element": {**self.at, "name": name, "elem": elements}}})

    def empty_set(self, name: str, kind: str = "set") -> None:
        """Remove every element."""
        self.commands.append({"flush": {kind: {**self.at, "name": name}}})


def whole(host: Host, configs: Sequence[NetworkConfig], specs: Iterable[Spec], *, ipv6: bool) -> list[Json]:
    """Return the commands that make both tables say exactly this, whatever they said before, in one transaction."""
    bridge = Table("bridge", host.nft_table)
    _bridge_chains(bridge, host, ipv6=ipv6)
    for name in BRIDGE_SETS:
        bridge.empty_set(name)
    bridge.empty_set("own", "map")
    commands = bridge.commands
    for spec in specs:
        commands += container(host, spec)
    inet = Table("inet", host.nft_table)
    _inet_chains(inet, host, ipv6=ipv6)
    for name in ("same", "nat", "nat4", "nat6"):
        inet.empty_set(name)
    commands += inet.commands
    for config in configs:
        commands += network(host, config)
    return commands


def base(host: Host, *, ipv6: bool) -> list[Json]:
    """Return the commands that make the tables, sets and rules and leave every element as it is."""
    bridge, inet = Table("bridge", host.nft_table), Table("inet", host.nft_table)
    _bridge_chains(bridge, host, ipv6=ipv6)
    _inet_chains(inet, host, ipv6=ipv6)
    return bridge.commands + inet.commands


def _bridge_chains(table: Table, host: Host, *, ipv6: bool) -> None:
    for name, type_ in BRIDGE_SETS.items():
        table.set(name, type_)
    table.map("own", "ifname", "verdict")
    table.chain("container")
    table.chain("prerouting", "prerouting", -300)
    table.rule("prerouting", _is(_meta("iifname"), f"vb{host.instance}*"), {"goto": {"target": "container"}})

    def rule(*expressions: Json) -> None:
        table.rule("container", *expressions)

    link, source = _meta("iifname"), _field("ether", "saddr")
    kind = _field("ether", "type")
    own = {"vmap": {"key": link, "data": "@own"}}
    rule(_is(_join(link, source), "@macs", "!="), _COUNTER, _DROP)
    rule(_is(kind, _in_set(["arp", "ip", "ip6"] if ipv6 else ["arp", "ip"]), "!="), _COUNTER, _DROP)
    rule(_is({"&": [_field("ether", "daddr"), "ff:ff:ff:ff:ff:00"]}, "01:80:c2:00:00:00"), _COUNTER, _DROP)
    arp_mac, arp_ip = _field("arp", "saddr ether"), _field("arp", "saddr ip")
    rule(_is(_field("arp", "htype"), 1), _is(_join(link, arp_mac, arp_ip), "@v4"), _ACCEPT)
    rule(
        _is(_field("arp", "htype"), 1),
        _is(_field("arp", "operation"), "request"),
        _is(arp_ip, "0.0.0.0"),
        _is(_join(link, arp_mac), "@macs"),
        _ACCEPT,
    )
    rule(_is(kind, "arp"), _COUNTER, _DROP)
    ip_source = _field("ip", "saddr")
    asks = (
        _is(ip_source, "0.0.0.0"),
        _is(_field("ip", "daddr"), "255.255.255.255"),
        _is(_field("udp", "sport"), 68),
        _is(_field("udp", "dport"), 67),
    )
    # a jump comes back to the next rule, not to the rest of its own
    rule(*asks, own)
    rule(*asks, _ACCEPT)
    rule(_is(_join(link, source, ip_source), "@v4", "!="), _COUNTER, _DROP)
    rule(_is(_field("udp", "sport"), _in_set([67, 547])), _COUNTER, _DROP)
    rule(_is(_field("udp", "dport"), _in_set([67, 547])), own)
    if ipv6:
        _ipv6_rules(table, link, source, own)
    rule(_ACCEPT)


def _ipv6_rules(table: Table, link: Json, source: Json, own: Json) -> None:
    def rule(*expressions: Json) -> None:
        table.rule("container", *expressions)

    kind, ip_source = _field("icmpv6", "type"), _field("ip6", "saddr")
    rule(_is(kind, _in_set(["nd-router-advert", "nd-redirect"])), _COUNTER, _DROP)
    # a neighbour message with one option is 32 bytes; a second option is where a forged link address would hide
    rule(_is(kind, _ND), _is(_field("ip6", "length"), 32, ">"), _COUNTER, _DROP)
    rule(_is(kind, _ND), own)
    rule(
        _is(ip_source, "::"),
        _is(kind, _in_set(["nd-neighbor-solicit", "nd-router-solicit", "mld-listener-report", "mld2-listener-report"])),
        _ACCEPT,
    )
    rule(_is(_join(link, source, ip_source), "@v6", "!="), _COUNTER, _DROP)


def _inet_chains(table: Table, host: Host, *, ipv6: bool) -> None:
    ours, routed = f"boxbr{host.instance}*", f"vb{host.instance}*"
    table.set("same", ["ifname", "ifname"])
    table.set("nat", "ifname")
    table.set("nat4", "ipv4_addr", interval=True)
    table.set("nat6", "ipv6_addr", interval=True)
    for name in ("to_host", "outgoing", "incoming"):
        table.chain(name)
    incoming, outgoing = _meta("iifname"), _meta("oifname")
    known = _is({"ct": {"key": "state"}}, ["established", "related"], "in")
    table.chain("input", "input")
    table.rule("input", _is(incoming, ours), {"goto": {"target": "to_host"}})
    table.rule("input", _is(incoming, routed), {"goto": {"target": "to_host"}})
    table.rule("to_host", known, _ACCEPT)
    table.rule("to_host", _is(_field("udp", "sport"), 68), _is(_field("udp", "dport"), 67), _ACCEPT)
    # only the bridge's own addresses answer, not the host's others
    local = _is({"fib": {"result": "type", "flags": ["daddr", "iif"]}}, "local")
    table.rule("to_host", local, _is(_field("udp", "dport"), 53), _ACCEPT)
    table.rule("to_host", local, _is(_field("tcp", "dport"), 53), _ACCEPT)
    table.rule("to_host", local, _is(_field("icmp", "type"), "echo-request"), _ACCEPT)
    if ipv6:
        icmp = _field("icmpv6", "type")
        nd = ["nd-router-solicit", "nd-neighbor-solicit", "nd-neighbor-advert"]
        mld = ["mld-listener-report", "mld2-listener-report"]
        table.rule("to_host", _is(_field("udp", "sport"), 546), _is(_field("udp", "dport"), 547), _ACCEPT)
        table.rule("to_host", _is(icmp, _in_set(nd + mld)), _ACCEPT)
        table.rule("to_host", local, _is(icmp, "echo-request"), _ACCEPT)
    table.rule("to_host", _COUNTER, _DROP)

    _routed_sources(table, incoming, routed, ipv6=ipv6)
    table.chain("forward", "forward")
    table.rule("forward", _is(incoming, routed), {"jump": {"target": "outgoing"}})
    table.rule("forward", _is(incoming, ours), {"jump": {"target": "outgoing"}})
    table.rule("forward", _is(outgoing, ours), {"jump": {"target": "incoming"}})
    same = _is(_join(incoming, outgoing), "@same")
    table.rule("outgoing", same, _ACCEPT)
    table.rule("outgoing", _is(outgoing, "boxbr*"), _COUNTER, _DROP)
    table.rule("outgoing", _is(_field("ip", "daddr"), {"prefix": {"addr": "169.254.0.0", "len": 16}}), _COUNTER, _DROP)
    _connection_caps(table, ipv6=ipv6)
    table.rule("incoming", known, _ACCEPT)
    table.rule("incoming", _is(outgoing, "@nat"), _COUNTER, _DROP)

    table.chain("postrouting", "postrouting", 100, "nat")
    for family, name in (("ip", "nat4"), ("ip6", "nat6"))[: 2 if ipv6 else 1]:
        masquerade: Json = {"masquerade": None}
        table.rule("postrouting", _is(_field(family, "saddr"), f"@{name}"), _is(outgoing, ours, "!="), masquerade)


def _routed_sources(table: Table, incoming: Json, routed: str, *, ipv6: bool) -> None:
    """Let a routed NIC send from addresses that are routed to it, and from no others."""
    table.chain("source", "prerouting", -300)
    if ipv6:
        unspecified = _is(_field("ip6", "saddr"), "::")
        table.rule("source", _is(incoming, routed), unspecified, _is(_field("icmpv6", "type"), _ND), _ACCEPT)
    way_back = {"fib": {"result": "oif", "flags": ["saddr", "iif"]}}
    table.rule("source", _is(incoming, routed), _is(way_back, _MISSING), _COUNTER, _DROP)


def _connection_caps(table: Table, *, ipv6: bool) -> None:
    new = _is({"ct": {"key": "state"}}, "new", "in")
    for family in ("ip", "ip6")[: 2 if ipv6 else 1]:
        count: Json = {"ct count": {"val": CONNECTIONS_PER_ADDRESS, "inv": True}}
        meter: Json = {"meter": {"name": f"flows_{family}", "key": _field(family, "saddr"), "stmt": count}}
        table.rule("outgoing", new, meter, _COUNTER, _DROP)


def network(host: Host, config: NetworkConfig, verb: str = "add") -> list[Json]:
    """Return the commands that add a network's elements (or ``delete`` them)."""
    return elements(host, network_elements(host, config), verb)


def elements(host: Host, found: Iterable[tuple[str, Any]], verb: str = "add") -> list[Json]:
    """Return the commands that add (set, element) of the inet table (or ``delete`` them)."""
    table = Table("inet", host.nft_table)
    for name, element in found:
        table.elements(name, [element], verb)
    return table.commands[1:]


def network_elements(host: Host, config: NetworkConfig) -> list[tuple[str, Any]]:
    """Return the (set, element) of a network, as nft lists them too."""
    link = host.bridge_name(config.number)
    found: list[tuple[str, Any]] = [("same", {"concat": [link, link]})]
    if config.nat:
        found.append(("nat", link))
        for name, text in (("nat4", config.ipv4), ("nat6", config.ipv6)):
            if text:
                subnet = ipaddress.ip_interface(text).network
                found.append((name, {"prefix": {"addr": str(subnet.network_address), "len": subnet.prefixlen}}))
    return found


def own_chain(container_id: str, index: int) -> str:
    """Return the name of a NIC's chain; it leads back to the container."""
    return f"own_{container_id}_{index}"


def container(host: Host, spec: Spec) -> list[Json]:
    """Return the commands that add a container's elements and chains. Twice is once."""
    table = Table("bridge", host.nft_table)
    for nic in bridged(spec):
        _own_chain(table, own_chain(spec.id, nic.index), nic)
        for name, elements in nic_elements(nic).items():
            table.elements(name, [{"concat": list(element)} for element in elements])
        table.elements("own", [[nic.host_link, {"jump": {"target": own_chain(spec.id, nic.index)}}]])
    return table.commands[1:]


def nic_elements(nic: Nic) -> dict[str, list[tuple[str, ...]]]:
    """Return what a NIC may use as its source, by set."""
    elements: dict[str, list[tuple[str, ...]]] = {"macs": [(nic.host_link, nic.mac)]}
    if nic.ipv4:
        elements["v4"] = [(nic.host_link, nic.mac, plain(nic.ipv4))]
    elements["v6"] = [(nic.host_link, nic.mac, address) for address in _ipv6_addresses(nic)]
    return elements


def _ipv6_addresses(nic: Nic) -> list[str]:
    return [link_local(nic.mac), *([plain(nic.ipv6)] if nic.ipv6 else [])]


def _own_chain(table: Table, chain: str, nic: Nic) -> None:
    mac = f"0x{nic.mac.replace(':', '')}"
    addresses = _in_set([f"0x{int(ipaddress.IPv6Address(text)):032x}" for text in _ipv6_addresses(nic)])
    kind = _field("icmpv6", "type")
    target, option, option_mac = _raw(64, 128), _raw(192, 8), _raw(208, 48)
    table.chain(chain)
    table.rule(chain, _is(kind, "nd-neighbor-advert"), _is(target, addresses, "!="), _COUNTER, _DROP)
    unspecified = _is(_field("ip6", "saddr"), "::")
    table.rule(chain, _is(kind, "nd-neighbor-solicit"), unspecified, _is(target, addresses, "!="), _COUNTER, _DROP)
    table.rule(chain, _is(kind, _ND), _is(option, _in_set([1, 2])), _is(option_mac, mac, "!="), _COUNTER, _DROP)
    dhcp = _is(_field("udp", "dport"), 67)
    table.rule(chain, dhcp, _is(_raw(288, 48), mac, "!="), _COUNTER, _DROP)
    over: Json = {"limit": {"rate": DHCP_PER_SECOND, "per": "second", "burst": 2 * DHCP_PER_SECOND, "inv": True}}
    table.rule(chain, _is(_field("udp", "dport"), _in_set([67, 547])), over, _COUNTER, _DROP)
