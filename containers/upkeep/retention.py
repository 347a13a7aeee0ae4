"""What the panel forgets, and when: rows that would otherwise grow for ever. Called once an hour by the ticker.

Audit records are kept longest, unfinished operations and pending records until they have ended. Rows go a thousand at a
time, so that nobody waits long for a database that is being swept.
"""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections.abc import Callable
from typing import Any, Final

from django.contrib.sessions.models import Session
from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from panel.accounts.models import AuditRecord, SignInLink

from ..models import Event, Operation
from .sealing import Chain

AUDIT: Final = dt.timedelta(days=2 * 365)
EVENTS: Final = dt.timedelta(days=365)
OPERATIONS: Final = dt.timedelta(days=365)
LOGS: Final = dt.timedelta(days=30)
"""After this an operation keeps its outcome, and its log is emptied."""
LINKS: Final = dt.timedelta(days=30)
CHUNK: Final = 1000
STEP_SEC: Final = 60.0
DOUBT_SEC: Final = 86400.0
START: Final = dt.timedelta(minutes=10)
IDLE: Final = dt.timedelta(days=30)

log = logging.getLogger(__name__)


class Sweeper:
    """Calls sweep(), but not while the clock may be wrong: what is removed does not come back.

    A clock that was set, by more than NTP ever does at once, is believed after it has run on for a day. So is one that
    at the first call is far from all that was written before.
    """

    def __init__(self, chain: Chain, clocks: Callable[[], tuple[dt.datetime, float]] | None = None) -> None:
        """chain: of the audit trail. clocks: gives the time, and seconds of a clock that nobody sets; for tests."""
        self._chain = chain
        self._clocks = clocks or (lambda: (timezone.now(), time.clock_gettime(time.CLOCK_BOOTTIME)))
        self._ahead_sec: float | None = None
        self._believed_at = float("-inf")

    def __call__(self) -> int:
        """Remove what is older than it is kept, unless the clock may be wrong; return how many rows."""
        now, ticks = self._clocks()
        ahead_sec = now.timestamp() - ticks
        doubtful = _is_strange(now) if self._ahead_sec is None else abs(ahead_sec - self._ahead_sec) > STEP_SEC
        self._ahead_sec = ahead_sec
        if doubtful:
            self._believed_at = ticks + DOUBT_SEC
            log.warning("the clock may have been set: nothing old is removed for a day")
        return sweep(self._chain, now) if ticks >= self._believed_at else 0


def _is_strange(now: dt.datetime) -> bool:
    """Whether there are old records and none of the last weeks, but for those that this very start has made."""
    records = AuditRecord.objects.filter(at__lt=now - START)
    return records.exists() and not records.filter(at__gt=now - IDLE).exists()


def sweep(chain: Chain, now: dt.datetime | None = None) -> int:
    """Remove what is older than it is kept; return how many rows. Twice at once, or one after the other, is once."""
    now = now or timezone.now()
    old: tuple[QuerySet[Any], ...] = (
        Session.objects.filter(expire_date__lt=now),
        SignInLink.objects.filter(expires_at__lt=now - LINKS),
        Event.objects.filter(at__lt=now - EVENTS),
        Operation.objects.filter(created_at__lt=now - OPERATIONS).exclude(status__in=Operation.UNFINISHED),
    )
    emptied = Operation.objects.filter(~Q(log=""), finished_at__lt=now - LOGS).update(log="")
    return emptied + sum(_remove(rows) for rows in old) + chain.prune(now - AUDIT)


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
