"""backup-import, backup-restore: containers out of backups, new ones and in place."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any, Final

from django.db import transaction

from panel.accounts.actor import Actor

from ..asking import fitting, nics, pools, refitting
from ..asking.resources import usable_network
from ..bookkeeping import points, records, reservations
from ..core.backups import form, places
from ..core.errors import NotFound
from ..core.hoststore import every, store
from ..core.hoststore.pools import open_pool
from ..core.images import staging
from ..core.lifecycle import backing, pooling
from ..core.lifecycle.snapshots import Safety
from ..core.model.spec import Spec
from ..core.model.states import Status
from ..core.sentences import say
from ..messaging.notices import notify
from ..models import Container, Network
from . import lifecycle, snapshots
from .backups import row_of, watcher
from .create import choose_pool, take_layers
from .job import Job

STOP_BEFORE_SEC: Final = snapshots.STOP_BEFORE_RESTORE_SEC


def take_in(job: Job) -> None:
    """Make a container of a backup; what an earlier process made of it is kept."""
    container = job.container
    if job.observe(container).status == Status.ABSENT:
        choose_pool(job, container)
        pool = pooling.given(job.host, container.pool, container.project.name)
        with (
            _source(job) as fd,
            backing.unpacked(
                job.host, fd, devices=_admin(job), begin=lambda told: _fit(job, told), watcher=watcher(job), pool=pool
            ) as (outcome, layers),
        ):
            job.no_more_cancel()
            _make(job, container, outcome.manifest, layers)
            for kind, count in outcome.left_out.items():
                job.log(f"Left out: {count} {kind}\n")
    if not job.journal.get("created"):
        job.no_more_cancel()
        job.remember(created=True)
        job.settle(container, "created")
        _rows(job, container)
    if job.arguments.get("upload"):
        staging.forget_upload(job.host, job.arguments["upload"])
    if job.arguments.get("start"):
        job.progress(95, "Starting")
        lifecycle.start_container(job, container)
    left = ", ".join(job.journal.get("left_out", ()))
    job.message = say("Restored. Left out: %(left)s.", left=left) if left else "Restored."


def _fit(job: Job, manifest: form.Manifest) -> None:
    """Write into the row what of the configuration its new owner may have; what he may not is told by name."""
    container = job.container
    columns, left_out = fitting.columns(manifest.container, container, privileged=_admin(job))
    left_out += _interfaces(job, container, manifest.container.get("nics"))
    limits = pools.check(container.host, container.project.name, container.pool, columns.get("limits", {}))
    columns |= {"limits": limits} if limits else {}
    for field, value in columns.items():
        setattr(container, field, value)
    container.save(update_fields=list(columns))
    job.remember(left_out=[one.what for one in left_out])
    for one in left_out:
        job.log(f"Left out: {one.what}: {one.why}\n")
    job.final_spec(container)


def _interfaces(job: Job, container: Container, told: Any) -> list[fitting.Left]:
    """Give a container the network interfaces that it had, the first one on the network that was asked for."""
    with transaction.atomic():
        host = reservations.lock_host(container.host)
        first = container.interfaces.select_related("network").exclude(network=None).order_by("index")[0].network
        user = job.operation.actor
        assert first is not None
        assert user is not None

        def find(name: str) -> Network:
            if name == first.name:
                return first
            return usable_network(Actor(user), name, container.project, host)

        made, left_out = refitting.interfaces(told, container, first.name, find)
        nics.write(container, made)
    return left_out


def _make(job: Job, container: Container, manifest: form.Manifest, layers: tuple[str, ...]) -> None:
    job.progress(90, "Making the container")
    stack = backing.stack_of(manifest, layers)
    machine_id = manifest.container.get("machine_id")
    here = every.load_all(job.host)[0].values()
    # whoever has the same machine id here is the one that it was made of: then this is another
    twin = not fitting.is_machine_id(machine_id) or any(one.machine_id == machine_id for one in here)
    if not twin:
        container.machine_id = str(machine_id)
        container.save(update_fields=["machine_id"])
    spec = dataclasses.replace(job.final_spec(container), layers=stack)
    kept = backing.snapshots_of(manifest, layers, _configurations(job, container, manifest))

    def make() -> Spec:
        return backing.create(job.host, spec, kept, lineage=manifest.lineage, twin=twin)

    job.runtime.take_in(spec, make)


def _configurations(job: Job, container: Container, manifest: form.Manifest) -> dict[str, dict[str, Any]]:
    """Return the specs of a backup's snapshots, as its new owner may have them; with the interfaces that it has now."""
    found = {}
    for one in manifest.points:
        if not one.container:
            continue
        columns, left_out = fitting.columns(one.container, container, privileged=_admin(job))
        if left_out:
            job.log(f"Left out: the configuration of the snapshot {one.name}\n")
            continue
        found[one.name] = fitting.spec_with(container, columns, job.host)
    return found


