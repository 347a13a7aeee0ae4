"""A container's files: the page, its dialogs, and the editor. What is sent in pieces goes through the API."""

from __future__ import annotations

import datetime as dt
from typing import Any, Final
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext as _

from containers.asking import filing, reading, services
from containers.core.errors import CoreError, NotFound, SpecError
from containers.core.filenames import parsed, shown, written
from containers.core.model.states import Status
from containers.showing import changed
from containers.showing.sentences import translated
from panel.accounts.actor import Forbidden
from panel.pages.web import actor_of, changes, done, go, in_dialog, page, unknown, user_of, whole_number

from .detail import TABS, the_row

PAGE: Final = 200
OFFSET_MAX: Final = 10_000_000
DIALOGS: Final = ("file", "directory", "rename", "attributes", "delete")


def _place(path: str) -> dict[str, Any]:
    """Return what templates need of a path: as calls carry it, for people, the one above, and the way to it."""
    parts = [part for part in path.split("/") if part]
    ways = ["/" + "/".join(parts[: count + 1]) for count in range(len(parts))]
    return {
        "path": written(path),
        "shown_path": shown(path),
        "last": shown(parts[-1]) if parts else "/",
        "above": written("/" + "/".join(parts[:-1])),
        "crumbs": [(shown(part), written(way)) for part, way in zip(parts, ways, strict=True)],
    }


def _asked_path(request: HttpRequest) -> str:
    try:
        return parsed(request.GET.get("path", "/"))
    except SpecError:
        raise unknown() from None


@page
def files(request: HttpRequest, name: str) -> HttpResponse:
    """Show a directory of a container, as it is now or in one of its snapshots."""
    row = the_row(user_of(request), name)
    context: dict[str, Any] = {"row": row, "tabs": TABS, "tab": "files"}
    if not row.may("files"):
        return render(request, "containers/tab_files.html", context | {"refused": row.reason("files")})
    snapshot, match = request.GET.get("snapshot", "")[:63], request.GET.get("q", "")[:255]
    sort = request.GET.get("sort", "name")
    sort = sort if sort.removeprefix("-") in filing.SORTS else "name"
    offset = whole_number(request.GET.get("offset"), 0, least=0, most=OFFSET_MAX)
    try:
        path = parsed(request.GET.get("path", "/"))
    except SpecError as error:
        path, context["error"] = "/", translated(error.message)
    found: dict[str, Any] = {"items": [], "total": 0, "complete": True}
    status = 422 if "error" in context else 200
    if "error" not in context:
        try:
            found = filing.listing(
                actor_of(request),
                name,
                written(path),
                snapshot=snapshot,
                offset=offset,
                limit=PAGE,
                sort=sort.removeprefix("-"),
                descending=sort.startswith("-"),
                match=match,
            )
        except CoreError as error:
            context["error"], status = translated(error.message), 404 if isinstance(error, NotFound) else 200
    state = {"path": written(path), "snapshot": snapshot, "q": match, "sort": sort if sort != "name" else ""}
    context |= _place(path) | {
        "items": [_item(item) for item in found["items"]],
        "found": found,
        "kinds": changed.KINDS,
        "snapshot": snapshot,
        "snapshots": [one for one in row.container.snapshots.all() if one.holds != "configuration"],
        "match": match,
        "changes": not snapshot and not (row.container.privileged and row.container.status != Status.STOPPED),
        "live_privileged": row.container.privileged and row.container.status != Status.STOPPED,
        "here": _link(name, state | {"offset": offset or ""}),
        "sorts": [_sort(name, state, key, sort) for key in filing.SORTS],
        "earlier": _link(name, state | {"offset": max(0, offset - PAGE)}) if offset else "",
        "later": _link(name, state | {"offset": offset + PAGE}) if offset + PAGE < found["total"] else "",
        "first": offset + 1,
        "last_shown": offset + len(found["items"]),
        "file_bytes": filing.file_bytes(row.container),
    }
    return render(request, "containers/tab_files.html", context, status=status)


def _link(name: str, state: dict[str, Any]) -> str:
    query = urlencode({key: value for key, value in state.items() if value != ""})
    return f"{reverse('containers:files', args=[name])}?{query}"


def _sort(name: str, state: dict[str, Any], key: str, now: str) -> dict[str, Any]:
    """Return a column's link: to it, or turned round where the page is sorted by it already."""
    turned = f"-{key}" if now == key else key
    direction = "" if now.removeprefix("-") != key else "descending" if now.startswith("-") else "ascending"
    return {"key": key, "link": _link(name, state | {"sort": turned}), "direction": direction}


def _item(item: dict[str, Any]) -> dict[str, Any]:
    enters = "directory" in (item["kind"], item["leads_to"])
    return {
        **item,
        "enters": enters,
        "opens": "file" in (item["kind"], item["leads_to"]),
        "modified": dt.datetime.fromtimestamp(max(0, min(item["modified_at"], 2**36)), dt.UTC),
        "owner": f"{_who(item['user'], item['uid'])}:{_who(item['group'], item['gid'])}",
    }


def _who(name: str | None, number: int) -> str:
    return shown(name) if name else f"{number}"


