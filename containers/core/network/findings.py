"""What on the host keeps containers from reaching out: other firewalls' rules, and missing settings.

Docker, ufw and firewalld filter what the host forwards, in tables of their own. A packet has to pass every table, so
that no rule of ours can let it through what another drops: the missing rule has to be added there.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from ..host import Host
from ..model.network_config import Finding, NetworkConfig
from ..sentences import say
from .nft import present
from .nftrun import listing
from .ruleset import Json

FIREWALLD: Final = "firewalld"
_REFUSING: Final = ("drop", "reject")
_SYSCTL: Final = Path("/proc/sys/net")


def network_findings(host: Host, configs: Sequence[NetworkConfig]) -> list[Finding]:
    """Return what is wrong with the host's settings for these networks; empty where all is well. Root."""
    bridges = [host.bridge_name(config.number) for config in configs]
    if not bridges:
        return []
    found = list(_settings(configs))
    entries = listing("ruleset")
    found += foreign(entries, bridges, ours={host.nft_table})
    if not present(host):
        found.append(
            Finding(
                id="filter-missing",
                level="error",
                what=say(
                    "The nftables tables %(name)s are gone: somebody has flushed the ruleset.", name=host.nft_table
                ),
                why="No NAT and no isolation until they are there again; containers do not start without them.",
                mend="manage.py fsck --repair",
            )
        )
    return found


def foreign(entries: Sequence[Json], bridges: Sequence[str], *, ours: Iterable[str]) -> list[Finding]:
    """Return what other firewalls of the host keep from these bridges, each with the rule that is missing.

    entries: as `nft -j list ruleset` says them. ours: tables that are our own. Also asks the old iptables, if there is
    one. Root.
    """
    # firewalld writes its rules anew at each reload: it has to be told itself
    told = {*ours, FIREWALLD}
    return [*blocked_chains(entries, bridges, ours=told), *_firewalld(entries, bridges), *_legacy(bridges)]


def blocked_chains(entries: Sequence[Json], bridges: Sequence[str], *, ours: Iterable[str] = ()) -> list[Finding]:
    """Return a finding for every foreign chain that drops what our bridges forward, or what they ask of the host. Pure.

    entries: as `nft -j list ruleset` says them. ours: tables that are our own.
    """
    found = []
    for entry in entries:
        chain = entry.get("chain")
        if not chain or chain.get("hook") not in ("forward", "input") or chain["table"] in set(ours):
            continue
        if chain["family"] not in ("ip", "ip6", "inet") or not _refuses(chain, entries):
            continue
        found += _missing(chain, entries, bridges)
    return found


def _missing(chain: Json, entries: Sequence[Json], bridges: Sequence[str]) -> list[Finding]:
    hook, family = chain["hook"], chain["family"]
    where = f"{family} {chain['table']} {chain['name']}"
    reached = _reached(chain, entries)
    findings = []
    for bridge in bridges:
        if hook == "forward":
            lacking = [key for key in ("iifname", "oifname") if not _accepts(reached, key, bridge)]
        else:
            lacking = [] if _accepts(reached, "iifname", bridge) else ["iifname"]
        if not lacking:
            continue
        findings.append(
            Finding(
                id=f"{hook}-drop-{family}-{chain['table']}-{bridge}",
                level="warning",
                what=say(
                    "The chain %(chain)s drops what it does not know, and has no rule for %(bridge)s.",
                    chain=where,
                    bridge=bridge,
                ),
                why=_why(hook),
                mend="\n".join(_mend(chain, bridge, key) for key in lacking),
                bridge=bridge,
            )
        )
    return findings


def _why(hook: str) -> str:
    if hook == "input":
        return "Containers get no address by DHCP and resolve no names."
    called = _SYSCTL / "bridge/bridge-nf-call-iptables"
    if called.exists() and called.read_text().strip() == "1":
        return "Containers reach neither beyond this host nor each other (net.bridge.bridge-nf-call-iptables is 1)."
    return "Containers do not reach beyond this host."


def _mend(chain: Json, bridge: str, key: str) -> str:
    """Return the command that adds the missing rule, in the words of whoever owns the chain."""
    names = {"ip": "iptables", "ip6": "ip6tables"}
    if chain["table"] == "filter" and chain["family"] in names and chain["name"].isupper():
        tool = names[chain["family"]]
        if chain["hook"] == "input":
            return f"{tool} -I {chain['name']} -i {bridge} -j ACCEPT"
        if key == "iifname":
            return f"{tool} -I {chain['name']} -i {bridge} -j ACCEPT"
        return f"{tool} -I {chain['name']} -o {bridge} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
    state = "" if key == "iifname" else " ct state established,related"
    return f"nft insert rule {chain['family']} {chain['table']} {chain['name']} {key} {bridge}{state} accept"


def _refuses(chain: Json, entries: Sequence[Json]) -> bool:
    """Whether what no rule accepts is dropped: by policy, or by a last rule without a condition."""
    if chain.get("policy") == "drop":
        return True
    rules = _rules(chain["family"], chain["table"], chain["name"], entries)
    last = [next(iter(part)) for part in rules[-1]["expr"]] if rules else []
    return any(word in _REFUSING for word in last) and "match" not in last


