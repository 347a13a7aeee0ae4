"""/containers: the list, making, changing, deleting, and what can be asked of one."""

from __future__ import annotations

import json
from functools import partial
from typing import Annotated, Any, Literal

from django.db import connection
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from ninja import Query, Router
from pydantic import BaseModel, ConfigDict

from containers.asking import services
from containers.asking.services import ContainerRequest
from containers.models import Container, Operation
from containers.showing import listed, present, tree
from panel.accounts import services as people

from . import answers, lists
from .answers import KeepDays, Key, Wait
from .auth import actor
from .lists import Filter, PageQuery
from .schemas import (
    CloneIn,
    ContainerChanges,
    ContainerIn,
    Nothing,
    PutBackIn,
    RestartIn,
    RestoreIn,
    SnapshotChanges,
    SnapshotIn,
    StopIn,
)

router = Router(tags=["containers"])

Force = Annotated[bool, Query(default=False, description="Stop it first.")]
Safety = Annotated[bool, Query(default=False, description="Also what restores made for their undo.")]


class ContainerFilters(BaseModel):
    """Which containers. q: part of the name, the description or an address."""

    model_config = ConfigDict(frozen=True)

    status: Literal["stopped", "running", "frozen", "error"] | None = None
    project: Filter = None
    q: Filter = None
    tag: Filter = None

    def apply(self, rows: QuerySet[Container]) -> QuerySet[Container]:
        """Return the rows that fit."""
        if self.status is not None:
            stored = ["stopped", "absent"] if self.status == "stopped" else [self.status]
            rows = rows.filter(status__in=stored)
        if self.project is not None:
            rows = rows.filter(project__name=self.project)
        if self.q:
            where = Q(name__icontains=self.q) | Q(description__icontains=self.q)
            address = Q(interfaces__ipv4__startswith=self.q) | Q(interfaces__ipv6__startswith=self.q)
            rows = rows.filter(pk__in=Container.objects.filter(where | address).values("pk"))
        if self.tag is not None:
            rows = rows.filter(_tagged(self.tag))
        return rows


def _tagged(tag: str) -> Q:
    """Return the condition of having a tag; SQLite cannot look into JSON lists, but tags are plain names."""
    if connection.vendor == "postgresql":
        return Q(tags__contains=[tag])
    return Q(tags__icontains=json.dumps(tag))


@router.get("/containers", summary="Containers")
def list_containers(
    request: HttpRequest, page: PageQuery, filters: Annotated[ContainerFilters, Query()]
) -> dict[str, Any]:
    """The containers that the caller may see, by name."""
    rows = filters.apply(Container.objects.visible_to(actor(request).user))
    return lists.together(request, listed.columns(rows), page, listed.containers)


@router.post("/containers", summary="Make a container")
async def create_container(request: HttpRequest, body: ContainerIn, wait: Wait = 0, key: Key = None) -> HttpResponse:
    """Make a container from an image; `start` starts it too."""

    def ask() -> Operation:
        who = actor(request)
        # null says the same as leaving a field out
        wanted = {name: value for name, value in body.given().items() if value is not None}
        if "project" not in wanted:
            wanted["project"] = people.default_project(who)
        return services.create_container(who, ContainerRequest(**wanted), idempotency_key=key)

    return await answers.operation(request, wait, ask)


@router.get("/containers/{name}", summary="A container")
def get_container(request: HttpRequest, name: str) -> dict[str, Any]:
    """One container."""
    return present.container(services.find_container(actor(request), name))


@router.patch("/containers/{name}", summary="Change a container")
async def change_container(
    request: HttpRequest, name: str, body: ContainerChanges, wait: Wait = 0, key: Key = None
) -> HttpResponse:
    """Change what is given, live where the kernel allows; `name` only while it is stopped."""
    return await _act(request, name, "update", body.given(), wait, key)


@router.delete("/containers/{name}", summary="Delete a container")
async def delete_container(
    request: HttpRequest,
    name: str,
    *,
    force: Force = False,
    keep_days: KeepDays = None,
    wait: Wait = 0,
    key: Key = None,
) -> HttpResponse:
    """Delete a container and its snapshots; `force` stops it first. The trash keeps them for some days."""
    return await _act(request, name, "delete", {"force": force, "keep_days": keep_days}, wait, key)


@router.post("/containers/{name}/stop", summary="Stop a container")
async def stop_container(
    request: HttpRequest, name: str, body: StopIn | None = None, wait: Wait = 0, key: Key = None
) -> HttpResponse:
    """Ask its init to end; kill it when the time is up, unless `kill` is false."""
    return await _act(request, name, "stop", (body or StopIn()).model_dump(), wait, key)


