"""The audit trail: who did what, when, from where, and how it ended; as a page, and as a table to keep."""

from __future__ import annotations

import csv
import datetime as dt
from typing import Any, Final

from django.core.paginator import Paginator
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.utils.dateparse import parse_date

from containers.clients import audit_seal
from containers.clients.ticker_client import TickerUnavailable
from containers.showing import sentences, words
from panel.accounts.audit import visible_to
from panel.accounts.models import AuditRecord, User
from panel.pages.web import page, user_of

PER_PAGE: Final = 50
MOST_ROWS: Final = 20_000
"""How many records a table has at most, the newest ones; the API gives all of them, in pages."""
FILTERS: Final = ("actor", "action", "object_name", "project", "outcome", "since", "until")
_HEAD: Final = ("at", "actor", "action", "object_type", "object", "project", "source_ip", "outcome", "operation")
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the beginning of a formula (OWASP, CSV Injection)."""


@page
def audit(request: HttpRequest) -> HttpResponse:
    """Show the records: one's own, and of the projects that one administers."""
    user = user_of(request)
    query = _query(request)
    mine = visible_to(user)
    actions = set(mine.order_by().values_list("action", flat=True).distinct())
    context = {
        "page": Paginator(_fitting(mine, query).order_by("-at"), PER_PAGE).get_page(request.GET.get("page")),
        "query": query,
        "filtered": any(value for name, value in query.items() if name != "project"),
        "actions": sorted((words.audit_action(action), action) for action in actions),
        "outcomes": AuditRecord.Outcome.choices,
        "seal": _seal(user),
        "most": MOST_ROWS,
    }
    return render(request, "pages/audit.html", context)


@page
def table(request: HttpRequest) -> HttpResponse:
    """Answer with the records that fit the same filters as a CSV file (RFC 4180), the newest MOST_ROWS of them."""
    rows = _fitting(visible_to(user_of(request)), _query(request)).order_by("-at", "pk")[:MOST_ROWS]
    answer = HttpResponse(content_type="text/csv; charset=utf-8")
    answer["Content-Disposition"] = f'attachment; filename="audit-{timezone.now():%Y%m%dT%H%M%SZ}.csv"'
    answer["Cache-Control"] = "private, no-store"
    writer = csv.writer(answer)
    writer.writerow(_HEAD)
    fields = ("at", "actor_name", "action", "object_type", "object_name", "project", "source_ip", "outcome")
    for at, *texts in rows.values_list(*fields, "operation_id").iterator(chunk_size=2000):
        writer.writerow([at.isoformat(timespec="milliseconds").replace("+00:00", "Z"), *map(_cell, texts)])
    return answer


def _cell(value: Any) -> str:
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _query(request: HttpRequest) -> dict[str, str]:
    return {name: request.GET.get(name, "").strip().replace("\0", "")[:100] for name in FILTERS}


def _fitting(rows: QuerySet[AuditRecord], query: dict[str, str]) -> QuerySet[AuditRecord]:
    """Return the records that fit; of an action those below it too, and days are the host's. What is no day counts
    for nothing."""
    columns = {
        "actor_name__icontains": query["actor"],
        "object_name__icontains": query["object_name"],
        "project": query["project"],
        "outcome": query["outcome"],
        "at__gte": _midnight(query["since"]),
        "at__lt": _midnight(query["until"], days=1),
    }
    rows = rows.filter(**{column: value for column, value in columns.items() if value})
    if action := query["action"]:
        rows = rows.filter(Q(action=action) | Q(action__startswith=f"{action}."))
    return rows


def _midnight(text: str, *, days: int = 0) -> dt.datetime | None:
    """Return when a day (YYYY-MM-DD) begins, or so many days after it; None for what is none."""
    try:
        day = parse_date(text)
        return timezone.make_aware(dt.datetime.combine(day + dt.timedelta(days), dt.time.min)) if day else None
    except (ValueError, OverflowError):
        return None


def _seal(user: User) -> dict[str, Any]:
    """Return whether the trail is as it was sealed; what is wrong with it is for host administrators."""
    try:
        found = audit_seal.state()
    except TickerUnavailable:
        return {"known": False}
    if found is None:
        return {"known": False}
    problems = [sentences.from_json(problem) for problem in found.problems] if user.host_admin else []
    return {"known": True, "found": found, "problems": problems}
