"""/audit: who did what, when, from where, and how it ended."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any
from uuid import UUID

from django.db.models import QuerySet
from django.http import HttpRequest
from ninja import Query, Router
from pydantic import BaseModel, ConfigDict

from containers.asking import access
from containers.clients import audit_seal
from containers.core.sentences import Sentence
from containers.showing import present
from panel.accounts import audit
from panel.accounts.addresses import valid_ip
from panel.accounts.models import AuditRecord

from . import lists
from .auth import actor
from .lists import Filter, PageQuery

router = Router(tags=["audit"])


class AuditFilters(BaseModel):
    """Which records. action: the whole word, or its beginning up to a dot. since, until: RFC 3339."""

    model_config = ConfigDict(frozen=True)

    at: dt.datetime | None = None
    since: dt.datetime | None = None
    until: dt.datetime | None = None
    actor: Filter = None
    action: Filter = None
    object: Filter = None
    project: Filter = None
    source_ip: Filter = None
    outcome: Filter = None
    operation: UUID | None = None

    def apply(self, rows: QuerySet[AuditRecord]) -> QuerySet[AuditRecord]:
        """Return the records that fit."""
        since, until = self.since, self.until
        if self.at is not None:  # as it is told: to the millisecond
            since = self.at.replace(microsecond=self.at.microsecond // 1000 * 1000)
            until = since + dt.timedelta(milliseconds=1)
        columns = {
            "at__gte": since,
            "at__lt": until,
            "actor_name": self.actor,
            "object_name": self.object,
            "project": self.project,
            "outcome": self.outcome,
            "operation_id": self.operation,
        }
        rows = rows.filter(**{column: value for column, value in columns.items() if value is not None})
        if self.action is not None:
            exact = rows.filter(action=self.action)
            rows = exact | rows.filter(action__startswith=f"{self.action}.")
        if self.source_ip is not None:
            address = valid_ip(self.source_ip)
            rows = rows.filter(source_ip=address) if address else rows.none()
        return rows


@router.get("/audit/seal", summary="Whether the audit trail is as it was sealed")
def get_seal(request: HttpRequest) -> dict[str, Any]:
    """What the last check of the chain found; `at` is null before the first one. Host administrators only."""
    access.require_host_admin(actor(request), "audit", "seal")
    found = audit_seal.state()
    if found is None:
        return {"at": None, "intact": None, "links": 0, "waiting": 0, "problems": []}
    problems = [str(Sentence(**problem)) for problem in found.problems]
    at = present.time(found.at)
    return {"at": at, "intact": found.intact, "links": found.links, "waiting": found.waiting, "problems": problems}


@router.get("/audit", summary="The audit trail")
def list_records(request: HttpRequest, page: PageQuery, filters: Annotated[AuditFilters, Query()]) -> dict[str, Any]:
    """All records for host administrators; else those of projects that the caller administers, and his own."""
    rows = filters.apply(audit.visible_to(actor(request).user))
    return lists.answer(request, rows, page, present.audit_record, order=("-at", "pk"))
