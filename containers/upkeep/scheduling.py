"""What the clock asks for: snapshots by schedule, those that are not kept, and what has expired.

Called every few seconds by the ticker. Everything is an operation of its own, so that it waits for nobody, is seen, and
survives whoever dies. Nothing is removed while the clock may be wrong; see clocks.py.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable
from typing import Any, Final

from django.utils import timezone

from ..asking import backups, basket, queue, schedules, services
from ..core.errors import AlreadyExists, CoreError
from ..models import Container, Operation, Schedule, Snapshot, Trashed
from . import standing
from .clocks import SteadyClock

PURGED_AT_ONCE: Final = 20
TRIED_AGAIN_SEC: Final = 3600.0
MISSED_SEC: Final = 600.0
"""So long a container that is busy when its time has come is asked again."""

log = logging.getLogger(__name__)


class Scheduler:
    """Does all of it. clock: whether the time can be believed."""

    def __init__(self, clock: Callable[[], bool] | None = None) -> None:
        self._believed = clock or SteadyClock()
        self._due: dict[tuple[int, str], tuple[str, dt.datetime]] = {}

    def __call__(self, now: dt.datetime | None = None) -> int:
        """Ask for what is due; return how many operations that were."""
        now = now or timezone.now()
        believed = self._believed() and any(ask() for ask in standing.expiring())
        if not self._due and not believed and not standing.scheduled()():
            return 0
        rows = list(Schedule.objects.filter(enabled=True).select_related("project", "container"))
        for row in rows:
            self._note(row, now)
        # first what is to be taken: while something is removed it would have to wait
        asked = self._take(now) + sum(_prune(row) for row in rows)
        return asked + (expire(now) if believed else 0)

    def _note(self, row: Schedule, now: dt.datetime) -> None:
        """Note what is due, once however often it was missed; a clock that was put back does not hold it up."""
        try:
            following = schedules.next_of(row, now)
        except CoreError as error:
            log.warning("schedule %s: %s", row.name, error.message)
            return
        due = row.next_at is not None and row.next_at <= now
        if row.next_at == following:
            return
        values: dict[str, Any] = {"next_at": following, **({"last_at": now} if due else {})}
        # by compare-and-set: two tickers that overlap take one snapshot
        if not Schedule.objects.filter(pk=row.pk, next_at=row.next_at).update(**values) or not due:
            return
        name = schedules.snapshot_name(row, now)
        for container in schedules.targets(row):
            self._due[row.pk, container.pk] = (name, now)

    def _take(self, now: dt.datetime) -> int:
        asked = 0
        for (schedule_id, container_id), (name, since) in list(self._due.items()):
            container = Container.objects.filter(pk=container_id).select_related("host", "project").first()
            late = not dt.timedelta() <= now - since <= dt.timedelta(seconds=MISSED_SEC)
            if container is None or late:
                if late:
                    log.warning("schedule: %s was busy for too long; %s is left out", container_id, name)
                del self._due[schedule_id, container_id]
            elif queue.unfinished(container) is None:
                del self._due[schedule_id, container_id]
                row = Schedule.objects.filter(pk=schedule_id).first()
                if row is not None and row.destination:
                    asked += _back_up(row, container)
                else:
                    asked += _request(container, "snapshot", {"name": name, "kind": "schedule"})
        return asked


def _prune(row: Schedule) -> int:
    """Ask for one deletion in each container that has more than is kept, the oldest first."""
    if not row.keep:
        return 0
    if row.destination:
        return _prune_backups(row)
    asked = 0
    for container in schedules.targets(row):
        doomed = schedules.pruned(row, container.snapshots.all())
        if doomed and queue.unfinished(container) is None:
            oldest = min(doomed, key=lambda one: one.created_at)
            asked += _request(container, "snapshot-delete", {"snapshot": oldest.name})
    return asked


def _back_up(row: Schedule, container: Container) -> int:
    """Ask for a backup, unless the one before is still being written."""
    if any(
        _asked("backup-export", status__in=Operation.UNFINISHED, container=container.pk, schedule=name)
        for name in schedules.names_of(row)
    ):
        log.warning("schedule %s: the backup of %s before this one is not finished", row.name, container.name)
        return 0
    try:
        backups.export_by_schedule(container, row.destination, with_snapshots=row.with_snapshots, schedule=row.name)
    except CoreError as error:
        log.info("backup of %s: %s", container.name, error.message)
        return 0
    return 1


def _prune_backups(row: Schedule) -> int:
    """Ask for one deletion of each container's backups that are more than is kept, the oldest first."""
    asked = 0
    for container in schedules.targets(row):
        doomed = schedules.pruned_backups(row, container)
        if doomed:
            oldest = min(doomed, key=lambda one: one.created_at)
            # a place that cannot be reached is not asked at every turn
            tried = timezone.now() - dt.timedelta(seconds=TRIED_AGAIN_SEC)
            if backups.unfinished(oldest) is None and not _asked("backup-delete", tried, backup=oldest.pk):
                backups.delete(None, oldest)
                asked += 1
    return asked


def _asked(action: str, since: dt.datetime | None = None, **arguments: Any) -> bool:
    """Tell whether an operation with these arguments was asked for, since a time, or with these fields."""
    fields = {name: arguments.pop(name) for name in ("status__in",) if name in arguments}
    if since is not None:
        fields["created_at__gte"] = since
    found = {f"arguments__{name}": value for name, value in arguments.items()}
    return Operation.objects.filter(action=action, **fields, **found).exists()


def expire(now: dt.datetime) -> int:
    """Ask for the deletion of what has expired: one snapshot of each container at a time, and containers."""
    asked = _purge(now)
    gone = Container.objects.filter(expires_at__lte=now).select_related("host", "project")
    for container in gone:
        if queue.unfinished(container) is None:
            asked += _request(container, "delete", {"force": True})
    due = Snapshot.objects.filter(expires_at__lte=now, pinned=False).exclude(container__in=gone)
    for container_id in due.values_list("container_id", flat=True).distinct():
        container = Container.objects.select_related("host", "project").get(pk=container_id)
        if queue.unfinished(container) is None:
            name = due.filter(container=container).order_by("created_at").values_list("name", flat=True)[0]
            asked += _request(container, "snapshot-delete", {"snapshot": name})
    return asked


def _purge(now: dt.datetime) -> int:
    """Ask for what has been in the trash for long enough to be deleted for good."""
    asked = 0
    for row in Trashed.objects.filter(expires_at__lte=now).select_related("host", "project")[:PURGED_AT_ONCE]:
        unfinished = Operation.objects.filter(status__in=Operation.UNFINISHED, action__startswith="trash-")
        if not unfinished.filter(arguments__entry=row.pk).exists():
            basket.purge(None, row)
            asked += 1
    return asked


def _request(container: Container, action: str, arguments: dict[str, Any]) -> int:
    try:
        services.request_by_system(container, action, arguments)
    except AlreadyExists:
        return 0  # taken before the clock was put back
    except CoreError as error:
        log.info("%s of %s: %s", action, container.name, error.message)
        return 0
    return 1
