"""Snapshots looked into: what a restore changes, and what differs between two of them."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from containers.asking import reading
from containers.core.errors import CoreError, NotFound
from containers.showing import changed
from containers.showing.sentences import translated
from panel.pages.web import actor_of, page, user_of

from .detail import TABS, the_row


def _points(request: HttpRequest) -> tuple[str, str]:
    return request.GET.get("before", "")[:63], request.GET.get("after", "")[:63]


@page
def changes(request: HttpRequest, name: str) -> HttpResponse:
    """Show what differs, as a part of a dialog or a page."""
    before, after = _points(request)
    context: dict[str, Any] = {"name": name, "before": before, "after": after}
    try:
        context |= changed.context(reading.changes(actor_of(request), name, before, after))
    except NotFound:
        raise
    except CoreError as error:
        context["error"] = translated(error.message)
    return render(request, "containers/changes.html", context)


@page
def text(request: HttpRequest, name: str) -> HttpResponse:
    """Show in which lines one file differs."""
    before, after = _points(request)
    context: dict[str, Any] = {}
    try:
        told = reading.text(actor_of(request), name, before, after, request.GET.get("path", ""))
        context = {"lines": changed.lines(told["diff"] or ""), "reason": changed.REASONS.get(told["reason"] or "", "")}
    except CoreError as error:
        context["reason"] = translated(error.message)
    return render(request, "containers/text_changes.html", context)


@page
def compare(request: HttpRequest, name: str) -> HttpResponse:
    """Show the page on which two points are chosen and compared."""
    row = the_row(user_of(request), name)
    before, after = _points(request)
    snapshots = row.container.snapshots.all()
    if "before" not in request.GET and snapshots:
        before = snapshots[0].name  # what one mostly asks: what has happened since the last one
    context = {"row": row, "tabs": TABS, "tab": "snapshots", "snapshots": snapshots, "before": before, "after": after}
    return render(request, "containers/compare.html", context)
