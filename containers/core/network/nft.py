"""The instance's tables in the kernel: what is in them, and how it is changed, one transaction for each change."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ..errors import SetupFailed
from ..host import Host
from ..model.network_config import NetworkConfig, bridged
from ..model.spec import Spec
from . import nfnetlink, ruleset
from .nfnetlink import generation
from .nftrun import Listing, listing, run
from .ruleset import Json

CHANGE_TRIES: Final = 3


def host_has_ipv6() -> bool:
    """Whether this network namespace speaks IPv6 at all."""
    return Path("/proc/sys/net/ipv6/conf/all/forwarding").exists()


@dataclass(frozen=True, slots=True)
class Contents:
    """What a bridge table holds, at a generation. filled: chains with rules. own: the NICs' chains.

    both: the inet table is known to be there too.
    """

    generation: int
    filled: frozenset[str] = frozenset()
    own: frozenset[str] = frozenset()
    elements: frozenset[tuple[str, tuple[str, ...]]] = frozenset()
    both: bool = False

    def complete(self, spec: Spec) -> bool:
        """Whether the table's rules are there, and everything of this container."""
        return {"prerouting", "container"} | chains_of(spec) <= self.filled and wanted(spec) <= self.elements


_KNOWN: Final[dict[str, Contents]] = {}
"""What each instance's table held when this process last knew; true as long as the generation is the same.

Listing the table of hundreds of containers takes a tenth of a second."""


_WHOLE: Final[dict[str, tuple[int, bool, Sequence[NetworkConfig], Sequence[Spec]]]] = {}
"""What each instance's tables were made for the last time as a whole, and the generation since then."""

_CHANGING: Final = threading.Lock()
"""One change at a time: nft reads a table again from the start when somebody changes it meanwhile."""


class Look:
    """Looks into the bridge table, beside the caller where it has to be listed."""

    def __init__(self, host: Host) -> None:
        self._table = host.nft_table
        self._generation = generation()
        known = _KNOWN.get(self._table)
        self._known = known if known and known.generation == self._generation else None
        self._listing = None if self._known else Listing("table", "bridge", self._table)

    def contents(self) -> Contents:
        """Return what is in it; empty where it is not there."""
        if self._listing is None:
            assert self._known is not None
            return self._known
        entries = self._listing.entries()
        found = Contents(
            self._generation,
            frozenset(entry["rule"]["chain"] for entry in entries if "rule" in entry),
            frozenset(_own_chains(entries)),
            frozenset(_elements(entries)),
        )
        _remember(self._table, found)
        return found


def _remember(table: str, contents: Contents) -> None:
    """Keep what is known, unless somebody has changed something meanwhile."""
    if generation() == contents.generation:
        _KNOWN[table] = contents


def complete(host: Host, spec: Spec) -> bool:
    """Whether the bridge table has its rules, and everything of this container."""
    return Look(host).contents().complete(spec)


def chains_of(spec: Spec) -> set[str]:
    """Return the names of the chains that the container needs."""
    return {ruleset.own_chain(spec.id, nic.index) for nic in bridged(spec)}


def wanted(spec: Spec) -> set[tuple[str, tuple[str, ...]]]:
    """Return the (set, element) that the container needs."""
    needed: set[tuple[str, tuple[str, ...]]] = set()
    for nic in bridged(spec):
        needed.add(("own", (nic.host_link, ruleset.own_chain(spec.id, nic.index))))
        needed |= {(name, element) for name, all_ in ruleset.nic_elements(nic).items() for element in all_}
    return needed


def ensure_whole(host: Host, configs: Sequence[NetworkConfig], specs: Sequence[Spec]) -> None:
    """Make both tables say exactly what these networks and containers need, in one transaction.

    Nothing is done where this process did the same before, and nobody has changed any rule of the host's since.
    """
    ipv6, needed = host_has_ipv6(), (tuple(configs), tuple(specs))

    def make() -> None:
        before = generation()
        run(_drop_stale_chains(host, specs) + ruleset.whole(host, configs, specs, ipv6=ipv6))
        # higher than that: somebody else has changed something meanwhile, before or after
        if generation() == before + 1:
            _WHOLE[host.nft_table] = (before + 1, ipv6, *needed)

    if _WHOLE.get(host.nft_table) != (generation(), ipv6, *needed):
        _change(host, make)


