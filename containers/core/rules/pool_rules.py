"""Which storage pools the policy file names, whose containers may lie there, and which is the best of them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ..errors import PolicyDenied, SpecError
from ..model.limits import Limits
from ..names import check_name
from ..sentences import say
from . import grants
from . import policy_tables as toml

DEFAULT: Final = "default"
"""The state directory itself: always there, everybody's."""
BEST: Final = "best"
"""Asked for instead of a pool's name: whichever suits best."""
DRIVERS: Final = ("overlay", "btrfs", "dir", "loop")
_BEST_FIRST: Final = ("btrfs", "overlay", "dir")
_NEARLY_FULL: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolRule:
    """A directory of the host that containers may lie in. driver: one of DRIVERS. projects: whose; "*" is everybody's.

    disk_bytes: what a container gets that asks for no disk limit, where each has to have one (loop).
    """

    path: str
    driver: str = "overlay"
    projects: tuple[str, ...] = ()
    disk_bytes: int | None = None

    @property
    def sized(self) -> bool:
        """Whether every container there has a disk of a fixed size."""
        return self.driver == "loop"


def parse(tables: Any) -> dict[str, PoolRule]:
    """Return the tables below [pools]; raises SpecError for what is no name, path or driver."""
    found = {}
    for name, table in toml.table(tables, "policy.pools").items():
        where = f"policy.pools.{name}"
        check_name(name, field=where)
        if name in (DEFAULT, BEST):
            raise SpecError("There is another place of this name.", field=where)
        grants.check_path(toml.table(table, where).get("path"), f"{where}.path", device=False)
        rule = toml.build(PoolRule, table, where)
        if rule.driver not in DRIVERS:
            raise SpecError(say("Use one of %(names)s.", names=", ".join(DRIVERS)), field=f"{where}.driver")
        found[name] = rule
    return found


def check(rules: Mapping[str, PoolRule], project: str, pool: str, limits: Limits) -> None:
    """Raise PolicyDenied where a pool is not given to a project, or its containers need a disk limit."""
    check_given(rules, project, pool)
    if pool != DEFAULT and rules[pool].sized and limits.disk_bytes is None:
        raise PolicyDenied("Every container in this storage pool has a disk limit.", field="limits.disk_bytes")


def check_given(rules: Mapping[str, PoolRule], project: str, pool: str) -> None:
    """Raise PolicyDenied where a pool is not given to a project, whatever the limits are."""
    if pool == DEFAULT:
        return
    rule = rules.get(pool)
    if rule is None or not grants.given_to(rule.projects, project):
        raise PolicyDenied(
            say(
                "This host's policy gives no storage pool %(pool)s to project %(project)s.", pool=pool, project=project
            ),
            field="pool",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A pool that works, and its room."""

    name: str
    driver: str
    total_bytes: int
    free_bytes: int


def best(candidates: Sequence[Candidate]) -> str:
    """Return the name of the pool that suits best: subvolumes first, what copies everything last; then by free room.

    Never one with fixed sizes; one that is nearly full comes after all the others.
    """

    def rank(one: Candidate) -> tuple[bool, int, int, str]:
        full = one.free_bytes < one.total_bytes * _NEARLY_FULL
        return (full, _BEST_FIRST.index(one.driver), -one.free_bytes, one.name)

    return min((one for one in candidates if one.driver in _BEST_FIRST), key=rank).name
