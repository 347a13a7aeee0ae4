"""The trash: what is in it, putting it back, and deleting it for good."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Any, Final

from django.db import transaction
from django.db.models import QuerySet, Sum

from panel.accounts import audit
from panel.accounts.actor import Actor
from panel.accounts.models import Project

from ..bookkeeping import reservations
from ..core.errors import AlreadyExists, NotFound, SpecError
from ..core.names import check_name
from ..core.sentences import say
from ..models import Container, Host, Image, Operation, Snapshot, Trashed
from . import interfaces, nics, queue
from .access import find_project, require_host_admin

DAYS: Final = 7
"""So long the trash keeps what was deleted, unless a host administrator says otherwise."""
DAYS_MAX: Final = 365
_FACT: Final = "trash_days"
_NOT_TAKEN: Final = ("slot", "machine_id", "layers", "name", "generation", "created_at")


def days(actor: Actor | None, host: Host, arguments: dict[str, Any]) -> int:
    """Return how long something that is deleted is kept; what nobody asks for by hand is not.

    arguments: {"keep_days"?: 0 for not at all}. Raises SpecError.
    """
    if actor is None:
        return 0
    asked = arguments.get("keep_days")
    return kept_days(host) if asked is None else _checked(asked, field="keep_days")


def _checked(value: Any, *, field: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= DAYS_MAX:
        raise SpecError(say("Give a number of days from 0 to %(most)s.", most=DAYS_MAX), field=field)
    return value


def kept_days(host: Host) -> int:
    """Return how many days the trash keeps what is deleted on a host."""
    return int(host.facts.get(_FACT, DAYS))


def set_days(actor: Actor, host: Host, value: int) -> None:
    """Change how long the trash keeps what is deleted from now on; for host administrators."""
    require_host_admin(actor, "trash-days", host.name)
    checked = _checked(value, field="days")
    with transaction.atomic():
        row = Host.objects.select_for_update().get(pk=host.pk)
        row.facts = {**row.facts, _FACT: checked}
        row.save(update_fields=["facts"])
        audit.record(actor, "trash.days", "host", host.name, detail={"days": checked})
    host.facts = row.facts


def visible(actor: Actor) -> QuerySet[Trashed]:
    """Return what somebody may see of the trash."""
    rows: QuerySet[Trashed] = Trashed.objects.visible_to(actor.user).select_related("project", "host")
    return rows


def size(actor: Actor) -> int:
    """Return how much of the disk what somebody may see of the trash holds."""
    return int(visible(actor).aggregate(total=Sum("size_bytes"))["total"] or 0)


def find(actor: Actor, entry_id: str, action: str) -> Trashed:
    """Return something that somebody may do the action on; raises NotFound, Forbidden."""
    row = visible(actor).filter(pk=entry_id).first() if "\0" not in entry_id else None
    if row is None:
        raise NotFound("There is no such thing in the trash.")
    if row.project is None:
        require_host_admin(actor, action, row.name)
    else:
        find_project(actor, row.project.name, action)
    return row


def taken(rows: Iterable[Trashed]) -> set[str]:
    """Return the ids of those whose name something else has by now: they come back by another one."""
    found = list(rows)
    names = [row.name for row in found]
    containers = set(Container.objects.filter(name__in=names).values_list("name", flat=True))
    images = set(Image.objects.filter(name__in=names, state=Image.State.READY).values_list("name", flat=True))
    points = set(Snapshot.objects.filter(name__in=names).values_list("container_id", "name"))
    held = {"container": containers, "image": images}
    return {
        row.pk for row in found
        if (row.name in held[row.kind] if row.kind in held else (row.container_id, row.name) in points)
    }  # fmt: skip


def restore(actor: Actor, entry_id: str, name: str | None = None, *, idempotency_key: str | None = None) -> Operation:
    """Ask for something to be put back, by another name where its own is taken. Raises AlreadyExists, NotFound."""
    if known := queue.known(actor, idempotency_key):
        return known
    row = find(actor, entry_id, "trash-restore")
    wanted = check_name(name or row.name)

    def make() -> Operation:
        host = reservations.lock_host(row.host)
        arguments = {"entry": row.pk, "kind": row.kind, "name": wanted}
        if row.kind == "container":
            return _container(actor, host, row, wanted, arguments, idempotency_key)
        if row.kind == "snapshot":
            return _snapshot(actor, host, row, wanted, arguments, idempotency_key)
        if Image.objects.filter(host=host, name=wanted, state=Image.State.READY).exists():
            raise AlreadyExists(say("There is an image %(name)s already.", name=wanted), field="name")
        arguments |= {key: row.detail.get(key) for key in ("source", "description")}
        return queue.insert(actor, "trash-restore", host, idempotency_key, arguments=arguments, name=wanted)

    return queue.committed(actor, idempotency_key, make)


def _container(
    actor: Actor, host: Host, row: Trashed, name: str, arguments: dict[str, Any], key: str | None
) -> Operation:
    queue.refuse_taken(name)
    if Container.objects.filter(pk=row.pk).exists():
        raise AlreadyExists("It is being put back already.")
    project = row.project or Project.objects.get(name="default")
    whole = row.detail["columns"]
    columns = {column: value for column, value in whole.items() if column not in _NOT_TAKEN}
    image = Image.objects.filter(host=host, name=whole.get("image_name", "")).first()
    created_at = dt.datetime.fromisoformat(whole["created_at"])
    more = {"id": row.pk, "name": name, "project": project, "image": image, "created_at": created_at}
    container = reservations.add_container(host, {**columns, **more})
    Container.objects.filter(pk=container.pk).update(
        machine_id=whole["machine_id"],
        generation=int(whole["generation"]) + 1,
        next_snapshot=row.detail.get("next_snapshot", 0),
    )
    container.host = host
    nics.write(container, interfaces.planned(actor, container, row.detail.get("nics") or []))
    arguments["created_by"] = row.detail.get("created_by") or {}
    return queue.insert(actor, "trash-restore", host, key, container=container, project=project, arguments=arguments)


def _snapshot(
    actor: Actor, host: Host, row: Trashed, name: str, arguments: dict[str, Any], key: str | None
) -> Operation:
    container = Container.objects.select_related("project").filter(pk=row.container_id).first()
    if container is None:
        raise NotFound(say("Its container %(name)s is gone: put that back first.", name=row.container))
    if container.snapshots.filter(name=name).exists():
        raise AlreadyExists(say("There is a snapshot %(name)s already.", name=name), field="name")
    queue.refuse_held(container)
    arguments["created_by"] = row.detail.get("created_by") or ""
    return queue.insert(
        actor, "trash-restore", host, key, container=container, project=container.project, arguments=arguments
    )


def purge(actor: Actor | None, row: Trashed, *, idempotency_key: str | None = None) -> Operation:
    """Ask for something to be deleted for good. actor None: its days are over."""
    if known := queue.known(actor, idempotency_key):
        return known

    def make() -> Operation:
        host = reservations.lock_host(row.host)
        arguments = {"entry": row.pk, "kind": row.kind}
        return queue.insert(
            actor, "trash-purge", host, idempotency_key, project=row.project, arguments=arguments, name=row.name
        )

    return queue.committed(actor, idempotency_key, make)
