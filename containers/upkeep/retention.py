"""What the panel forgets, and when: rows that would otherwise grow for ever. Called once an hour by the ticker.

Audit records are kept longest, unfinished operations and pending records until they have ended. Rows go a thousand at a
time, so that nobody waits long for a database that is being swept.
"""

from __future__ import annotations

import datetime as dt
import logging
from typing import Any, Final

from django.contrib.sessions.models import Session
from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from panel.accounts.models import AuditRecord, SignInLink

from ..models import Event, Operation
from .clocks import DOUBT_SEC, Clocks, SteadyClock, present
from .sealing import Chain

AUDIT: Final = dt.timedelta(days=2 * 365)
EVENTS: Final = dt.timedelta(days=365)
OPERATIONS: Final = dt.timedelta(days=365)
LOGS: Final = dt.timedelta(days=30)
"""After this an operation keeps its outcome, and its log is emptied."""
LINKS: Final = dt.timedelta(days=30)
CHUNK: Final = 1000
START: Final = dt.timedelta(minutes=10)
IDLE: Final = dt.timedelta(days=30)

log = logging.getLogger(__name__)


class Sweeper:
    """Calls sweep(), but not while the clock may be wrong: what is removed does not come back.

    A clock that was set is believed after it has run on for a day (SteadyClock). So is one that at the first call is
    far from all that was written before.
    """

    def __init__(self, chain: Chain, clocks: Clocks | None = None, *, steady: SteadyClock | None = None) -> None:
        """chain: of the audit trail. clocks: for tests. steady: one that somebody else looks at, too."""
        self._chain = chain
        self._clocks = clocks or present
        self._steady = steady or SteadyClock(self._clocks)
        self._believed_at: float | None = None

    def __call__(self) -> int:
        """Remove what is older than it is kept, unless the clock may be wrong; return how many rows."""
        now, ticks = self._clocks()
        if self._believed_at is None:
            strange = _is_strange(now)
            self._believed_at = ticks + DOUBT_SEC if strange else ticks
            if strange:
                log.warning("the clock may have been set: nothing old is removed for a day")
        believed = self._steady()
        return sweep(self._chain, now) if believed and ticks >= self._believed_at else 0


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
