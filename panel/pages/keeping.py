"""Schedules of snapshots: what is taken when, what is kept, and what comes next."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from containers.asking import schedules as asking
from containers.asking.backups import destinations
from containers.core.errors import CoreError
from containers.models import Container, Schedule, local_host
from containers.rights.permissions import roles_that_may
from containers.showing.sentences import translated
from containers.views.listing import projects_of
from panel.pages.web import actor_of, changes, done, page, unknown, user_of

KEEPS = ("last", "hourly", "daily", "weekly", "monthly")
EXAMPLES = ("every 6h", "0 3 * * *", "*/15 8-18 * * mon-fri")


@page
def schedules(request: HttpRequest) -> HttpResponse:
    """Show the schedules, or make one."""
    context: dict[str, Any] = {"values": request.POST}
    status = 200
    if request.method == "POST":
        try:
            made = asking.create(actor_of(request), _values(request))
            return done(request, reverse("pages:schedules"), schedules=made.name)
        except CoreError as error:
            context |= {"error": translated(error.message), "field": _field(error)}
            status = 422
    user = user_of(request)
    roles = roles_that_may(asking.ACTION)
    may = {project.name for role in roles for project in projects_of(user, role=role)}
    rows = list(asking.visible(actor_of(request)))
    context["schedules"] = [_row(row, may=user.host_admin or row.project.name in may) for row in rows]
    usable = Container.objects.visible_to(user, asking.ACTION).order_by("name")
    context["containers"] = usable.values_list("name", flat=True)
    context |= {"projects": sorted(may), "may_make": bool(may), "keeps": KEEPS, "examples": EXAMPLES}
    context["destinations"] = destinations(local_host())
    return render(request, "pages/schedules.html", context, status=status)


def _row(row: Schedule, *, may: bool) -> dict[str, Any]:
    """Return a schedule with its next runs and what is pruned then."""
    try:
        found = asking.preview(row)
    except CoreError as error:
        return {"row": row, "error": translated(error.message), "may": may}
    return {"row": row, "may": may, **found}


def _values(request: HttpRequest) -> dict[str, Any]:
    form = request.POST
    values: dict[str, Any] = {name: form.get(name, "").strip() for name in ("name", "when", "timezone", "tag")}
    where = form.get("where", "")
    kind, _, name = where.partition(":")
    if kind == "container":
        values["container"] = name
    elif kind == "project":
        values["project"] = name
    values["destination"] = form.get("destination", "")
    values["snapshots"] = bool(form.get("snapshots"))
    keep = {name: form.get(f"keep-{name}", "").strip() for name in KEEPS}
    values["keep"] = {name: int(text) if text.isdecimal() else text for name, text in keep.items() if text}
    return values


def _field(error: CoreError) -> str:
    field = (error.field or "all").replace(".", "-")
    return {"project": "where", "container": "where"}.get(field, field)


@page
def schedule_preview(request: HttpRequest) -> HttpResponse:
    """Show what the schedule in the form would do."""
    context: dict[str, Any] = {}
    try:
        context = asking.preview_of(
            actor_of(request), {**_values(request), "name": request.POST.get("name") or "preview"}
        )
    except CoreError as error:
        context["error"] = translated(error.message)
    return render(request, "pages/schedule_preview.html", context)


@changes
def schedule_action(request: HttpRequest, schedule_id: int, action: str) -> HttpResponse:
    """Stop a schedule for a while, have it go on, or delete it."""
    who = actor_of(request)
    if action == "delete":
        asking.delete(who, schedule_id)
    elif action in ("enable", "disable"):
        asking.change(who, schedule_id, {"enabled": action == "enable"})
    else:
        raise unknown()
    return done(request, reverse("pages:schedules"), schedules="")
