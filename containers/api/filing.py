"""A container's files: seen, taken, written and managed, running or stopped; and seen in snapshots."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlencode

from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from ninja import Query, Router, Status
from pydantic import Field

from containers.asking import filing as asking
from containers.asking import uploads
from containers.clients import filing
from containers.core.errors import SpecError

from .auth import actor
from .errors import TooLarge
from .files import download
from .image_schemas import UploadId
from .parsing import Body

router = Router(tags=["files"])
_PATH = r"Absolute; a byte is \xNN, a backslash \\ (as `path` of an entry gives it). Links lead to places inside."
_ONLY = "Names in the directory, each as the end of its entry's `path`; may be given more than once."

Where = Annotated[str, Query(max_length=20000, description=_PATH)]
Point = Annotated[str, Query(default="", max_length=63, description="A snapshot; what it is now where left out.")]
PathText = Annotated[str, Field(max_length=20000, description=_PATH)]
ModeText = Annotated[str | None, Field(pattern=r"^[0-7]{1,5}$", description="Octal, as 0644.")]


@router.get("/containers/{name}/files", summary="A directory")
def list_directory(
    request: HttpRequest,
    name: str,
    snapshot: Point,
    path: Where = "/",
    limit: Annotated[int, Query(ge=1, le=asking.PAGE_MAX)] = 100,
    offset: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
    sort: Annotated[str, Query(description="name, size or modified; a minus before it turns it round.")] = "name",
    q: Annotated[str, Query(max_length=255, description="What names have in them.")] = "",
) -> dict[str, Any]:
    """A page of its entries, directories first, by `sort`."""
    found = asking.listing(
        actor(request),
        name,
        path,
        snapshot=snapshot,
        offset=offset,
        limit=limit,
        sort=sort.removeprefix("-"),
        descending=sort.startswith("-"),
        match=q,
    )
    following = None
    if offset + limit < found["total"]:
        more = {"path": path, "snapshot": snapshot, "limit": limit, "offset": offset + limit, "sort": sort, "q": q}
        following = f"{request.path}?{urlencode({key: value for key, value in more.items() if value != ''})}"
    return {**found, "next": following}


@router.get("/containers/{name}/files/entry", summary="One file or directory")
def get_entry(request: HttpRequest, name: str, path: Where, snapshot: Point) -> dict[str, Any]:
    """What a listing tells of it; a link itself, not what it leads to."""
    return asking.entry(actor(request), name, path, snapshot=snapshot)


@router.get("/containers/{name}/files/text", summary="A text file")
def get_file_text(request: HttpRequest, name: str, path: Where, snapshot: Point) -> dict[str, Any]:
    """Its text, up to 1 MiB, with the etag that a change of it gives back; `reason` where it is no text."""
    return asking.text(actor(request), name, path, snapshot=snapshot)


@router.get("/containers/{name}/files/content", summary="Take a file")
async def get_file(request: HttpRequest, name: str, path: Where, snapshot: Point) -> HttpResponseBase:
    """A regular file's bytes."""
    container, where = await sync_to_async(asking.prepare_taking)(actor(request), name, path, snapshot=snapshot)
    return download(await filing.stream(container.pk, "content", where, snapshot=snapshot))


@router.get("/containers/{name}/files/archive", summary="Take a directory, as a tar archive")
async def get_directory(
    request: HttpRequest,
    name: str,
    path: Where,
    snapshot: Point,
    only: Annotated[list[str], Query(default_factory=list, max_length=1000, description=_ONLY)],
) -> HttpResponseBase:
    """A file or directory with all in it, or what of a directory is named; what is mounted below stays out."""
    prepare = sync_to_async(asking.prepare_archive)
    container, where, names = await prepare(actor(request), name, path, only, snapshot=snapshot)
    found = await filing.stream(container.pk, "archive", where, snapshot=snapshot, only=names)
    return download(found, suffix=".tar")


