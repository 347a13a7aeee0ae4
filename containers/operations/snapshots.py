"""snapshot, snapshot-change, snapshot-delete, restore."""

from __future__ import annotations

import contextlib
from typing import Any, Final

from django.db import transaction

from ..asking import nics as asked_nics
from ..bookkeeping import points, records, specs
from ..core.errors import CoreError, NotFound
from ..core.model.states import Status
from ..core.sentences import say
from ..messaging.notices import notify
from ..models import Container, Snapshot
from . import basket, lifecycle, update
from .job import Job
from .runtime import Kept

STOP_BEFORE_RESTORE_SEC: Final = 20.0


def take(job: Job) -> None:
    """Keep the container's present state; a running one stands still for that moment."""
    container, asked = job.container, job.arguments
    kept = Kept(
        name=asked["name"],
        note=asked.get("note", ""),
        kind=asked.get("kind", "manual"),
        pinned=asked.get("pinned", False),
        expires_at=asked.get("expires_at", ""),
    )
    job.runtime.snapshot(container.pk, kept)
    _write_down(job)


def taken(job: Job) -> bool:
    """Write down a snapshot that the host has; False where it has none."""
    if job.arguments["name"] not in job.runtime.snapshots(job.container.pk):
        return False
    _write_down(job)
    return True


def _write_down(job: Job) -> None:
    container, name = job.container, job.arguments["name"]
    _mirror(job, name)
    _stands(container, _found(job, name))
    records.add_event(container, "snapshot", reason=name, operation=job.operation)
    job.settle(container)
    job.message = say("Snapshot %(name)s taken.", name=name)


def change(job: Job) -> None:
    """Give a snapshot another name, note, pin or expiry."""
    container, asked = job.container, job.arguments
    name, new_name = asked["snapshot"], asked["name"]
    kept = Kept(name=new_name, note=asked["note"], pinned=asked["pinned"], expires_at=asked["expires_at"])
    job.runtime.change_snapshot(container.pk, name, kept)
    with transaction.atomic():
        if new_name != name:
            Snapshot.objects.filter(container=container, name=name).update(name=new_name)
            if name in container.lineage:
                lineage = [new_name if one == name else one for one in container.lineage]
                Container.objects.filter(pk=container.pk).update(lineage=lineage)
        for one, found in job.runtime.snapshots(container.pk).items():
            points.take(container, one, found)
    notify("container", container.pk)
    job.message = say("Snapshot %(name)s changed.", name=new_name)


def remove(job: Job) -> None:
    """Forget a snapshot; one that is gone already is done."""
    container, name = job.container, job.arguments["snapshot"]
    thrown = basket.of_snapshot(job, name)
    job.runtime.remove_snapshot(container.pk, name, thrown)
    with transaction.atomic():
        kept = basket.mirror(job, thrown.id if thrown else "")
        Snapshot.objects.filter(container=container, name=name).delete()
        records.add_event(container, "snapshot-deleted", reason=name, operation=job.operation)
    job.message = say("Snapshot %(name)s moved to the trash." if kept else "Snapshot %(name)s deleted.", name=name)


def removed(job: Job) -> bool:
    """Forget a snapshot that is on the host no more; False while it is there."""
    if job.arguments["snapshot"] in job.runtime.snapshots(job.container.pk):
        return False
    remove(job)
    return True


def restore(job: Job) -> None:
    """Take back files, configuration or both; for the files one that runs is stopped and started again."""
    container, name = job.container, job.arguments["snapshot"]
    found = _found(job, name)
    what = job.arguments.get("what", "files")
    columns = points.configuration(found["spec"]) if what != "files" else {}
    if what == "configuration":
        changed = _configure(job, columns)
        words = "The configuration is that of %(name)s again; %(safety)s takes it back."
        if update.AT_START.intersection(changed) and container.status in lifecycle.LIVE:
            words += " Part of it takes effect at the next start."
        job.message = say(words, name=name, safety=job.arguments["safety"])
        return
    if "was_running" not in job.journal:
        job.remember(was_running=job.observe(container).status in lifecycle.LIVE)
    if not job.journal.get("restored"):
        _exchange(job, found, columns)
    if job.journal["was_running"]:
        job.progress(70, "Starting")
        lifecycle.start_container(job, container)
    else:
        job.settle(container)
    _say_restored(job)


def _exchange(job: Job, found: dict[str, Any], columns: dict[str, Any]) -> None:
    """Stop it where it runs, restore it, and write down what it is now."""
    container = job.container
    for field, value in columns.items():
        setattr(container, field, value)
    if columns:
        container.generation += 1
    # what the policy forbids is refused before anything is stopped; it may have changed since the snapshot, too
    nics = job.arguments.get("nics")
    spec = job.final_spec(container, nics)
    if job.observe(container).status in lifecycle.LIVE:
        job.progress(10, "Stopping")
        lifecycle.stop_container(job, container, timeout_sec=STOP_BEFORE_RESTORE_SEC)
    job.progress(40, "Restoring")
    made = job.runtime.restore(container.pk, found["name"], spec=spec if columns else None, safety=_safety(job))
    _restored(job, {**columns, "generation": container.generation, "layers": list(made.layers)}, found)


def _restored(job: Job, columns: dict[str, Any], found: dict[str, Any]) -> None:
    """Write down what a container is after its files were exchanged."""
    container, nics = job.container, job.arguments.get("nics")
    with transaction.atomic():
        _take_over(container, columns)
        if nics is not None:
            asked_nics.write(container, nics)
        _stands(container, found)
        _mirror(job, job.arguments["safety"])
        records.add_event(container, "restored", reason=found["name"], operation=job.operation)
    job.remember(restored=True)
    notify("container", container.pk)