def _rows(job: Job, container: Container) -> None:
    """Write what the store has of a container that was made into its rows."""
    stored = job.runtime.stored()[container.pk]
    take_layers(container, stored.layers)
    found = job.runtime.snapshots(container.pk)
    with transaction.atomic():
        for name, one in found.items():
            points.take(container, name, one, job.operation.actor_name)
        with contextlib.suppress(NotFound):
            container.lineage = list(store.load_root(job.host, container.pk).lineage)
            Container.objects.filter(pk=container.pk).update(lineage=container.lineage)
    notify("container", container.pk)


def undo_take_in(job: Job) -> str | None:
    """Remove what there is of it, and its row; one that was made, and only did not start, stays."""
    if job.journal.get("created") or job.operation.container is None:
        return ""
    job.runtime.delete(job.container.pk)
    records.undo_reservation(job.operation)
    return None


def put_back(job: Job) -> None:
    """Have a container's files be a backup's; one that runs is stopped as late as can be, and started again."""
    container, asked = job.container, job.arguments
    if "was_running" not in job.journal:
        job.remember(was_running=job.observe(container).status in lifecycle.LIVE)
    if not job.journal.get("restored"):
        pool = open_pool(job.host, store.load(job.host, container.pk).pool)
        with (
            _source(job) as fd,
            backing.unpacked(
                job.host, fd, devices=_admin(job), begin=lambda _told: None, watcher=watcher(job), pool=pool
            ) as (outcome, layers),
        ):
            stack = backing.stack_of(outcome.manifest, layers, asked.get("snapshot", ""))
            job.no_more_cancel()
            if job.observe(container).status in lifecycle.LIVE:
                job.progress(88, "Stopping")
                lifecycle.stop_container(job, container, timeout_sec=STOP_BEFORE_SEC)
            job.progress(92, "Restoring")
            safety = Safety(name=asked["safety"], note=asked["safety_note"], expires_at=asked["safety_until"])
            made = backing.replace(job.host, container.pk, stack, safety)
        _put_back(job, made.layers)
    if asked.get("upload"):
        staging.forget_upload(job.host, asked["upload"])
    if job.journal["was_running"]:
        job.progress(96, "Starting")
        lifecycle.start_container(job, container)
    else:
        job.settle(container)
    job.message = say("Restored; %(safety)s takes it back.", safety=asked["safety"])


def _put_back(job: Job, layers: tuple[str, ...]) -> None:
    """Write down what a container is after its files were exchanged."""
    container, asked = job.container, job.arguments
    with transaction.atomic():
        take_layers(container, layers)
        container.lineage = []
        Container.objects.filter(pk=container.pk).update(lineage=[])
        for name, one in job.runtime.snapshots(container.pk).items():
            if name == asked["safety"]:
                points.take(container, name, one, job.operation.actor_name)
        records.add_event(container, "restored", reason=asked["said"], operation=job.operation)
    job.remember(restored=True)
    notify("container", container.pk)


def replaced(job: Job) -> bool:
    """Write down a restore in place that a worker which was lost had got through; False where there was none."""
    if not (job.journal.get("restored") or snapshots.exchanged(job)):
        return False
    if not job.journal.get("restored"):
        _put_back(job, job.runtime.stored()[job.container.pk].layers)
    if job.arguments.get("upload"):
        staging.forget_upload(job.host, job.arguments["upload"])
    snapshots.start_again(job, job.container)
    job.message = say("Restored; %(safety)s takes it back.", safety=job.arguments["safety"])
    return True


def undo_put_back(job: Job) -> str | None:
    """Start it again, if it ran before and its files are what they were."""
    container = Container.objects.filter(pk=job.operation.container_id).first()
    if container is None or replaced(job):
        return ""
    snapshots.start_again(job, container)
    return None


@contextlib.contextmanager
def _source(job: Job) -> Iterator[int]:
    """Yield a descriptor of what an import reads: a backup, or an upload."""
    if upload := job.arguments.get("upload"):
        with staging.opened_upload(job.host, upload) as fd:
            yield fd
        return
    row = row_of(job)
    with places.of(job.host, row.destination).reading(row.file) as fd:
        yield fd


def _admin(job: Job) -> bool:
    """Tell whether whoever asked stands above the projects."""
    return bool(job.operation.actor and job.operation.actor.is_active and job.operation.actor.host_admin)
