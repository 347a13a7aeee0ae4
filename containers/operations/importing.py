"""import: a container of LXC's taken over, as root ordered it on the host: rows name no path."""

from __future__ import annotations

from ..bookkeeping import records
from ..core.model.states import Status
from .create import take_layers
from .job import Job


def run(job: Job) -> None:
    """Copy the root file system and make the container; what an earlier process made of it is kept."""
    container = job.container
    if job.observe(container).status == Status.ABSENT:
        spec = job.final_spec(container)
        stored = job.runtime.import_lxc(spec, job.progress, job.cancelled, job.no_more_cancel)
        take_layers(container, stored.layers)
    if not job.journal.get("created"):
        job.no_more_cancel()
        job.remember(created=True)
        job.settle(container, "imported")
    take_layers(container, job.runtime.stored()[container.pk].layers)
    left = job.runtime.end_import(container.pk)
    job.message = f"Imported. {left}".strip()


def undo(job: Job) -> None:
    """Remove what there is of it, and its row; one that was made stays, whatever is left of LXC's."""
    if job.journal.get("created") or job.operation.container is None:
        return
    container_id = job.container.pk
    job.runtime.delete(container_id)
    job.runtime.end_import(container_id)
    records.undo_reservation(job.operation)