@router.post("/containers/{name}/restart", summary="Restart a container")
async def restart_container(
    request: HttpRequest, name: str, body: RestartIn | None = None, wait: Wait = 0, key: Key = None
) -> HttpResponse:
    """Stop it and start it again; `inside` has its init boot again."""
    return await _act(request, name, "restart", (body or RestartIn()).model_dump(), wait, key)


@router.post("/containers/{name}/clone", summary="Clone a container")
async def clone_container(
    request: HttpRequest, name: str, body: CloneIn, wait: Wait = 0, key: Key = None
) -> HttpResponse:
    """Make another container from its present state, or from a snapshot."""
    return await _act(request, name, "clone", body.given(), wait, key)


@router.get("/containers/{name}/snapshots", summary="Snapshots")
def list_snapshots(request: HttpRequest, name: str, page: PageQuery, *, safety: Safety = False) -> dict[str, Any]:
    """A container's snapshots, newest first; `safety` lists those too that restores made for their undo."""
    row = services.find_container(actor(request), name)
    parents = tree.parents(row.snapshots.all())
    rows = row.snapshots.all() if safety else row.snapshots.exclude(kind="safety")
    return lists.answer(request, rows, page, lambda one: present.snapshot(one, parents[one.pk]), order=lists.NEWEST)


@router.post("/containers/{name}/snapshots", summary="Take a snapshot")
async def take_snapshot(
    request: HttpRequest, name: str, body: SnapshotIn | None = None, wait: Wait = 0, key: Key = None
) -> HttpResponse:
    """Take a snapshot, of a running container too."""
    return await _act(request, name, "snapshot", (body or SnapshotIn()).given(), wait, key)


@router.post("/containers/{name}/snapshots/{snapshot}/restore", summary="Restore a snapshot")
async def restore_snapshot(
    request: HttpRequest, name: str, snapshot: str, body: RestoreIn | None = None, wait: Wait = 0, key: Key = None
) -> HttpResponse:
    """Take the container back to a snapshot; for its files a running one is stopped and started again.

    A safety point is made first, which is a snapshot as well: restoring that is the undo.
    """
    given = {"snapshot": snapshot, **(body or RestoreIn()).given()}
    return await _act(request, name, "restore", given, wait, key)


@router.post("/containers/{name}/snapshots/{snapshot}/put-back", summary="Put files back")
async def put_back(
    request: HttpRequest, name: str, snapshot: str, body: PutBackIn, wait: Wait = 0, key: Key = None
) -> HttpResponse:
    """Put files and directories of a snapshot back where they were, in a container that runs or does not.

    A safety point is made first, which is a snapshot as well: files come back from it in the same way.
    """
    return await _act(request, name, "put-back", {"snapshot": snapshot, **body.given()}, wait, key)


@router.patch("/containers/{name}/snapshots/{snapshot}", summary="Change a snapshot")
async def change_snapshot(
    request: HttpRequest, name: str, snapshot: str, body: SnapshotChanges, wait: Wait = 0, key: Key = None
) -> HttpResponse:
    """Change a snapshot's name, note, pin and expiry."""
    given = {field: value for field, value in body.given().items() if value is not None or field == "expires_at"}
    return await _act(request, name, "snapshot-change", {"snapshot": snapshot, **given}, wait, key)


@router.delete("/containers/{name}/snapshots/{snapshot}", summary="Delete a snapshot")
async def delete_snapshot(
    request: HttpRequest, name: str, snapshot: str, keep_days: KeepDays = None, wait: Wait = 0, key: Key = None
) -> HttpResponse:
    """Delete a snapshot; the trash keeps it for some days."""
    arguments = {"snapshot": snapshot, "keep_days": keep_days}
    return await _act(request, name, "snapshot-delete", arguments, wait, key)


SimpleAction = Literal["start", "freeze", "unfreeze"]


def _simple(action: SimpleAction, summary: str) -> None:
    """Register a POST that takes no fields."""

    async def view(
        request: HttpRequest, name: str, body: Nothing | None = None, wait: Wait = 0, key: Key = None
    ) -> HttpResponse:
        return await _act(request, name, action, {}, wait, key)

    view.__name__ = f"{action}_container"
    router.post(f"/containers/{{name}}/{action}", summary=summary)(view)


_simple("start", "Start a container")
_simple("freeze", "Freeze a container")
_simple("unfreeze", "Unfreeze a container")


async def _act(
    request: HttpRequest, name: str, action: str, arguments: dict[str, Any], wait: float, key: str | None
) -> HttpResponse:
    ask = partial(services.act, actor(request), name, action, arguments, idempotency_key=key)
    return await answers.operation(request, wait, ask)


@router.get("/containers/{name}/events", summary="Events of a container")
def list_events(request: HttpRequest, name: str, page: PageQuery) -> dict[str, Any]:
    """What happened to a container, newest first."""
    row = services.find_container(actor(request), name)
    return lists.answer(request, row.events.all(), page, present.event, order=("-at", "-pk"))
