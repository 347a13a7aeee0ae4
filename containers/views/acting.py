"""What is asked of containers by clicking: one by one, with a dialog, or many at once with a plan first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from containers.asking import basket, pools, services
from containers.core.errors import CoreError, SpecError
from containers.core.model.states import TRANSITIONS, Action, Status
from containers.showing import words
from containers.showing.forms import suggested_name
from containers.showing.order import natural
from containers.showing.rows import LABELS, Filters, Row, listed, row_of, rows_of
from containers.showing.sentences import translated
from panel.pages.web import actor_of, changes, done, go, page, refuse, toast, unknown, user_of

DIALOGS = ("snapshot", "clone", "delete", "restore", "snapshot-change", "snapshot-delete")
PLAIN = ("start", "stop", "restart", "freeze", "unfreeze")
BULK = (*PLAIN, "snapshot", "delete")
BULK_MOST = 500


@changes
def act(request: HttpRequest, name: str, action: str) -> HttpResponse:
    """Ask for one thing without a dialog: start, stop, restart, freeze, unfreeze."""
    if action not in PLAIN:
        raise unknown()
    arguments: dict[str, Any] = {"force": True} if action == "stop" and request.POST.get("force") else {}
    services.act(actor_of(request), name, action, arguments)
    return done(request, reverse("containers:detail", args=[name]), container=name)


@page
def dialog(request: HttpRequest, name: str, action: str) -> HttpResponse:
    """Show the dialog that goes before a snapshot, a clone, a restore or a deletion."""
    if action not in DIALOGS:
        raise unknown()
    user = user_of(request)
    container = listed(user).filter(name=name).first()
    if container is None:
        raise unknown()
    row = row_of(user, container)
    context: dict[str, Any] = {"row": row, "action": action, "reason": row.reason(action)}
    if action == "delete":
        context["reason"] = row.delete.reason
        context["trash_days"] = 0 if container.ephemeral else basket.kept_days(container.host)
    if "snapshot" in request.GET:
        context["snapshot"] = container.snapshots.filter(name=request.GET["snapshot"]).first()
        if context["snapshot"] is None:
            raise unknown()
    if action == "clone":
        context |= {"suggested": suggested_name(name), "snapshots": container.snapshots.all()}
        offered = pools.offered(container.host, [container.project.name])
        context["pools"] = [pool for pool in offered if pool != container.pool]
    if action == "snapshot":
        context["suggested"] = f"snap{container.next_snapshot}"
    return render(request, f"containers/dialog_{action.replace('-', '_')}.html", context)


@changes
def dialog_done(request: HttpRequest, name: str, action: str) -> HttpResponse:
    """Do what a dialog asked for; an error comes back into the dialog beside its field."""
    if action not in DIALOGS:
        raise unknown()
    try:
        return _after_dialog(request, name, action)
    except CoreError as error:
        if error.field or error.code in ("already-exists",):
            context = {"field": error.field or "name", "message": translated(error.message)}
            response = render(request, "parts/field_error.html", context, status=200)
            response["HX-Retarget"], response["HX-Reswap"] = "#dialog-error", "innerHTML"
            return response
        return refuse(request, error)


def dialog_either(request: HttpRequest, name: str, action: str) -> HttpResponse:
    """Show a dialog, or do what it asked for."""
    return (dialog_done if request.method == "POST" else dialog)(request, name, action)


def _after_dialog(request: HttpRequest, name: str, action: str) -> HttpResponse:
    """Read a dialog's form and ask for its action."""
    form = request.POST
    actor = actor_of(request)
    here = reverse("containers:detail", args=[name])
    if action == "delete":
        if form.get("confirm", "").strip() != name:
            raise SpecError(_("Type the name “%(name)s” to confirm.") % {"name": name}, field="confirm")
        asked: dict[str, Any] = {"force": bool(form.get("force"))}
        services.act(actor, name, "delete", asked | ({"keep_days": 0} if form.get("for_good") else {}))
        on_its_page = f"/{name}" in request.headers.get("HX-Current-URL", "").split("?")[0]
        return (
            go(request, reverse("containers:list"))
            if on_its_page
            else done(request, reverse("containers:list"), container=name)
        )
    arguments: dict[str, Any] = {}
    if action == "clone":
        arguments = {"name": form.get("name", "").strip()}
        if form.get("snapshot"):
            arguments["snapshot"] = form["snapshot"]
        arguments |= {"full": bool(form.get("full")), "start": bool(form.get("start"))}
        if form.get("pool"):
            arguments["pool"] = form["pool"]
        arguments["expires_at"] = form.get("expires_at", "").strip()
        if count := form.get("count", "").strip():
            arguments["count"] = int(count) if count.isdecimal() else count
        services.act(actor, name, "clone", arguments)
        text = _cloning(name, arguments)
        return done(request, reverse("containers:list"), text=text, container=name, containers="")
    if action in ("snapshot", "snapshot-change"):
        arguments = {"note": form.get("note", "").strip(), "pinned": bool(form.get("pinned"))}
        arguments["expires_at"] = form.get("expires_at", "").strip()
        if form.get("name", "").strip():
            arguments["name"] = form["name"].strip()
    if action != "snapshot":
        arguments["snapshot"] = form.get("snapshot", "")
    if action == "restore" and form.get("what"):
        arguments["what"] = form["what"]
    services.act(actor, name, action, arguments)
    return done(request, here, container=name)


