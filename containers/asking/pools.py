"""Storage pools: which there are for whom, and the checks of what is asked for.

Whatever is here comes from the host's policy as its worker last told it. Root's worker looks again, at the policy
itself; and where a pool lies is told to nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core.errors import SpecError
from ..core.model.limits import Limits
from ..core.model.spec import build
from ..core.names import check_name
from ..core.rules import pool_rules
from ..core.rules.grants import given_to
from ..core.rules.pool_rules import BEST, DEFAULT, PoolRule
from ..models import Host
from .told import policy_of

_UNTOLD = "/untold"


def rules(host: Host) -> dict[str, PoolRule]:
    """Return the host's pools beside the default one, by name; their paths are not told."""
    told: Mapping[str, Any] = host.facts.get("policy", {}).get("pools", {})
    return {
        name: PoolRule(
            path=_UNTOLD, driver=one["driver"], projects=tuple(one["projects"]), disk_bytes=one["disk_bytes"]
        )
        for name, one in told.items()
    }


def names(host: Host, projects: list[str]) -> list[str]:
    """Return the pools that containers of any of these projects may lie in, the default one first."""
    found = rules(host).items()
    return [DEFAULT, *sorted(n for n, one in found if any(given_to(one.projects, project) for project in projects))]


def check(host: Host, project: str, pool: str, limits: Mapping[str, Any]) -> dict[str, Any]:
    """Return the limits of a container that is to lie in a pool: with a disk's size where it has to have one.

    Raises SpecError or PolicyDenied naming the field.
    """
    check_name(pool, field="pool")
    if pool == BEST:
        return dict(limits)
    known = rules(host)
    wanted = dict(limits)
    rule = known.get(pool)
    if rule is not None and rule.sized and wanted.get("disk_bytes") is None and given_to(rule.projects, project):
        if rule.disk_bytes is None:
            raise SpecError("Give a size: every container in this storage pool has a disk.", field="limits.disk_bytes")
        if not host.facts.get("disk_limits"):
            raise SpecError(
                "This host cannot hold a container to a size; its doctor says why.", field="limits.disk_bytes"
            )
        wanted["disk_bytes"] = rule.disk_bytes
    with policy_of(host):
        pool_rules.check(known, project, pool, build(Limits, wanted, "limits"))
    return wanted


def check_given(host: Host, project: str, pool: str) -> None:
    """Check a pool for a container whose limits are not known yet; raises SpecError, PolicyDenied (field ``pool``)."""
    check_name(pool, field="pool")
    if pool != BEST:
        with policy_of(host):
            pool_rules.check_given(rules(host), project, pool)


def offered(host: Host, projects: list[str]) -> list[str]:
    """Return what a form offers that makes containers of any of these projects: nothing where there is no choice."""
    found = names(host, projects)
    return [*found, BEST] if len(found) > 1 else []


def check_limits(host: Host, pool: str, limits: Mapping[str, Any]) -> None:
    """Raise SpecError where a container in that pool would have no disk limit any more, and has to have one."""
    rule = rules(host).get(pool)
    if rule is not None and rule.sized and limits.get("disk_bytes") is None:
        raise SpecError("Every container in this storage pool has a disk limit.", field="limits.disk_bytes")
