"""One container: its header and its tabs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext_lazy

from containers.asking import services
from containers.clients import consolelog
from containers.clients.ticker_client import TickerUnavailable
from containers.core.errors import CoreError
from containers.core.model.behaviour import Consoles
from containers.core.model.states import Status
from containers.models import Event, Network, Operation
from containers.showing import ending, giving, nics, settingrows, tree
from containers.showing.forms import RESTARTS, changes_of, field_of, in_words
from containers.showing.rows import Row, listed, row_of
from containers.showing.sentences import translated
from panel.accounts.models import User
from panel.pages.web import actor_of, done, page, unknown, user_of, wants_fragment

TABS = (
    ("detail", gettext_lazy("Overview")),
    ("terminal", gettext_lazy("Terminal")),
    ("graphs", gettext_lazy("Graphs")),
    ("snapshots", gettext_lazy("Snapshots")),
    ("files", gettext_lazy("Files")),
    ("backups", gettext_lazy("Backups")),
    ("network", gettext_lazy("Network")),
    ("settings", gettext_lazy("Settings")),
    ("log", gettext_lazy("Log")),
)
RENAME_WAIT_SEC = 3.0
"""How long a rename may take before the answer leads to the list instead of the container's page."""
SHOWN_BYTES = 256 * 1024
"""Of the console's log on its page, after the end."""
LAST_LINES = 12
"""Of the console, on the overview of a container that ended by itself; the log shows them all."""


def the_row(user: User, name: str) -> Row:
    """Return the container for the viewer; 404 where he may not see it, or there is none."""
    container = listed(user).filter(name=name).first()
    if container is None:
        raise unknown()
    return row_of(user, container)


def tab(key: str, template: str, more: Callable[[Row], dict[str, Any]]) -> Callable[..., HttpResponse]:
    """Return the view of one tab. more: what its template needs besides the row."""

    @page
    def show(request: HttpRequest, name: str) -> HttpResponse:
        row = the_row(user_of(request), name)
        return render(request, template, {"row": row, "tabs": TABS, "tab": key} | more(row))

    return show


@page
def header(request: HttpRequest, name: str) -> HttpResponse:
    """Show the header alone, after something changed."""
    return render(request, "containers/header.html", {"row": the_row(user_of(request), name)})


def _overview(row: Row) -> dict[str, Any]:
    """Return the last events and operations of a container."""
    events = Event.objects.filter(container=row.container).select_related("operation")
    last = Operation.objects.filter(container=row.container).defer("log").first()
    ended = row.container.status in ("stopped", "error") and not row.operation and row.exit_words
    console = str((row.container.last_exit or {}).get("console") or "").rstrip() if ended else ""
    return {
        "events": events[:12],
        "last": last if last and last.status == "failed" else None,
        "ending": ending.ending(row),
        "last_lines": "\n".join(console.splitlines()[-LAST_LINES:]),
    }


def _snapshots(row: Row) -> dict[str, Any]:
    """Return a container's snapshots, newest first, and as a tree, what is now on top."""
    snapshots = list(row.container.snapshots.all())
    lines = tree.drawn(snapshots, row.container.lineage)
    return {"snapshots": snapshots, "tree": lines[::-1]}


def _network(row: Row) -> dict[str, Any]:
    """Return a container's interfaces with their networks, and the neighbours it can reach by name."""
    interfaces = list(row.container.interfaces.select_related("network"))
    networks = Network.objects.filter(pk__in=[nic.network_id for nic in interfaces])
    return {"interfaces": interfaces, "networks": networks}


def _log(row: Row) -> dict[str, Any]:
    """Return what was asked of a container and how it went; its console is read by the page's script."""
    operations = Operation.objects.filter(container=row.container).order_by("-created_at")
    events = Event.objects.filter(container=row.container).select_related("operation")
    live = row.container.status in (Status.RUNNING, Status.FROZEN)
    return {"operations": operations[:50], "events": events[:100], "live": live}


def _terminal(row: Row) -> dict[str, Any]:
    """Return whether the viewer may open a terminal, and if not why; and the names of the consoles."""
    ttys = Consoles.from_dict(row.container.console).ttys
    consoles = " ".join(["console", *(f"tty{number}" for number in range(1, ttys + 1))])
    reason = "" if row.may("terminal") else row.reason("terminal")
    return {"may_open": row.may("terminal"), "reason": reason, "consoles": consoles}


def _nothing(row: Row) -> dict[str, Any]:
    return {}


overview = tab("detail", "containers/tab_overview.html", _overview)
terminal = tab("terminal", "containers/tab_terminal.html", _terminal)
graphs = tab("graphs", "containers/tab_graphs.html", _nothing)
snapshots = tab("snapshots", "containers/tab_snapshots.html", _snapshots)
network = tab("network", "containers/tab_network.html", _network)
log = tab("log", "containers/tab_log.html", _log)


@page
def console(request: HttpRequest, name: str) -> HttpResponse:
    """Answer with the console's log as text: its end, or, as a file to keep (?download), all that is kept."""
    row = the_row(user_of(request), name)
    download = "download" in request.GET
    try:
        found = consolelog.read(row.container, consolelog.TAIL_MAX_BYTES if download else SHOWN_BYTES)
    except TickerUnavailable as error:
        return HttpResponse(translated(error.message), status=503, content_type="text/plain; charset=utf-8")
    response = HttpResponse(found.text, content_type="text/plain; charset=utf-8")
    if download:
        response["Content-Disposition"] = f'attachment; filename="{name}-console.log"'
    return response


@page
def settings(request: HttpRequest, name: str) -> HttpResponse:
    """Show the settings, or save those that somebody edited; an error comes back beside its field."""
    row = the_row(user_of(request), name)
    errors: dict[str, str] = {}
    if request.method == "POST":
        try:
            changes = changes_of(request.POST)
            if changes:
                services.act(actor_of(request), name, "update", changes)
            where = reverse("containers:settings", args=[name])
            return done(request, where, container=name, settings=name)
        except CoreError as error:
            errors[field_of(error) or "all"] = in_words(error, row.container.host)
    context = {"row": row, "tabs": TABS, "tab": "settings", "groups": settingrows.groups(row), "errors": errors}
    context |= {"edited": request.POST if errors else {}, "reason": row.reason("update"), "restarts": RESTARTS}
    context |= giving.context(row) | nics.context(row)
    template = "containers/settings_form.html" if wants_fragment(request) else "containers/tab_settings.html"
    return render(request, template, context, status=422 if errors and not wants_fragment(request) else 200)


@page
def rename(request: HttpRequest, name: str) -> HttpResponse:
    """Give a stopped container another name."""
    row = the_row(user_of(request), name)
    context: dict[str, Any] = {"row": row, "reason": row.rename_reason, "value": name}
    if request.method == "POST":
        new = context["value"] = request.POST.get("name", "").strip()
        try:
            asked = services.act(actor_of(request), name, "rename", {"name": new})
            renamed = services.wait(asked.pk, RENAME_WAIT_SEC).status == Operation.Status.SUCCEEDED
            where = reverse("containers:detail", args=[new]) if renamed else reverse("containers:list") + f"?q={new}"
            return HttpResponse(status=204, headers={"HX-Redirect": where})
        except CoreError as error:
            context["error"] = translated(error.message)
    return render(request, "containers/dialog_rename.html", context)