def _cloning(name: str, arguments: dict[str, Any]) -> str:
    """Return what is said of a clone that was asked for: of several, the first and the last."""
    new, count = arguments["name"], arguments.get("count")
    if not count:
        return _("Cloning %(name)s to %(new)s.") % {"name": name, "new": new}
    if count == 1:
        return _("Cloning %(name)s to %(new)s.") % {"name": name, "new": f"{new}-1"}
    words = {"name": name, "first": f"{new}-1", "last": f"{new}-{count}"}
    return _("Cloning %(name)s to %(first)s … %(last)s.") % words


@dataclass
class Plan:
    """What a bulk action would do. go: what it is done to, by present state. skipped: reason → names."""

    action: str
    going: list[Row]
    by_state: list[tuple[str, list[str]]]
    skipped: dict[str, list[str]]


def plan(rows: list[Row], action: str) -> Plan:
    """Sort containers into those that the action fits and the rest, with the reason."""
    going: list[Row] = []
    skipped: dict[str, list[str]] = {}
    for row in rows:
        reason = row.delete.reason if action == "delete" else row.reason(action)
        if action == "delete" and not reason and (Status(row.container.status), Action.DELETE) not in TRANSITIONS:
            reason = words.not_now(row.container.status, "delete")
        if reason:
            skipped.setdefault(reason, []).append(row.name)
        else:
            going.append(row)
    by_state: dict[str, list[str]] = {}
    for row in going:
        by_state.setdefault(row.container.status, []).append(row.name)
    return Plan(action, going, sorted(by_state.items()), skipped)


@changes
def bulk(request: HttpRequest) -> HttpResponse:
    """Show the plan of a bulk action, or, confirmed, ask for it one container after the other."""
    user = user_of(request)
    action = request.POST.get("action", "")
    if action not in BULK:
        raise unknown()
    chosen = listed(user)
    if request.POST.get("all"):
        chosen = Filters.of(request.POST).apply(chosen)
    else:
        chosen = chosen.filter(name__in=request.POST.get("names", "").split(","))
    rows = sorted(chosen.order_by("name")[:BULK_MOST], key=lambda row: natural(row.name))
    found = plan(rows_of(user, rows), action)
    if not request.POST.get("confirmed"):
        context = {"plan": found, "label": LABELS[action], "post": request.POST, "total": len(found.going)}
        context["names"] = ",".join(row.name for row in found.going)
        return render(request, "containers/dialog_bulk.html", context)
    actor = actor_of(request)
    failures = []
    for row in found.going:
        try:
            services.act(actor, row.name, action, {})
        except CoreError as error:
            failures.append(f"{row.name}: {translated(error.message)}")
    return _bulk_answer(request, found, failures)


def _bulk_answer(request: HttpRequest, found: Plan, failures: list[str]) -> HttpResponse:
    """Say how many were asked, and which refused."""
    asked = len(found.going) - len(failures)
    if failures:
        text = _("%(n)s asked; refused: %(list)s") % {"n": asked, "list": "; ".join(failures[:5])}
        return toast("error", text, triggers={"boxroom:changed": {"containers": ""}, "boxroom:close": True})
    doing = words.DOING[found.action]
    text = ngettext("%(doing)s %(n)s container", "%(doing)s %(n)s containers", asked) % {"doing": doing, "n": asked}
    return done(request, reverse("containers:list"), text=text, containers="")
