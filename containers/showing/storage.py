"""What the host's storage holds, and who of it: for the page and the API."""

from __future__ import annotations

from typing import Any, Final

from django.db.models import Count, QuerySet, Sum

from panel.accounts import services
from panel.accounts.models import User

from ..asking import pools
from ..clients import room
from ..models import Container, Host, Image, Trashed
from .sentences import of_finding

DRIVER: Final = "overlay"
ABILITIES: Final = ("overlay", "btrfs", "disk-limits", "disk-growth")
"""The doctor's findings that are about what the storage can do."""


def overview(user: User, host: Host) -> dict[str, Any]:
    """Return the storage as somebody may see it: what is not visible to him is in no sum and no list.

    Of a container that was never measured own_bytes is null; its snapshots are counted with what each takes by itself.
    Raises TickerUnavailable.
    """
    found = room.measured()
    users = [_user(row, found.containers) for row in _containers(user, host)]
    users.sort(key=lambda one: (-one["bytes"], one["name"]))
    return {
        "driver": DRIVER,
        "filesystem": found.kind,
        "total_bytes": found.total_bytes,
        "used_bytes": found.used_bytes,
        "free_bytes": found.free_bytes,
        "inodes": found.inodes,
        "inodes_free": found.inodes_free,
        "images_bytes": _sum(Image.objects.visible_to(user).filter(host=host)),
        "containers_bytes": sum(one["own_bytes"] or 0 for one in users),
        "snapshots_bytes": sum(one["snapshots_bytes"] for one in users),
        "trash_bytes": _sum(Trashed.objects.visible_to(user).filter(host=host)),
        "pools": _pools(user, host, found.pools, users),
        "abilities": [_ability(finding) for finding in _findings(host)],
        "containers": users,
    }


def _containers(user: User, host: Host) -> list[dict[str, Any]]:
    rows: QuerySet[Container] = Container.objects.visible_to(user).filter(host=host)
    counted = rows.annotate(points=Count("snapshots"), points_bytes=Sum("snapshots__size_bytes"))
    columns = ("pk", "name", "project__name", "pool", "limits", "points", "points_bytes")
    return [dict(row) for row in counted.order_by().values(*columns)]


def _user(row: dict[str, Any], measured: dict[str, int]) -> dict[str, Any]:
    own, points = measured.get(row["pk"]), row["points_bytes"] or 0
    return {
        "name": row["name"],
        "project": row["project__name"],
        "pool": row["pool"],
        "own_bytes": own,
        "limit_bytes": row["limits"].get("disk_bytes"),
        "snapshots": row["points"],
        "snapshots_bytes": points,
        "bytes": (own or 0) + points,
    }


def _pools(user: User, host: Host, measured: list[dict[str, Any]], users: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the pools that he may use, or all of them to who administers the host, with what his containers hold."""
    projects = list(services.visible_projects(user).values_list("name", flat=True))
    own = set(pools.names(host, projects))
    found = []
    for one in measured:
        if one["name"] not in own and not user.host_admin:
            continue
        there = one["room"] or {}
        mine = [row for row in users if row["pool"] == one["name"]]
        found.append(
            {
                "name": one["name"],
                "driver": one["driver"],
                "filesystem": there.get("kind", ""),
                "total_bytes": there.get("total_bytes"),
                "used_bytes": there.get("used_bytes"),
                "free_bytes": there.get("free_bytes"),
                "ok": not one["problem"],
                "problem": one["problem"],
                "containers": len(mine),
                "containers_bytes": sum(row["bytes"] for row in mine),
            }
        )
    return found


def _sum(rows: QuerySet[Any]) -> int:
    return int(rows.aggregate(total=Sum("size_bytes"))["total"] or 0)


def _findings(host: Host) -> list[dict[str, Any]]:
    found = {item.get("id"): item for item in host.facts.get("doctor") or [] if isinstance(item, dict)}
    return [found[name] for name in ABILITIES if name in found]


def _ability(finding: dict[str, Any]) -> dict[str, Any]:
    words = {key: of_finding(finding, key) for key in ("what", "why", "mend")}
    return {"id": str(finding.get("id") or ""), **words, "ok": bool(finding.get("ok"))}
