"""The rows' side of what happens: claim an operation, tell its progress, finish it, move a status, write an Event.

Every change of a status and every end of an operation is a compare-and-set, with what belongs to it in the same
transaction, and with a notice once that is committed.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Any, Final
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import F
from django.utils import timezone

from panel.accounts import audit

from ..core.model.states import Status
from ..core.sentences import as_json
from ..messaging.notices import notify
from ..models import Container, Event, Host, Image, Network, Operation

LOG_MAX_CHARS: Final = 64 * 1024
MESSAGE_MAX_CHARS: Final = 500

AUDIT_ACTIONS: Final[dict[str, str]] = {
    "snapshot": "snapshot.create",
    "snapshot-change": "snapshot.change",
    "snapshot-delete": "snapshot.delete",
    "restore": "snapshot.restore",
    "put-back": "file.put-back",
    "trash-restore": "trash.restore",
    "trash-purge": "trash.purge",
    "backup-export": "backup.export",
    "backup-verify": "backup.verify",
    "backup-delete": "backup.delete",
    "backup-import": "backup.import",
    "backup-restore": "backup.restore",
    "backup-scan": "backup.scan",
    "image-build": "image.build",
    "image-catalogue": "image.catalogue",
    "image-delete": "image.delete",
    "network-create": "network.create",
    "network-change": "network.change",
    "network-delete": "network.delete",
}


def audit_action(action: str) -> str:
    """Return the audit trail's word for an operation's action."""
    return AUDIT_ACTIONS.get(action, f"container.{action}")


def audit_object(action: str) -> str:
    """Return the kind of object that an operation's action is about."""
    return action.partition("-")[0] if action.startswith(("image-", "network-", "trash-", "backup-")) else "container"


# operations


def claim(operation_id: UUID, owner: dict[str, Any]) -> Operation | None:
    """Take a queued operation for a process; None where it is not queued (any more)."""
    taken = Operation.objects.filter(pk=operation_id, status=Operation.Status.QUEUED).update(
        status=Operation.Status.RUNNING, owner=owner, started_at=timezone.now(), attempts=F("attempts") + 1
    )
    if not taken:
        return None
    notify("operation", operation_id, patient=True)
    # what few operations have is asked for by those: SQL with all of it takes longer to make than all the others
    found = Operation.objects.select_related("host", "container", "project", "actor").get(pk=operation_id)
    container = found.container
    if container is not None:
        # they are the same rows, which need not be asked for again
        if container.host_id == found.host_id:
            container.host = found.host
        if found.project is not None and container.project_id == found.project_id:
            container.project = found.project
    return found


def requeue(operation: Operation, *, message: str) -> bool:
    """Give a running operation back whose owner is gone; False where it has moved meanwhile."""
    moved = Operation.objects.filter(
        pk=operation.pk, status=Operation.Status.RUNNING, owner=operation.owner, attempts=operation.attempts
    ).update(status=Operation.Status.QUEUED, owner=None, rung_at=timezone.now(), **_worded(message))
    if moved:
        notify("operation", operation.pk)
    return bool(moved)


def _worded(message: str) -> dict[str, Any]:
    return {"message": message[:MESSAGE_MAX_CHARS], "said": as_json(message)}


def save_progress(operation: Operation, **fields: Any) -> None:
    """Write what a running operation tells of itself: progress_pct, message, log, journal, cancellable."""
    if "message" in fields:
        fields |= _worded(fields["message"])
    Operation.objects.filter(pk=operation.pk, status=Operation.Status.RUNNING).update(**fields)
    if fields.keys() & {"progress_pct", "message", "log", "cancellable"}:
        notify("operation", operation.pk)


def finish(
    operation: Operation,
    status: str,
    *,
    message: str = "",
    error: dict[str, Any] | None = None,
    was: Iterable[str] = (Operation.Status.RUNNING,),
) -> bool:
    """End an operation and close its audit record; False where it had ended already."""
    values: dict[str, Any] = {
        "status": status,
        **_worded(message),
        "error": error,
        "cancellable": False,
        "finished_at": timezone.now(),
    }
    if status == Operation.Status.SUCCEEDED:
        values["progress_pct"] = 100
    with transaction.atomic():
        ended = Operation.objects.filter(pk=operation.pk, status__in=list(was)).update(**values)
        if not ended:
            return False
        for name, value in values.items():
            setattr(operation, name, value)
        detail = {"code": error["code"], "message": error["message"]} if error else None
        audit.close(operation.pk, status, detail)
        tell_of(operation)
    return True