@router.put("/containers/{name}/files/content", summary="Write a file")
def put_file(
    request: HttpRequest,
    name: str,
    path: Where,
    mode: Annotated[str, Query(pattern=r"^[0-7]{0,5}$", description="Of a new file, octal; 0644 otherwise.")] = "",
) -> HttpResponse:
    """The body, at most 8 MiB, becomes the file, whole or not at all. If-Match: the etag that is to be replaced (412

    where it has changed); If-None-Match: * for a new file only (409 where there is one).
    """
    if len(request.body) > uploads.PIECE_MAX_BYTES:
        raise TooLarge(f"Send at most {uploads.PIECE_MAX_BYTES} bytes at once; for more there are uploads.")
    none_match = request.headers.get("If-None-Match", "")
    if none_match not in ("", "*"):
        raise SpecError("Use If-None-Match: * only.", field="If-None-Match")
    etag = request.headers.get("If-Match", "").strip().strip('"')
    found = asking.write(
        actor(request),
        name,
        path,
        request.body,
        etag="" if etag == "*" else etag[:64],
        replace=not none_match,
        mode=asking.parsed_mode(mode),
    )
    response = JsonResponse(found)
    response["ETag"] = f'"{found["etag"]}"'
    return response


class UploadedIn(Body):
    """A complete upload, and where it is to be."""

    path: PathText
    upload: UploadId
    replace: bool = False
    etag: str = Field(default="", max_length=64, description="Of what is to be replaced.")
    mode: ModeText = None


@router.post("/containers/{name}/files/upload", summary="Make an upload a file")
def put_upload(request: HttpRequest, name: str, body: UploadedIn) -> dict[str, Any]:
    """An upload that was begun for this container becomes a file, whole or not at all."""
    mode = asking.parsed_mode(body.mode or "")
    return asking.put(actor(request), name, body.path, body.upload, etag=body.etag, replace=body.replace, mode=mode)


class DirectoryIn(Body):
    """A new directory."""

    path: PathText
    mode: ModeText = None


@router.post("/containers/{name}/files/directory", summary="Make a directory", response={201: dict[str, Any]})
def make_directory(request: HttpRequest, name: str, body: DirectoryIn) -> Status[Any]:
    """An empty directory, which belongs to the owner of the one that it is in."""
    return Status(201, asking.make(actor(request), name, body.path, mode=asking.parsed_mode(body.mode or "")))


class RenameIn(Body):
    """What is to be renamed or moved, and the whole path that it gets."""

    path: PathText
    to: PathText


@router.post("/containers/{name}/files/rename", summary="Rename or move a file or directory")
def rename_file(request: HttpRequest, name: str, body: RenameIn) -> dict[str, Any]:
    """Nothing that is there is replaced (409)."""
    return asking.rename(actor(request), name, body.path, body.to)


class AttributesIn(Body):
    """What changes of a file or directory; what is left out stays."""

    path: PathText
    mode: ModeText = None
    user: str | None = Field(default=None, max_length=255, description="The container's name or number.")
    group: str | None = Field(default=None, max_length=255)
    recursive: bool = False


@router.patch("/containers/{name}/files", summary="Change mode and owner")
def change_file(request: HttpRequest, name: str, body: AttributesIn) -> dict[str, Any]:
    """Of a link itself; recursive: of all in a directory too, where only programs keep their right to execute."""
    return asking.attributes(
        actor(request),
        name,
        body.path,
        mode=asking.parsed_mode(body.mode or ""),
        user=body.user,
        group=body.group,
        recursive=body.recursive,
    )


@router.delete("/containers/{name}/files", summary="Delete a file or directory", response={204: None})
def delete_file(request: HttpRequest, name: str, path: Where, *, recursive: bool = False) -> Status[Any]:
    """A directory with something in it only with `recursive=true` (409 otherwise). It does not go to the trash."""
    asking.remove(actor(request), name, path, recursive=recursive)
    return Status(204, None)
