"""Schedules of snapshots: made, changed, deleted, and what they will do told beforehand."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable
from typing import Any, Final

from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.utils import timezone

from panel.accounts import audit
from panel.accounts.actor import Actor

from ..core.errors import AlreadyExists, NotFound, SpecError
from ..core.model import schedules as core
from ..core.names import check_name
from ..core.sentences import say
from ..models import Backup, Container, Schedule, Snapshot, local_host
from . import backups
from .access import find_container, find_project

ACTION: Final = "schedule"
NAME_MAX: Final = 40
"""A snapshot's name is the schedule's and a time."""
RUNS_TOLD: Final = 5
FIELDS: Final = (
    "name",
    "project",
    "container",
    "tag",
    "when",
    "timezone",
    "keep",
    "enabled",
    "destination",
    "snapshots",
)


def visible(actor: Actor) -> QuerySet[Schedule]:
    """Return the schedules that somebody may see."""
    rows: QuerySet[Schedule] = Schedule.objects.visible_to(actor.user).select_related("project", "container")
    return rows


def find(actor: Actor, schedule_id: int, action: str = ACTION) -> Schedule:
    """Return a schedule that somebody may do the action on; raises NotFound, Forbidden."""
    row = visible(actor).filter(pk=schedule_id).first()
    if row is None:
        raise NotFound("There is no such schedule.")
    if action != "view":
        find_project(actor, row.project.name, action)
    return row


def create(actor: Actor, values: dict[str, Any]) -> Schedule:
    """Make a schedule; raises NotFound, Forbidden, SpecError naming the field, AlreadyExists."""
    row = checked(actor, Schedule(created_by=actor.name), values)
    with transaction.atomic():
        _save(row)
        _audited(actor, "schedule.create", row)
    return row


def change(actor: Actor, schedule_id: int, values: dict[str, Any]) -> Schedule:
    """Change what is named of a schedule; its project stays, and what it made is its own under another name, too."""
    present = find(actor, schedule_id)
    before = present.name
    whole = {
        "name": present.name,
        "project": present.project.name,
        "container": present.container.name if present.container else None,
        "tag": present.tag,
        "when": present.when,
        "timezone": present.zone,
        "keep": present.keep,
        "enabled": present.enabled,
        "destination": present.destination,
        "snapshots": present.with_snapshots,
    }
    row = checked(actor, present, {**whole, **values, "project": present.project.name})
    if row.name != before:
        row.former = [*(name for name in row.former if name not in (before, row.name)), before]
    with transaction.atomic():
        _save(row)
        _audited(actor, "schedule.change", row)
    return row


def delete(actor: Actor, schedule_id: int) -> None:
    """Remove a schedule; the snapshots that it took stay."""
    row = find(actor, schedule_id)
    with transaction.atomic():
        _audited(actor, "schedule.delete", row)
        row.delete()


def _save(row: Schedule) -> None:
    try:
        with transaction.atomic():
            row.save()
            for other in Schedule.objects.filter(project=row.project).exclude(pk=row.pk):
                if row.name in other.former:
                    other.former = [name for name in other.former if name != row.name]
                    other.save(update_fields=["former"])
    except IntegrityError as error:
        raise AlreadyExists(say("The project has a schedule %(name)s already.", name=row.name), field="name") from error


def _audited(actor: Actor, action: str, row: Schedule) -> None:
    audit.record(actor, action, "schedule", row.name, project=row.project.name, detail={"when": row.when})


def checked(actor: Actor, row: Schedule, values: dict[str, Any]) -> Schedule:
    """Return row with the values in it, not saved; raises as create does."""
    name = check_name(str(values.get("name") or ""))
    if len(name) > NAME_MAX:
        raise SpecError(say("Use at most %(most)s characters.", most=NAME_MAX), field="name")
    container = find_container(actor, values["container"], ACTION) if values.get("container") else None
    asked = values.get("project")
    if container is not None and asked not in (None, container.project.name):
        raise SpecError("The container is of another project.", field="container")
    row.project = container.project if container else find_project(actor, str(asked or "default"), ACTION)
    row.container, row.name = container, name
    row.tag = check_name(values["tag"], field="tag") if values.get("tag") else ""
    if row.tag and container is not None:
        raise SpecError("Choose a container or a tag, not both.", field="tag")
    row.when = " ".join(str(values.get("when") or "").split())
    row.zone = str(values.get("timezone") or "UTC")
    row.keep = core.Keep.from_dict(values.get("keep") or {}).given()
    row.destination = str(values.get("destination") or "")
    if row.destination:
        backups.check_destination(local_host(), row.destination)
    row.with_snapshots = bool(row.destination and values.get("snapshots", False))
    row.enabled = bool(values.get("enabled", True))
    upcoming = next_of(row, timezone.now())  # of one that is paused, too: it is to go on one day
    row.next_at = upcoming if row.enabled else None
    return row


def next_of(row: Schedule, after: dt.datetime) -> dt.datetime:
    """Return when a schedule runs next; raises SpecError."""
    return core.next_run(core.parse(row.when), after, core.zone(row.zone))


def targets(row: Schedule) -> list[Container]:
    """Return the containers that a schedule is about."""
    if row.container_id is not None:
        return [row.container] if row.container else []
    rows = Container.objects.filter(project=row.project).select_related("host", "project").order_by("name")
    return [one for one in rows if not row.tag or row.tag in one.tags]


def snapshot_name(row: Schedule, at: dt.datetime) -> str:
    """Return the name of what a schedule takes at a time."""
    return f"{row.name}-{at.astimezone(dt.UTC):%Y%m%d-%H%M}"


def names_of(row: Schedule) -> list[str]:
    """Return the names under which a schedule made what is its own."""
    return [row.name, *row.former]


def taken_by(row: Schedule, snapshots: Iterable[Snapshot]) -> list[Snapshot]:
    """Return those of a container's snapshots that a schedule took; they have its name, or a former one, and a time."""
    own = re.compile(rf"(?:{'|'.join(map(re.escape, names_of(row)))})-[0-9]{{8}}-[0-9]{{4}}", re.ASCII)
    return [one for one in snapshots if one.kind == "schedule" and own.fullmatch(one.name)]


