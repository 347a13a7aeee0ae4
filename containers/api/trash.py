"""/trash: what was deleted and can be had back."""

from __future__ import annotations

from typing import Annotated, Any

from django.http import HttpRequest, HttpResponse
from ninja import Router
from pydantic import Field

from containers.asking import basket
from containers.models import Operation, local_host
from containers.showing import present

from . import answers, lists
from .answers import Key, Wait
from .auth import actor
from .lists import PageQuery
from .parsing import Body, Name

router = Router(tags=["trash"])


class BackIn(Body):
    """Another name, where its own is taken by now."""

    name: Name | None = None


class DaysIn(Body):
    """How many days the trash keeps what is deleted from now on; 0: nothing."""

    days: Annotated[int, Field(strict=True)]


@router.get("/trash", summary="The trash")
def list_trash(request: HttpRequest, page: PageQuery) -> dict[str, Any]:
    """What was deleted and can be had back, the newest first; what it holds of the disk, and for how long."""
    who = actor(request)
    found = lists.answer(request, basket.visible(who), page, present.trashed, order=("-deleted_at", "pk"))
    return {**found, "size_bytes": basket.size(who), "days": basket.kept_days(local_host())}


@router.patch("/trash", summary="How long the trash keeps")
def change_trash(request: HttpRequest, body: DaysIn) -> dict[str, Any]:
    """Change how many days the trash keeps what is deleted from now on."""
    basket.set_days(actor(request), local_host(), body.days)
    return {"days": body.days}


@router.post("/trash/{entry}/restore", summary="Take out of the trash")
async def take_back(
    request: HttpRequest, entry: str, body: BackIn | None = None, wait: Wait = 0, key: Key = None
) -> HttpResponse:
    """Put something back: a container with its snapshots, a snapshot, an image."""
    name = body.name if body else None
    return await answers.operation(
        request, wait, lambda: basket.restore(actor(request), entry, name, idempotency_key=key)
    )


@router.delete("/trash/{entry}", summary="Delete for good")
async def purge(request: HttpRequest, entry: str, wait: Wait = 0, key: Key = None) -> HttpResponse:
    """Delete something in the trash for good."""

    def ask() -> Operation:
        who = actor(request)
        return basket.purge(who, basket.find(who, entry, "trash-purge"), idempotency_key=key)

    return await answers.operation(request, wait, ask)
