"""/containers/NAME/wait: holds the answer until a container is in one of some states."""

from __future__ import annotations

from typing import Annotated

from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponse, JsonResponse
from ninja import Query, Router

from containers.asking import services, waiting

from . import holding
from .auth import actor

router = Router(tags=["containers"])

TIMEOUT_MAX_SEC = 3600
States = Annotated[str, Query(max_length=100, description="stopped, running, frozen, error, deleted; several: a,b")]
Timeout = Annotated[float, Query(ge=0, le=TIMEOUT_MAX_SEC, allow_inf_nan=False, description="seconds")]


@router.get("/containers/{name}/wait", summary="Wait for a state")
async def wait_for(request: HttpRequest, name: str, status: States, timeout: Timeout = 60) -> HttpResponse:
    """The status as soon as it is one of those wanted, or was while one waited; `reached` is null when time is up."""
    wanted = waiting.parse(status)
    row = await sync_to_async(services.find_container)(actor(request), name)
    watch = await sync_to_async(waiting.begin)(row)

    def look() -> tuple[waiting.Seen, bool]:
        seen = waiting.look(watch, wanted)
        return seen, seen.reached is not None

    async def finish() -> HttpResponse:
        seen = await holding.lookout().until((watch, wanted), row.pk, look, timeout)
        return JsonResponse({"status": seen.status, "reached": seen.reached})

    return await holding.hold(request, finish)