def pruned(
    row: Schedule, snapshots: Iterable[Snapshot], more: Iterable[tuple[str, dt.datetime]] = ()
) -> list[Snapshot]:
    """Return which of a container's snapshots do not stay. more: others that will have been taken by then.

    A pinned one stays, and takes no other's place.
    """
    own = [one for one in taken_by(row, snapshots) if not one.pinned]
    stay = core.kept(
        core.Keep.from_dict(row.keep), [*((one.name, one.created_at) for one in own), *more], core.zone(row.zone)
    )
    return [one for one in own if one.name not in stay]


def pruned_backups(row: Schedule, container: Container, more: Iterable[tuple[str, dt.datetime]] = ()) -> list[Backup]:
    """Return which of the backups that a schedule made of a container do not stay. more: as of pruned.

    One that was damaged when it was last read takes no other's place.
    """
    rows = Backup.objects.filter(container_id=container.pk, project=row.project, schedule__in=names_of(row))
    own = list(rows.filter(destination=row.destination, problem=""))
    stay = core.kept(
        core.Keep.from_dict(row.keep), [*((one.pk, one.created_at) for one in own), *more], core.zone(row.zone)
    )
    return [one for one in own if one.pk not in stay]


def doomed(row: Schedule, container: Container, at: dt.datetime) -> list[str]:
    """Return the names of what is removed of a container when a schedule has run at a time."""
    more = [(snapshot_name(row, at), at)]
    if row.destination:
        return sorted(one.file for one in pruned_backups(row, container, more))
    return sorted(one.name for one in pruned(row, container.snapshots.all(), more))


def preview(row: Schedule) -> dict[str, Any]:
    """Return the next runs, and what is pruned after the first of them: {"next", "containers", "prune"}."""
    when, where = core.parse(row.when), core.zone(row.zone)
    runs = core.next_runs(when, timezone.now(), where, RUNS_TOLD)
    found = targets(row)
    told = [(container.name, doomed(row, container, runs[0])) for container in found]
    prune = [{"container": name, "snapshots": names} for name, names in told if names]
    return {"next": runs, "containers": [one.name for one in found], "prune": prune}


def preview_of(actor: Actor, values: dict[str, Any]) -> dict[str, Any]:
    """Return the preview of a schedule that is not made yet."""
    return preview(checked(actor, Schedule(), {"name": "preview", **values}))
