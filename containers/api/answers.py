"""Answers of calls that make an operation: 202 at once, or 200 when `wait` saw its end."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Annotated, Any, Final
from uuid import UUID

from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponse, JsonResponse
from ninja import Header, Query
from pydantic import AfterValidator

from containers.messaging import notices
from containers.models import Operation
from containers.showing import present

WAIT_MAX_SEC: Final = 60.0
LOOK_EVERY_SEC: Final = 0.5
"""Notices may be lost, so the row is read again this often anyway."""


def _clamp(seconds: float) -> float:
    if math.isnan(seconds):
        raise ValueError("Give a number of seconds.")
    return min(max(seconds, 0.0), WAIT_MAX_SEC)


Wait = Annotated[float, AfterValidator(_clamp), Query(0.0, description="Seconds to hold the answer, clamped to 0..60.")]
Key = Annotated[str | None, Header(None, alias="Idempotency-Key")]


async def operation(request: HttpRequest, wait: float, ask: Callable[[], Operation]) -> HttpResponse:
    """Run `ask` (which makes an operation, or raises) in a thread, wait as asked, and answer."""
    row = await sync_to_async(ask)()
    if wait and not row.finished:
        row = await ended(row.pk, wait)
    shape: dict[str, Any] = await sync_to_async(present.operation)(row)
    response = JsonResponse(shape, status=200 if wait and row.finished else 202)
    response["Location"] = f"/api/v1/operations/{row.pk}"
    return response


async def ended(operation_id: UUID, seconds: float) -> Operation:
    """Return the operation's row as soon as it has ended, or as it is when the time is up. Holds no thread."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    # listen first, look afterwards: what ends in between is seen
    with notices.hub().subscribe() as subscription:
        while True:
            row: Operation = await sync_to_async(Operation.objects.get)(pk=operation_id)
            left = deadline - loop.time()
            if row.finished or left <= 0:
                return row
            await news(subscription, str(operation_id), min(left, LOOK_EVERY_SEC))


async def news(subscription: notices.Subscription, object_id: str, seconds: float) -> None:
    """Return when something was told about an object, at the latest after these seconds."""
    try:
        async with asyncio.timeout(seconds):
            async for notice in subscription:
                if notice["kind"] == "resync" or notice["id"] == object_id:
                    return
    except TimeoutError:
        return
