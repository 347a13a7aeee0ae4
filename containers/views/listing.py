"""The list of containers: server-rendered rows in blocks, of which only those in view are in the page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext_lazy

from containers.models import Image, Network
from containers.showing.order import heads, in_order
from containers.showing.rowhtml import COLUMNS, SHOWN, RowWriter
from containers.showing.rows import ICONS, LABELS, Filters, Row, counts, light, listed, row_of, rows_of
from panel.accounts.models import Project, User
from panel.pages.web import page, unknown, user_of, whole_number

BLOCK = 20
"""Rows in a block. The page holds the blocks in view and their neighbours: 60 rows of 40 nodes stay under 3 000."""
FIRST = 1
"""Blocks in the first answer: a screen of 900 px; the next one comes as soon as the page is there."""
COLUMNS_COOKIE = "boxroom_columns"

STATUSES = (
    ("running", gettext_lazy("Running")),
    ("frozen", gettext_lazy("Frozen")),
    ("stopped", gettext_lazy("Stopped")),
    ("error", gettext_lazy("Error")),
    ("working", gettext_lazy("In progress")),
)


@dataclass
class Block:
    """Some consecutive rows of the list; html is None where the page asks for them when they come into view."""

    number: int
    size: int
    html: SafeString | None


@page
def containers(request: HttpRequest) -> HttpResponse:
    """Show the list; a script that asks for blocks gets the list alone, with the counts of the chips."""
    user = user_of(request)
    filters = Filters.of(request.GET)
    wanted = {int(n) for n in request.GET.get("blocks", "").split(",") if n.isascii() and n.isdigit()}
    context = list_context(user, filters, wanted or set(range(FIRST)), columns_of(request))
    if request.headers.get("HX-Target") == "list":
        return render(request, "containers/list_alone.html", context)
    panel = request.GET.get("panel", "")
    chosen = listed(user).filter(name=panel).first() if panel else None
    context["bulk_actions"] = [
        (a, LABELS.get(a, a), ICONS[a])
        for a in ("start", "stop", "restart", "freeze", "unfreeze", "snapshot", "delete")
    ]
    context |= {"panel": row_of(user, chosen) if chosen else None, "may_create": may_create(user, filters.project)}
    if not context["total"] and not filters.narrowed:
        context["images"] = Image.objects.order_by("name")
        context["networks"] = Network.objects.visible_to(user).count()
    return render(request, "containers/list.html", context)


def columns_of(request: HttpRequest) -> tuple[str, ...]:
    """Return the columns to show: those of the address, else those last chosen in this browser, else the usual ones."""
    text = request.GET.get("columns", request.COOKIES.get(COLUMNS_COOKIE, ""))
    chosen = set(text.replace(".", ",").split(","))
    if text == "none":
        return ()
    return tuple(name for name in COLUMNS if name in chosen) or SHOWN


def html_of(rows: list[Row], writer: RowWriter) -> SafeString:
    """Return rows as HTML."""
    return mark_safe("".join(writer.write(row) for row in rows))  # every value is escaped where it is put in


def list_context(user: User, filters: Filters, wanted: set[int], columns: tuple[str, ...]) -> dict[str, Any]:
    """Return what the list's template needs, with the wanted blocks filled."""
    show_project = not filters.project and len(projects_of(user)) > 1
    writer = RowWriter(columns, show_project=show_project, project=filters.project)
    by_status = counts(user, filters)
    total = by_status.get(filters.status, 0) if filters.status else by_status["all"]
    number_of_blocks = -(-total // BLOCK)
    filled: dict[int, SafeString] = {}
    inside = sorted(n for n in wanted if n < number_of_blocks)[:6]
    if inside:
        first, last = inside[0], inside[-1]
        keys = in_order(filters.apply(listed(user)), filters.sort)[first * BLOCK : (last + 1) * BLOCK]
        by_key = {row.pk: row for row in light(listed(user)).filter(pk__in=keys)}
        found = rows_of(user, (by_key[key] for key in keys if key in by_key))  # one may be gone by now
        for n in range(first, last + 1):
            filled[n] = html_of(found[(n - first) * BLOCK : (n - first + 1) * BLOCK], writer)
    blocks = [
        Block(n, min(BLOCK, total - n * BLOCK), filled.get(n) if n in inside else None) for n in range(number_of_blocks)
    ]
    return {
        "filters": filters,
        "heads": heads(filters.sort),
        "blocks": blocks,
        "total": total,
        "all": by_status["all"],
        "chips": [(key, word, by_status.get(key, 0)) for key, word in STATUSES],
        "columns": columns,
        "all_columns": [(name, word, name in columns) for name, word in COLUMNS.items()],
        "span": 4 + len(columns),
        "writer": writer,
    }


@page
def some_rows(request: HttpRequest) -> HttpResponse:
    """Answer with one block (?block=N) or with the named rows (?names=a,b) and the counts of the chips."""
    user = user_of(request)
    filters = Filters.of(request.GET)
    if "names" in request.GET:
        names = request.GET["names"].split(",")[:200]
        context = list_context(user, filters, set(), columns_of(request))
        found = filters.apply(light(listed(user))).filter(name__in=names)
        context["html"] = html_of(rows_of(user, found), context["writer"])
    else:
        number = whole_number(request.GET.get("block"), 0, least=0, most=10_000)
        context = list_context(user, filters, {number}, columns_of(request))
        context["html"] = next((block.html for block in context["blocks"] if block.number == number), None) or ""
        context["plain"] = True
    return render(request, "containers/some_rows.html", context)


@page
def panel(request: HttpRequest, name: str) -> HttpResponse:
    """Show the essentials of one container beside the list."""
    user = user_of(request)
    found = listed(user).filter(name=name).first()
    if found is None:
        raise unknown()
    return render(request, "containers/panel.html", {"row": row_of(user, found)})


def projects_of(user: User, *, role: str = "") -> list[Project]:
    """Return the projects that the user is in (all of them for a host administrator), or only those with a role."""
    rows = Project.objects.order_by("name")
    if user.host_admin:
        return list(rows)
    fitting = user.memberships.filter(role=role) if role else user.memberships.all()
    return list(rows.filter(pk__in=fitting.values("project_id")))


def may_create(user: User, project: str) -> bool:
    """Return whether the user may make containers in the project, or in any where none is named."""
    names = [found.name for found in projects_of(user, role="administrator")]
    return project in names if project else bool(names)
