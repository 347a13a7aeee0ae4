"""Backups: making them, looking after them, and having containers back of them."""

from __future__ import annotations

from typing import Any, Final

from django.db.models import QuerySet, Sum

from panel.accounts import audit
from panel.accounts.actor import Actor
from panel.accounts.models import Project

from ..bookkeeping import reservations
from ..core.errors import NotFound, PolicyDenied, SpecError
from ..core.model.states import Action
from ..core.names import check_name
from ..core.rules.pool_rules import DEFAULT
from ..core.sentences import say
from ..models import Backup, Container, Host, Operation, local_host
from . import nics, points, pools, queue, uploads
from .access import find_container, find_project, require_host_admin
from .resources import usable_network
from .told import policy_of

LOCAL: Final = "local"
IMAGE_NAME: Final = "backup"
"""Of a container that is made of one: the image that it was made from once may be no more."""


def destinations(host: Host) -> list[str]:
    """Return the places that the host's policy, as its worker last told it, gives for backups."""
    return list(host.facts.get("policy", {}).get("backups", [LOCAL]))


def check_destination(host: Host, name: str) -> str:
    """Return name if backups may be written there; raises PolicyDenied."""
    with policy_of(host):
        if name not in destinations(host):
            raise PolicyDenied(
                say("This host's policy names no place %(name)s for backups.", name=name), field="destination"
            )
    return name


def visible(actor: Actor) -> QuerySet[Backup]:
    """Return the backups that somebody may see."""
    rows: QuerySet[Backup] = Backup.objects.visible_to(actor.user).select_related("project", "host")
    return rows


def size(actor: Actor) -> int:
    """Return how much room the backups that somebody may see take."""
    return int(visible(actor).aggregate(total=Sum("size_bytes"))["total"] or 0)


def find(actor: Actor, backup_id: str, action: str = "view") -> Backup:
    """Return a backup that somebody may do the action with; raises NotFound, Forbidden."""
    row = visible(actor).filter(pk=backup_id).first() if "\0" not in backup_id else None
    if row is None:
        raise NotFound("There is no such backup.")
    if row.project is None:
        require_host_admin(actor, action, row.container)
    elif action != "view":
        find_project(actor, row.project.name, action)
    return row


def export(
    actor: Actor,
    name: str,
    *,
    destination: str = LOCAL,
    with_snapshots: bool = True,
    idempotency_key: str | None = None,
) -> Operation:
    """Ask for a backup of a container. It is not held meanwhile: it may be started, changed and deleted."""
    if known := queue.known(actor, idempotency_key):
        return known
    container = find_container(actor, name, "backup-export")
    return _export(actor, container, destination, idempotency_key, with_snapshots=with_snapshots)


def export_by_schedule(container: Container, destination: str, *, with_snapshots: bool, schedule: str) -> Operation:
    """Ask for a backup that the clock asks for."""
    return _export(None, container, destination, None, with_snapshots=with_snapshots, schedule=schedule)


def _export(
    actor: Actor | None,
    container: Container,
    destination: str,
    key: str | None,
    *,
    with_snapshots: bool,
    schedule: str = "",
) -> Operation:
    points.fits(container, Action.SNAPSHOT)
    check_destination(container.host, destination)
    arguments = {
        "container": container.pk,
        "destination": destination,
        "with_snapshots": with_snapshots,
        "schedule": schedule,
    }
    return queue.committed(
        actor,
        key,
        lambda: queue.insert(
            actor,
            "backup-export",
            container.host,
            key,
            project=container.project,
            arguments=arguments,
            cancellable=True,
            name=container.name,
        ),
    )


def verify(actor: Actor | None, row: Backup, *, idempotency_key: str | None = None) -> Operation:
    """Ask for a backup to be read to its end, and its digests to be compared. row: by find()."""
    return _about(actor, "backup-verify", row, idempotency_key, cancellable=True)


def delete(actor: Actor | None, row: Backup, *, idempotency_key: str | None = None) -> Operation:
    """Ask for a backup to be deleted, for good. row: by find()."""
    return _about(actor, "backup-delete", row, idempotency_key, cancellable=False)


def _about(actor: Actor | None, action: str, row: Backup, key: str | None, *, cancellable: bool) -> Operation:
    if known := queue.known(actor, key):
        return known

    def make() -> Operation:
        queue.refuse_busy(unfinished(row, ("backup-delete", action)))
        return queue.insert(
            actor,
            action,
            row.host,
            key,
            project=row.project,
            arguments={"backup": row.pk},
            cancellable=cancellable,
            name=row.container,
        )

    return queue.committed(actor, key, make)


