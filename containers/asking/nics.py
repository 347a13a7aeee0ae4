"""Network interfaces that somebody asks for: names, MACs and addresses are decided here, before anything is made.

What comes out are rows in the making, JSON values: an operation's arguments carry them, and they become rows once the
host has the interfaces. Until then what they hold is taken: addresses and MACs of unfinished operations count.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from ..bookkeeping import reservations, specs
from ..core.errors import SpecError
from ..core.model.network_config import NetworkConfig, plain
from ..core.model.nics import MODES, MOST, NIC_TYPES, Nic, check_all, is_address, is_interface, mac_of_template
from ..core.model.subnets import choose_address, eui64, mac_address
from ..core.rules import policy
from ..core.rules.grants import given_to, routable
from ..core.sentences import say
from ..models import Container, Host, Network, NetworkInterface, Operation
from . import giving
from .told import policy_of

Values = dict[str, Any]
Find = Callable[[str], Network]
"""Returns a network by its name; raises SpecError for one that may not be used."""

FIELDS: Final = frozenset(
    {
        "name",
        "type",
        "network",
        "mac",
        "ipv4",
        "ipv4_gateway",
        "ipv6",
        "ipv6_gateway",
        "static",
        "parent",
        "mode",
        "vlan",
        "mtu",
        "routes",
        "ingress_bytes_per_sec",
        "egress_bytes_per_sec",
    }
)
_OPTIONS: Final = ("mode", "vlan", "mtu", "ingress_bytes_per_sec", "egress_bytes_per_sec")
_OF_ITS_OWN: Final = ("mac", "ipv4", "ipv6")


class _Plan:
    """One container's interfaces in the making."""

    def __init__(
        self,
        container: Container,
        wanted: Sequence[Mapping[str, Any]],
        find: Find,
        present: Iterable[NetworkInterface],
    ) -> None:
        self.container = container
        self.find = find
        self.present = {row.name: row for row in present}
        self.host: Host = container.host
        self.parents = giving.parents(self.host)
        self.named = {one["name"] for one in wanted if isinstance(one.get("name"), str)}
        self.made: list[Values] = []
        self.nics: list[Nic] = []

    def add(self, number: int, wanted: Mapping[str, Any]) -> None:
        """Decide about one interface."""
        field = f"nics.{number}"
        for name in wanted:
            if name not in FIELDS:
                raise SpecError(say("A network interface has no %(name)s.", name=name), field=f"{field}.{name}")
        kind = wanted.get("type") or "bridge"
        if kind not in NIC_TYPES:
            raise SpecError(say("Use %(names)s.", names=", ".join(NIC_TYPES)), field=f"{field}.type")
        name = wanted.get("name") or self._free_name()
        old = self.present.get(name)
        if old is not None and old.type != kind:
            old = None
        index = old.index if old is not None else self._free_index()
        row: Values = {
            "index": index,
            "name": name,
            "type": kind,
            "network": None,
            "options": self._options(wanted, kind),
        }
        row["mac"] = self._mac(wanted.get("mac"), kind, index, old, field)
        if kind == "bridge":
            self._on_network(row, wanted, old, field)
        else:
            self._elsewhere(row, wanted, field)
        self.made.append(row)

    def _free_name(self) -> str:
        used = {row["name"] for row in self.made} | self.named
        return next(name for name in (f"eth{number}" for number in range(MOST + 1)) if name not in used)

    def _free_index(self) -> int:
        used = {row["index"] for row in self.made} | {row.index for row in self.present.values()}
        free = [index for index in range(MOST) if index not in used]
        if not free:
            raise SpecError(say("Use at most %(most)s network interfaces.", most=MOST), field="nics")
        return free[0]

    def _options(self, wanted: Mapping[str, Any], kind: str) -> Values:
        found = {key: wanted[key] for key in _OPTIONS if wanted.get(key) not in (None, "")}
        if kind in MODES:
            found.setdefault("mode", MODES[kind][0])
        if wanted.get("static"):
            found["static"] = True
        if wanted.get("parent"):
            found["parent"] = wanted["parent"]
        if wanted.get("routes"):
            found["routes"] = list(wanted["routes"])
        for key in ("ipv4_gateway", "ipv6_gateway"):
            if wanted.get(key):
                found[key] = wanted[key]
        return found

    # -- who it is ----------------------------------------------------------------------------------------------------

    def _mac(self, text: str | None, kind: str, index: int, old: NetworkInterface | None, field: str) -> str | None:
        if kind == "host" or (kind in ("phys", "vlan", "ipvlan") and not text):
            return None
        if not text:
            own = reservations.core_host().instance
            return (old.mac if old is not None else None) or mac_address(own, self.container.pk, index)
        mac = mac_of_template(text, secrets.token_hex(6), field=f"{field}.mac")
        others = NetworkInterface.objects.filter(mac=mac).exclude(container=self.container)
        if others.exists() or mac in _pending(self.host, "mac", without=self.container):
            raise SpecError("Another container has this MAC address.", field=f"{field}.mac")
        return mac

    # -- where it is --------------------------------------------------------------------------------------------------

    def _on_network(self, row: Values, wanted: Mapping[str, Any], old: NetworkInterface | None, field: str) -> None:
        try:
            network = self.find(wanted.get("network") or "default")
        except SpecError as error:
            raise SpecError(error.message, field=f"{field}.network") from None
        if old is not None and old.network_id != network.pk:
            old = None
        config = reservations.config_of(network)
        row["network"] = network.name
        row["ipv4"] = self._ipv4(network, config, wanted.get("ipv4") or "auto", old, field)
        row["ipv6"] = self._ipv6(network, config, wanted.get("ipv6") or "auto", str(row["mac"]), field)
        # a second default route is nobody's wish who does not say so
        known = {**old.options} if old is not None else {}
        usual = "auto" if not self.made else "none"
        row["options"].setdefault("ipv4_gateway", known.get("ipv4_gateway", "auto" if old is not None else usual))
        if row["options"].get("static"):
            row["options"].setdefault("ipv6_gateway", known.get("ipv6_gateway", usual))
        self._row(row, network)

    def _ipv4(
        self, network: Network, config: NetworkConfig, text: str, old: NetworkInterface | None, field: str
    ) -> str | None:
        if text == "none" or config.ipv4 is None:
            if text not in ("auto", "none"):
                raise SpecError("The network has no IPv4.", field=f"{field}.ipv4")
            return None
        taken = self._taken(network, "ipv4")
        if text == "auto":
            return old.ipv4 if old is not None and old.ipv4 else choose_address(config.ipv4, taken, self.container.pk)
        return _given(text, config.ipv4, 4, taken, f"{field}.ipv4")

    def _ipv6(self, network: Network, config: NetworkConfig, text: str, mac: str, field: str) -> str | None:
        if text == "none" or config.ipv6 is None:
            if text not in ("auto", "none"):
                raise SpecError("The network has no IPv6.", field=f"{field}.ipv6")
            return None
        if text == "auto":
            return eui64(config.ipv6, mac)
        return _given(text, config.ipv6, 6, self._taken(network, "ipv6"), f"{field}.ipv6")

    def _taken(self, network: Network, key: str) -> set[str]:
        rows = NetworkInterface.objects.filter(network=network).exclude(container=self.container)
        known = {text for text in rows.values_list(key, flat=True) if text}
        own = {row[key] for row in self.made if row["network"] == network.name and row[key]}
        return known | own | _pending(self.host, key, network=network.name, without=self.container)

    def _elsewhere(self, row: Values, wanted: Mapping[str, Any], field: str) -> None:
        if wanted.get("network"):
            raise SpecError(say("A %(type)s interface is on no network.", type=row["type"]), field=f"{field}.network")
        options = row["options"]
        for key, version in (("ipv4", 4), ("ipv6", 6)):
            text = wanted.get(key)
            row[key] = None
            if text in (None, "", "none"):
                continue
            if row["type"] == "routed":
                text = self._routed(str(text), version, str(wanted.get("parent") or ""), f"{field}.{key}")
            if not is_interface(text, version):
                raise SpecError(
                    say("Give an IPv%(version)s address with prefix length.", version=version), field=f"{field}.{key}"
                )
            options[key], row[key] = text, plain(text)
            if row["type"] == "routed":
                options.setdefault(f"{key}_gateway", "auto" if not self.made else "none")
        self._row(row, None)

    def _routed(self, text: str, version: int, parent: str, field: str) -> str:
        """Return an address of those that the policy routes to the project, one that nobody has. parent: its card's."""
        rows = NetworkInterface.objects.filter(type="routed").exclude(container=self.container)
        key = "ipv4" if version == 4 else "ipv6"
        taken = {one for one in rows.values_list(key, flat=True) if one}
        taken |= _pending(self.host, key, without=self.container)
        taken |= {row[key] for row in self.made if row[key]}
        own = set(self.host.facts.get("routed_own") or ())
        bits = 32 if version == 4 else 128
        if text == "auto":
            parents = {name: one for name, one in self.parents.items() if parent in ("", name)}
            for subnet in routable(parents, self.container.project.name):
                network = ipaddress.ip_network(subnet)
                if network.version == version:
                    free = next((str(one) for one in network.hosts() if str(one) not in taken | own), None)
                    if free is not None:
                        return f"{free}/{bits}"
            raise SpecError("The host's policy has no free address for this project.", field=field)
        if is_address(text, version):
            text = f"{text}/{bits}"
        bare = str(ipaddress.ip_interface(text).ip) if is_interface(text, version) else ""
        if bare in taken:
            raise SpecError("Another container has this address.", field=field)
        if bare in own:
            raise SpecError("The host itself has this address.", field=field)
        return text

    def _row(self, row: Values, network: Network | None) -> None:
        self.nics.append(specs.nic_of(_unsaved(self.container, row, network), self.container, reservations.core_host()))


