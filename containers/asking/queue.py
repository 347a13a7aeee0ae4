"""How an operation comes into being: its row, its audit record and what it reserves in one transaction, then a ring."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Final
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from panel.accounts import audit
from panel.accounts.actor import Actor
from panel.accounts.models import Project

from ..bookkeeping import records
from ..core.errors import AlreadyExists, Busy, CoreError, SpecError
from ..core.sentences import say
from ..messaging import doorbell
from ..models import Container, Host, Image, Network, Operation

IDEMPOTENCY_KEY_MAX: Final = 255


def unfinished(container: Container) -> Operation | None:
    """Return the operation that holds the container now, as its own or as the clone that it makes."""
    return _unfinished(container).first()


def _unfinished(container: Container) -> QuerySet[Operation]:
    held = Q(container=container) | Q(target=container)
    return Operation.objects.filter(held, status__in=Operation.UNFINISHED).order_by("created_at")


def holding(container_ids: Collection[str]) -> dict[str, UUID]:
    """Return the id of the operation that holds each of these containers now, by the container's."""
    rows = Operation.objects.filter(
        Q(container__in=container_ids) | Q(target__in=container_ids), status__in=Operation.UNFINISHED
    )
    found: dict[str, UUID] = {}
    for operation_id, *held in rows.order_by("-created_at").values_list("pk", "container_id", "target_id"):
        found.update((container_id, operation_id) for container_id in held if container_id)
    return found


def known(actor: Actor | None, key: str | None) -> Operation | None:
    """Return the operation that the actor has asked for with this key before."""
    if key is None or actor is None:
        return None
    if not 1 <= len(key) <= IDEMPOTENCY_KEY_MAX or not key.isprintable():
        raise SpecError(
            say("Use 1 to %(most)s printable characters.", most=IDEMPOTENCY_KEY_MAX), field="Idempotency-Key"
        )
    return Operation.objects.filter(actor=actor.user, idempotency_key=key).first()


def committed(actor: Actor | None, key: str | None, make: Callable[[], Operation]) -> Operation:
    """Run make() in a transaction; once more where another's rows came in between, which its checks now see.

    What is refused because the same request came twice at once, with the same key, is the other one's operation.
    """
    for last in (False, True):
        try:
            with transaction.atomic():
                return make()
        except (CoreError, IntegrityError) as error:
            if earlier := known(actor, key):
                return earlier
            if last or isinstance(error, CoreError):
                raise
    raise AssertionError("unreachable")


def insert(
    actor: Actor | None,
    action: str,
    host: Host,
    key: str | None,
    *,
    container: Container | None = None,
    target: Container | None = None,
    image: Image | None = None,
    network: Network | None = None,
    project: Project | None = None,
    arguments: dict[str, Any] | None = None,
    cancellable: bool = False,
    name: str = "",
) -> Operation:
    """Insert an operation with its pending audit record, in the caller's transaction, and ring on commit.

    name: of what it is about, where that has no row.
    """
    name = name or str(container or image or network)
    operation = Operation.objects.create(
        host=host,
        action=action,
        container=container,
        container_name=container.name if container else "",
        target=target,
        image=image,
        network=network,
        object_name=name,
        project=project,
        arguments=arguments or {},
        actor=actor.user if actor else None,
        actor_name=actor.name if actor else audit.SYSTEM_NAME,
        source_ip=actor.source_ip if actor else None,
        cancellable=cancellable,
        idempotency_key=key if actor else None,
        rung_at=timezone.now(),
    )
    audit.record(
        actor,
        records.audit_action(action),
        records.audit_object(action),
        name,
        project=project.name if project else "",
        outcome=audit.Outcome.PENDING,
        operation=operation.pk,
    )
    doorbell.ring(operation.pk, host.name)
    # who asked knows; most others are told how it ended, which may be a moment later
    records.tell_of(operation, patient=True)
    return operation


def refuse_taken(name: str) -> None:
    """Raise AlreadyExists where a container has the name."""
    if Container.objects.filter(name=name).exists():
        # the name is all that is told: the container may be another project's
        raise AlreadyExists(say("The name %(name)s is taken.", name=name), field="name")


def refuse_held(container: Container) -> None:
    """Raise Busy where an operation holds the container."""
    refuse_busy(_unfinished(container).only("action").first())


def refuse_busy(operation: Operation | None) -> None:
    """Raise Busy where there is an operation."""
    if operation is not None:
        raise Busy(
            say("Another operation (%(action)s) is not finished yet.", action=operation.action),
            operation=str(operation.pk),
        )
