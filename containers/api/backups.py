"""/backups: containers as files, in places of the host's, here, and from elsewhere."""

from __future__ import annotations

from typing import Annotated, Any

from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from ninja import Query, Router

from containers.asking import backups as asking
from containers.clients import backups as streams
from containers.models import Operation, local_host
from containers.showing import present

from . import answers, lists
from .answers import Key, Wait
from .auth import actor
from .files import download
from .lists import PageQuery
from .parsing import Body, Name, Text

router = Router(tags=["backups"])


class BackupIn(Body):
    """Where a backup is written to, and whether the container's snapshots are in it."""

    destination: Name = "local"
    snapshots: bool = True


class SourceIn(Body):
    """What a container is restored from: a backup, or an upload."""

    backup: Text | None = None
    upload: Text | None = None

    def source(self) -> dict[str, str]:
        """Return it as the asking side takes it."""
        return {"backup": self.backup or "", "upload": self.upload or ""}


class NewIn(SourceIn):
    """A new container out of a backup."""

    name: Name
    project: Name = "default"
    network: Name = "default"
    pool: Name = "default"
    start: bool = False


class InPlaceIn(SourceIn):
    """A container's files out of a backup, or out of a snapshot that is in it."""

    snapshot: Name | None = None


class ScanIn(Body):
    """A place whose backups are to be listed anew."""

    destination: Name


@router.get("/backups", summary="Backups")
def list_backups(
    request: HttpRequest,
    page: PageQuery,
    container: Annotated[str, Query(default="", max_length=63)],
    destination: Annotated[str, Query(default="", max_length=63)],
) -> dict[str, Any]:
    """The backups that the caller may see, the newest first; where new ones may be written."""
    rows = asking.visible(actor(request))
    if container:
        rows = rows.filter(container=container)
    if destination:
        rows = rows.filter(destination=destination)
    found = lists.answer(request, rows, page, present.backup, order=("-created_at", "pk"))
    return {**found, "destinations": asking.destinations(local_host())}


@router.post("/containers/{name}/backups", summary="Back a container up")
async def create_backup(
    request: HttpRequest, name: str, body: BackupIn | None = None, wait: Wait = 0, key: Key = None
) -> HttpResponse:
    """Write a backup; a running container stands still for the moment that a snapshot takes."""
    asked = body or BackupIn()

    def ask() -> Operation:
        return asking.export(
            actor(request),
            name,
            destination=asked.destination,
            with_snapshots=asked.snapshots,
            idempotency_key=key,
        )

    return await answers.operation(request, wait, ask)


@router.get("/containers/{name}/backup", summary="A container as a file")
async def get_container(
    request: HttpRequest, name: str, snapshots: Annotated[bool, Query(default=True)]
) -> HttpResponseBase:
    """A backup that is made while it is sent, and kept nowhere. One that ends early is refused when it is restored."""
    row = await sync_to_async(asking.prepare_sending)(actor(request), name)
    return download(await streams.made_now(row.pk, with_snapshots=snapshots))


@router.post("/containers/{name}/restore-backup", summary="Restore a backup in place")
async def put_back(request: HttpRequest, name: str, body: InPlaceIn, wait: Wait = 0, key: Key = None) -> HttpResponse:
    """Have the files of a container be those of a backup; a snapshot of what is now is made first."""

    def ask() -> Operation:
        return asking.put_back(actor(request), name, body.source(), snapshot=body.snapshot or "", idempotency_key=key)

    return await answers.operation(request, wait, ask)


@router.post("/backups/restore", summary="Restore a backup as a new container")
async def take_in(request: HttpRequest, body: NewIn, wait: Wait = 0, key: Key = None) -> HttpResponse:
    """Make a container of a backup. What the caller may not have of its configuration is left out, by name."""

    def ask() -> Operation:
        return asking.take_in(
            actor(request),
            body.source(),
            body.name,
            project=body.project,
            network=body.network,
            pool=body.pool,
            start=body.start,
            idempotency_key=key,
        )

    return await answers.operation(request, wait, ask)


@router.post("/backups/scan", summary="Look for backups in a place")
async def scan(request: HttpRequest, body: ScanIn, wait: Wait = 0, key: Key = None) -> HttpResponse:
    """List anew what lies in a place."""
    return await answers.operation(
        request, wait, lambda: asking.scan(actor(request), body.destination, idempotency_key=key)
    )


@router.get("/backups/{backup}", summary="A backup")
def get_backup(request: HttpRequest, backup: str) -> dict[str, Any]:
    """One backup."""
    return present.backup(asking.find(actor(request), backup))


@router.get("/backups/{backup}/content", summary="A backup's file")
async def get_content(request: HttpRequest, backup: str) -> HttpResponseBase:
    """The bytes of a backup."""
    row = await sync_to_async(asking.prepare_download)(actor(request), backup)
    return download(await streams.stored(row.destination, row.file))


@router.post("/backups/{backup}/verify", summary="Verify a backup")
async def verify(request: HttpRequest, backup: str, wait: Wait = 0, key: Key = None) -> HttpResponse:
    """Read a backup to its end and compare its digests."""

    def ask() -> Operation:
        who = actor(request)
        return asking.verify(who, asking.find(who, backup, "backup-verify"), idempotency_key=key)

    return await answers.operation(request, wait, ask)


@router.delete("/backups/{backup}", summary="Delete a backup")
async def delete(request: HttpRequest, backup: str, wait: Wait = 0, key: Key = None) -> HttpResponse:
    """Delete a backup, for good."""

    def ask() -> Operation:
        who = actor(request)
        return asking.delete(who, asking.find(who, backup, "backup-delete"), idempotency_key=key)

    return await answers.operation(request, wait, ask)
