"""The trash: what goes into it with a delete, and trash-restore and trash-purge."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from typing import Any

from django.db import transaction
from django.utils import timezone

from ..asking.nics import as_wanted
from ..bookkeeping import baskets, points, records, specs
from ..core.errors import NotFound
from ..core.model.deleted import Entry
from ..core.model.states import Status
from ..messaging.notices import notify
from ..models import Container, Image, Trashed
from .create import take_layers
from .job import Job


def of_container(job: Job) -> Entry | None:
    """Return what a container is in the trash; None where it is not to be kept."""
    container, days = job.container, int(job.arguments.get("keep_days", 0))
    if days < 1:
        return None
    columns = json.loads(json.dumps(specs.columns_of(specs.spec_of(container, job.host)), default=str))
    nics = [as_wanted(row) for row in container.interfaces.select_related("network").order_by("index")]
    makers = dict(container.snapshots.values_list("name", "created_by"))
    detail = {"columns": columns, "nics": nics, "next_snapshot": container.next_snapshot, "created_by": makers}
    return Entry(
        id=container.pk, kind="container", name=container.name, **_when(job, days), **_whose(job), detail=detail
    )


def of_snapshot(job: Job, name: str) -> Entry | None:
    """Return what a snapshot is in the trash; None where it is not to be kept."""
    container, days = job.container, int(job.arguments.get("keep_days", 0))
    if days < 1:
        return None
    row = container.snapshots.filter(name=name).first()
    return Entry(
        # the same whenever the operation is resumed
        id=hashlib.sha256(job.operation.pk.bytes).hexdigest()[:32],
        kind="snapshot",
        name=name,
        container=container.name,
        container_id=container.pk,
        **_when(job, days),
        **_whose(job),
        detail={"created_by": row.created_by if row else ""},
    )


def of_image(job: Job) -> Entry | None:
    """Return what an image is in the trash; None where it is not to be kept."""
    image, days = job.image, int(job.arguments.get("keep_days", 0))
    if days < 1 or image.state != Image.State.READY:
        return None
    detail = {"source": image.source, "description": image.description}
    return Entry(
        id=hashlib.sha256(job.operation.pk.bytes).hexdigest()[:32],
        kind="image",
        name=image.name,
        **_when(job, days),
        **_whose(job),
        detail=detail,
    )


def _when(job: Job, days: int) -> dict[str, Any]:
    now = job.operation.created_at
    return {"deleted_at": now.isoformat(), "expires_at": (now + dt.timedelta(days=days)).isoformat()}


def _whose(job: Job) -> dict[str, Any]:
    project = job.operation.project
    return {"project": project.name if project else "", "deleted_by": job.operation.actor_name}


def mirror(job: Job, entry_id: str) -> bool:
    """Write the row of something that is in the trash now; tell whether it is there."""
    entry = job.runtime.basket().get(entry_id) if entry_id else None
    if entry is not None:
        baskets.take(job.operation.host, entry)
    return entry is not None


def restore(job: Job) -> None:
    """Put it back; what an earlier process did of it is kept."""
    entry_id = job.arguments["entry"]
    entry = job.runtime.basket().get(entry_id)
    if job.operation.container is not None and job.arguments["kind"] == "container":
        _container(job, entry)
    elif job.arguments["kind"] == "snapshot":
        _snapshot(job, entry)
    else:
        _image(job, entry)
    Trashed.objects.filter(pk=entry_id).delete()
    job.message = "Put back."


def _required(entry: Entry | None) -> Entry:
    if entry is None:
        raise NotFound("It is not in the trash any more.")
    return entry


def _container(job: Job, entry: Entry | None) -> None:
    container = job.container
    if job.observe(container).status == Status.ABSENT:
        job.runtime.take_back(_required(entry), job.final_spec(container), container.name)
    stored = job.runtime.stored().get(container.pk)
    if stored is None:
        raise NotFound("It is not in the trash any more.")
    with transaction.atomic():
        take_layers(container, stored.layers)
        makers = job.arguments.get("created_by") or {}
        for name, found in job.runtime.snapshots(container.pk).items():
            points.take(container, name, found, makers.get(name, ""))
    job.remember(created=True)
    job.settle(container, "taken out of the trash")


def _snapshot(job: Job, entry: Entry | None) -> None:
    container, name = job.container, job.arguments["name"]
    there = job.runtime.snapshots(container.pk)
    if name not in there or not job.resumed:
        job.runtime.take_back(_required(entry), None, name)
    found = job.runtime.snapshots(container.pk)[name]
    points.take(container, name, found, str(job.arguments.get("created_by") or ""))
    notify("container", container.pk)


def _image(job: Job, entry: Entry | None) -> None:
    name = job.arguments["name"]
    if not (job.resumed and name in job.runtime.images()):
        job.runtime.take_back(_required(entry), None, name)
    built = job.runtime.images()[name]
    row, _made = Image.objects.update_or_create(
        host=job.operation.host,
        name=name,
        defaults={
            "source": job.arguments.get("source") or {},
            "description": job.arguments.get("description") or "",
            "state": Image.State.READY,
            "layers": list(built.layers),
            "size_bytes": built.size_bytes,
            "defaults": built.defaults,
            "built_at": timezone.now(),
        },
    )
    notify("image", row.pk)


def restored(job: Job) -> bool:
    """Write down what is out of the trash already; False while it is in there."""
    if job.arguments["entry"] in job.runtime.basket():
        return False
    restore(job)
    return True


def undo_restore(job: Job) -> None:
    """Leave it in the trash, and take back the row that was reserved."""
    if job.journal.get("created") or job.arguments["kind"] != "container" or job.operation.container_id is None:
        return
    if job.observe(job.container).status == Status.ABSENT:
        records.undo_reservation(job.operation)


def purge(job: Job) -> None:
    """Remove it for good; gone already is done."""
    entry_id = job.arguments["entry"]
    job.runtime.purge(entry_id)
    Trashed.objects.filter(pk=entry_id).delete()
    job.message = "Deleted for good."


def purged(job: Job) -> bool:
    """Forget what is not in the trash any more; False while it is there."""
    if job.arguments["entry"] in job.runtime.basket():
        return False
    purge(job)
    return True


def empty_rows(host: Any, there: dict[str, Entry]) -> list[str]:
    """Make the rows say what the trash holds; return in words what was mended."""
    mended = []
    busy = set(Container.objects.filter(pk__in=there).values_list("pk", flat=True))
    rows = {row.pk: row for row in Trashed.objects.filter(host=host)}
    for entry_id, entry in there.items():
        if entry_id not in rows and entry_id not in busy:
            baskets.take(host, entry)
            mended.append(f"trash: {entry.kind} {entry.name} was found")
    for entry_id in rows.keys() - there.keys():
        rows[entry_id].delete()
        mended.append(f"trash: {rows[entry_id].kind} {rows[entry_id].name} is gone")
    return mended
