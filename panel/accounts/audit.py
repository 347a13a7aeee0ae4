"""The audit trail: who did what, when, from where, and how it ended."""

from __future__ import annotations

import logging
from typing import Any, Protocol
from uuid import UUID

from django.db.models import Q, QuerySet

from containers.rights.permissions import roles_that_may

from .models import AuditRecord, Project, User

Outcome = AuditRecord.Outcome
SYSTEM_NAME = "system"

log = logging.getLogger(__name__)


class Who(Protocol):
    """What the trail needs to know of an actor."""

    @property
    def user(self) -> User: ...

    @property
    def source_ip(self) -> str | None: ...


def record(
    actor: Who | None,
    action: str,
    object_type: str,
    object_name: str,
    *,
    project: str = "",
    outcome: str = Outcome.SUCCEEDED,
    operation: UUID | None = None,
    detail: dict[str, Any] | None = None,
) -> AuditRecord:
    """Add a record; actor None is the system itself. outcome PENDING is closed later, by the operation's end."""
    user = actor.user if actor else None
    return AuditRecord.objects.create(
        actor=user,
        actor_name=user.username if user else SYSTEM_NAME,
        action=action,
        object_type=object_type,
        object_name=printable(object_name)[:255],
        project=project,
        source_ip=actor.source_ip if actor else None,
        outcome=outcome,
        operation_id=operation,
        detail=detail or {},
    )


def record_attempt(
    action: str, object_name: str, *, source_ip: str | None, outcome: str, detail: dict[str, Any] | None = None
) -> AuditRecord:
    """Add a record of somebody who is not signed in (yet): a sign-in, a link."""
    user = User.objects.filter(username=object_name).first()
    return AuditRecord.objects.create(
        actor=user if outcome == Outcome.SUCCEEDED else None,
        actor_name=object_name if user and outcome == Outcome.SUCCEEDED else "",
        action=action,
        object_type="user",
        object_name=printable(object_name)[:255],
        source_ip=source_ip,
        outcome=outcome,
        detail=detail or {},
    )


def close(operation: UUID, outcome: str, detail: dict[str, Any] | None = None) -> None:
    """Close the pending records of an operation; closing twice changes nothing."""
    for row in AuditRecord.objects.filter(operation_id=operation, outcome=Outcome.PENDING):
        end(row, outcome, detail or {})


def end(row: AuditRecord, outcome: str, detail: dict[str, Any]) -> None:
    """Close a pending record."""
    row.outcome = outcome
    row.detail = {**row.detail, **detail}
    row.sealed = False
    row.save(update_fields=["outcome", "detail", "sealed"])


def printable(text: str) -> str:
    """Return text with control and direction character written as \\x.. or \\u...., so that no reader is fooled."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def visible_to(user: User) -> QuerySet[AuditRecord]:
    """Return the records that user may read: all, or those of projects that he administers, and his own."""
    rows = AuditRecord.objects.all()
    if user.host_admin:
        return rows
    administered = Project.objects.filter(memberships__user=user, memberships__role__in=roles_that_may("audit"))
    return rows.filter(Q(actor=user) | Q(project__in=administered.values("name")))
