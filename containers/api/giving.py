"""/shares, /parents and /devices: what of the host the caller's containers may be given, by name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.http import HttpRequest
from ninja import Router

from containers.asking import giving
from containers.core.rules.grants import given_to
from containers.models import local_host
from panel.accounts import services as people

from .auth import actor

router = Router(tags=["containers"])


def _projects(request: HttpRequest, projects: Iterable[str]) -> list[str]:
    """Return which of the caller's projects something is given to."""
    names = sorted(people.visible_projects(actor(request).user).values_list("name", flat=True))
    return [name for name in names if given_to(projects, name)]


@router.get("/shares", summary="Shared directories")
def list_shares(request: HttpRequest) -> dict[str, Any]:
    """The host's directories that containers of the caller's projects may be given."""
    items = []
    for name, share in sorted(giving.shares(local_host()).items()):
        if projects := _projects(request, share.projects):
            more = {"read_only": share.read_only, "submounts": share.submounts}
            items.append({"name": name, "projects": projects, **more})
    return {"items": items, "next": None}


@router.get("/parents", summary="Network cards")
def list_parents(request: HttpRequest) -> dict[str, Any]:
    """The host's network cards that interfaces of the caller's projects may sit on."""
    items = []
    for name, parent in sorted(giving.parents(local_host()).items()):
        if projects := _projects(request, parent.projects):
            more = {key: list(getattr(parent, key)) for key in ("types", "vlans", "addresses")}
            items.append({"name": name, "projects": projects, **more})
    return {"items": items, "next": None}


@router.get("/devices", summary="Devices")
def list_devices(request: HttpRequest) -> dict[str, Any]:
    """The host's devices that containers of the caller's projects may be given."""
    items = []
    for name, device in sorted(giving.devices(local_host()).items()):
        if projects := _projects(request, device.projects):
            items.append({"name": name, "projects": projects, "path": device.path})
    return {"items": items, "next": None}
