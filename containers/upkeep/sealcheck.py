"""Whether the audit trail is as it was sealed: follows the chain, and compares every record with its links."""

from __future__ import annotations

import datetime as dt
import hmac
import time
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from django.utils import timezone

from panel.accounts.models import AuditRecord, AuditSeal

from ..core.sentences import as_json, say
from .auditlinks import Anchor, ChainFile, NoKey, content_of, digest_of, state_of

BATCH: Final = 500
PROBLEMS_MAX: Final = 20
"""So many problems are named; a chain with more is no better."""
_PENDING: Final = AuditRecord.Outcome.PENDING


@dataclass
class Report:
    """What check() found. links: how many were followed. waiting: records not sealed yet. problems: sentences."""

    at: dt.datetime
    links: int = 0
    waiting: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def intact(self) -> bool:
        """Whether every record is as it was sealed."""
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "at": self.at.isoformat(),
            "intact": self.intact,
            "links": self.links,
            "waiting": self.waiting,
            "problems": [as_json(problem) for problem in self.problems],
        }


def check(chain: ChainFile, *, pause_sec: float = 0.0) -> Report:
    """Follow the whole chain, and compare every record with its links. Reads all rows; nothing is changed.

    pause_sec: after each BATCH of links, for whoever has time and would not take it from others.
    """
    report = Report(timezone.now())
    with chain.locked():
        try:
            anchor = chain.read()
        except NoKey:
            _add(report, say("The key of the chain is gone: %(file)s is not there.", file=chain.path.name))
            return report
        _compare_ends(_follow(anchor, report, pause_sec), report)
        strangers = AuditRecord.objects.filter(sealed=True).exclude(pk__in=AuditSeal.objects.values("record_id"))
        for row in strangers[:PROBLEMS_MAX]:
            _add(report, say("The record of %(at)s (%(action)s) was put in without a link.", **_names(row)))
        report.waiting = AuditRecord.objects.filter(sealed=False).count()
    return report


def _follow(anchor: Anchor, report: Report, pause_sec: float) -> set[UUID]:
    """Check every link and its record; return the records that were pending and have no link for their end."""
    seq, digest = anchor.pruned
    ended: set[UUID] = set()
    while links := list(AuditSeal.objects.filter(seq__gt=seq).order_by("seq")[:BATCH]):
        rows = AuditRecord.objects.in_bulk([link.record_id for link in links])
        for link in links:
            if link.seq != seq + 1:
                missing = link.seq - seq - 1
                _add(report, say("%(n)s links are missing after number %(seq)s.", n=missing, seq=seq))
            elif not hmac.compare_digest(link.digest, digest_of(anchor.key, digest, link)):
                _add(report, say("Link number %(seq)s was changed.", seq=link.seq))
            if link.seq == anchor.head[0] and link.digest != anchor.head[1]:
                _add(report, say("Link number %(seq)s is not the one that was made last.", seq=link.seq))
            seq, digest = link.seq, link.digest
            report.links += 1
            _compare(link, rows.get(link.record_id), ended, report)
        time.sleep(pause_sec)
    if seq < anchor.head[0]:
        _add(report, say("The last %(n)s links are missing.", n=anchor.head[0] - seq))
    return ended


def _compare_ends(ended: set[UUID], report: Report) -> None:
    """What was sealed pending and has ended without another link is right only while it waits for one."""
    waiting = list(ended)
    for start in range(0, len(waiting), BATCH):
        chosen = waiting[start : start + BATCH]
        for row in AuditRecord.objects.filter(pk__in=chosen, sealed=True):
            _add(report, say("The record of %(at)s (%(action)s) was ended without a link.", **_names(row)))


def _compare(link: AuditSeal, row: AuditRecord | None, ended: set[UUID], report: Report) -> None:
    """Compare a link with its record."""
    if row is None:
        _add(report, say("The record of link number %(seq)s was removed.", seq=link.seq))
        return
    ended.discard(row.pk)
    if link.content != content_of(row):
        _add(report, say("The record of %(at)s (%(action)s) was changed.", **_names(row)))
    elif link.state != state_of(row):
        if link.pending and row.outcome != _PENDING:
            ended.add(row.pk)  # right if there is another link, or will be
        else:
            _add(report, say("How the record of %(at)s (%(action)s) ended was changed.", **_names(row)))


def _names(row: AuditRecord) -> dict[str, str]:
    return {"at": f"{row.at:%Y-%m-%d %H:%M:%S}", "action": row.action}


def _add(report: Report, problem: str) -> None:
    if len(report.problems) < PROBLEMS_MAX:
        report.problems.append(problem)