def _rules(family: str, table: str, chain: str, entries: Sequence[Json]) -> list[Json]:
    rules = [entry["rule"] for entry in entries if "rule" in entry]
    return [rule for rule in rules if (rule["family"], rule["table"], rule["chain"]) == (family, table, chain)]


def _reached(chain: Json, entries: Sequence[Json]) -> list[Json]:
    """Return the rules of a chain and of those it jumps to."""
    seen, waiting, rules = set(), [chain["name"]], []
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for rule in _rules(chain["family"], chain["table"], name, entries):
            rules.append(rule)
            for part in rule["expr"]:
                for verb in ("jump", "goto"):
                    if verb in part:
                        waiting.append(part[verb]["target"])
    return rules


def _accepts(rules: Sequence[Json], key: str, bridge: str) -> bool:
    """Whether a rule accepts by this link, whatever else it asks for (a connection's state, for what comes back)."""
    for rule in rules:
        if not any("accept" in part for part in rule["expr"]):
            continue
        matches = [part["match"] for part in rule["expr"] if "match" in part]
        by_link = [one for one in matches if one["left"] in ({"meta": {"key": key}},)]
        others = [one for one in matches if one["left"] != {"meta": {"key": key}}]
        state_only = all(_is_state(one) for one in others)
        if by_link and all(_covers(one, bridge) for one in by_link) and state_only:
            return True
        # what comes back is often accepted for every link: "ct state established,related accept"
        if key == "oifname" and not by_link and others and state_only and "xt" not in _words(rule):
            return True
        if key == "oifname" and not matches and _words(rule) == {"xt", "accept"}:
            return True
    return False


def _words(rule: Json) -> set[str]:
    return {next(iter(part)) for part in rule["expr"]} - {"counter", "comment"}


def _is_state(match: Json) -> bool:
    left: Any = match["left"]
    if "&" in left:
        left = left["&"][0]
    return bool(left == {"ct": {"key": "state"}})


def _covers(match: Json, bridge: str) -> bool:
    values = match["right"]
    if match["op"] not in ("==", "in"):
        return False
    values = values["set"] if isinstance(values, dict) and "set" in values else [values]
    return any(
        isinstance(value, str) and (value == bridge or (value.endswith("*") and bridge.startswith(value[:-1])))
        for value in values
    )


def _tables(entries: Sequence[Json]) -> set[tuple[str, str]]:
    return {(entry["table"]["family"], entry["table"]["name"]) for entry in entries if "table" in entry}


def _firewalld(entries: Sequence[Json], bridges: Sequence[str]) -> list[Finding]:
    if ("inet", FIREWALLD) not in _tables(entries):
        return []
    known = str([entry for entry in entries if entry.get("rule", {}).get("table") == FIREWALLD])
    return [
        Finding(
            id=f"firewalld-{bridge}",
            level="warning",
            what=say("firewalld runs and has %(bridge)s in no zone.", bridge=bridge),
            why="Containers get no address by DHCP and do not reach beyond this host.",
            mend=f"firewall-cmd --permanent --zone=trusted --add-interface={bridge} && firewall-cmd --reload",
            bridge=bridge,
        )
        for bridge in bridges
        if f"'{bridge}'" not in known
    ]


def _legacy(bridges: Sequence[str]) -> list[Finding]:
    """Look at the old iptables, which nft does not show; nothing where it is not in use."""
    found = []
    for names, tool in (("ip_tables_names", "iptables-legacy"), ("ip6_tables_names", "ip6tables-legacy")):
        try:
            if "filter" not in Path("/proc/self/net", names).read_text().split():
                continue
            done = subprocess.run([tool, "-S", "FORWARD"], capture_output=True, text=True, timeout=10, check=False)
        except (FileNotFoundError, subprocess.TimeoutExpired):
            continue
        rules = done.stdout.splitlines()
        if "-P FORWARD DROP" not in rules:
            continue
        found += [
            Finding(
                id=f"forward-drop-{tool}-{bridge}",
                level="warning",
                what=say(
                    "The policy of %(tool)s's FORWARD chain is DROP, and it has no rule for %(bridge)s.",
                    tool=tool,
                    bridge=bridge,
                ),
                why="Containers do not reach beyond this host.",
                mend=f"{tool} -I FORWARD -i {bridge} -j ACCEPT\n"
                f"{tool} -I FORWARD -o {bridge} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
                bridge=bridge,
            )
            for bridge in bridges
            if not any(f"-i {bridge} " in rule and rule.endswith("-j ACCEPT") for rule in rules)
        ]
    return found


def _settings(configs: Sequence[NetworkConfig]) -> Iterable[Finding]:
    try:
        forwards = (_SYSCTL / "ipv4/ip_forward").read_text().strip() == "1"
    except OSError:
        forwards = False
    if any(config.ipv4 for config in configs) and not forwards:
        yield Finding(
            id="ip-forward",
            level="error",
            what="net.ipv4.ip_forward is 0: somebody has switched forwarding off.",
            why="Containers do not reach beyond this host.",
            mend="sysctl -w net.ipv4.ip_forward=1",
        )
