"""Backups: the list, one of them, having a container back, and what is sent from elsewhere."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext as _

from containers.asking import backups as asking
from containers.asking import pools, uploads
from containers.core.errors import CoreError
from containers.core.rules.pool_rules import DEFAULT
from containers.models import Container, Network, Operation, local_host
from containers.showing import backups as table
from containers.showing.forms import suggested_name
from containers.showing.sentences import translated
from panel.accounts.models import User
from panel.pages.web import actor_of, back_of, changes, done, go, page, unknown, user_of


def _form(user: User) -> dict[str, Any]:
    """Return what the forms that restore offer."""
    projects = sorted(table.may(user, "backup-import"))
    networks = Network.objects.visible_to(user, "use").order_by("name").values_list("name", flat=True)
    targets = Container.objects.visible_to(user, "backup-restore").order_by("name").values_list("name", flat=True)
    return {
        "projects": projects,
        "networks": list(networks),
        "pools": pools.offered(local_host(), projects),
        "targets": list(targets),
        "may_import": bool(projects),
    }


def sent_before(request: HttpRequest) -> dict[str, Any]:
    """Return what the user has sent and nothing uses, and which of it a form is about."""
    used = set()
    unfinished = Operation.objects.filter(actor=user_of(request), status__in=Operation.UNFINISHED)
    for operation in unfinished.select_related("image"):
        source = operation.image.source if operation.image else {}
        used |= {operation.arguments.get("upload"), source.get("upload"), source.get("metadata")}
    sent = [one for one in uploads.mine(actor_of(request)) if one.id not in used]
    wanted = (request.POST if request.method == "POST" else request.GET).get("upload", "")
    # what was given up meanwhile is chosen anew
    chosen = next((one for one in sent if one.id == wanted and one.complete and not one.container_id), None)
    return {"uploads": sent, "chosen": chosen}


@changes
def upload_delete(request: HttpRequest, upload_id: str) -> HttpResponse:
    """Give an upload up."""
    uploads.remove(actor_of(request), upload_id)
    return done(request, back_of(request), uploads="")


@page
def backups(request: HttpRequest) -> HttpResponse:
    """Show the backups, or restore one that was sent from elsewhere."""
    user, who = user_of(request), actor_of(request)
    context: dict[str, Any] = {"values": request.POST if request.method == "POST" else request.GET}
    status = 200
    if request.method == "POST":
        try:
            asked = _restored(request, {"upload": request.POST.get("upload", "")})
            return go(request, reverse("pages:operation", args=[asked.pk]))
        except CoreError as error:
            context |= {"error": translated(error.message), "field": error.field or "all"}
            status = 422
    rows = asking.visible(who)
    if wanted := request.GET.get("container", "")[:63]:
        rows = rows.filter(container=wanted)
    context |= {
        "rows": table.rows_of(user, list(rows[: table.SHOWN])),
        "size": asking.size(who),
        "container": wanted,
        "making": table.making(user),
        "suggested": "",
        "destinations": asking.destinations(local_host()),
        **_form(user),
        **sent_before(request),
    }
    return render(request, "pages/backups.html", context, status=status)


def _restored(request: HttpRequest, source: dict[str, str]) -> Operation:
    """Ask for what a form that restores says."""
    form, who = request.POST, actor_of(request)
    if form.get("how") == "in-place":
        return asking.put_back(who, form.get("target", ""), source)
    return asking.take_in(
        who,
        source,
        form.get("name", "").strip(),
        project=form.get("project", "default"),
        network=form.get("network", "default"),
        pool=form.get("pool") or DEFAULT,
        start=bool(form.get("start")),
    )


@page
def backup(request: HttpRequest, backup_id: str) -> HttpResponse:
    """Show one backup, and what can be done with it."""
    user = user_of(request)
    row = asking.find(actor_of(request), backup_id)
    context: dict[str, Any] = {"values": request.POST}
    status = 200
    if request.method == "POST":
        try:
            return go(request, reverse("pages:operation", args=[_restored(request, {"backup": row.pk}).pk]))
        except CoreError as error:
            context |= {"error": translated(error.message), "field": error.field or "all"}
            status = 422
    context |= {"one": table.rows_of(user, [row])[0], "backup": row, **_form(user)}
    taken = Container.objects.filter(name=row.container).exists()
    context["suggested"] = suggested_name(row.container) if taken else row.container
    context["suggested_project"] = row.project.name if row.project else "default"
    return render(request, "pages/backup.html", context, status=status)


@changes
def backup_action(request: HttpRequest, backup_id: str, action: str) -> HttpResponse:
    """Verify a backup, or delete it."""
    who = actor_of(request)
    if action == "verify":
        asking.verify(who, asking.find(who, backup_id, "backup-verify"))
        return done(request, reverse("pages:backups"), text=_("It is being read to its end."), backups="")
    if action == "delete":
        asking.delete(who, asking.find(who, backup_id, "backup-delete"))
        return done(request, reverse("pages:backups"), backups="")
    raise unknown()


@changes
def backup_scan(request: HttpRequest) -> HttpResponse:
    """List anew what lies in a place."""
    asked = asking.scan(actor_of(request), request.POST.get("destination", ""))
    return go(request, reverse("pages:operation", args=[asked.pk]))
