"""/images and /uploads: what containers are made from."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from django.http import HttpRequest, HttpResponse
from ninja import Query, Router, Status

from containers.asking import catalogues, filing, services, uploads
from containers.models import Container, Image, local_host
from containers.showing import present

from . import answers, lists
from .answers import KeepDays, Key, Wait
from .auth import actor
from .errors import TooLarge
from .image_schemas import ImageIn, ImageServerIn, UploadIn
from .lists import PageQuery

router = Router(tags=["images"])


@router.get("/images", summary="Images")
def list_images(request: HttpRequest, page: PageQuery) -> dict[str, Any]:
    """The images of this installation, by name."""
    rows = Image.objects.visible_to(actor(request).user)
    return lists.answer(request, rows, page, present.image)


@router.get("/images/{name}", summary="An image")
def get_image(request: HttpRequest, name: str) -> dict[str, Any]:
    """One image. used_by: the containers made from it that the caller may see."""
    who = actor(request)
    row = services.find_image(who, name)
    users = Container.objects.visible_to(who.user).filter(image=row).order_by("name")
    return {**present.image(row), "used_by": list(users.values_list("name", flat=True))}


@router.post("/images", summary="Make an image")
async def create_image(request: HttpRequest, body: ImageIn, wait: Wait = 0, key: Key = None) -> HttpResponse:
    """Make an image from a distribution's packages, an archive, a registry or a container."""
    ask = partial(
        services.build_image,
        actor(request),
        body.name,
        body.source.model_dump(exclude_none=True),
        description=body.description,
        idempotency_key=key,
    )
    return await answers.operation(request, wait, ask)


@router.delete("/images/{name}", summary="Delete an image")
async def delete_image(
    request: HttpRequest, name: str, keep_days: KeepDays = None, wait: Wait = 0, key: Key = None
) -> HttpResponse:
    """Delete an image; containers made from it stay as they are."""
    ask = partial(services.delete_image, actor(request), name, keep_days=keep_days, idempotency_key=key)
    return await answers.operation(request, wait, ask)


@router.get("/image-servers", summary="Image servers")
def list_servers(request: HttpRequest) -> dict[str, Any]:
    """The servers whose lists were fetched, and when."""
    assert actor(request)
    kept = catalogues.known(local_host())
    rows = [{"server": name, "at": one["at"], "count": len(one["items"])} for name, one in sorted(kept.items())]
    return {"items": rows, "next": None}


@router.get("/image-servers/items", summary="What an image server offers")
def list_offered(
    request: HttpRequest,
    server: str,
    q: str = "",
    os: str = "",
    release: str = "",
    variant: str = "",
    architecture: str = "",
) -> dict[str, Any]:
    """What a fetched list offers for this host; q: words that must all occur."""
    assert actor(request)
    found = catalogues.items(
        local_host(), server, q=q, os=os, release=release, variant=variant, architecture=architecture
    )
    return {"items": found, "next": None}


@router.post("/image-servers", summary="Fetch an image server's list")
async def fetch_server(request: HttpRequest, body: ImageServerIn, wait: Wait = 0, key: Key = None) -> HttpResponse:
    """Fetch what a simplestreams server offers."""
    return await answers.operation(
        request, wait, partial(catalogues.fetch, actor(request), body.server, idempotency_key=key)
    )


@router.post("/uploads", summary="Begin an upload", response={201: dict[str, Any]})
def begin_upload(request: HttpRequest, body: UploadIn) -> Status[Any]:
    """Begin to send an archive of this size."""
    who = actor(request)
    if body.container is not None:
        return Status(201, {"id": filing.begin_upload(who, body.container, body.size_bytes, body.name).id})
    return Status(201, {"id": uploads.begin(who, body.size_bytes, body.name).id})


@router.get("/uploads", summary="List your uploads")
def list_uploads(request: HttpRequest) -> dict[str, Any]:
    """What you have sent, or begun to send, and what nothing has used up; the latest first."""
    found = uploads.mine(actor(request))
    names = dict(Container.objects.filter(pk__in=[one.container_id for one in found]).values_list("pk", "name"))
    return {"items": [{**one.as_dict(), "container": names.get(one.container_id)} for one in found], "next": None}


@router.put("/uploads/{upload_id}", summary="Send a piece of an upload")
def put_piece(request: HttpRequest, upload_id: str, offset: Annotated[int, Query(0, ge=0)] = 0) -> dict[str, Any]:
    """Send the next bytes, at most 8 MiB. offset: how many were sent before. A piece may be sent again."""
    if len(request.body) > uploads.PIECE_MAX_BYTES:
        raise TooLarge(f"Send at most {uploads.PIECE_MAX_BYTES} bytes at once.")
    return uploads.write(actor(request), upload_id, offset, request.body).as_dict()


@router.get("/uploads/{upload_id}", summary="How far an upload is")
def get_upload(request: HttpRequest, upload_id: str) -> dict[str, Any]:
    """How many bytes have arrived: where to go on after a break."""
    return uploads.find(actor(request), upload_id).as_dict()


@router.delete("/uploads/{upload_id}", summary="Give an upload up", response={204: None})
def delete_upload(request: HttpRequest, upload_id: str) -> Status[Any]:
    """Remove what has arrived."""
    uploads.remove(actor(request), upload_id)
    return Status(204, None)
