"""The only door to the verbs of the panel, for pages, API and commands alike.

Each function takes who asks first, looks objects up through visible_to() (NotFound for what he may not see, Forbidden
for what he may see but not do), checks what can be checked at once, and makes an Operation with everything that it
needs reserved, in one transaction. The worker is rung on commit. What is refused leaves no trace but an audit record.
"""

from __future__ import annotations

import time
from typing import Any, Final
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from panel.accounts import audit
from panel.accounts.actor import Actor, Forbidden

from ..bookkeeping import records, reservations
from ..core.errors import InvalidTransition, NotFound, SpecError
from ..core.sentences import say
from ..models import Container, Host, Operation, local_host
from . import configuration, nics, queue, requests
from .access import find_container, find_image, find_network, find_operation, find_project, find_to_act
from .preparations import PREPARE
from .queue import unfinished
from .requests import ContainerRequest
from .resources import (
    build_image,
    change_network,
    create_network,
    delete_image,
    delete_network,
    usable_image,
    usable_network,
)

__all__ = [
    "Actor",
    "ContainerRequest",
    "Forbidden",
    "act",
    "build_image",
    "cancel_operation",
    "change_network",
    "create_container",
    "create_network",
    "delete_image",
    "delete_network",
    "find_container",
    "find_image",
    "find_network",
    "find_operation",
    "find_project",
    "unfinished",
    "wait",
    "worker_answers",
]

WORKER_SILENT_SEC: Final = 10.0


# containers


def create_container(actor: Actor, data: ContainerRequest, *, idempotency_key: str | None = None) -> Operation:
    """Reserve a new container's name, slot and addresses, and ask for it to be made (and started)."""
    if known := queue.known(actor, idempotency_key):
        return known
    project = find_project(actor, data.project, "create")
    host = local_host()
    columns = requests.check_request(data, host)

    def make() -> Operation:
        locked = reservations.lock_host(host)
        queue.refuse_taken(data.name)
        image = usable_image(actor, data.image, locked)
        configuration.check_command(columns["init_command"], {**(image.defaults.get("init") or {}), **columns["init"]})
        container = reservations.add_container(locked, {**columns, "project": project, "image": image})
        wanted = [{"network": data.network}] if data.nics is None else data.nics
        try:
            nics.write(
                container, nics.plan(container, wanted, lambda name: usable_network(actor, name, project, locked))
            )
        except SpecError as error:
            if data.nics is None and error.field == "nics.0.network":
                raise SpecError(error.message, field="network") from None
            raise
        return queue.insert(
            actor,
            "create",
            host,
            idempotency_key,
            container=container,
            project=project,
            arguments={"start": data.start, "image": image.name},
            cancellable=True,
        )

    return queue.committed(actor, idempotency_key, make)


def act(
    actor: Actor,
    name: str,
    action: str,
    arguments: dict[str, Any] | None = None,
    *,
    idempotency_key: str | None = None,
) -> Operation:
    """Ask for something to be done to a container.

    arguments, by action: stop, restart {"timeout", "force", "kill"}; snapshot {"name"?, "note"?}; snapshot-delete and
    restore {"snapshot"}; clone {"name", "snapshot"?}; delete {"force"?}; rename {"name"}; update: what to change, as in
    configuration.CHANGEABLE, and "name"; the others none. Raises NotFound, Forbidden, Busy (with the operation's id),
    InvalidTransition, SpecError, PolicyDenied, AlreadyExists.
    """
    if known := queue.known(actor, idempotency_key):
        return known
    if action not in PREPARE:
        raise NotFound(say("Containers know no %(action)r.", action=action))
    container = find_to_act(actor, name, action)
    if action == "update" and "name" in (arguments or {}):
        find_to_act(actor, name, "rename")
    return _request(actor, container, action, dict(arguments or {}), idempotency_key)


def request_by_system(container: Container, action: str, arguments: dict[str, Any] | None = None) -> Operation:
    """Ask for something that nobody asked for: a restart by policy, an ephemeral container's end, an autostart."""
    return _request(None, container, action, dict(arguments or {}), None)


def _request(
    actor: Actor | None, container: Container, action: str, arguments: dict[str, Any], key: str | None
) -> Operation:
    def make() -> Operation:
        host = reservations.lock_host(container.host) if action == "clone" else container.host
        row = Container.objects.select_for_update(of=("self",)).filter(pk=container.pk).first()
        if row is None:
            raise NotFound("There is no such container.")
        queue.refuse_held(row)
        row.host = host
        extra = PREPARE[action](actor, row, arguments)
        return queue.insert(actor, action, host, key, container=row, project=container.project, **extra)

    return queue.committed(actor, key, make)


# operations


def cancel_operation(actor: Actor, operation_id: UUID) -> Operation:
    """Cancel an operation: at once while it waits, as soon as its step allows once it runs.

    Raises InvalidTransition where it is too late.
    """
    operation = find_operation(actor, operation_id, "cancel")
    with transaction.atomic():
        cancelled = records.finish(
            operation, Operation.Status.CANCELLED, message="Cancelled before it began.", was=[Operation.Status.QUEUED]
        )
        if cancelled:
            records.undo_reservation(operation)
        asked = cancelled or Operation.objects.filter(
            pk=operation_id, status=Operation.Status.RUNNING, cancellable=True
        ).update(cancel_requested=True)
        if not asked:
            operation.refresh_from_db()
            state = "has ended" if operation.finished else "cannot be stopped any more"
            raise InvalidTransition(
                say("It is too late: the operation %(state)s.", state=state), status=operation.status
            )
        audit.record(
            actor,
            "operation.cancel",
            "operation",
            str(operation_id),
            project=operation.project.name if operation.project else "",
            detail={"action": operation.action, "object": operation.object_name},
        )
    operation.refresh_from_db()
    return operation


def wait(operation_id: UUID, seconds: float) -> Operation:
    """Return the operation once it has ended, or as it is when seconds (0..60) are up; raises NotFound."""
    deadline = time.monotonic() + min(max(seconds, 0.0), 60.0)
    pause = 0.01
    while True:
        operation = Operation.objects.select_related("host", "container", "project").filter(pk=operation_id).first()
        if operation is None:
            raise NotFound("There is no such operation.")
        left = deadline - time.monotonic()
        if operation.finished or left <= 0:
            return operation
        time.sleep(min(pause, left))
        pause = min(pause * 1.3, 0.25)


def worker_answers(host: Host) -> bool:
    """Whether the host's worker has answered a doorbell lately; the ticker rings every few seconds."""
    seen = Host.objects.filter(pk=host.pk).values_list("seen_at", flat=True).first()
    return seen is not None and abs((timezone.now() - seen).total_seconds()) < WORKER_SILENT_SEC
