"""The most that one project may have on a host, summed over its containers. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import PolicyDenied
from ..model.spec import Spec
from ..sentences import say
from ..units import format_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceilings:
    """The most that one project may have; None means no ceiling.

    memory_bytes, cpus and disk_bytes are sums over the limits of the project's containers; a container without that
    limit is then refused, because it could use any amount. Snapshots are in no container's disk_bytes.
    """

    containers: int | None = None
    memory_bytes: int | None = None
    cpus: float | None = None
    disk_bytes: int | None = None


def check(ceilings: Ceilings, spec: Spec, others: Iterable[Spec]) -> None:
    """Raise PolicyDenied naming the field where a project would have more with spec; others: as of policy.check."""
    same = [other for other in others if other.project == spec.project and other.id != spec.id]
    if ceilings.containers is not None and len(same) + 1 > ceilings.containers:
        raise PolicyDenied(
            say(
                "Project %(project)s may have %(most)s containers.",
                project=spec.project,
                most=ceilings.containers,
            ),
            field="project",
            ceiling=ceilings.containers,
        )
    for name in ("memory_bytes", "cpus", "disk_bytes"):
        ceiling = getattr(ceilings, name)
        if ceiling is None:
            continue
        own = getattr(spec.limits, name)
        if own is None:
            raise PolicyDenied(
                say(
                    "The policy limits what project %(project)s may have in all: give the container a limit, too.",
                    project=spec.project,
                ),
                field=f"limits.{name}",
                ceiling=ceiling,
            )
        used = sum(getattr(other.limits, name) or 0 for other in same)
        if used + own > ceiling:
            left = max(ceiling - used, 0)
            told = [format_bytes(one) if name.endswith("_bytes") else f"{one:g}" for one in (ceiling, left)]
            raise PolicyDenied(
                say(
                    "Project %(project)s may have %(most)s in all; %(left)s are left.",
                    project=spec.project,
                    most=told[0],
                    left=told[1],
                ),
                field=f"limits.{name}",
                ceiling=ceiling,
                left=left,
            )
