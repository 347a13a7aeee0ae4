"""Lists in pages: {"items": [...], "next": path or null}. A page begins after the last row of the one before it."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import json
from collections.abc import Callable
from typing import Annotated, Any, Final, TypeVar

from django.db.models import Model, Q, QuerySet
from django.http import HttpRequest
from ninja import Query
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from containers.core.errors import SpecError

_Row = TypeVar("_Row", bound=Model)


def _no_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("NUL is not allowed.")
    return value


Filter = Annotated[str | None, Field(max_length=255), AfterValidator(lambda value: value and _no_nul(value))]


class Page(BaseModel):
    """Which part of a list. after: where the page before this one ended; take it from `next` as it is."""

    model_config = ConfigDict(frozen=True)

    limit: int = Field(100, ge=1, le=1000)
    after: Annotated[str | None, Field(max_length=1000)] = None


PageQuery = Annotated[Page, Query()]
NEWEST: Final = ("-created_at", "pk")
BY_NAME: Final = ("name",)


def answer(
    request: HttpRequest,
    rows: QuerySet[_Row],
    page: Page,
    shape: Callable[[_Row], dict[str, Any]],
    *,
    order: tuple[str, ...] = BY_NAME,
) -> dict[str, Any]:
    """Return one page of rows. order: fields that together are unique and never null, "-" for descending.

    Raises SpecError for an `after` that no page gave.
    """
    return together(request, rows, page, lambda items: [shape(row) for row in items], order=order)


def together(
    request: HttpRequest,
    rows: QuerySet[Any],
    page: Page,
    shapes: Callable[[list[Any]], list[dict[str, Any]]],
    *,
    order: tuple[str, ...] = BY_NAME,
) -> dict[str, Any]:
    """Return one page of rows, as `answer` does, which are put into shape all at once."""
    rows = rows.order_by(*order)
    if page.after is not None:
        rows = rows.filter(_beyond(order, _decode(page.after, len(order))))
    found = list(rows[: page.limit + 1])
    items = found[: page.limit]
    following = None
    if len(found) > page.limit:
        query = request.GET.copy()
        query["after"] = _encode([getattr(items[-1], name.lstrip("-")) for name in order])
        following = f"{request.path}?{query.urlencode()}"
    return {"items": shapes(items), "next": following}


def _beyond(order: tuple[str, ...], values: list[Any]) -> Q:
    """Return the condition of a row standing after one with these values: (a > x) or (a = x and b > y) …"""
    condition, equal = Q(pk__in=()), Q()
    for name, value in zip(order, values, strict=True):
        field = name.lstrip("-")
        side = "lt" if name.startswith("-") else "gt"
        condition |= equal & Q(**{f"{field}__{side}": value})
        equal &= Q(**{field: value})
    return condition


def _encode(values: list[Any]) -> str:
    texts = [value.isoformat() if isinstance(value, dt.datetime) else str(value) for value in values]
    return base64.urlsafe_b64encode(json.dumps(texts).encode()).decode().rstrip("=")


def _decode(text: str, count: int) -> list[Any]:
    try:
        values = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (ValueError, binascii.Error):
        values = None
    if not isinstance(values, list) or len(values) != count or not all(isinstance(value, str) for value in values):
        raise SpecError("Take the next page's address from `next`, as it is.", field="after")
    return values