def ensure_network(host: Host, config: NetworkConfig) -> None:
    """Make sure that the tables are there, and the network's elements in them."""
    ipv6 = host_has_ipv6()
    _change(host, lambda: run(ruleset.base(host, ipv6=ipv6) + ruleset.network(host, config)))


def change_network(host: Host, old: NetworkConfig, new: NetworkConfig) -> None:
    """Put a network's new elements in the place of its old ones, in one transaction; twice is once."""
    ipv6, kept = host_has_ipv6(), ruleset.network_elements(host, new)
    gone = [one for one in ruleset.network_elements(host, old) if one not in kept]

    def change() -> None:
        # not added first, as in forget_network: an old subnet may overlap with the new one, if that is there already
        sets = {name: listing("set", "inet", host.nft_table, name) for name, _element in gone}
        there = [one for one in gone if any(one[1] in held["set"].get("elem", ()) for held in sets[one[0]])]
        run(ruleset.elements(host, there, "delete") + ruleset.base(host, ipv6=ipv6) + ruleset.elements(host, kept))

    _change(host, change)


def forget_network(host: Host, config: NetworkConfig) -> None:
    """Take a network's elements out; twice is once."""
    if present(host):
        # adding first makes the deletion succeed where the element is not there any more
        _change(host, lambda: run(ruleset.network(host, config) + ruleset.network(host, config, "delete")))


def ensure_routed(host: Host) -> None:
    """Make sure that the rules are there that hold for routed NICs."""
    entries = listing("chain", "inet", host.nft_table, "source")
    if not any("rule" in entry for entry in entries):
        run(ruleset.base(host, ipv6=host_has_ipv6()))


def present(host: Host) -> bool:
    """Whether both tables are there."""
    with nfnetlink.connect() as sock:
        return all(nfnetlink.has_table(sock, family, host.nft_table) for family in ("bridge", "inet"))


def remove_tables(host: Host) -> None:
    """Delete both tables; twice is once."""
    tables = [{"table": {"family": family, "name": host.nft_table}} for family in ("bridge", "inet")]
    _change(host, lambda: run([{"add": table} for table in tables] + [{"delete": table} for table in tables]))


def _change(host: Host, change: Callable[[], None]) -> None:
    """Look and change, once more where somebody else has changed the table in between.

    What was looked at and is gone by then makes the kernel refuse the whole transaction: a process that was killed may
    have left an nft behind that ends its work.
    """
    with _CHANGING:
        for attempt in range(CHANGE_TRIES):
            try:
                change()
            except SetupFailed:
                if attempt == CHANGE_TRIES - 1:
                    raise
                _KNOWN.pop(host.nft_table, None)
            else:
                return


def register(host: Host, spec: Spec) -> None:
    """Add a container's elements, and take out what its links' names had before (another MAC, another container)."""
    _change(host, lambda: _register(host, spec))


def _register(host: Host, spec: Spec) -> None:
    now = Look(host).contents()
    stale = _stale(spec, now.elements)
    gone = [name for name in now.own if name.startswith(_prefix(spec.id)) and name not in chains_of(spec)]
    if now.complete(spec) and not stale and not gone:
        return
    both = now.both or (bool(now.filled) and present(host))
    commands = [] if both else ruleset.base(host, ipv6=host_has_ipv6())
    run(commands + _deletions(host, stale) + _chain_deletions(host, gone) + ruleset.container(host, spec))
    if both:
        elements = now.elements - set(stale) | wanted(spec)
        chains = chains_of(spec)
        filled, own = now.filled - set(gone) | chains, now.own - set(gone) | chains
        known = Contents(now.generation + 1, filled, own, elements, both=True)
        _remember(host.nft_table, known)


