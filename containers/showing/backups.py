"""Backups as a table shows them: each with what the viewer may do with it, and what is being done."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from panel.accounts.models import Project, User

from ..models import Backup, Operation
from ..rights.permissions import roles_that_may

SHOWN: Final = 500
"""So many of the newest are on one page."""


def may(user: User, action: str) -> set[str]:
    """Return the projects in which somebody may do something."""
    if user.host_admin:
        return set(Project.objects.values_list("name", flat=True))
    rows = user.memberships.filter(role__in=roles_that_may(action))
    return set(rows.values_list("project__name", flat=True))


def rows_of(user: User, rows: Iterable[Backup]) -> list[dict[str, Any]]:
    """Return backups as the table takes them: each with what the viewer may do, and what is being done."""
    allowed = {action: may(user, f"backup-{action}") for action in ("verify", "download", "delete")}
    waiting = Operation.objects.filter(status__in=Operation.UNFINISHED, action__startswith="backup-")
    busy = {operation.arguments.get("backup"): operation for operation in waiting}
    imports = bool(may(user, "backup-import"))
    return [
        {
            "row": row,
            "operation": busy.get(row.pk),
            "imports": imports,
            **{
                action: user.host_admin or (row.project is not None and row.project.name in projects)
                for action, projects in allowed.items()
            },
        }
        for row in rows
    ]


def making(user: User, name: str = "") -> list[Operation]:
    """Return the backups that are being written."""
    rows = Operation.objects.visible_to(user).filter(status__in=Operation.UNFINISHED, action="backup-export")
    return list(rows.filter(object_name=name) if name else rows)