def unfinished(row: Backup, actions: tuple[str, ...] = ()) -> Operation | None:
    """Return an unfinished operation on a backup; of these actions, where some are named."""
    found = Operation.objects.filter(
        status__in=Operation.UNFINISHED, action__startswith="backup-", arguments__backup=row.pk
    )
    return (found.filter(action__in=actions) if actions else found).first()


def scan(actor: Actor, destination: str, *, idempotency_key: str | None = None) -> Operation:
    """Ask what lies in a place; for host administrators, whose what is found there is."""
    if known := queue.known(actor, idempotency_key):
        return known
    host = local_host()
    require_host_admin(actor, "backup-scan", destination)
    check_destination(host, destination)
    arguments = {"destination": destination}
    return queue.committed(
        actor,
        idempotency_key,
        lambda: queue.insert(actor, "backup-scan", host, idempotency_key, arguments=arguments, name=destination),
    )


def take_in(
    actor: Actor,
    source: dict[str, str],
    name: str,
    *,
    project: str = "default",
    network: str = "default",
    pool: str = DEFAULT,
    start: bool = False,
    idempotency_key: str | None = None,
) -> Operation:
    """Ask for a new container out of a backup; its name, addresses and ids are its own.

    source: {"backup": id} or {"upload": id}. pool: where it is to lie, and all that the backup brings. Raises
    NotFound, Forbidden, SpecError, PolicyDenied, AlreadyExists, Busy.
    """
    if known := queue.known(actor, idempotency_key):
        return known
    owner = find_project(actor, project, "backup-import")
    arguments = _source(actor, source)
    check_name(name)
    host = local_host()
    pools.check_given(host, owner.name, pool)

    def make() -> Operation:
        locked = reservations.lock_host(host)
        queue.refuse_taken(name)
        columns = {"name": name, "project": owner, "image_name": IMAGE_NAME, "pool": pool}
        container = reservations.add_container(locked, columns)
        _interface(actor, container, network, owner, locked)
        return queue.insert(
            actor,
            "backup-import",
            host,
            idempotency_key,
            container=container,
            project=owner,
            arguments={**arguments, "start": start},
            cancellable=True,
        )

    return queue.committed(actor, idempotency_key, make)


def _interface(actor: Actor, container: Container, network: str, owner: Project, host: Host) -> None:
    try:
        nics.write(
            container,
            nics.plan(container, [{"network": network}], lambda name: usable_network(actor, name, owner, host)),
        )
    except SpecError as error:
        if error.field == "nics.0.network":
            raise SpecError(error.message, field="network") from None
        raise


def put_back(
    actor: Actor, name: str, source: dict[str, str], *, snapshot: str = "", idempotency_key: str | None = None
) -> Operation:
    """Ask for a container's files to be those of a backup, or of a snapshot in it; what is now becomes a snapshot.

    Its name, addresses and configuration stay. source: as of take_in.
    """
    if known := queue.known(actor, idempotency_key):
        return known
    container = find_container(actor, name, "backup-restore")
    arguments = _source(actor, source)
    if snapshot:
        check_name(snapshot, field="snapshot")

    def make() -> Operation:
        row = Container.objects.select_for_update(of=("self",)).filter(pk=container.pk).first()
        if row is None:
            raise NotFound("There is no such container.")
        queue.refuse_held(row)
        points.fits(row, Action.RESTORE)
        return queue.insert(
            actor,
            "backup-restore",
            container.host,
            idempotency_key,
            container=row,
            project=container.project,
            arguments={**arguments, "snapshot": snapshot, **points.safety(row, arguments["said"])},
            cancellable=True,
        )

    return queue.committed(actor, idempotency_key, make)


def _source(actor: Actor, source: dict[str, str]) -> dict[str, Any]:
    """Return what a backup is read from as arguments; raises NotFound, Forbidden, SpecError."""
    if source.get("backup"):
        row = find(actor, source["backup"], "backup-download")
        queue.refuse_busy(unfinished(row, ("backup-delete",)))
        return {"backup": row.pk, "said": row.file.partition(".")[0]}
    upload = uploads.find(actor, str(source.get("upload", "")))
    if upload.received_bytes != upload.size_bytes:
        raise SpecError("The upload is not complete.", field="upload")
    return {"upload": upload.id, "said": "upload"}


def prepare_download(actor: Actor, backup_id: str) -> Backup:
    """Check that somebody may have a backup's bytes, and tell the audit trail."""
    row = find(actor, backup_id, "backup-download")
    project = row.project.name if row.project else ""
    audit.record(actor, "backup.download", "backup", row.container, project=project, detail={"file": row.file})
    return row


def prepare_sending(actor: Actor, name: str) -> Container:
    """Check that somebody may have a container as a file, and tell the audit trail."""
    container = find_container(actor, name, "backup-export")
    points.fits(container, Action.SNAPSHOT)
    audit.record(actor, "backup.download", "container", name, project=container.project.name)
    return container
