"""Whether there is anything to do, asked of the database every second, with SQL that is made once.

Making a query's SQL takes Django twenty times as long as SQLite takes to answer it; the ticker asks the same few
questions for as long as it runs, and nearly always the answer is no.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from django.db import connection
from django.db.models import Q, QuerySet

from ..core.model.states import Status
from ..models import Container, Host, Operation, Schedule, Snapshot, Trashed
from . import autostart

Question = Callable[[], bool]


def standing(rows: QuerySet[Any]) -> Question:
    """Return what asks whether a queryset, whose parameters stay the same, has a row; it raises what a query raises."""
    sql, values = rows.order_by().query.exists().sql_with_params()

    def ask() -> bool:
        with connection.cursor() as cursor:
            cursor.execute(sql, values)
            return cursor.fetchone() is not None

    return ask


@cache
def of_host(name: str) -> tuple[Question, ...]:
    """Return the questions about a host: operations, containers that have ended and have a policy, an autostart."""
    ended = Container.objects.filter(host__name=name, status=Status.STOPPED, last_exit__isnull=False)
    return (
        standing(Operation.objects.filter(host__name=name, status__in=Operation.UNFINISHED)),
        standing(ended.filter(Q(ephemeral=True) | ~Q(restart="no"))),
        standing(Host.objects.filter(name=name, **{f"facts__{autostart.FACT}__has_key": "left"})),
    )


@cache
def scheduled() -> Question:
    """Return the question whether any schedule is on."""
    return standing(Schedule.objects.filter(enabled=True))


@cache
def expiring() -> tuple[Question, ...]:
    """Return the questions about what is removed some day: the trash, containers, snapshots."""
    return (
        standing(Trashed.objects.all()),
        standing(Container.objects.filter(expires_at__isnull=False)),
        standing(Snapshot.objects.filter(expires_at__isnull=False, pinned=False)),
    )
