"""Snapshots looked into: what a restore changes, what differs between two of them, and the files that they hold."""

from __future__ import annotations

import posixpath
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from containers.asking import reading
from containers.core.errors import CoreError, NotFound
from containers.showing import changed
from containers.showing.sentences import translated
from panel.pages.web import actor_of, page, unknown, user_of

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
    context = {"row": row, "tabs": TABS, "tab": "snapshots", "snapshots": snapshots, "before": before, "after": after}
    return render(request, "containers/compare.html", context)


@page
def browse(request: HttpRequest, name: str, snapshot: str) -> HttpResponse:
    """Show a directory of a snapshot."""
    row = the_row(user_of(request), name)
    path = posixpath.normpath("/" + request.GET.get("path", "/").lstrip("/"))
    context: dict[str, Any] = {"row": row, "tabs": TABS, "tab": "snapshots", "path": path, "snapshot": snapshot}
    try:
        found = reading.listing(actor_of(request), name, snapshot, path)
    except NotFound as error:
        if path == "/":
            raise unknown() from error
        found, context["error"] = {"items": [], "complete": True}, translated(error.message)
    except CoreError as error:
        found, context["error"] = {"items": [], "complete": True}, translated(error.message)
    # directories first
    items = sorted(found["items"], key=lambda item: (item["kind"] != "directory", item["name"]))
    context["items"] = [{**item, "path": posixpath.join(path, item["name"])} for item in items]
    context["kinds"], context["complete"] = changed.KINDS, found["complete"]
    parts = [part for part in path.split("/") if part]
    context["crumbs"] = [(part, "/" + "/".join(parts[: place + 1])) for place, part in enumerate(parts)]
    return render(request, "containers/browse.html", context)