def plan(
    container: Container, wanted: Sequence[Mapping[str, Any]], find: Find, present: Iterable[NetworkInterface] = ()
) -> list[Values]:
    """Return rows in the making for what is wanted, in that order; present: the container's interfaces now.

    One of the same name stays the one it is: its index, MAC and addresses, where nothing else is asked for. The caller
    holds lock_host(). Raises SpecError and PolicyDenied naming the field (``nics.N.NAME``), HostUnsupported where a
    network is full.
    """
    if len(wanted) > MOST:
        raise SpecError(say("Use at most %(most)s network interfaces.", most=MOST), field="nics")
    made = _Plan(container, wanted, find, present)
    for number, one in enumerate(wanted):
        made.add(number, one)
    check_all(made.nics, sysctls=tuple(container.security.get("sysctls") or ()))
    allowed = policy.Containers(host_network=bool(container.host.facts.get("policy", {}).get("host_network")))
    with policy_of(container.host):
        policy.check_nics(allowed, made.parents, container.project.name, made.nics)
    return made.made


def _given(text: str, gateway: str, version: int, taken: set[str], field: str) -> str:
    """Return an address of a network that was asked for by itself; raises SpecError where it cannot be had."""
    network = ipaddress.ip_interface(gateway).network
    bare = plain(text)
    if not is_address(bare, version) or ipaddress.ip_address(bare) not in network:
        raise SpecError(say("Give an address of %(network)s, auto or none.", network=str(network)), field=field)
    address = ipaddress.ip_address(bare)
    if address in (network.network_address, network.broadcast_address) or str(address) == plain(gateway):
        raise SpecError("This address is the network's own.", field=field)
    if str(address) in {str(ipaddress.ip_address(one)) for one in taken}:
        raise SpecError("Another container has this address.", field=field)
    return str(address)


