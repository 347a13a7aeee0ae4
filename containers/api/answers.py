"""Answers of calls that make an operation: 202 at once, or 200 when `wait` saw its end."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Final

from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponse, JsonResponse
from ninja import Header, Query
from pydantic import AfterValidator

from containers.core.errors import NotFound
from containers.models import Operation
from containers.showing import present

from . import holding

WAIT_MAX_SEC: Final = 60.0


def _clamp(seconds: float) -> float:
    if math.isnan(seconds):
        raise ValueError("Give a number of seconds.")
    return min(max(seconds, 0.0), WAIT_MAX_SEC)


Wait = Annotated[float, AfterValidator(_clamp), Query(0.0, description="Seconds to hold the answer, clamped to 0..60.")]
Key = Annotated[str | None, Header(None, alias="Idempotency-Key")]
KeepDays = Annotated[
    int | None, Query(default=None, description="So many days it stays in the trash; 0: it is deleted for good.")
]


async def operation(request: HttpRequest, wait: float, ask: Callable[[], Operation]) -> HttpResponse:
    """Run `ask` (which makes an operation, or raises) in a thread, wait as asked, and answer."""
    row = await sync_to_async(ask)()

    def answer(row: Operation) -> HttpResponse:
        response = JsonResponse(present.operation(row), status=200 if wait and row.finished else 202)
        response["Location"] = f"/api/v1/operations/{row.pk}"
        return response

    return await ended(request, row, wait, answer)


async def ended(
    request: HttpRequest, row: Operation, seconds: float, answer: Callable[[Operation], HttpResponse]
) -> HttpResponse:
    """Answer with the operation's row as soon as it has ended, or as it is when the time is up."""
    if not seconds or row.finished:
        return answer(row)
    operation_id = row.pk

    def look() -> tuple[Operation, bool]:
        try:
            row = Operation.objects.get(pk=operation_id)
        except Operation.DoesNotExist:
            raise NotFound("There is no such operation.") from None
        return row, row.finished

    async def finish() -> HttpResponse:
        key = ("operation", operation_id)
        return answer(await holding.lookout().until(key, str(operation_id), look, seconds))

    return await holding.hold(request, finish)
