"""What others change while the panel runs: firewalls, routes, the policy file. Looking takes some milliseconds."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import HostUnsupported, SetupFailed, SpecError
from ..host import Host
from ..lifecycle import pooling
from ..network import findings, nft, nftrun
from ..rules import policy_file
from ..sentences import say
from .check import Check, number


def checks(state_dir: Path) -> list[Check]:
    """Look at everything; as root."""
    return [*_addresses(), *_firewalls(state_dir), _policy(state_dir), *_pools(state_dir)]


def _addresses() -> Iterator[Check]:
    forwards = number(Path("/proc/sys/net/ipv4/ip_forward")) == 1
    yield Check(
        id="ip-forward",
        ok=forwards,
        level="info",
        what=f"IPv4 forwarding is {'on' if forwards else 'off; the first network switches it on'}.",
        why="Containers reach beyond this host by it.",
        mend="sysctl -w net.ipv4.ip_forward=1",
        part="network",
    )
    ipv6 = nft.host_has_ipv6()
    yield Check(
        id="ipv6",
        ok=ipv6,
        level="info",
        what=f"This host {'speaks' if ipv6 else 'does not speak'} IPv6.",
        why="Networks then have IPv6 addresses, too.",
        part="network",
    )


def _firewalls(state_dir: Path) -> Iterator[Check]:
    try:
        instance = Host.open(state_dir).instance
    except (OSError, ValueError, KeyError):
        instance = "*"
    # every bridge of the instance: those that are there, or the first that will be
    prefix = f"boxbr{instance}"
    bridges = sorted(name for _index, name in socket.if_nameindex() if name.startswith(prefix)) or [f"{prefix}0"]
    try:
        entries = nftrun.listing("ruleset")
    except HostUnsupported:
        return  # without nft the check above says so
    except SetupFailed as error:
        yield Check(
            id="firewall-unreadable",
            ok=False,
            level="recommended",
            what=error.message,
            why="Nobody can say whether another firewall cuts containers off; what is made takes longer.",
            mend="apt install nftables",
            part="network",
        )
        return
    blocked = findings.foreign(entries, bridges, ours=_boxroom_tables(entries))
    for finding in blocked:
        yield Check(
            id=finding.id,
            ok=False,
            level="recommended",
            what=finding.what,
            why=finding.why,
            mend=finding.mend or "",
            part="network",
            bridge=finding.bridge,
        )
    if not blocked:
        yield Check(
            id="forward-policy",
            ok=True,
            level="recommended",
            what="No other firewall drops what containers send.",
            why="A forward policy of drop (Docker, ufw, firewalld) would cut containers off.",
            part="network",
        )


def _policy(state_dir: Path) -> Check:
    host = Host(state_dir, "")
    problem = ""
    try:
        policy_file.load(host)
    except SpecError as error:
        problem = error.message
    there = os.path.exists(host.policy_path)
    return Check(
        id="policy",
        ok=not problem,
        level="recommended",
        what=problem or ("policy.toml is understood." if there else "There is no policy.toml: the defaults hold."),
        why="It holds for every container; while it cannot be understood none is made or started.",
        mend=say("Edit %(path)s", path=host.policy_path) if problem else "",
        part="policy",
    )


def _pools(state_dir: Path) -> Iterator[Check]:
    try:
        host = Host.open(state_dir)
        rules = policy_file.load(host).pools
    except (OSError, ValueError, KeyError, SpecError):
        return
    for one in pooling.seen(host, rules):
        if one.name in rules:
            yield Check(
                id=f"pool-{one.name}",
                ok=not one.problem,
                level="recommended",
                what=one.problem
                or say(
                    "The storage pool %(name)s works, with the driver %(driver)s.", name=one.name, driver=one.driver
                ),
                why="No container can be made in a pool that does not work, and none in it starts.",
                mend="" if not one.problem else say("Mount its file system, or edit %(path)s", path=host.policy_path),
                part="policy",
            )


def _boxroom_tables(entries: list[dict[str, Any]]) -> set[str]:
    names = {entry["table"]["name"] for entry in entries if "table" in entry}
    return {name for name in names if name.startswith("boxroom_")}
