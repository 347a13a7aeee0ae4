"""/schedules: snapshots by the clock."""

from __future__ import annotations

from typing import Annotated, Any

from django.http import HttpRequest
from ninja import Router, Status
from pydantic import Field

from containers.asking import schedules
from containers.showing import present

from . import lists
from .auth import actor
from .lists import PageQuery
from .parsing import Body, Name, Text

router = Router(tags=["schedules"])

Number = Annotated[int, Field(strict=True)]


class KeepIn(Body):
    """How many stay: the newest, and the newest of each hour, day, week, month. Nothing given: all stay."""

    last: Number | None = None
    hourly: Number | None = None
    daily: Number | None = None
    weekly: Number | None = None
    monthly: Number | None = None


class ScheduleChanges(Body):
    """What to change; what is left out stays."""

    name: Name | None = None
    container: Name | None = None
    tag: Name | None = None
    when: Annotated[Text, Field(max_length=200)] | None = None
    timezone: Annotated[Text, Field(max_length=64)] | None = None
    keep: KeepIn | None = None
    enabled: bool | None = None
    destination: Annotated[Text, Field(max_length=63)] | None = None
    snapshots: bool | None = None


class ScheduleIn(ScheduleChanges):
    """A schedule of a container, or of a project's containers, or of those of them that have a tag."""

    project: Name | None = None


def _given(body: ScheduleChanges) -> dict[str, Any]:
    values = body.given()
    if body.keep is not None:
        values["keep"] = {name: value for name, value in body.keep.given().items() if value is not None}
    return values


@router.get("/schedules", summary="Schedules")
def list_schedules(request: HttpRequest, page: PageQuery) -> dict[str, Any]:
    """The schedules that the caller may see."""
    return lists.answer(request, schedules.visible(actor(request)), page, present.schedule, order=("name", "pk"))


@router.post("/schedules", summary="Make a schedule", response={201: Any})
def create_schedule(request: HttpRequest, body: ScheduleIn) -> Status[Any]:
    """Make a schedule."""
    return Status(201, present.schedule(schedules.create(actor(request), _given(body))))


@router.post("/schedules/preview", summary="What a schedule would do")
def preview_schedule(request: HttpRequest, body: ScheduleIn) -> dict[str, Any]:
    """The next runs of a schedule that is not made, its containers, and what it would prune."""
    return present.preview(schedules.preview_of(actor(request), _given(body)))


@router.get("/schedules/{schedule_id}", summary="A schedule")
def get_schedule(request: HttpRequest, schedule_id: int) -> dict[str, Any]:
    """A schedule, with its next runs, its containers, and what is pruned after the next one."""
    row = schedules.find(actor(request), schedule_id, "view")
    return {**present.schedule(row), **present.preview(schedules.preview(row))}


@router.patch("/schedules/{schedule_id}", summary="Change a schedule")
def change_schedule(request: HttpRequest, schedule_id: int, body: ScheduleChanges) -> dict[str, Any]:
    """Change a schedule."""
    return present.schedule(schedules.change(actor(request), schedule_id, _given(body)))


@router.delete("/schedules/{schedule_id}", summary="Delete a schedule", response={204: None})
def delete_schedule(request: HttpRequest, schedule_id: int) -> Status[Any]:
    """Delete a schedule; the snapshots that it took stay."""
    schedules.delete(actor(request), schedule_id)
    return Status(204, None)
