"""Running nftables: JSON in, JSON out, one transaction for each call."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from ..errors import HostUnsupported, SetupFailed
from ..host import Host
from ..spec import Spec
from . import ruleset
from .base import NetworkConfig
from .ruleset import Json

TIMEOUT_SEC: Final = 20
_ENVIRONMENT: Final = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}


def host_has_ipv6() -> bool:
    """Whether this network namespace speaks IPv6 at all."""
    return Path("/proc/sys/net/ipv6/conf/all/forwarding").exists()


class Transaction:
    """An `nft` that works beside the caller; wait() before anything depends on it.

    Raises HostUnsupported where nft is not installed.
    """

    def __init__(self, commands: Sequence[Json]) -> None:
        text_fd = os.memfd_create("nft", os.MFD_CLOEXEC)
        try:
            with open(text_fd, "wb", closefd=False) as text:
                text.write(json.dumps({"nftables": list(commands)}).encode())
            os.lseek(text_fd, 0, os.SEEK_SET)
            self._process = subprocess.Popen(
                ["nft", "-j", "-f", "-"],
                stdin=text_fd,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=_ENVIRONMENT,
            )
        except FileNotFoundError:
            raise HostUnsupported("nft is not installed: apt install nftables.", feature="nftables") from None
        finally:
            os.close(text_fd)

    def wait(self) -> None:
        """Return when the kernel has taken it; raises SetupFailed with nft's words, and nothing was changed then."""
        try:
            _out, errors = self._process.communicate(timeout=TIMEOUT_SEC)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            raise SetupFailed(f"nft did not end within {TIMEOUT_SEC} s.", step="packet filter") from None
        if self._process.returncode:
            words = errors.decode(errors="replace").strip()
            raise SetupFailed(f"nft refused the packet filter: {words}", step="packet filter", console=words)


def run(commands: Sequence[Json]) -> None:
    """Apply the commands in one transaction; raises SetupFailed with nft's words."""
    Transaction(commands).wait()


class Listing:
    """An `nft list` that works beside the caller."""

    def __init__(self, *what: str) -> None:
        try:
            self._process = subprocess.Popen(
                ["nft", "-j", "list", *what], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=_ENVIRONMENT
            )
        except FileNotFoundError:
            raise HostUnsupported("nft is not installed: apt install nftables.", feature="nftables") from None

    def entries(self) -> list[Json]:
        """Return what it said, without the header; empty where there is no such table or set."""
        try:
            out, _errors = self._process.communicate(timeout=TIMEOUT_SEC)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            raise SetupFailed(f"nft did not end within {TIMEOUT_SEC} s.", step="packet filter") from None
        if self._process.returncode:
            return []
        objects: list[Json] = json.loads(out)["nftables"]
        return [entry for entry in objects if "metainfo" not in entry]


def listing(*what: str) -> list[Json]:
    """Return what `nft -j list WHAT` says, without the header; empty where there is no such table or set."""
    return Listing(*what).entries()


def complete(host: Host, spec: Spec, entries: Sequence[Json]) -> bool:
    """Whether a listing of the bridge table shows its rules, and everything of this container."""
    filled = {entry["rule"]["chain"] for entry in entries if "rule" in entry}
    chains = {ruleset.own_chain(spec.id, index) for index in range(len(spec.nics))}
    found = set(_elements(entries))
    return {"prerouting", "container"} | chains <= filled and wanted(spec) <= found


def wanted(spec: Spec) -> set[tuple[str, tuple[str, ...]]]:
    """Return the (set, element) that the container needs."""
    needed: set[tuple[str, tuple[str, ...]]] = set()
    for index, nic in enumerate(spec.nics):
        needed.add(("own", (nic.host_link, ruleset.own_chain(spec.id, index))))
        needed |= {(name, element) for name, all_ in ruleset.nic_elements(nic).items() for element in all_}
    return needed


def ensure_whole(host: Host, configs: Sequence[NetworkConfig], specs: Sequence[Spec]) -> None:
    """Make both tables say exactly what these networks and containers need, in one transaction."""
    run(_drop_stale_chains(host, specs) + ruleset.whole(host, configs, specs, ipv6=host_has_ipv6()))


def ensure_network(host: Host, config: NetworkConfig) -> None:
    """Make sure that the tables are there, and the network's elements in them."""
    run(ruleset.base(host, ipv6=host_has_ipv6()) + ruleset.network(host, config))


def forget_network(host: Host, config: NetworkConfig) -> None:
    """Take a network's elements out; twice is once."""
    if present(host):
        # adding first makes the deletion succeed where the element is not there any more
        run(ruleset.network(host, config) + ruleset.network(host, config, "delete"))


def present(host: Host) -> bool:
    """Whether both tables are there."""
    names = {(entry["table"]["family"], entry["table"]["name"]) for entry in listing("tables") if "table" in entry}
    return {("bridge", host.nft_table), ("inet", host.nft_table)} <= names


def remove_tables(host: Host) -> None:
    """Delete both tables; twice is once."""
    tables = [{"table": {"family": family, "name": host.nft_table}} for family in ("bridge", "inet")]
    run([{"add": table} for table in tables] + [{"delete": table} for table in tables])


def register(host: Host, spec: Spec) -> None:
    """Add a container's elements, and take out what its links' names had before (another MAC, another container)."""
    entries = listing("table", "bridge", host.nft_table)
    if complete(host, spec, entries) and not _stale(spec, entries):
        return
    commands = [] if entries and present(host) else ruleset.base(host, ipv6=host_has_ipv6())
    run(commands + _deletions(host, _stale(spec, entries)) + ruleset.container(host, spec))


def _stale(spec: Spec, entries: Sequence[Json]) -> list[tuple[str, tuple[str, ...]]]:
    """Return the elements of this container's link names that are not this container's."""
    needed = wanted(spec)
    links = {nic.host_link for nic in spec.nics}
    return [one for one in _elements(entries) if one[1][0] in links and one not in needed]


def unregister(host: Host, container_id: str) -> None:
    """Take out everything that leads to the container; twice is once."""
    entries = listing("table", "bridge", host.nft_table)
    found = _elements(entries)
    prefix = ruleset.own_chain(container_id, 0).removesuffix("0")
    links = {element[0] for name, element in found if name == "own" and element[1].startswith(prefix)}
    gone = [(name, element) for name, element in found if element[0] in links]
    chains = [name for name in _own_chains(entries) if name.startswith(prefix)]
    if gone or chains:
        run(_deletions(host, gone) + _chain_deletions(host, chains))


def keep_only(host: Host, specs: Sequence[Spec]) -> None:
    """Take out every element and chain that is not of these containers; twice is once."""
    entries = listing("table", "bridge", host.nft_table)
    needed = {element for spec in specs for element in wanted(spec)}
    chains = {ruleset.own_chain(spec.id, index) for spec in specs for index in range(len(spec.nics))}
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
    wanted = {ruleset.own_chain(spec.id, index) for spec in specs for index in range(len(spec.nics))}
    stale = [name for name in own_chains(host) if name not in wanted]
    if not stale:
        return []
    flush = {"flush": {"map": {"family": "bridge", "table": host.nft_table, "name": "own"}}}
    return [flush, *_chain_deletions(host, stale)]
