"""The audit trail's chain: each link's digest covers a record and the link before it, under a key that root alone has.

The web and the worker only write records. The ticker seals what is new, every few seconds, so nobody who clicks waits
for it and no transaction holds a lock for the chain's sake; there is one sealer at a time (a lock of the file system),
whatever the database. Whoever can write the database, the web's process included, cannot make a link.

A record that was pending when it was sealed gets a second link when it has ended. Any other change of a sealed record,
its removal, one put in between, and a tail that was cut off are found by check(). The file beside the database keeps
the key, the last link (so that the tail cannot be cut off) and the link up to which old records were forgotten (so that
a pruned chain still begins where it should).
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hmac
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final
from uuid import UUID

from django.db import connection, transaction
from django.db.models import Max

from panel.accounts import audit
from panel.accounts.models import AuditRecord, AuditSeal

from . import sealcheck
from .auditlinks import Anchor, ChainFile, content_of, digest_of, state_of

BATCH: Final = 500
_PENDING: Final = AuditRecord.Outcome.PENDING


class Chain:
    """The chain of one instance. path: its file, which only root may read."""

    def __init__(self, path: Path) -> None:
        self._file = ChainFile(path)

    def check(self, *, pause_sec: float = 0.0) -> sealcheck.Report:
        """Follow the whole chain; see sealcheck."""
        return sealcheck.check(self._file, pause_sec=pause_sec)

    # -- making links ------------------------------------------------------------------------------------------------

    def seal(self) -> int:
        """Seal what was added or has ended since; return how many records. Raises NoKey, OSError."""
        if not AuditRecord.objects.filter(sealed=False).exists():
            return 0
        sealed = 0
        with self._file.locked(), _durable():
            anchor = self._file.read()
            self._file.write(anchor)  # a new key is kept before anything is sealed with it
            while batch := list(AuditRecord.objects.filter(sealed=False).order_by("at", "pk")[:BATCH]):
                self._seal(anchor, batch)
                sealed += len(batch)
        return sealed

    def _seal(self, anchor: Anchor, batch: list[AuditRecord]) -> None:
        """Add the links of some records, in one transaction, and then move the head."""
        last = _last_links([row.pk for row in batch])
        with transaction.atomic():
            seq, digest = self._end(anchor)
            links = []
            for row in batch:
                before = last.get(row.pk)
                content, state = content_of(row), state_of(row)
                if before is not None and not (before.pending and before.content == content):
                    continue  # a sealed record was changed: it gets no link, and check() says so
                link = AuditSeal(
                    seq=seq + 1, record_id=row.pk, pending=row.outcome == _PENDING, content=content, state=state
                )
                link.digest = digest_of(anchor.key, digest, link)
                seq, digest = link.seq, link.digest
                links.append(link)
            AuditSeal.objects.bulk_create(links)
            for outcome in {row.outcome for row in batch}:
                pks = [row.pk for row in batch if row.outcome == outcome]
                # what ended meanwhile is left for the next round
                AuditRecord.objects.filter(pk__in=pks, outcome=outcome).update(sealed=True)
        anchor.head = seq, digest
        self._file.write(anchor)

    def _end(self, anchor: Anchor) -> tuple[int, str]:
        """Return the link to go on from: the head, or what a sealer that died had added after it."""
        seq, digest = anchor.head
        for link in AuditSeal.objects.filter(seq__gt=seq).order_by("seq"):
            if link.seq != seq + 1 or not hmac.compare_digest(link.digest, digest_of(anchor.key, digest, link)):
                AuditSeal.objects.filter(seq__gte=link.seq).delete()  # nobody who has the key made it
                break
            seq, digest = link.seq, link.digest
        return seq, digest

    # -- forgetting --------------------------------------------------------------------------------------------------

    def prune(self, before: dt.datetime) -> int:
        """Remove records older than that, with the beginning of the chain; return how many.

        What is pending, and what is not sealed yet, stays; so does whatever was sealed after a younger record. Where
        somebody else has the chain, nothing is removed this time.
        """
        removed = 0
        while True:
            try:
                with self._file.locked(wait=False):
                    step = self._prune(before)
            except BlockingIOError:
                return removed
            if step is None:
                return removed
            removed += step

    def _prune(self, before: dt.datetime) -> int | None:
        """Forget the oldest links as far as their records are old; return how many records, None where none is."""
        anchor = self._file.read()
        _forget(anchor.pruned[0])  # what a pruner that died had left
        links = list(AuditSeal.objects.order_by("seq")[:BATCH])
        rows = AuditRecord.objects.in_bulk([link.record_id for link in links])
        end = None
        for link in links:
            row = rows.get(link.record_id)
            if row is not None and row.at >= before:
                break
            if row is not None:
                end = link
        if end is None:
            return None
        anchor.pruned = end.seq, end.digest
        self._file.write(anchor)  # first: what the chain does not begin with any more is as good as gone
        return _forget(end.seq)

    def begin_anew(self, actor: str = audit.SYSTEM_NAME) -> None:
        """Begin another chain over what is there now: after a database was put back from a copy. It is on record."""
        with self._file.locked():
            last = AuditSeal.objects.aggregate(last=Max("seq"))["last"] or 0
            with transaction.atomic():
                AuditSeal.objects.all().delete()
                AuditRecord.objects.filter(sealed=True).update(sealed=False)
                audit.record(None, "audit.begin-anew", "host", actor, detail={"links": last})
            self._file.path.unlink(missing_ok=True)
        self.seal()


def _forget(seq: int) -> int:
    """Remove the links up to a number, and the records that have no later one; return how many records.

    What is still pending stays, and is sealed again, at the end of the chain.
    """
    with transaction.atomic():
        links = AuditSeal.objects.filter(seq__lte=seq)
        gone = set(links.values_list("record_id", flat=True))
        later = AuditSeal.objects.filter(record_id__in=gone, seq__gt=seq).values_list("record_id", flat=True)
        rows = AuditRecord.objects.filter(pk__in=gone - set(later))
        rows.filter(outcome=_PENDING).update(sealed=False)
        removed, _each = rows.exclude(outcome=_PENDING).delete()
        links.delete()
    return removed


def _last_links(records: Iterable[UUID]) -> dict[UUID, AuditSeal]:
    """Return the newest link of each record that has one."""
    links = AuditSeal.objects.filter(record_id__in=list(records)).order_by("seq")
    return {link.record_id: link for link in links}


@contextlib.contextmanager
def _durable() -> Iterator[None]:
    """Have commits on the disk before they return, so that the file is never ahead of SQLite after a power cut."""
    if connection.vendor != "sqlite" or connection.in_atomic_block:
        yield
        return
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA synchronous=FULL")
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA synchronous=NORMAL")
