"""What the panel forgets, and when: rows that would otherwise grow for ever. Called once an hour by the ticker.

Audit records are kept longest, unfinished operations and pending records until they have ended. Rows go a thousand at a
time, so that nobody waits long for a database that is being swept.
"""

from __future__ import annotations

import datetime as dt
from typing import Any, Final

from django.contrib.sessions.models import Session
from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from panel.accounts.models import AuditRecord, SignInLink

from ..models import Event, Operation

AUDIT: Final = dt.timedelta(days=2 * 365)
EVENTS: Final = dt.timedelta(days=365)
OPERATIONS: Final = dt.timedelta(days=365)
LOGS: Final = dt.timedelta(days=30)
"""After this an operation keeps its outcome, and its log is emptied."""
LINKS: Final = dt.timedelta(days=30)
CHUNK: Final = 1000


def sweep(now: dt.datetime | None = None) -> int:
    """Remove what is older than it is kept; return how many rows. Twice at once, or one after the other, is once."""
    now = now or timezone.now()
    old: tuple[QuerySet[Any], ...] = (
        Session.objects.filter(expire_date__lt=now),
        SignInLink.objects.filter(expires_at__lt=now - LINKS),
        Event.objects.filter(at__lt=now - EVENTS),
        Operation.objects.filter(created_at__lt=now - OPERATIONS).exclude(status__in=Operation.UNFINISHED),
        AuditRecord.objects.filter(at__lt=now - AUDIT).exclude(outcome=AuditRecord.Outcome.PENDING),
    )
    emptied = Operation.objects.filter(~Q(log=""), finished_at__lt=now - LOGS).update(log="")
    return emptied + sum(_remove(rows) for rows in old)


def _remove(rows: QuerySet[Any]) -> int:
    """Delete rows, a chunk in each transaction; return how many."""
    removed = 0
    while True:
        with transaction.atomic():
            chunk = list(rows.order_by("pk").values_list("pk", flat=True)[:CHUNK])
            rows.model._default_manager.filter(pk__in=chunk).delete()
        removed += len(chunk)
        if len(chunk) < CHUNK:
            return removed
