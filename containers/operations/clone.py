"""clone: a container of another's present state, or of a snapshot of it, with an identity of its own."""

from __future__ import annotations

from ..bookkeeping import records
from ..core.errors import NotFound
from ..core.sentences import say
from ..core.states import Status
from .create import take_layers
from .job import Job


def run(job: Job) -> None:
    """Make the clone; what an earlier process made of it is kept."""
    source, target = job.container, job.target
    name = job.arguments.get("snapshot")
    if job.observe(target).status == Status.ABSENT:
        snapshot = source.snapshots.filter(name=name).first() if name else None
        if name and snapshot is None:
            raise NotFound(say("The snapshot %(name)s is gone.", name=name))
        take_layers(target, tuple(snapshot.layers if snapshot else source.layers))
        spec = job.final_spec(target)
        job.progress(20, "Copying")
        stored = job.runtime.clone(source.pk, spec, name, job.progress)
        take_layers(target, stored.layers)
    if not job.journal.get("created"):
        job.remember(created=True)
        job.settle(target, "created")
    job.settle(source)
    job.message = f"Cloned to {target.name}."


def undo(job: Job) -> None:
    """Remove what there is of the clone, and its row."""
    if job.journal.get("created") or job.operation.target is None:
        return
    job.runtime.delete(job.target.pk)
    records.undo_reservation(job.operation)
