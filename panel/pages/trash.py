"""The trash: what was deleted, how long it is kept, and getting it back."""

from __future__ import annotations

import os
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext as _

from containers.asking import basket
from containers.core.errors import CoreError
from containers.models import local_host
from containers.rights.permissions import roles_that_may
from containers.showing.sentences import translated
from containers.views.listing import projects_of
from panel.pages.web import actor_of, changes, done, page, unknown, user_of


@page
def trash(request: HttpRequest) -> HttpResponse:
    """Show what is in it; a host administrator says how long things stay."""
    who, user, host = actor_of(request), user_of(request), local_host()
    context: dict[str, Any] = {}
    status = 200
    if request.method == "POST":
        text = request.POST.get("days", "").strip()
        try:
            basket.set_days(who, host, int(text) if text.isdecimal() else -1)
            return done(request, reverse("pages:trash"), trash="")
        except CoreError as error:
            context["error"], status = translated(error.message), 422
    may = {project.name for role in roles_that_may("trash-restore") for project in projects_of(user, role=role)}
    rows = list(basket.visible(who))
    taken = basket.taken(rows)
    context["rows"] = [
        (row, user.host_admin or (row.project is not None and row.project.name in may), row.pk in taken) for row in rows
    ]
    disk = os.statvfs(settings.STATE_DIR / "web" if (settings.STATE_DIR / "web").exists() else settings.STATE_DIR)
    context |= {
        "size": basket.size(who),
        "free": disk.f_bavail * disk.f_frsize,
        "days": basket.kept_days(host),
        "may_change": user.host_admin,
    }
    return render(request, "pages/trash.html", context, status=status)


@changes
def trash_action(request: HttpRequest, entry_id: str, action: str) -> HttpResponse:
    """Put something back, or delete it for good."""
    who = actor_of(request)
    if action == "restore":
        name = request.POST.get("name") or request.headers.get("HX-Prompt") or ""
        asked = basket.restore(who, entry_id, name.strip() or None)
        text = _("%(name)s is being put back.") % {"name": asked.object_name}
        return done(request, reverse("pages:trash"), text=text, trash="", containers="")
    if action == "purge":
        basket.purge(who, basket.find(who, entry_id, "trash-purge"))
        return done(request, reverse("pages:trash"), trash="")
    raise unknown()
