"""Shared directories and devices on a container's settings page: adding and removing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from containers.asking import services
from containers.core.errors import CoreError
from containers.showing import giving
from containers.showing.rows import Row
from panel.pages.web import actor_of, done, page, user_of, wants_fragment

from .detail import TABS, the_row

Change = Callable[[Row, dict[str, str]], dict[str, Any]]


@page
def mounts(request: HttpRequest, name: str) -> HttpResponse:
    """Show the part, add a shared directory, or remove one."""

    def change(row: Row, data: dict[str, str]) -> dict[str, Any]:
        if "remove" in data:
            return {"mounts": giving.without_mount(row, data["remove"])}
        return {"mounts": giving.added_mount(row, data)}

    return _part(request, name, "mounts", change)


@page
def devices(request: HttpRequest, name: str) -> HttpResponse:
    """Show the part, give the container a device, or take one away."""

    def change(row: Row, data: dict[str, str]) -> dict[str, Any]:
        if "remove" in data:
            return {"devices": giving.changed_devices(row, data["remove"], data, add=False)}
        return {"devices": giving.changed_devices(row, data.get("device", ""), data, add=True)}

    return _part(request, name, "devices", change)


def _part(request: HttpRequest, name: str, part: str, change: Change) -> HttpResponse:
    row = the_row(user_of(request), name)
    context: dict[str, Any] = {"row": row, "tabs": TABS, "tab": "settings", "asked": {}}
    if request.method == "POST":
        data = {key: str(value) for key, value in request.POST.items()}
        try:
            services.act(actor_of(request), name, "update", change(row, data))
            return done(request, reverse("containers:settings", args=[name]), container=name, settings=name)
        except CoreError as error:
            field, text = giving.in_place(error)
            context |= {"asked": data, "wrong_part": part, "wrong_field": field, "wrong": text}
    context |= giving.context(row)
    template = "containers/given.html" if wants_fragment(request) else "containers/given_page.html"
    status = 422 if "wrong" in context and not wants_fragment(request) else 200
    return render(request, template, context, status=status)
