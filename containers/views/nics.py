"""Network interfaces on a container's settings page: adding and removing, while it runs too."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from containers.asking import services
from containers.core.errors import CoreError
from containers.showing import nics
from panel.pages.web import actor_of, done, page, user_of, wants_fragment

from .detail import TABS, the_row


@page
def interfaces(request: HttpRequest, name: str) -> HttpResponse:
    """Show the part, add a network interface, or take one away."""
    row = the_row(user_of(request), name)
    context: dict[str, Any] = {"row": row, "tabs": TABS, "tab": "settings", "nic_asked": {}}
    if request.method == "POST":
        data = {key: str(value) for key, value in request.POST.items()}
        try:
            wanted = nics.without(row, data["remove"]) if "remove" in data else nics.added(row, data)
            services.act(actor_of(request), name, "update", {"nics": wanted})
            return done(request, reverse("containers:settings", args=[name]), container=name, settings=name)
        except CoreError as error:
            field, text = nics.in_place(error)
            context |= {"nic_asked": data, "nic_field": field, "nic_wrong": text}
    context |= nics.context(row)
    template = "containers/nics.html" if wants_fragment(request) else "containers/nics_page.html"
    status = 422 if "nic_wrong" in context and not wants_fragment(request) else 200
    return render(request, template, context, status=status)
