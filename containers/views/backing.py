"""A container's backups: its tab, and making one."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext as _

from containers.asking import backups as asking
from containers.models import Backup
from containers.showing import backups as table
from panel.pages.web import actor_of, changes, done, page, user_of

from .detail import TABS, the_row


@page
def backups(request: HttpRequest, name: str) -> HttpResponse:
    """Show a container's backups, those that are being written, and where they may go."""
    user = user_of(request)
    row = the_row(user, name)
    rows = Backup.objects.visible_to(user).filter(container_id=row.container.pk).select_related("project")
    context = {
        "row": row,
        "tabs": TABS,
        "tab": "backups",
        "rows": table.rows_of(user, rows[: table.SHOWN]),
        "making": table.making(user, row.container.name),
        "destinations": asking.destinations(row.container.host),
        "may_backup": row.may("backup-export"),
    }
    return render(request, "containers/tab_backups.html", context)


@changes
def backup_now(request: HttpRequest, name: str) -> HttpResponse:
    """Back a container up."""
    destination = request.POST.get("destination", asking.LOCAL)
    with_snapshots = bool(request.POST.get("with_snapshots"))
    asking.export(actor_of(request), name, destination=destination, with_snapshots=with_snapshots)
    text = _("%(name)s is being backed up.") % {"name": name}
    return done(request, reverse("containers:backups", args=[name]), text=text, container=name, backups="")
