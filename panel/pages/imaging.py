"""Images: the list, one image, and the forms that make them out of whatever people have."""

from __future__ import annotations

from typing import Any, Final

from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext_lazy

from containers.asking import catalogues, resources
from containers.asking.access import find_image
from containers.core.errors import CoreError
from containers.core.model import recipes
from containers.models import Container, Image, Operation, local_host
from containers.showing.sentences import describe, translated
from containers.views.listing import may_create
from panel.accounts.models import Project, User
from panel.pages.backing import sent_before
from panel.pages.web import actor_of, changes, done, page, unknown, user_of

SUITES: Final = (
    ("bookworm", "Debian 12"),
    ("trixie", "Debian 13"),
    ("forky", "Debian 14"),
    ("sid", "Debian sid"),
)
SERVER: Final = "https://images.linuxcontainers.org"
SHOWN_MOST: Final = 60
KINDS: Final = (
    ("debootstrap", gettext_lazy("Debian")),
    ("oci", gettext_lazy("Registry")),
    ("simplestreams", gettext_lazy("Image server")),
    ("url", gettext_lazy("Address")),
    ("upload", gettext_lazy("File of yours")),
    ("file", gettext_lazy("File of the host")),
    ("container", gettext_lazy("Container")),
)
_FIELDS: Final = {
    "debootstrap": ("suite", "init", "variant", "mirror"),
    "oci": ("reference", "project"),
    "simplestreams": ("server", "alias"),
    "url": ("url", "sha256"),
    "upload": ("upload", "metadata", "sha256"),
    "file": ("directory", "path", "metadata", "sha256"),
    "container": ("container", "snapshot"),
}
_ASKED: Final = {
    "debootstrap": "suite",
    "oci": "reference",
    "simplestreams": "alias",
    "url": "url",
    "upload": "upload",
    "file": "path",
    "container": "container",
}
"""What a source cannot be without."""


@page
def images(request: HttpRequest) -> HttpResponse:
    """Show the images, or ask for a new one to be made."""
    user = user_of(request)
    kinds = [kind for kind, _word in KINDS]
    kind = (request.POST if request.method == "POST" else request.GET).get("type", "")
    kind = kind if kind in kinds else kinds[0]
    context: dict[str, Any] = {"kind": kind, "kinds": KINDS}
    # a link may bring a form filled in: "make an image of this container"
    context["values"] = request.POST if request.method == "POST" else request.GET
    status = 200
    if request.method == "POST":
        form = request.POST
        try:
            operation = resources.build_image(
                actor_of(request),
                form.get("name", "").strip(),
                source_of(form, kind),
                description=form.get("description", "").strip(),
            )
            return done(request, reverse("pages:operation", args=[operation.pk]))
        except CoreError as error:
            field = (error.field or "").removeprefix("source.")
            known = {"name", "packages", *_FIELDS[kind]}
            context |= {"error": translated(error.message), "field": field if field in known else "all"}
            status = 422
    visible = Image.objects.visible_to(user).select_related("host")
    rows = list(visible.annotate(used_by=Count("containers")).order_by("name"))
    describe(*rows)
    running = Operation.objects.filter(image__in=rows, status__in=Operation.UNFINISHED).defer("log")
    by_image = {operation.image_id: operation for operation in running}
    context["images"] = [(image, by_image.get(image.pk)) for image in rows]
    context["may_change"] = user.host_admin
    context["may_use"] = may_create(user, "")
    context |= choices(user)
    if kind == "simplestreams":
        context |= offered(request)
    if kind == "upload":
        context |= sent_before(request)
    return render(request, "pages/images.html", context, status=status)


def offered(request: HttpRequest) -> dict[str, Any]:
    """Return what the chosen image server offers, where its list was fetched, narrowed as the address says."""
    host = local_host()
    server = request.GET.get("server", "").strip().rstrip("/") or SERVER
    kept = catalogues.known(host).get(server)
    wanted = {name: request.GET.get(name, "").strip() for name in ("q", "os", "architecture")}
    everything = kept["items"] if kept else []
    found = catalogues.items(host, server, **wanted) if kept else []
    return {
        "server": server,
        "fetched_at": parse_datetime(kept["at"]) if kept else None,
        "offered": found[:SHOWN_MOST],
        "more_offered": max(0, len(found) - SHOWN_MOST),
        "wanted": wanted,
        "systems": sorted({item["os"] for item in everything}, key=str.lower),
        "architectures": sorted({item["architecture"] for item in everything}),
    }


def source_of(form: Any, kind: str) -> dict[str, Any]:
    """Return a source as the API takes it, of what a form holds."""
    given: dict[str, Any] = {name: form.get(name, "").strip() for name in _FIELDS[kind]}
    found = {name: value for name, value in given.items() if value or name == _ASKED[kind]}
    if kind == "debootstrap" and form.get("packages", "").split():
        found["packages"] = form["packages"].replace(",", " ").split()
    return {"type": kind, **found}


def choices(user: User) -> dict[str, Any]:
    """Return what the forms offer."""
    rules = local_host().facts.get("policy", {})
    mine: QuerySet[Container] = Container.objects.visible_to(user, "clone").order_by("name")
    return {
        "suites": SUITES,
        "inits": recipes.INITS,
        "variants": recipes.VARIANTS,
        "directories": rules.get("directories", ()),
        "projects": Project.objects.order_by("name").values_list("name", flat=True),
        "published": mine.values_list("name", flat=True),
    }


@page
def image(request: HttpRequest, name: str) -> HttpResponse:
    """Show one image: what it is, what it runs, where it comes from and who uses it."""
    user = user_of(request)
    found = find_image(actor_of(request), name)
    describe(found)
    visible = Container.objects.visible_to(user).filter(image=found).select_related("project").order_by("name")
    context = {
        "image": found,
        "operation": found.operations.filter(status__in=Operation.UNFINISHED).defer("log").first(),
        "last": found.operations.exclude(status__in=Operation.UNFINISHED).defer("log").first(),
        "users": visible,
        "hidden_users": found.containers.count() - visible.count(),
        "runs": found.defaults,
        "command": [*found.defaults.get("init_command", ()), *found.defaults.get("init", {}).get("arguments", ())],
        "source": {key: value for key, value in found.source.items() if key not in ("type", "id")},
        "may_change": user.host_admin,
        "may_use": may_create(user, ""),
    }
    return render(request, "pages/image.html", context)


@changes
def server_fetch(request: HttpRequest) -> HttpResponse:
    """Ask for an image server's list to be fetched."""
    operation = catalogues.fetch(actor_of(request), request.POST.get("server", ""))
    return done(request, reverse("pages:operation", args=[operation.pk]))


@changes
def image_action(request: HttpRequest, name: str, action: str) -> HttpResponse:
    """Make an image that is known and not made yet, or delete one."""
    if action == "build":
        operation = resources.build_image(actor_of(request), name)
        return done(request, reverse("pages:operation", args=[operation.pk]), image=name)
    if action == "delete":
        resources.delete_image(actor_of(request), name)
        return done(request, reverse("pages:images"), image=name)
    raise unknown()
