"""backup-export, backup-verify, backup-delete, backup-scan."""

from __future__ import annotations

from typing import Any, Final

from django.db import transaction
from django.utils import timezone

from ..asking import backups as asking
from ..bookkeeping import points, records
from ..core.archives.unpacking import BadArchive
from ..core.backups import places
from ..core.backups.place import File, Place
from ..core.errors import NotFound
from ..core.lifecycle import backing
from ..core.sentences import say
from ..models import Backup, Container
from .job import Job

GONE: Final = "It is not there any more."
"""A place may be a directory that is not mounted now."""


def export(job: Job) -> None:
    """Back a container up; what an earlier process wrote is written anew."""
    asked = job.arguments
    if exported(job):
        return
    container = Container.objects.filter(pk=asked["container"]).first()
    if container is None:
        raise NotFound(say("The container %(name)s is gone.", name=job.operation.object_name))
    place = places.of(job.host, asked["destination"])
    if before := job.journal.get("file"):
        place.remove(before)
        # whoever looked for backups meanwhile may have found it
        Backup.objects.filter(host=job.operation.host, destination=place.name, file=before).delete()
    file = backing.free_name(place, container.name)
    job.remember(file=file)
    made = backing.export(
        job.host, container.pk, place, file=file, with_points=bool(asked["with_snapshots"]), watcher=watcher(job)
    )
    with transaction.atomic():
        # somebody who looks for backups may have found it already
        Backup.objects.update_or_create(
            host=job.operation.host,
            destination=place.name,
            file=file,
            defaults={
                "project": job.operation.project,
                "container": container.name,
                "container_id": container.pk,
                "size_bytes": made.size_bytes,
                "sha256": made.sha256,
                "points": made.points,
                "plain_bytes": made.plain_bytes,
                "schedule": asked.get("schedule", ""),
                "created_by": job.operation.actor_name,
            },
        )
        records.add_event(container, "backup", reason=file, operation=job.operation)
    _say_written(job)


def exported(job: Job) -> bool:
    """Tell whether a worker that was lost had written the backup and its row."""
    file, asked = job.journal.get("file"), job.arguments
    mine = {"destination": asked["destination"], "file": file, "container_id": asked["container"]}
    if not file or not Backup.objects.filter(host=job.operation.host, **mine).exists():
        return False
    _say_written(job)
    return True


def _say_written(job: Job) -> None:
    place, file = job.arguments["destination"], job.journal["file"]
    job.message = say("Written to %(place)s: %(file)s.", place=place, file=file)


def undo_export(job: Job) -> None:
    """Remove what was written, where no row tells of it."""
    file, destination = job.journal.get("file"), job.arguments["destination"]
    if file and not Backup.objects.filter(host=job.operation.host, destination=destination, file=file).exists():
        places.of(job.host, destination).remove(file)


def verify(job: Job) -> None:
    """Read a backup to its end, and write down whether it is whole."""
    row = row_of(job)
    try:
        with places.of(job.host, row.destination).reading(row.file) as fd:
            outcome = backing.verify(job.host, fd, watcher(job))
    except (BadArchive, NotFound) as error:
        _verified(job, row, problem=error.message[:500])
        raise
    _verified(job, row, problem="")
    layers = len(outcome.manifest.sizes)
    points_there = len(outcome.manifest.points)
    job.message = say("Whole: layers: %(layers)s, snapshots: %(snapshots)s.", layers=layers, snapshots=points_there)


def _verified(job: Job, row: Backup, *, problem: str) -> None:
    Backup.objects.filter(pk=row.pk).update(
        verified_at=timezone.now(), verified_by=job.operation.actor_name, problem=problem
    )


def delete(job: Job) -> None:
    """Delete a backup's file and its row; what is gone already is done."""
    row = Backup.objects.filter(pk=job.arguments["backup"]).first()
    if row is not None:
        places.of(job.host, row.destination).remove(row.file)
        row.delete()
    job.message = "Deleted."


def deleted(job: Job) -> bool:
    """Tell whether nothing is left to delete: the row goes last."""
    job.message = "Deleted."
    return not Backup.objects.filter(pk=job.arguments["backup"]).exists()


def scan(job: Job) -> None:
    """Bring rows and a place together: what is found gets a row of no project's; of what is gone the row says so."""
    place = places.of(job.host, job.arguments["destination"])
    host = job.operation.host
    there = {one.name: one for one in place.listed()}
    known = {row.file: row for row in Backup.objects.filter(host=host, destination=place.name)}
    gone = [row.pk for file, row in known.items() if file not in there]
    Backup.objects.filter(pk__in=gone).update(problem=GONE)
    back = [row.pk for file, row in known.items() if file in there and row.problem == GONE]
    Backup.objects.filter(pk__in=back).update(problem="")
    fresh = sorted(there.keys() - known.keys())
    for number, file in enumerate(fresh):
        job.refuse_if_cancelled()
        job.progress(100 * number // len(fresh), file)
        _found(job, place, there[file])
    job.message = say("%(found)s found, %(gone)s gone.", found=len(fresh), gone=len(gone))


def _found(job: Job, place: Place, one: File) -> None:
    values: dict[str, Any] = {"container": one.name.partition("_")[0], "problem": ""}
    try:
        with place.reading(one.name) as fd:
            manifest = backing.look(job.host, fd)
        values = {"container": manifest.name, "points": len(manifest.points), "plain_bytes": manifest.size_bytes}
        values["created_at"] = points.moment(manifest.made_at)
    except BadArchive as error:
        values["problem"] = error.message[:500]
    Backup.objects.create(
        host=job.operation.host, destination=place.name, file=one.name, size_bytes=one.size_bytes, **values
    )


def row_of(job: Job) -> Backup:
    """Return the backup that an operation is about; raises NotFound, PolicyDenied."""
    row: Backup | None = Backup.objects.filter(pk=job.arguments["backup"]).first()
    if row is None:
        raise NotFound("The backup is gone.")
    asking.check_destination(job.operation.host, row.destination)
    return row


def watcher(job: Job) -> backing.Watcher:
    """Return who is told how far it is, and may end it."""
    return backing.Watcher(progress=job.progress, check_cancelled=job.refuse_if_cancelled)