def tell_of(operation: Operation, *, patient: bool = False) -> None:
    """Send the notices of an operation's beginning or end: itself, and what it holds."""
    notify("operation", operation.pk, patient=patient)
    for kind, object_id in (
        ("container", operation.container_id),
        ("container", operation.target_id),
        ("image", operation.image_id),
        ("network", operation.network_id),
    ):
        if object_id:
            notify(kind, object_id, patient=patient)


def undo_reservation(operation: Operation) -> None:
    """Remove the rows that an operation had reserved for what it did not make."""
    with transaction.atomic():
        for container_id in reserved(operation):
            forget_container(container_id)
        if operation.action == "network-create" and operation.network_id:
            Network.objects.filter(pk=operation.network_id).delete()
            notify("network", operation.network_id)
        elif operation.action == "image-build" and operation.image_id:
            Image.objects.filter(pk=operation.image_id, state=Image.State.BUILDING).update(state=Image.State.AVAILABLE)


def reserved(operation: Operation) -> list[str]:
    """Return the ids of the containers whose rows an operation had made before it began."""
    if operation.action == "clone":
        # the first one's row may be gone already
        return list(operation.arguments.get("targets") or filter(None, [operation.target_id]))
    made = operation.action in ("create", "import", "backup-import") or (
        operation.action == "trash-restore" and operation.arguments.get("kind") == "container"
    )
    return [operation.container_id] if made and operation.container_id else []


def forget_container(container_id: str) -> None:
    """Remove a container's row, with all that hangs on it; nothing there is fine."""
    row = Container.objects.filter(pk=container_id).values_list("name", "project__name", "project_id").first()
    if row is None:
        return
    Container.objects.filter(pk=container_id).delete()
    notify("container-deleted", container_id, name=row[0], project=row[1], project_id=row[2])


# containers


def set_status(
    container: Container,
    new: str,
    reason: str,
    *,
    operation: Operation | None = None,
    seen_at: dt.datetime | None = None,
    detail: dict[str, Any] | None = None,
    **fields: Any,
) -> bool:
    """Move a container from the status it was loaded with to what was observed; False where it has moved meanwhile.

    seen_at: the status_at it was loaded with, where a change there and back must count too. fields: more columns to
    write at the same time (init_pid, started_at, last_exit …). The same status again writes the fields and no Event.
    """
    guard = {"status_at": seen_at} if seen_at else {}
    old, now = container.status, timezone.now()
    changed = old != new
    values: dict[str, Any] = {**fields}
    if changed:
        values.update(status=new, status_reason=reason[:500], status_at=now)
    if not values:
        return True
    with transaction.atomic(savepoint=False):
        if not Container.objects.filter(pk=container.pk, status=old, **guard).update(**values):
            return False
        for name, value in values.items():
            setattr(container, name, value)
        notify("container", container.pk)  # before the Event: it is what most wait for
        if changed:
            add_event(container, "status", old=old, new=new, reason=reason, operation=operation, detail=detail)
    return True


def add_event(
    container: Container,
    kind: str,
    *,
    old: str = "",
    new: str = "",
    reason: str = "",
    operation: Operation | None = None,
    detail: dict[str, Any] | None = None,
) -> Event:
    """Write an Event, in the caller's transaction if there is one, and tell of it."""
    event = Event.objects.create(
        container=container,
        kind=kind,
        old=old,
        new=new,
        reason=reason[:500],
        actor_name=operation.actor_name if operation else audit.SYSTEM_NAME,
        operation=operation,
        detail=detail or {},
    )
    notify("event", event.pk, container=container.pk, event=kind)
    return event


def gone(container: Container) -> bool:
    """Whether the host has nothing of the container (yet, or any more)."""
    return container.status == Status.ABSENT


def worker_seen() -> None:
    """Write down that this host's worker answers."""
    Host.objects.filter(name=settings.BOXROOM_HOST).update(seen_at=timezone.now())