@page
def editor(request: HttpRequest, name: str) -> HttpResponse:
    """Show a text file, to be edited where it is not a snapshot's."""
    row = the_row(user_of(request), name)
    path, snapshot = _asked_path(request), request.GET.get("snapshot", "")[:63]
    context: dict[str, Any] = {"row": row, "tabs": TABS, "tab": "files", "snapshot": snapshot, **_place(path)}
    context["back"] = _link(name, {"path": context["above"], "snapshot": snapshot})
    try:
        found = filing.text(actor_of(request), name, context["path"], snapshot=snapshot)
    except Forbidden:
        raise
    except NotFound as error:
        raise unknown() from error
    except CoreError as error:
        return render(request, "containers/edit_file.html", context | {"error": translated(error.message)})
    context |= {"found": found, "item": _item(found["entry"]), "lines": (found["text"] or "").count("\n") + 1}
    context["reason"] = _reasons().get(found["reason"] or "", "")
    live_privileged = row.container.privileged and row.container.status != Status.STOPPED
    context["read_only"] = bool(snapshot) or live_privileged
    return render(request, "containers/edit_file.html", context)


def _reasons() -> dict[str, str]:
    return {
        "binary": _("This is not text that could be edited here and come back the same."),
        "too-large": _("It is too large to be edited here."),
        "no-file": _("This is not a regular file."),
    }


@page
def dialog(request: HttpRequest, name: str, action: str) -> HttpResponse:
    """Show the dialog that goes before a change."""
    row = the_row(user_of(request), name)
    if action not in DIALOGS:
        raise unknown()
    path = _asked_path(request)
    context: dict[str, Any] = {"row": row, "action": action, **_place(path)}
    if not row.may("files"):
        context["reason"] = row.reason("files")
    elif action in ("attributes", "delete"):
        try:
            context["item"] = _item(filing.entry(actor_of(request), name, context["path"]))
        except CoreError as error:
            context["reason"] = translated(error.message)
    return render(request, "containers/dialog_files.html", context)


@changes
def dialog_done(request: HttpRequest, name: str, action: str) -> HttpResponse:
    """Make the change that a dialog asked for; an error comes back into the dialog."""
    if action not in DIALOGS:
        raise unknown()
    try:
        return _change(request, name, action)
    except CoreError as error:
        return in_dialog(request, error)


def _change(request: HttpRequest, name: str, action: str) -> HttpResponse:
    form, actor = request.POST, actor_of(request)
    path = form.get("path", "")
    back = _link(name, {"path": path if action in ("file", "directory") else _place(parsed(path))["above"]})
    if action in ("file", "directory"):
        where = f"{path.rstrip('/')}/{_typed_name(form.get('name', ''))}"
        if action == "directory":
            filing.make(actor, name, where)
        else:
            filing.write(actor, name, where, b"", replace=False)
            return go(request, f"{reverse('containers:edit-file', args=[name])}?{urlencode({'path': where})}")
    elif action == "rename":
        filing.rename(actor, name, path, _typed_path(form.get("to", ""), parsed(path)))
    elif action == "delete":
        filing.remove(actor, name, path, recursive=bool(form.get("recursive")))
    else:
        filing.attributes(
            actor,
            name,
            path,
            mode=filing.parsed_mode(form.get("mode", "").strip()),
            user=form.get("user", "").strip() or None,
            group=form.get("group", "").strip() or None,
            recursive=bool(form.get("recursive")),
        )
    return done(request, back, files=name)


def _typed_name(text: str) -> str:
    """Return a name that somebody typed, as calls carry it."""
    if not text or "/" in text or text in (".", ".."):
        raise SpecError("Give a name without a slash.", field="name")
    return written(text)


def _typed_path(text: str, old: str) -> str:
    """Return the path that somebody typed as a new name, or as a whole path, as calls carry it."""
    text = written(text)
    if text.startswith("/"):
        return text
    if not text or "/" in text or text in (".", ".."):
        raise SpecError("Give a name, or a whole path.", field="to")
    return f"{_place(old)['above'].rstrip('/')}/{text}"


@page
def put_back(request: HttpRequest, name: str, snapshot: str) -> HttpResponse:
    """Show the dialog that goes before files are put back, and in it what will change."""
    row = the_row(user_of(request), name)
    path = _asked_path(request)
    context: dict[str, Any] = {"row": row, "snapshot": snapshot, "reason": row.reason("put-back"), **_place(path)}
    if "part" not in request.GET:
        return render(request, "containers/dialog_put_back.html", context)
    exact = bool(request.GET.get("exact"))
    context |= {"name": name, "before": "", "after": snapshot}
    try:
        found = reading.put_back_changes(actor_of(request), name, snapshot, context["path"], exact=exact)
        context |= changed.context({"files": found, "configuration": None})
    except CoreError as error:
        context["error"] = translated(error.message)
    return render(request, "containers/changes.html", context)


@changes
def put_back_done(request: HttpRequest, name: str, snapshot: str) -> HttpResponse:
    """Ask for files to be put back."""
    asked = {"snapshot": snapshot, "paths": [request.POST.get("path", "")], "exact": bool(request.POST.get("exact"))}
    try:
        services.act(actor_of(request), name, "put-back", asked)
    except CoreError as error:
        return in_dialog(request, error)
    return done(request, reverse("containers:files", args=[name]), container=name, files=name)


def put_back_either(request: HttpRequest, name: str, snapshot: str) -> HttpResponse:
    """Show the dialog, or do what it asked for."""
    return (put_back_done if request.method == "POST" else put_back)(request, name, snapshot)


def dialog_either(request: HttpRequest, name: str, action: str) -> HttpResponse:
    """Show a dialog, or do what it asked for."""
    return (dialog_done if request.method == "POST" else dialog)(request, name, action)
