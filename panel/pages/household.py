"""Networks and the host."""

from __future__ import annotations

from typing import Any, Final

from django.db.models import Count, Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext as _

from containers.asking import access, resources
from containers.core.errors import CoreError
from containers.models import Host, Network, Operation, local_host
from containers.showing.granted import granted
from containers.showing.sentences import of_finding, translated
from containers.showing.storage import overview
from containers.views.listing import projects_of
from panel.accounts.models import User
from panel.pages.web import actor_of, changes, done, in_dialog, page, user_of

LEVELS: Final = ("required", "recommended", "info")
"""How much a finding of `doctor` weighs, the heaviest first."""


@page
def networks(request: HttpRequest) -> HttpResponse:
    """Show the networks, or ask for a new one."""
    user = user_of(request)
    context: dict[str, Any] = {"values": request.POST, "nat": True}
    status = 200
    if request.method == "POST":
        form = request.POST
        context["nat"] = bool(form.get("nat"))
        try:
            resources.create_network(
                actor_of(request),
                form.get("name", "").strip(),
                project=form.get("project") or None,
                ipv4=form.get("ipv4", "").strip() or "auto",
                ipv6=form.get("ipv6", "").strip() or "auto",
                nat=context["nat"],
                description=form.get("description", "").strip(),
            )
            return done(request, reverse("pages:networks"), network=form.get("name", ""))
        except CoreError as error:
            context |= {"error": translated(error.message), "field": error.field or "all"}
            status = 422
    context |= _networks_context(user)
    return render(request, "pages/networks.html", context, status=status)


def _networks_context(user: User) -> dict[str, Any]:
    """Return the visible networks with how many visible interfaces are on each, and what may be made."""
    visible = Network.objects.visible_to(user).select_related("project")
    mine = Q() if user.host_admin else Q(interfaces__container__project__memberships__user=user)
    rows = list(visible.annotate(used_by=Count("interfaces", filter=mine or None, distinct=True)))
    deletable = set(Network.objects.visible_to(user, "network-delete").values_list("pk", flat=True))
    running = Operation.objects.filter(network__in=rows, status__in=Operation.UNFINISHED).defer("log")
    by_network = {operation.network_id: operation for operation in running}
    projects = projects_of(user, role="administrator")
    return {
        "networks": [(row, by_network.get(row.pk), row.pk in deletable) for row in rows],
        "projects": projects,
        "may_create": user.host_admin or bool(projects),
        "findings": [item for item in findings_of(local_host()) if _of_networks(item)],
    }


@page
def network_change(request: HttpRequest, name: str) -> HttpResponse:
    """Show the dialog that changes a network, or ask for what it says."""
    actor = actor_of(request)
    if request.method == "POST":
        return _network_changed(request, name)
    network = access.find_network(actor, name, "network-change")
    used_by = list(network.interfaces.values_list("container", flat=True).distinct())
    return render(request, "pages/dialog_network_change.html", {"network": network, "used_by": len(used_by)})


@changes
def _network_changed(request: HttpRequest, name: str) -> HttpResponse:
    form = request.POST
    subnets = {key: form[key].strip() or "none" for key in ("ipv4", "ipv6") if key in form}
    try:
        resources.change_network(
            actor_of(request),
            name,
            nat=bool(form.get("nat")),
            description=form.get("description", "").strip(),
            **subnets,
        )
    except CoreError as error:
        return in_dialog(request, error)
    return done(request, reverse("pages:networks"), network=name)


@changes
def network_delete(request: HttpRequest, name: str) -> HttpResponse:
    """Ask for a network to be removed."""
    resources.delete_network(actor_of(request), name)
    return done(request, reverse("pages:networks"), network=name)


@page
def host(request: HttpRequest) -> HttpResponse:
    """Show what the host is, and what `doctor` found: can it, why it matters, how to mend it."""
    row = local_host()
    findings = findings_of(row)
    bad = sorted((item for item in findings if not item["ok"]), key=lambda item: LEVELS.index(item["level"]))
    context = {
        "host": row,
        "facts": row.facts,
        "bad": bad,
        "wrong": [item for item in bad if item["level"] != "info"],
        "good": [item for item in findings if item["ok"]],
        "known": bool(findings),
        "policy": row.facts.get("policy") or {},
        "granted": granted(row, user_of(request)),
        "title": _("Host %(name)s") % {"name": row.name},
    }
    return render(request, "pages/host.html", context)


@page
def storage(request: HttpRequest) -> HttpResponse:
    """Show what the host's disk holds, and who of it."""
    try:
        found = overview(user_of(request), local_host())
        context = {"storage": found, "usable": found["used_bytes"] + found["free_bytes"]}
    except CoreError as error:
        context = {"storage": None, "error": translated(error.message)}
    return render(request, "pages/storage.html", context)


def findings_of(row: Host) -> list[dict[str, Any]]:
    """Return what `doctor` found on a host, each finding with every key that the templates show."""
    return [_finding(item) for item in row.facts.get("doctor") or [] if isinstance(item, dict)]


def _of_networks(item: dict[str, Any]) -> bool:
    """Return whether a finding is something that keeps containers from reaching out."""
    return not item["ok"] and item["level"] != "info" and (item["part"] == "network" or item["id"] == "nftables")


def _finding(item: dict[str, Any]) -> dict[str, Any]:
    """Return one finding of `doctor` with every key that the template shows."""
    return {
        "id": str(item.get("id") or ""),
        "ok": bool(item.get("ok")),
        "level": item.get("level") if item.get("level") in LEVELS else "info",
        "what": of_finding(item, "what") or item.get("id") or "",
        "why": of_finding(item, "why"),
        "mend": of_finding(item, "mend"),
        "part": item.get("part") or "host",
        "is_command": (item.get("mend") or "")[:1].islower(),
    }