def _configure(job: Job, columns: dict[str, Any]) -> frozenset[str]:
    """Put the configuration of a snapshot in force, as a change of settings is; return which columns changed."""
    container = job.container
    before = specs.spec_of(container, job.host)
    old = {field: getattr(container, field) for field in columns}
    for field, value in columns.items():
        setattr(container, field, value)
    changed = {field: value for field, value in columns.items() if old[field] != value}
    if (nics := job.arguments.get("nics")) is not None:
        changed["nics"] = nics
    safety = _safety(job)
    if changed:
        job.final_spec(container, job.arguments.get("nics"))
        job.runtime.keep_configuration(container.pk, safety)
        _mirror(job, safety.name)
        update.apply(job, container, before, old, changed)
    records.add_event(container, "restored", reason=job.arguments["snapshot"], operation=job.operation)
    job.remember(restored=True)
    return frozenset(changed)


def put_back(job: Job) -> None:
    """Put files of a snapshot back where they were, running or stopped, after a safety point was made."""
    container, asked = job.container, job.arguments
    name, safety = asked["snapshot"], _safety(job)
    _found(job, name)
    if safety.name not in job.runtime.snapshots(container.pk):
        job.progress(10, "Keeping what is there now")
        job.runtime.snapshot(container.pk, safety)
    _mirror(job, safety.name)
    _stands(container, _found(job, safety.name))
    notify("container", container.pk)

    def tell(entries: int, size: int) -> None:
        job.progress(50, say("Putting files back: %(n)s, %(size)s MiB", n=entries, size=size >> 20))

    job.progress(30, "Putting files back")
    try:
        done = job.runtime.put_back(container.pk, name, asked["paths"], exact=asked["exact"], tell=tell)
    except CoreError as error:
        error.message = say("%(why)s %(safety)s has what was there before.", why=error.message, safety=safety.name)
        raise
    records.add_event(container, "put-back", reason=name, operation=job.operation)
    for path in done["skipped"]:
        job.log(f"left out, a device node: {path}\n")
    count, removed = done["put_back"], done["removed"]
    words = "%(n)s put back, %(removed)s removed; %(safety)s has what was there before."
    left_out = done["left_out"]
    if left_out:
        words += " Device nodes left out: %(left)s; only a restore of the whole snapshot brings them back."
    job.message = say(words, n=count, removed=removed, safety=safety.name, left=left_out)


def undo_restore(job: Job) -> str | None:
    """Leave it as it was, if it could not be restored; started again, if it ran before."""
    if job.operation.container is None or restored(job):
        return ""
    container, safety = job.container, job.arguments.get("safety")
    if safety:
        job.runtime.remove_snapshot(container.pk, safety)
        Snapshot.objects.filter(container=container, name=safety).delete()
    start_again(job, container)
    return None


def restored(job: Job) -> bool:
    """Write down a restore that got further than it could say; False where it has changed nothing yet."""
    container = job.container
    if job.arguments.get("what") == "configuration":
        return bool(job.journal.get("restored"))
    if not (job.journal.get("restored") or exchanged(job)):
        return False
    if not job.journal.get("restored"):
        stored = job.runtime.stored()[container.pk]
        columns = specs.columns_of(stored)
        kept = {name: value for name, value in columns.items() if name not in points.NOT_RESTORED - {"layers"}}
        _restored(job, {**kept, "generation": stored.generation}, _found(job, job.arguments["snapshot"]))
    start_again(job, container)
    _say_restored(job)
    return True


def exchanged(job: Job) -> bool:
    """Tell whether a restore has exchanged the files: it made its safety point, and they do not descend from that."""
    safety = job.arguments["safety"]
    if safety not in job.runtime.snapshots(job.container.pk):
        return False
    return job.runtime.lineage(job.container.pk)[-1:] != (safety,)


def start_again(job: Job, container: Container) -> None:
    """Start a container that ran before it was to be restored; where that fails, the log has it."""
    container.refresh_from_db()
    if job.journal.get("was_running") and job.observe(container).status == Status.STOPPED:
        try:
            lifecycle.start_container(job, container)
        except (CoreError, OSError) as error:
            job.log(f"It could not be started again either: {error}\n")


def _say_restored(job: Job) -> None:
    name, safety = job.arguments["snapshot"], job.arguments["safety"]
    job.message = say("Restored to %(name)s; %(safety)s takes it back.", name=name, safety=safety)


def _safety(job: Job) -> Kept:
    """Return the safety point that the operation has reserved a name for."""
    asked = job.arguments
    return Kept(name=asked["safety"], note=asked["safety_note"], kind="safety", expires_at=asked["safety_until"])


def _found(job: Job, name: str) -> dict[str, Any]:
    """Return a snapshot as the store has it; raises NotFound."""
    found = job.runtime.snapshots(job.container.pk).get(name)
    if found is None:
        raise NotFound(say("The snapshot %(name)s is gone.", name=name))
    return found


def _mirror(job: Job, name: str) -> None:
    """Write the row of a snapshot, if the store has it."""
    with contextlib.suppress(NotFound):
        points.take(job.container, name, _found(job, name), job.operation.actor_name)


def _stands(container: Container, found: dict[str, Any]) -> None:
    """Write down that the container descends from a snapshot."""
    container.lineage = [*found.get("lineage", ()), found["name"]]
    Container.objects.filter(pk=container.pk).update(lineage=container.lineage)


def _take_over(container: Container, columns: dict[str, Any]) -> None:
    for field, value in columns.items():
        setattr(container, field, value)
    Container.objects.filter(pk=container.pk).update(**columns)