def _stale(spec: Spec, elements: Collection[tuple[str, tuple[str, ...]]]) -> list[tuple[str, tuple[str, ...]]]:
    """Return the elements of this container's link names, of now and before, that are not this container's."""
    needed, prefix = wanted(spec), _prefix(spec.id)
    links = {nic.host_link for nic in spec.nics}
    links |= {one[1][0] for one in elements if one[0] == "own" and one[1][1].startswith(prefix)}
    return [one for one in elements if one[1][0] in links and one not in needed]


def _prefix(container_id: str) -> str:
    return ruleset.own_chain(container_id, 0).removesuffix("0")


def unregister(host: Host, container_id: str) -> None:
    """Take out everything that leads to the container; twice is once."""
    _change(host, lambda: _unregister(host, container_id))


def _unregister(host: Host, container_id: str) -> None:
    now = Look(host).contents()
    prefix = _prefix(container_id)
    links = {element[0] for name, element in now.elements if name == "own" and element[1].startswith(prefix)}
    gone = [(name, element) for name, element in now.elements if element[0] in links]
    chains = [name for name in now.own if name.startswith(prefix)]
    if gone or chains:
        run(_deletions(host, gone) + _chain_deletions(host, chains))
        kept = now.elements - set(gone), now.filled - set(chains), now.own - set(chains)
        _remember(host.nft_table, Contents(now.generation + 1, kept[1], kept[2], kept[0], both=now.both))


def keep_only(host: Host, specs: Sequence[Spec]) -> None:
    """Take out every element and chain that is not of these containers; twice is once."""
    _change(host, lambda: _keep_only(host, specs))


def _keep_only(host: Host, specs: Sequence[Spec]) -> None:
    entries = listing("table", "bridge", host.nft_table)
    needed = {element for spec in specs for element in wanted(spec)}
    chains = {name for spec in specs for name in chains_of(spec)}
    gone = [element for element in _elements(entries) if element not in needed]
    stale = [name for name in _own_chains(entries) if name not in chains]
    if gone or stale:
        run(_deletions(host, gone) + _chain_deletions(host, stale))


def elements(host: Host) -> list[tuple[str, tuple[str, ...]]]:
    """Return (set, element) of the bridge table; an element of `own` is (link, chain)."""
    return _elements(listing("table", "bridge", host.nft_table))


def own_chains(host: Host) -> list[str]:
    """Return the names of the per-NIC chains (own_ID_INDEX)."""
    return _own_chains(listing("table", "bridge", host.nft_table))


def _elements(entries: Sequence[Json]) -> list[tuple[str, tuple[str, ...]]]:
    found: list[tuple[str, tuple[str, ...]]] = []
    for entry in entries:
        holder = entry.get("set") or entry.get("map")
        if holder is None:
            continue
        for element in holder.get("elem", ()):
            if holder["name"] == "own":
                link, verdict = element
                found.append(("own", (link, verdict["jump"]["target"])))
            else:
                found.append((holder["name"], tuple(element["concat"])))
    return found


def _own_chains(entries: Sequence[Json]) -> list[str]:
    names = [entry["chain"]["name"] for entry in entries if "chain" in entry]
    return [name for name in names if name.startswith("own_")]


def _deletions(host: Host, found: Sequence[tuple[str, tuple[str, ...]]]) -> list[Json]:
    table = ruleset.Table("bridge", host.nft_table)
    for name, element in found:
        value: Any = [element[0], {"jump": {"target": element[1]}}] if name == "own" else {"concat": list(element)}
        table.elements(name, [value], "delete")
    return table.commands[1:]


def _chain_deletions(host: Host, chains: Sequence[str]) -> list[Json]:
    at = {"family": "bridge", "table": host.nft_table}
    return [{verb: {"chain": {**at, "name": name}}} for name in chains for verb in ("flush", "delete")]


def _drop_stale_chains(host: Host, specs: Sequence[Spec]) -> list[Json]:
    wanted = {name for spec in specs for name in chains_of(spec)}
    stale = [name for name in own_chains(host) if name not in wanted]
    if not stale:
        return []
    flush = {"flush": {"map": {"family": "bridge", "table": host.nft_table, "name": "own"}}}
    return [flush, *_chain_deletions(host, stale)]
