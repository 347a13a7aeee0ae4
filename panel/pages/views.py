"""Overview, operations, and what the palette searches."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.core.paginator import Paginator
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext as _

from containers.asking import services
from containers.models import Host, Image, Operation, local_host
from containers.showing import sentences, words
from containers.showing.about import with_objects
from containers.showing.attention import SHOWN_MAX, concerns
from containers.showing.order import natural
from containers.showing.rows import Filters, counts, listed, rows_of
from containers.views.listing import STATUSES, may_create
from panel.accounts.models import User
from panel.pages.web import actor_of, changes, done, page, unknown, user_of

PER_PAGE = 50


@page
def overview(request: HttpRequest) -> HttpResponse:
    """Show how things stand: counts by state, the host, what needs attention, the last operations."""
    user = user_of(request)
    filters = Filters(project=request.GET.get("project", ""))
    by_status = counts(user, filters)
    recent = visible_operations(user, filters.project)
    host = local_host()
    attention = concerns(user, host, filters.project)
    context = {
        "counts": [(key, word, by_status.get(key, 0)) for key, word in STATUSES if key != "working"],
        "total": by_status["all"],
        "attention": attention[:SHOWN_MAX],
        "more": max(0, len(attention) - SHOWN_MAX),
        "operations": recent[:10],
        "host": host,
        "pressure": _has_pressure(host),
        "filters": filters,
        "may_create": may_create(user, filters.project),
        "images": Image.objects.filter(state="ready").count(),
    }
    return render(request, "pages/overview.html", context)


def _has_pressure(host: Host) -> bool:
    """Whether the kernel tells of pressure, as far as the host was looked at."""
    findings = [found for found in host.facts.get("doctor") or [] if isinstance(found, dict)]
    return not any(found.get("id") == "psi" and not found.get("ok") for found in findings)


def visible_operations(user: User, project: str = "") -> QuerySet[Any]:
    """Return the operations the user may see, without their logs, newest first."""
    rows: QuerySet[Any] = Operation.objects.visible_to(user)
    if project:
        rows = rows.filter(project__name=project)
    return with_objects(rows).defer("log").order_by("-created_at")


@page
def operations(request: HttpRequest) -> HttpResponse:
    """Show what is under way, then what was: what, on which, by whom, how long, how it ended."""
    user = user_of(request)
    rows = visible_operations(user, request.GET.get("project", ""))
    query = {name: request.GET.get(name, "").strip().replace("\0", "") for name in ("q", "status", "actor")}
    if query["q"]:
        q = query["q"]
        called = [action for action, word in words.ACTIONS.items() if q.lower() in str(word).lower()]
        rows = rows.filter(Q(object_name__icontains=q) | Q(action__icontains=q) | Q(action__in=called))
    if query["actor"]:
        rows = rows.filter(actor_name=query["actor"])
    finished = rows.exclude(status__in=Operation.UNFINISHED)
    if query["status"] in ("succeeded", "failed", "cancelled"):
        finished = finished.filter(status=query["status"])
    context = {
        "running": rows.filter(status__in=Operation.UNFINISHED)[:100],
        "page": Paginator(finished, PER_PAGE).get_page(request.GET.get("page")),
        "query": query,
        "cancellable": set(
            rows.model.objects.visible_to(user, "cancel")
            .filter(status__in=Operation.UNFINISHED)
            .values_list("pk", flat=True)
        ),
    }
    return render(request, "pages/operations.html", context)


@page
def operation(request: HttpRequest, operation_id: UUID) -> HttpResponse:
    """Show one operation with its log, live while it runs."""
    user = user_of(request)
    rows: QuerySet[Any] = Operation.objects.visible_to(user)
    found = with_objects(rows).filter(pk=operation_id).first()
    if found is None:
        raise unknown()
    may_cancel = Operation.objects.visible_to(user, "cancel").filter(pk=operation_id).exists()
    return render(request, "pages/operation.html", {"operation": found, "may_cancel": may_cancel})


@changes
def cancel(request: HttpRequest, operation_id: UUID) -> HttpResponse:
    """Ask for an operation to be cancelled."""
    services.cancel_operation(actor_of(request), operation_id)
    where = reverse("pages:operation", args=[operation_id])
    return done(request, where, text=_("Cancelling…"), operation=str(operation_id))


@page
def running_count(request: HttpRequest) -> HttpResponse:
    """Answer with the sidebar's numbers: of containers (?project=), and of unfinished operations."""
    user, project = user_of(request), request.GET.get("project", "")
    context = {
        "running_count": Operation.objects.visible_to(user).filter(status__in=Operation.UNFINISHED).count(),
        "container_count": counts(user, Filters(project=project))["all"],
        "project": project,
    }
    return render(request, "parts/running_count.html", context)


