"""clone: containers of another's present state, or of a snapshot of it, each with an identity of its own."""

from __future__ import annotations

from ..bookkeeping import records
from ..core.errors import NotFound
from ..core.model.states import Status
from ..core.sentences import say
from ..models import Container
from . import lifecycle
from .create import choose_pool, take_layers
from .job import Job
from .runtime import Origin


def run(job: Job) -> None:
    """Make the clones; what an earlier process made of them is kept."""
    source, targets = job.container, _targets(job)
    if not targets:
        raise NotFound(say("%(name)s is gone.", name=job.arguments["name"]))
    for number, target in enumerate(targets):
        job.progress(100 * number // len(targets), say("Cloning to %(name)s", name=target.name))
        if target.pk not in job.journal.get("made", []):
            _make(job, source, target)
            job.remember(made=[*job.journal.get("made", []), target.pk])
            job.settle(target, "created")
    job.settle(source)
    if job.arguments.get("start"):
        for target in targets:
            lifecycle.start_container(job, target)
    names = [target.name for target in targets]
    job.message = say("Cloned to %(name)s.", name=names[0])
    if len(names) > 1:
        job.message = say("Cloned to %(name)s … %(last)s.", name=names[0], last=names[-1])


def _targets(job: Job) -> list[Container]:
    """Return the clones whose rows are still there, in their order."""
    wanted = job.arguments.get("targets") or [job.target.pk]
    rows = {row.pk: row for row in Container.objects.select_related("host", "project").filter(pk__in=wanted)}
    return [rows[pk] for pk in wanted if pk in rows]


def _make(job: Job, source: Container, target: Container) -> None:
    if job.observe(target).status != Status.ABSENT:
        stored = job.runtime.stored().get(target.pk)
        take_layers(target, stored.layers if stored else ())
        return
    choose_pool(job, target)
    name = job.arguments.get("snapshot")
    snapshot = source.snapshots.filter(name=name).first() if name else None
    if name and snapshot is None:
        raise NotFound(say("The snapshot %(name)s is gone.", name=name))
    full = bool(job.arguments.get("full", False))
    origin = Origin(snapshot=name, layers=None if full else _layers(job), full=full)
    take_layers(target, tuple(snapshot.layers if snapshot else source.layers))
    stored = job.runtime.clone(source.pk, job.final_spec(target), origin, lambda _pct, _text: None)
    take_layers(target, stored.layers)


def _layers(job: Job) -> tuple[str, ...] | None:
    """Return what a clone before this one is made of: all are alike, and the source stands still once only."""
    for made in job.journal.get("made", []):
        stored = job.runtime.stored().get(made)
        if stored is not None:
            return stored.layers
    return None


def undo(job: Job) -> str | None:
    """Remove the rows, and what there is, of the clones that were not made; those that were stay."""
    made = job.journal.get("made", [])
    for target in _targets(job) if job.operation.target is not None or job.arguments.get("targets") else []:
        if target.pk not in made:
            job.runtime.delete(target.pk)
            records.forget_container(target.pk)
    if not made:
        return None
    names = [row.name for row in _targets(job)]
    return say("Made before that, and kept: %(names)s.", names=", ".join(names)) if names else None
