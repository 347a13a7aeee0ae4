"""update and rename: first the kernel, then the store, then the row; each can be taken back until the next is done."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, Final

from django.db import IntegrityError, transaction

from ..asking import nics as asked_nics
from ..bookkeeping import records, specs
from ..core.errors import AlreadyExists, InvalidTransition
from ..core.model.spec import Spec
from ..core.model.states import Status
from ..core.sentences import say
from ..messaging.notices import notify
from ..models import Container
from . import lifecycle
from .job import Job

AT_START: Final = frozenset({"console", "environment", "hooks", "init", "init_command", "privileged", "security"})
"""What a container that runs takes over when it is started again."""


def run(job: Job) -> None:
    """Change what was asked for; limits at once where it runs."""
    container = job.container
    changes: dict[str, Any] = dict(job.arguments.get("changes") or {})
    if name := job.arguments.get("name"):
        changes["name"] = name
    if name and name != container.name and job.observe(container).status != Status.STOPPED:
        raise InvalidTransition("Stop it first.", status=container.status, action="rename")
    before = specs.spec_of(container, job.host)
    old = {field: getattr(container, field) for field in changes}
    for field, value in changes.items():
        setattr(container, field, value)
    changed = [field for field in changes if old[field] != changes[field]]
    nics = job.arguments.get("nics")
    if nics is not None and job.final_spec(container, nics).nics != before.nics:
        changed.append("nics")
        changes["nics"] = nics
    if changed:
        apply(job, container, before, old, {field: changes[field] for field in changed})
    job.message = "Renamed." if changed == ["name"] else "Changed." if changed else "Nothing to change."
    if AT_START.intersection(changed) and container.status in lifecycle.LIVE:
        job.message = "Changed; part of it takes effect at the next start."


def apply(job: Job, container: Container, before: Spec, old: dict[str, Any], changes: dict[str, Any]) -> None:
    """Put in force what was set in the row's object. before, old: what was so until now; changes: column -> value."""
    changes = dict(changes)
    nics = changes.pop("nics", None)
    container.generation += 1
    after = job.final_spec(container, nics)
    with ExitStack() as undo:
        if _disk(after) != _disk(before):
            job.runtime.resize(container.pk, after.limits, before.limits)
            if job.observe(container).status not in lifecycle.LIVE:  # a disk in use never shrinks
                undo.callback(job.runtime.resize, container.pk, before.limits, after.limits)
        if after.limits != before.limits and job.observe(container).status in lifecycle.LIVE:
            job.runtime.apply_limits(container.pk, after.limits)
            undo.callback(job.runtime.apply_limits, container.pk, before.limits)
        if (after.mounts, after.devices) != (before.mounts, before.devices):
            if job.observe(container).status in lifecycle.LIVE:
                job.runtime.attach(after, before)
                undo.callback(job.runtime.attach, before, after)
        if after.nics != before.nics and job.observe(container).status in lifecycle.LIVE:
            job.runtime.change_nics(after, before)
            undo.callback(job.runtime.change_nics, before, after)
        job.runtime.save(after)
        undo.callback(job.runtime.save, before)
        extra = {"restart_at": None, "restart_count": 0} if "restart" in changes else {}
        try:
            with transaction.atomic():
                Container.objects.filter(pk=container.pk).update(**changes, **extra, generation=container.generation)
                if nics is not None:
                    asked_nics.write(container, nics)
                _tell(job, container, old, changes)
        except IntegrityError as error:
            if nics is not None and "name" not in changes:
                raise AlreadyExists("A MAC or an address was taken meanwhile.", field="nics") from error
            raise AlreadyExists(say("The name %(name)s is taken.", name=container.name), field="name") from error
        undo.pop_all()
    notify("container", container.pk)


def _disk(spec: Spec) -> tuple[int | None, int | None]:
    return spec.limits.disk_bytes, spec.limits.disk_inodes


def _tell(job: Job, container: Container, old: dict[str, Any], changes: dict[str, Any]) -> None:
    if "limits" in changes:
        detail = {"old": old["limits"], "new": changes["limits"]}
        records.add_event(container, "limits", operation=job.operation, detail=detail)
    if "name" in changes:
        reason = f"{old['name']} → {changes['name']}"
        records.add_event(container, "renamed", reason=reason, operation=job.operation)