@page
def ended(request: HttpRequest) -> HttpResponse:
    """Answer with what is worth a word in the corner of those operations (?ids=).

    Failures, what others did, and of one's own what the page does not show by itself.
    """
    user = user_of(request)
    ids = []
    for text in request.GET.get("ids", "").split(",")[:20]:
        try:
            ids.append(UUID(text))
        except ValueError:
            continue
    rows = visible_operations(user).select_related("target").filter(pk__in=ids).exclude(status__in=Operation.UNFINISHED)
    items = []
    for row in rows:
        what = str(words.ACTIONS.get(row.action, row.action))
        if row.status == "failed":
            text = _("%(what)s of %(name)s failed: %(why)s") % {
                "what": what,
                "name": row.object_name,
                "why": sentences.explain(row.error, row.message),
            }
            items.append({"level": "error", "text": text, "href": reverse("pages:operation", args=[row.pk])})
        elif row.actor_name != user.username and row.status == "succeeded":
            text = _("%(who)s: %(what)s, %(name)s") % {"who": row.actor_name, "what": what, "name": row.object_name}
            items.append({"level": "info", "text": text, "href": reverse("pages:operation", args=[row.pk])})
        elif row.status == "cancelled":
            text = _("%(what)s, %(name)s: cancelled, and rolled back") % {"what": what, "name": row.object_name}
            items.append({"level": "info", "text": text, "href": reverse("pages:operation", args=[row.pk])})
        elif row.status == "succeeded" and row.action in words.DONE:
            text = str(words.DONE[row.action]) % {"name": row.object_name}
            items.append({"level": "ok", "text": text, "href": _where_it_shows(row)})
    return JsonResponse({"items": items})


def _where_it_shows(operation: Operation) -> str:
    """Return the page that shows what an operation has made."""
    if operation.action == "clone" and operation.target:
        return reverse("containers:detail", args=[operation.target.name])
    if operation.action in ("snapshot", "snapshot-delete") and operation.container_id:
        return reverse("containers:snapshots", args=[operation.object_name])
    if operation.action == "image-build":
        return f"{reverse('pages:images')}#{operation.object_name}"
    return reverse("pages:operation", args=[operation.pk])


@page
def palette(request: HttpRequest) -> HttpResponse:
    """Answer with everything that Ctrl-K searches: pages, containers with what may be done to them now."""
    user = user_of(request)
    pages = [
        (_("Overview"), "pages:overview", "layout-dashboard"),
        (_("Containers"), "containers:list", "box"),
        (_("Images"), "pages:images", "photo"),
        (_("Networks"), "pages:networks", "network"),
        (_("Operations"), "pages:operations", "activity"),
        (_("People"), "pages:people", "users"),
        (_("Host"), "pages:host", "server-2"),
        (_("Account"), "account", "settings"),
    ]
    items: list[dict[str, str]] = [{"text": text, "href": reverse(name), "icon": icon} for text, name, icon in pages]
    if may_create(user, ""):
        items.append({"text": _("Create container"), "href": reverse("containers:create"), "icon": "plus"})
    for row in rows_of(user, sorted(listed(user).order_by("name")[:1000], key=lambda row: natural(row.name))):
        where = reverse("containers:detail", args=[row.name])
        items.append({"text": row.name, "hint": row.word, "href": where, "icon": "box"})
        verbs = [row.power, row.restart, row.pause]
        items += [
            {
                "text": f"{verb.label} {row.name}",
                "post": reverse("containers:act", args=[row.name, verb.action]),
                "icon": verb.icon,
            }
            for verb in verbs
            if not verb.reason
        ]
        if not row.terminal.reason:
            text = f"{row.terminal.label} {row.name}"
            items.append({"text": text, "href": reverse("containers:terminal", args=[row.name]), "icon": "terminal-2"})
    return JsonResponse({"items": items})