def held(host: Host) -> tuple[set[str], set[str]]:
    """Return the MACs that containers have or are about to get, and the addresses of routed interfaces."""
    macs = {one for one in NetworkInterface.objects.values_list("mac", flat=True) if one}
    routed = NetworkInterface.objects.filter(type="routed").values_list("ipv4", "ipv6")
    addresses = {one for both in routed for one in both if one}
    for key in ("ipv4", "ipv6"):
        addresses |= _pending(host, key)
    return macs | _pending(host, "mac"), {str(ipaddress.ip_address(one)) for one in addresses}


def _pending(host: Host, key: str, *, network: str | None = None, without: Container | None = None) -> set[str]:
    """Return what unfinished operations will give containers. network: only of that one. without: others' only."""
    rows = Operation.objects.filter(host=host, action="update", status__in=Operation.UNFINISHED)
    if without is not None:
        rows = rows.exclude(container=without)
    found = [row for arguments in rows.values_list("arguments", flat=True) for row in arguments.get("nics") or ()]
    return {row[key] for row in found if row.get(key) and network in (None, row.get("network"))}


def _unsaved(container: Container, row: Values, network: Network | None) -> NetworkInterface:
    return NetworkInterface(container=container, network=network, **{key: row[key] for key in _COLUMNS})


