"""Schedules of snapshots: what is taken when, what is kept, and what comes next."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from containers.asking import schedules as asking
from containers.asking.backups import destinations
from containers.core.errors import CoreError
from containers.models import Container, Schedule, local_host
from containers.rights.permissions import roles_that_may
from containers.showing.order import natural
from containers.showing.sentences import translated
from containers.views.listing import projects_of
from panel.accounts.models import User
from panel.pages.web import actor_of, changes, done, page, unknown, user_of

KEEPS = ("last", "hourly", "daily", "weekly", "monthly")
EXAMPLES = ("every 6h", "0 3 * * *", "*/15 8-18 * * mon-fri")


@page
def schedules(request: HttpRequest) -> HttpResponse:
    """Show the schedules, or make one."""
    who, user = actor_of(request), user_of(request)
    context: dict[str, Any] = {"values": _suggested(request)}
    status = 200
    if request.method == "POST":
        try:
            made = asking.create(who, _values(request))
            return done(request, reverse("pages:schedules"), schedules=made.name)
        except CoreError as error:
            context = _refused(request, error)
            status = 422
    may = _projects(user)
    context["schedules"] = [_row(row, may=row.project.name in may) for row in asking.visible(who)]
    usable = Container.objects.visible_to(user, asking.ACTION).order_by("name")
    context |= {"may_make": bool(may), **_choices(sorted(may), usable)}
    return render(request, "pages/schedules.html", context, status=status)


@page
def schedule(request: HttpRequest, schedule_id: int) -> HttpResponse:
    """Show what a schedule does, to be changed."""
    who = actor_of(request)
    row = asking.find(who, schedule_id)
    context: dict[str, Any] = {"values": _entered(row)}
    status = 200
    if request.method == "POST":
        try:
            changed = asking.change(who, schedule_id, _values(request))
            return done(request, reverse("pages:schedules"), schedules=changed.name)
        except CoreError as error:
            context = _refused(request, error)
            status = 422
    usable = Container.objects.visible_to(who.user, asking.ACTION).filter(project=row.project).order_by("name")
    context |= {"schedule": row, **_choices([row.project.name], usable)}
    return render(request, "pages/schedule.html", context, status=status)


def _projects(user: User) -> set[str]:
    """Return the names of the projects that somebody may make schedules in."""
    roles = roles_that_may(asking.ACTION)
    return {project.name for role in roles for project in projects_of(user, role=role)}


def _choices(projects: list[str], containers: QuerySet[Container]) -> dict[str, Any]:
    """Return what the fields of a schedule offer."""
    return {
        "projects": projects,
        "containers": containers.values_list("name", flat=True),
        "destinations": destinations(local_host()),
        "examples": EXAMPLES,
    }


def _suggested(request: HttpRequest) -> dict[str, Any]:
    """Return what the fields of a new schedule hold at first; links say for which container, and whether backups."""
    container, places = request.GET.get("container"), destinations(local_host())
    return {
        "where": f"container:{container}" if container else "",
        "destination": places[0] if places and "backups" in request.GET else "",
        "when": "every 6h",
        "timezone": "UTC",
        "keep": [(name, "") for name in KEEPS],
    }


def _entered(row: Schedule) -> dict[str, Any]:
    """Return what the fields hold of a schedule that is there."""
    return {
        "name": row.name,
        "where": f"container:{row.container.name}" if row.container else f"project:{row.project.name}",
        "destination": row.destination,
        "snapshots": row.with_snapshots,
        "tag": row.tag,
        "when": row.when,
        "timezone": row.zone,
        "keep": [(name, row.keep.get(name, "")) for name in KEEPS],
    }


def _refused(request: HttpRequest, error: CoreError) -> dict[str, Any]:
    """Return the form again as it was sent, with the reason at its field."""
    form = request.POST
    values = {**form.dict(), "keep": [(name, form.get(f"keep-{name}", "")) for name in KEEPS]}
    return {"values": values, "error": translated(error.message), "field": _field(error)}


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
    kind, _, name = form.get("where", "").partition(":")
    values["container"] = name if kind == "container" else None
    if kind == "project":
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
        context["containers"] = sorted(context["containers"], key=natural)
        context["zone"] = request.POST.get("timezone", "").strip() or "UTC"
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
