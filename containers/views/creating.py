"""The form for a new container."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from containers.asking import pools, services
from containers.core.errors import CoreError
from containers.models import Image, Network, local_host
from containers.showing import creating
from containers.showing.forms import NO_NETWORK, RESTARTS, UNITS, CreateForm, ranges, suggested_name
from containers.showing.sentences import describe
from containers.views.listing import projects_of
from panel.accounts.actor import Forbidden
from panel.accounts.models import User
from panel.pages.web import actor_of, go, page, user_of


@page
def create(request: HttpRequest) -> HttpResponse:
    """Show the form, or make the container and go to the list; on an error the form comes back as it was."""
    user, host = user_of(request), local_host()
    if request.method != "POST":
        return render(request, "containers/create.html", _context(user, request.GET))
    form = CreateForm(request.POST)
    try:
        wanted = form.request(creating.asked(host, user, request.POST))
        services.create_container(actor_of(request), wanted)
    except Forbidden:
        raise
    except CoreError as error:
        context = _context(user, request.POST) | {"form": form}
        if wrong := creating.wrong(error, context["advanced_groups"]):
            form.full_clean()
            found = context["advanced_groups"]
            opened = [title for title, rows in found if any(row["name"] == wrong[0] for row in rows)]
            context |= {"wrong": {wrong[0]: wrong[1]}, "advanced": True, "opened": [*context["opened"], *opened]}
        else:
            form.take(error, host)
        return render(request, "containers/create.html", context, status=422)
    where = reverse("containers:list")
    return go(request, f"{where}?project={wanted.project}" if request.POST.get("back_to_project") else where)


def _context(user: User, values: Any) -> dict[str, Any]:
    """Return what the form's template shows; values are the form's own, or the address bar's first ones."""
    host = local_host()
    projects = projects_of(user, role="administrator")
    images = sorted(
        Image.objects.visible_to(user, "use").filter(host=host), key=lambda image: (image.state != "ready", image.name)
    )
    describe(*images)
    networks = Network.objects.visible_to(user, "use").filter(host=host)
    chosen = values.get("image") or next((image.name for image in images if image.state == "ready"), "")
    shown = {name: values.get(name, "") for name in CreateForm.base_fields}
    shown["name"] = values.get("name", suggested_name())
    shown["image"] = chosen
    shown["memory_unit"] = values.get("memory_unit", "MiB")
    first = "default" if any(p.name == "default" for p in projects) else next((p.name for p in projects), "")
    shown["project"] = values.get("project") or first
    shown["network"] = values.get("network") or "default"
    more = values.getlist("more_networks") if hasattr(values, "getlist") else ()
    advanced = any(shown[name] for name in ("init_command", "environment", "ephemeral", "privileged"))
    groups = creating.groups(host, user, values)
    opened = creating.touched(groups)
    given = creating.choices(host, [project.name for project in projects], values)
    chosen_given = any(one.chosen for kind in given.values() for one in kind)
    return {
        "values": shown,
        "images": images,
        "networks": networks,
        "more_networks": more,
        "no_network": NO_NETWORK,
        "projects": projects,
        "ranges": ranges(host),
        "units": UNITS,
        "restarts": RESTARTS,
        "advanced": advanced or shown["restart"] not in ("", "no") or bool(opened) or chosen_given,
        "opened": opened,
        "advanced_groups": groups,
        "given": given,
        "pools": pools.offered(host, [project.name for project in projects]),
        "may_privileged": bool(host.facts.get("policy", {}).get("privileged")),
    }