_COLUMNS: Final = ("index", "name", "type", "mac", "ipv4", "ipv6", "options")


def write(container: Container, made: Sequence[Values]) -> None:
    """Make the container's rows be these; in the caller's transaction. Raises IntegrityError."""
    names = {row["network"] for row in made if row["network"]}
    networks = {one.name: one for one in Network.objects.filter(host=container.host, name__in=names)}
    present = {row.index: row for row in NetworkInterface.objects.filter(container=container)}
    if gone := present.keys() - {row["index"] for row in made}:
        NetworkInterface.objects.filter(container=container, index__in=gone).delete()
    added = []
    for row in made:
        network = networks[row["network"]] if row["network"] else None
        fresh = _unsaved(container, row, network)
        if old := present.get(row["index"]):
            fresh.pk = old.pk
            fresh.save(force_update=True)
        else:
            added.append(fresh)
    NetworkInterface.objects.bulk_create(added)


def unsaved(container: Container, made: Sequence[Values]) -> list[NetworkInterface]:
    """Return the rows that they will be, for a spec."""
    names = {row["network"] for row in made if row["network"]}
    networks = {one.name: one for one in Network.objects.filter(host=container.host, name__in=names)}
    return [_unsaved(container, row, networks.get(row["network"])) for row in made]


def as_wanted(row: NetworkInterface) -> Values:
    """Return an interface as it would be asked for."""
    return wanted(row, row.network.name if row.network else None)


def wanted(row: Any, network: str | None) -> Values:
    """Return the same, from its columns as attributes and the name of its network."""
    options = row.options
    found: Values = {"name": row.name, "type": row.type, "network": network}
    found |= {"mac": row.mac, "static": bool(options.get("static")), "parent": options.get("parent")}
    for key in ("ipv4", "ipv6"):
        found[key] = options.get(key) or getattr(row, key)
        found[f"{key}_gateway"] = options.get(f"{key}_gateway")
    found |= {key: options.get(key) for key in _OPTIONS}
    found["routes"] = list(options.get("routes") or ())
    return found


def for_clone(row: NetworkInterface) -> Values:
    """Return an interface as a clone's is asked for: the same, with a MAC and addresses of its own.

    What nobody gives out, addresses of a network of the host's, is left to that network's DHCP.
    """
    found = as_wanted(row)
    for key in _OF_ITS_OWN:
        had, found[key] = found[key], None
        if key != "mac":
            found[key] = ("auto" if had else "none") if row.type in ("bridge", "routed") else None
    if row.type not in ("bridge", "routed"):
        found |= {"ipv4_gateway": None, "ipv6_gateway": None}
    if row.type == "routed":
        found["routes"] = []
    return found


def parents_of(host: Host, project: str) -> dict[str, Any]:
    """Return the network cards that a project's interfaces may sit on, by name."""
    return {
        name: dataclasses.asdict(one) for name, one in giving.parents(host).items() if given_to(one.projects, project)
    }
