"""Which rule of another firewall is missing, from what `nft -j list ruleset` says: pure."""

from __future__ import annotations

from typing import Any

import pytest

from containers.core.network import findings

BRIDGE = "boxbrtest00"


def table(family: str, name: str) -> dict[str, Any]:
    return {"table": {"family": family, "name": name}}


def chain(family: str, table: str, name: str, **more: Any) -> dict[str, Any]:
    return {"chain": {"family": family, "table": table, "name": name, **more}}


def rule(family: str, table: str, chain: str, *expr: Any) -> dict[str, Any]:
    return {"rule": {"family": family, "table": table, "chain": chain, "expr": list(expr)}}


def meta(key: str, right: Any, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": {"meta": {"key": key}}, "right": right}}


ACCEPT: dict[str, Any] = {"accept": None}
REJECT: dict[str, Any] = {"reject": {"type": "icmpx", "expr": "admin-prohibited"}}
COMES_BACK = {"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established", "related"]}}
DOCKER = [
    table("ip", "filter"),
    chain("ip", "filter", "FORWARD", hook="forward", policy="drop"),
    chain("ip", "filter", "DOCKER-USER"),
    rule("ip", "filter", "FORWARD", {"counter": {}}, {"jump": {"target": "DOCKER-USER"}}),
    rule("ip", "filter", "FORWARD", meta("oifname", "docker0"), {"counter": {}}, ACCEPT),
]
OWN = [
    table("inet", "foreign"),
    chain("inet", "foreign", "forward", hook="forward", policy="drop"),
]


def blocked(entries: list[dict[str, Any]]) -> list[tuple[str, str | None]]:
    return [(found.bridge, found.mend) for found in findings.blocked_chains(entries, [BRIDGE])]


def test_docker_s_chain_lacks_two_rules_in_the_words_of_iptables() -> None:
    mend = (
        f"iptables -I FORWARD -i {BRIDGE} -j ACCEPT\n"
        f"iptables -I FORWARD -o {BRIDGE} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
    )
    assert blocked(DOCKER) == [(BRIDGE, mend)]


def test_only_what_is_missing_is_told() -> None:
    there = [
        rule("ip", "filter", "DOCKER-USER", meta("iifname", BRIDGE), ACCEPT),
        rule("ip", "filter", "FORWARD", COMES_BACK, ACCEPT),
    ]
    assert blocked([*DOCKER, *there]) == []
    assert blocked([*DOCKER, there[1]]) == [(BRIDGE, f"iptables -I FORWARD -i {BRIDGE} -j ACCEPT")]


@pytest.mark.parametrize("links", [BRIDGE, "boxbr*", {"set": ["eth1", BRIDGE]}])
def test_a_chain_of_nft_is_mended_by_nft(links: Any) -> None:
    mend = (
        f"nft insert rule inet foreign forward iifname {BRIDGE} accept\n"
        f"nft insert rule inet foreign forward oifname {BRIDGE} ct state established,related accept"
    )
    assert blocked(OWN) == [(BRIDGE, mend)]
    there = [rule("inet", "foreign", "forward", meta(key, links), ACCEPT) for key in ("iifname", "oifname")]
    assert blocked([*OWN, *there]) == []


def test_a_last_rule_that_rejects_is_a_policy_too() -> None:
    entries = [chain("inet", "foreign", "forward", hook="forward", policy="accept")]
    assert blocked(entries) == []
    assert blocked([*entries, rule("inet", "foreign", "forward", {"counter": {}}, REJECT)])


def test_what_asks_the_host_is_looked_at_too() -> None:
    entries = [chain("inet", "foreign", "input", hook="input", policy="drop")]
    assert blocked(entries) == [(BRIDGE, f"nft insert rule inet foreign input iifname {BRIDGE} accept")]


def test_firewalld_is_told_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(findings, "_legacy", lambda _bridges: [])
    entries = [
        table("inet", "firewalld"),
        chain("inet", "firewalld", "filter_FORWARD", hook="forward", policy="accept"),
        chain("inet", "firewalld", "filter_FORWARD_ZONES"),
        rule("inet", "firewalld", "filter_FORWARD", {"jump": {"target": "filter_FORWARD_ZONES"}}),
        rule("inet", "firewalld", "filter_FORWARD", REJECT),
    ]
    (found,) = findings.foreign(entries, [BRIDGE], ours=())
    assert found.mend
    assert found.mend.startswith("firewall-cmd --permanent --zone=trusted")
    assert found.bridge == BRIDGE
    zone = rule("inet", "firewalld", "filter_FORWARD_ZONES", meta("iifname", BRIDGE), {"goto": {"target": "trusted"}})
    assert findings.foreign([*entries, zone], [BRIDGE], ours=()) == []
