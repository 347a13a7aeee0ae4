"""What is in snapshots: what a restore changes, directories, single files and archives."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

from asgiref.sync import sync_to_async
from django.http import HttpRequest, StreamingHttpResponse
from django.http.response import HttpResponseBase
from ninja import Query, Router

from containers.asking import reading as asking
from containers.clients import reading

from .auth import actor

router = Router(tags=["snapshots"])

Point = Annotated[str, Query(default="", max_length=63, description="A snapshot; what it is now where left out.")]
Where = Annotated[str, Query(default="/", max_length=4096, description="An absolute path; links are not followed.")]


@router.get("/containers/{name}/changes", summary="What differs between two points")
def get_changes(request: HttpRequest, name: str, before: Point, after: Point) -> dict[str, Any]:
    """What is to be done to `before` to have `after`: files, and the configuration."""
    return asking.changes(actor(request), name, before, after)


@router.get("/containers/{name}/changes/text", summary="In which lines a file differs")
def get_text(request: HttpRequest, name: str, path: Where, before: Point, after: Point) -> dict[str, Any]:
    """A unified diff of a text file between two points."""
    return asking.text(actor(request), name, before, after, path)


@router.get("/containers/{name}/snapshots/{snapshot}/changes", summary="What a restore changes")
def get_restore_changes(request: HttpRequest, name: str, snapshot: str) -> dict[str, Any]:
    """What a restore to this snapshot will add, change and remove."""
    return asking.changes(actor(request), name, "", snapshot)


@router.get("/containers/{name}/snapshots/{snapshot}/put-back/changes", summary="What putting a file back changes")
def get_put_back(request: HttpRequest, name: str, snapshot: str, path: Where, *, exact: bool = False) -> dict[str, Any]:
    """The files that putting `path` back will add and change; `exact`: and remove."""
    return asking.put_back_changes(actor(request), name, snapshot, path, exact=exact)


@router.get("/containers/{name}/snapshots/{snapshot}/files", summary="A directory of a snapshot")
def list_files(request: HttpRequest, name: str, snapshot: str, path: Where) -> dict[str, Any]:
    """The entries of a directory, by name."""
    return asking.listing(actor(request), name, snapshot, path)


@router.get("/containers/{name}/snapshots/{snapshot}/content", summary="A file of a snapshot")
async def get_content(request: HttpRequest, name: str, snapshot: str, path: Where) -> HttpResponseBase:
    """A regular file's bytes."""
    container, where = await sync_to_async(asking.prepare_taking)(actor(request), name, snapshot, path)
    return download(await reading.stream(container.pk, "content", after=snapshot, path=where))


@router.get("/containers/{name}/snapshots/{snapshot}/archive", summary="A directory of a snapshot, as a tar archive")
async def get_archive(request: HttpRequest, name: str, snapshot: str, path: Where) -> HttpResponseBase:
    """A file or directory with all in it: owners, modes, times, links, devices and extended attributes."""
    container, where = await sync_to_async(asking.prepare_taking)(actor(request), name, snapshot, path)
    return download(await reading.stream(container.pk, "archive", after=snapshot, path=where), suffix=".tar")


def download(stream: reading.Stream, suffix: str = "") -> StreamingHttpResponse:
    """Answer with bytes that no browser shows, runs or guesses the type of."""
    response = StreamingHttpResponse(stream, content_type="application/octet-stream")
    name = quote(f"{stream.head['name']}{suffix}", safe="")
    response["Content-Disposition"] = f"attachment; filename*=UTF-8''{name}"
    response["X-Content-Type-Options"] = "nosniff"
    response["Content-Security-Policy"] = "default-src 'none'; sandbox"
    if "size_bytes" in stream.head:
        response["Content-Length"] = str(stream.head["size_bytes"])
    return response
