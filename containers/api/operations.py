"""/operations: what was asked for, how it goes, and cancelling it."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

from asgiref.sync import sync_to_async
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, JsonResponse
from ninja import Query, Router
from pydantic import BaseModel, ConfigDict

from containers.asking import services
from containers.core.errors import NotFound
from containers.models import Operation
from containers.showing import present

from . import answers, lists
from .answers import Wait
from .auth import actor
from .lists import Filter, PageQuery
from .schemas import Nothing

router = Router(tags=["operations"])


class OperationFilters(BaseModel):
    """Which operations. container: its name at that time."""

    model_config = ConfigDict(frozen=True)

    container: Filter = None
    status: Literal["queued", "running", "succeeded", "failed", "cancelled"] | None = None
    action: Filter = None

    def apply(self, rows: QuerySet[Operation]) -> QuerySet[Operation]:
        """Return the rows that fit."""
        if self.container is not None:
            rows = rows.filter(container_name=self.container)
        if self.status is not None:
            rows = rows.filter(status=self.status)
        if self.action is not None:
            rows = rows.filter(action=self.action)
        return rows


@router.get("/operations", summary="Operations")
def list_operations(
    request: HttpRequest, page: PageQuery, filters: Annotated[OperationFilters, Query()]
) -> dict[str, Any]:
    """The operations that the caller may see, newest first."""
    rows = filters.apply(Operation.objects.visible_to(actor(request).user))
    return lists.answer(request, rows, page, present.operation, order=lists.NEWEST)


@router.get("/operations/{operation_id}", summary="An operation")
async def get_operation(request: HttpRequest, operation_id: str, wait: Wait = 0) -> HttpResponse:
    """One operation; with `wait`, held until it has ended."""
    row = await sync_to_async(_find)(request, operation_id)
    return await answers.ended(request, row, wait, lambda row: JsonResponse(present.operation(row)))


@router.get("/operations/{operation_id}/log", summary="An operation's log")
def get_log(request: HttpRequest, operation_id: str) -> dict[str, Any]:
    """The last 64 KiB of what an operation printed."""
    return {"log": _find(request, operation_id).log}


@router.post("/operations/{operation_id}/cancel", summary="Cancel an operation")
async def cancel_operation(
    request: HttpRequest, operation_id: str, body: Nothing | None = None, wait: Wait = 0
) -> HttpResponse:
    """Ask an operation to stop and to undo what it did."""
    return await answers.operation(
        request, wait, lambda: services.cancel_operation(actor(request), _parse(operation_id))
    )


def _find(request: HttpRequest, operation_id: str) -> Operation:
    return services.find_operation(actor(request), _parse(operation_id))


def _parse(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise NotFound("There is no such operation.") from None
