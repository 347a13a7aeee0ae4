"""snapshot, snapshot-delete, restore."""

from __future__ import annotations

import dataclasses
import json
from typing import Final

from ..bookkeeping import records, specs
from ..core.errors import CoreError, NotFound
from ..core.states import Status
from ..models import Snapshot
from . import lifecycle
from .create import take_layers
from .job import Job

STOP_BEFORE_RESTORE_SEC: Final = 20.0


def take(job: Job) -> None:
    """Keep the container's present state; a running one stands still for that moment."""
    container = job.container
    name, note = job.arguments["name"], job.arguments.get("note", "")
    taken = job.runtime.snapshot(container.pk, name, note)
    spec = specs.spec_of(container, job.host)
    Snapshot.objects.update_or_create(
        container=container,
        name=name,
        defaults={
            "note": note,
            "layers": list(taken.layers),
            "size_bytes": taken.size_bytes,
            "spec": json.loads(json.dumps(dataclasses.asdict(spec))),
            "created_by": job.operation.actor_name,
        },
    )
    records.add_event(container, "snapshot", reason=name, operation=job.operation)
    job.settle(container)
    job.message = f"Snapshot {name} taken."


def remove(job: Job) -> None:
    """Forget a snapshot; one that is gone already is done."""
    container, name = job.container, job.arguments["snapshot"]
    job.runtime.remove_snapshot(container.pk, name)
    Snapshot.objects.filter(container=container, name=name).delete()
    records.add_event(container, "snapshot-deleted", reason=name, operation=job.operation)
    job.message = f"Snapshot {name} deleted."


def restore(job: Job) -> None:
    """Take the container back; one that runs is stopped, restored and started again."""
    container, name = job.container, job.arguments["snapshot"]
    if not Snapshot.objects.filter(container=container, name=name).exists():
        raise NotFound(f"The snapshot {name} is gone.")
    live = job.observe(container).status in lifecycle.LIVE
    if "was_running" not in job.journal:
        job.remember(was_running=live)
    if not job.journal.get("restored"):
        # the policy may have changed since: what could not start afterwards is not stopped either
        job.final_spec(container)
        if live:
            job.progress(10, "Stopping")
            lifecycle.stop_container(job, container, timeout_sec=STOP_BEFORE_RESTORE_SEC)
        job.progress(40, "Restoring")
        take_layers(container, job.runtime.restore(container.pk, name).layers)
        job.remember(restored=True)
        records.add_event(container, "restored", reason=name, operation=job.operation)
    if job.journal["was_running"]:
        job.progress(70, "Starting")
        lifecycle.start_container(job, container)
    else:
        job.settle(container)
    job.message = f"Restored to {name}."


def undo_restore(job: Job) -> None:
    """Start it again as it was, if it ran before and could not be restored."""
    if not job.journal.get("was_running") or job.journal.get("restored") or job.operation.container is None:
        return
    if job.observe(job.container).status == Status.STOPPED:
        try:
            lifecycle.start_container(job, job.container)
        except (CoreError, OSError) as error:
            job.message = f"It could not be started again either: {error}"
