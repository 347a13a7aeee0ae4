"""What differs between two points of a container, in words."""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

CHANGES = {
    "added": gettext_lazy("added"),
    "changed": gettext_lazy("changed"),
    "removed": gettext_lazy("removed"),
}
WHAT = {
    "content": gettext_lazy("content"),
    "target": gettext_lazy("target of the link"),
    "device": gettext_lazy("device number"),
    "mode": gettext_lazy("mode"),
    "owner": gettext_lazy("owner"),
    "attributes": gettext_lazy("extended attributes"),
    "times": gettext_lazy("time"),
}
KINDS = {
    "file": gettext_lazy("file"),
    "directory": gettext_lazy("directory"),
    "link": gettext_lazy("link"),
    "device": gettext_lazy("device"),
    "fifo": gettext_lazy("pipe"),
    "socket": gettext_lazy("socket"),
}
REASONS = {
    "binary": gettext_lazy("This is not text."),
    "too-large": gettext_lazy("It is too large to be compared line by line."),
    "no-file": gettext_lazy("It is not a file on both sides."),
}
SHOWN = 500
"""Rows on a page; the API lists more."""


def context(found: dict[str, Any]) -> dict[str, Any]:
    """Return what the template of differences needs."""
    files = found["files"]
    shown: dict[str, Any] = {"configuration": found["configuration"], "files": files}
    if files is not None:
        shown["rows"] = [_row(item) for item in files["items"][:SHOWN]]
        shown["totals"] = [(name, CHANGES[name], files[name]) for name in ("added", "changed", "removed")]
        shown["more"] = sum(files[name]["count"] for name in CHANGES) - len(shown["rows"])
        shown["none"] = not any(files[name]["count"] for name in CHANGES)
    if shown["configuration"] is not None:
        shown["settings"] = [
            {"field": one["field"], "before": _value(one["before"]), "after": _value(one["after"])}
            for one in shown["configuration"]
        ]
    return shown


def _row(item: dict[str, Any]) -> dict[str, Any]:
    # only the content of files is compared line by line
    text = item["kind"] == "file" and (item["change"] != "changed" or "content" in item["what"])
    return {
        **item,
        "word": CHANGES[item["change"]],
        "kind_word": KINDS[item["kind"]],
        "what_words": ", ".join(str(WHAT[one]) for one in item["what"]),
        "text": text,
    }


def _value(value: Any) -> str:
    if value in (None, "", [], {}):
        return _("not set")
    if value is True or value is False:
        return _("yes") if value else _("no")
    if isinstance(value, list):
        return ", ".join(str(one) for one in value)
    return str(value)


def lines(diff: str) -> list[tuple[str, str]]:
    """Return a unified diff's lines, each with its class: add, del, at or nothing."""
    marks = {"+": "add", "-": "del", "@": "at"}
    return [(marks.get(line[:1], ""), line) for line in diff.split("\n") if not line.startswith(("--- ", "+++ "))]
