"""/containers/NAME/wait: holds the answer until a container is in one of some states."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from asgiref.sync import sync_to_async
from django.http import HttpRequest
from ninja import Query, Router

from containers.asking import services, waiting
from containers.messaging import notices

from .answers import LOOK_EVERY_SEC, news
from .auth import actor

router = Router(tags=["containers"])

TIMEOUT_MAX_SEC = 3600
States = Annotated[str, Query(max_length=100, description="stopped, running, frozen, error, deleted; several: a,b")]
Timeout = Annotated[float, Query(ge=0, le=TIMEOUT_MAX_SEC, allow_inf_nan=False, description="seconds")]


@router.get("/containers/{name}/wait", summary="Wait for a state")
async def wait_for(request: HttpRequest, name: str, status: States, timeout: Timeout = 60) -> dict[str, Any]:
    """The status as soon as it is one of those wanted, or was while one waited; `reached` is null when time is up."""
    wanted = waiting.parse(status)
    row = await sync_to_async(services.find_container)(actor(request), name)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    # listen first, look afterwards: what happens in between is seen
    with notices.hub().subscribe() as subscription:
        watch = await sync_to_async(waiting.begin)(row)
        while True:
            seen = await sync_to_async(waiting.look)(watch, wanted)
            left = deadline - loop.time()
            if seen.reached is not None or left <= 0:
                return {"status": seen.status, "reached": seen.reached}
            await news(subscription, row.pk, min(left, LOOK_EVERY_SEC))
