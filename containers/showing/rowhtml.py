"""One row of the list of containers, as HTML.

Written in Python and not as a template because the list is the page that is opened most: a template with its includes
took 3 ms a row, this takes a fifteenth of that. All that comes from people goes through escape().
"""

from __future__ import annotations

from collections.abc import Collection
from html import escape
from typing import Final
from urllib.parse import quote

from django.templatetags.static import static
from django.urls import reverse
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from panel.templatetags.boxroom import SPRITE, age

from .rows import Row, Verb

COLUMNS: Final = {
    "image": gettext_lazy("Image"),
    "address": gettext_lazy("Addresses"),
    "cpu": gettext_lazy("CPU"),
    "memory": gettext_lazy("Memory"),
    "network": gettext_lazy("Network"),
    "disk": gettext_lazy("Disk"),
    "processes": gettext_lazy("Processes"),
    "snapshots": gettext_lazy("Snapshots"),
    "age": gettext_lazy("Age"),
}
"""The columns that may be left out, in their order."""
SHOWN: Final = ("image", "address", "cpu", "memory", "snapshots", "age")
"""Those that are there until somebody chooses otherwise."""
_WITH_DIALOG: Final = ("snapshot", "clone", "delete")


class RowWriter:
    """Writes rows in the language that is active when it is made. show_project: name each container's project;
    project: the one whose containers are listed, in which the tags look for others; "" for all."""

    def __init__(self, columns: Collection[str], *, show_project: bool, project: str = "") -> None:
        self._columns = [name for name in COLUMNS if name in columns]
        self._show_project = show_project
        self._tagged = f"?project={quote(project)}&amp;tag=" if project else "?tag="
        self._list = reverse("containers:list")
        self._sprite = escape(static(SPRITE))
        self._icons: dict[str, str] = {}
        self._words = {
            "copy": escape(_("Copy")),
            "more": escape(_("More")),
            "privileged": escape(_("privileged")),
            "select": _("Select %(name)s"),
            "more_of": _("More of %(name)s"),
            "by": _("by %(name)s"),
        }

    def write(self, row: Row) -> SafeString:
        """Return the row's <tr>."""
        name = escape(row.name)
        cells = "".join(getattr(self, f"_{column}")(row, name) for column in self._columns)
        return mark_safe(  # every value is escaped where it is put in
            f'<tr id="row-{name}" data-name="{name}" data-status="{escape(row.status)}" class="row">'
            f'<td class="c-check"><input type="checkbox" data-check aria-label="{self._say("select", name)}"></td>'
            f"{self._name(row, name)}"
            f'<td class="c-state">{self._state(row)}</td>{cells}'
            f'<td class="c-actions">{self._actions(row, name)}</td></tr>'
        )

    def _say(self, key: str, name: str) -> str:
        """Return a sentence about a name that is escaped already."""
        return escape(self._words[key]) % {"name": name}

    def _icon(self, name: str) -> str:
        found = self._icons.get(name)
        if found is None:
            use = f'<use href="{self._sprite}#{name}"></use>'
            found = self._icons[name] = f'<svg class="icon" aria-hidden="true">{use}</svg>'
        return found

    def _name(self, row: Row, name: str) -> str:
        container = row.container
        title = escape(f"{row.name}: {container.description}" if container.description else row.name)
        parts = [f'<a href="{self._list}{name}" title="{title}">{name}</a>']
        if self._show_project:
            parts.append(f'<span class="muted small project">{escape(container.project.name)}</span>')
        for tag in container.tags[:3]:
            parts.append(f'<a class="badge" href="{self._tagged}{quote(tag)}">{escape(tag)}</a>')
        if container.privileged:
            parts.append(f'<span class="badge badge-warn">{self._words["privileged"]}</span>')
        return f'<td class="c-name">{"".join(parts)}</td>'

    def _state(self, row: Row) -> str:
        operation = row.operation
        why = "" if operation else row.status_words or row.trouble
        title = f' title="{escape(why)}"' if why else ""
        pct = f' <span class="num">{operation.progress_pct} %</span>' if operation and operation.progress_pct else ""
        who = f' <span class="who">{self._say("by", escape(row.by))}</span>' if row.by else ""
        told = f'{self._icon("alert-triangle")}<span class="visually-hidden">{escape(row.trouble)}</span>'
        mark = f' <span class="trouble">{told}</span>' if row.trouble and not operation else ""
        return f'<span class="state state-{escape(row.status)}"{title}>{escape(row.word)}{pct}{who}{mark}</span>'

    def _image(self, row: Row, _name: str) -> str:
        image = escape(row.container.image_name)
        return f'<td class="c-image" title="{image}">{image}</td>'

    def _address(self, row: Row, _name: str) -> str:
        addresses = [escape(address) for address in row.addresses]
        if not addresses:
            return '<td class="c-address"><span class="muted">–</span></td>'
        title = " · ".join([self._words["copy"], *addresses[1:2]])
        button = (
            f'<button type="button" class="copy" data-copy="{addresses[0]}" title="{title}">{addresses[0]}</button>'
        )
        return f'<td class="c-address">{button}</td>'

    def _live(self, column: str, name: str, *fields: str, spark: bool = True) -> str:
        canvas = (
            f'<canvas width="44" height="20" data-spark="{column}" data-container="{name}"></canvas>' if spark else ""
        )
        spans = "".join(f'<span class="num" data-stat="{field}" data-container="{name}"></span>' for field in fields)
        return f'<td class="c-{column} live">{canvas}{spans}</td>'

    def _cpu(self, _row: Row, name: str) -> str:
        return self._live("cpu", name, "cpu_share_pct")

    def _memory(self, _row: Row, name: str) -> str:
        return self._live("memory", name, "memory_bytes")

    def _network(self, _row: Row, name: str) -> str:
        return self._live("network", name, "network_rate")

    def _disk(self, _row: Row, name: str) -> str:
        return self._live("disk", name, "disk_rate")

    def _processes(self, _row: Row, name: str) -> str:
        return self._live("processes", name, "processes", spark=False)

    def _snapshots(self, row: Row, _name: str) -> str:
        return f'<td class="c-snap num">{row.snapshots}</td>'

    def _age(self, row: Row, _name: str) -> str:
        return f'<td class="c-age">{age(row.container.created_at)}</td>'

    def _actions(self, row: Row, name: str) -> str:
        more = (
            f'<button type="button" class="btn btn-icon" data-open-panel="{name}"'
            f' aria-label="{self._say("more_of", name)}" title="{self._words["more"]}">{self._icon("dots")}</button>'
        )
        verbs = (row.power, row.pause, row.terminal, row.snapshot)
        return "".join(self._button(verb, name) for verb in verbs) + more

    def _button(self, verb: Verb, name: str) -> str:
        label, icon = escape(verb.label), self._icon(verb.icon)
        if verb.reason:
            why = escape(verb.reason)
            return (
                f'<button type="button" class="btn btn-icon" aria-disabled="true" data-why="{verb.action}"'
                f' title="{label}: {why}"'
                f' aria-label="{label} {name}: {why}">{icon}</button>'
            )
        common = f'class="btn btn-icon" title="{label}" aria-label="{label} {name}"'
        if verb.action == "exec":
            return f'<a href="{self._list}{name}/terminal" {common} data-verb="terminal">{icon}</a>'
        if verb.action in _WITH_DIALOG:
            asks = f'hx-get="{self._list}{name}/_dialog/{verb.action}" hx-target="#dialog" hx-swap="innerHTML"'
        else:
            asks = (
                f'hx-post="{self._list}{name}/{verb.action}" hx-swap="none" data-act="{name}"'
                f' data-doing="{escape(verb.doing)}"'
            )
        return f'<button type="button" {common} {asks} data-verb="{verb.action}">{icon}</button>'
