"""The advanced part of the form for a new container: the rows of the settings page, and what the policy gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from django.utils.translation import gettext as _

from panel.accounts.models import User

from ..asking import giving
from ..core.errors import CoreError
from ..core.model.states import Status
from ..core.rules.grants import given_to
from ..models import Container, Host
from . import settingrows
from .forms import changes_of, field_of
from .rows import Row
from .sentences import translated

PLAIN: Final = frozenset(
    "memory cpus pids description tags autostart restart ephemeral init_command environment".split()
)
"""Settings that stand in the form's simple part."""

Groups = list[tuple[str, list[settingrows.Setting]]]


def groups(host: Host, user: User, values: Mapping[str, Any]) -> Groups:
    """Return the advanced settings of a new container in groups; raw is what stands in the form already."""
    empty = Row(Container(host=host, status=Status.ABSENT), None, "host", user)
    found: Groups = []
    for title, settings in settingrows.groups(empty):
        rows = [setting for setting in settings if setting["name"] not in PLAIN]
        for row in rows:
            row["default"] = row["raw"]
            row["help"] = str(row["help"]).replace(_("Takes effect at the next start."), "").strip()
            if row["kind"] == "check" and f"{row['name']}_there" in values:
                row["raw"] = bool(values.get(row["name"]))
            elif row["kind"] != "check" and row["name"] in values:
                row["raw"] = values[row["name"]]
        if rows:
            found.append((title, rows))
    return found


def touched(found: Groups) -> list[str]:
    """Return the titles of the groups in which something differs from what a container has by itself."""
    return [title for title, rows in found if any(_given(row["raw"], row) for row in rows)]


def _given(value: Any, row: settingrows.Setting) -> bool:
    if row["kind"] == "check":
        return bool(value) != bool(row["default"])
    return bool(str(value or "").strip()) and str(value) != str(row["default"])


def asked(host: Host, user: User, data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the advanced part asks for, as fields of a ContainerRequest; raises SpecError naming the field."""
    given: dict[str, Any] = {}
    for _group, rows in groups(host, user, data):
        for row in rows:
            if _given(row["raw"], row):
                given[row["name"]] = data.get(row["name"], "")
                given[f"{row['name']}_there"] = "1"
    fields = changes_of(given)
    if mounts := _mounts(data):
        fields["mounts"] = tuple(mounts)
    if devices := tuple({"device": name} for name in _chosen(data, "device")):
        fields["devices"] = devices
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}


def _chosen(data: Mapping[str, Any], kind: str) -> list[str]:
    getlist = getattr(data, "getlist", None)
    values = getlist(kind) if getlist else data.get(kind, [])
    return [str(value) for value in values]


def _mounts(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "share": name,
            "target": str(data.get(f"target_{name}", "")).strip() or f"/srv/{name}",
            "read_only": bool(data.get(f"read_only_{name}")),
            "create": True,
        }
        for name in _chosen(data, "share")
    ]


@dataclass(frozen=True)
class Choice:
    """A share or a device that may be given. projects: for which of the viewer's, "" for all of them."""

    name: str
    about: str
    projects: str
    chosen: bool
    target: str = ""
    read_only: bool = False
    always_read_only: bool = False


def choices(host: Host, projects: list[str], data: Mapping[str, Any]) -> dict[str, list[Choice]]:
    """Return what the host's policy gives to any of these projects."""
    shares, devices = _chosen(data, "share"), _chosen(data, "device")
    return {
        "shares": [
            Choice(
                name,
                "",
                _only(one.projects, projects),
                name in shares,
                target=str(data.get(f"target_{name}", f"/srv/{name}")),
                read_only=one.read_only or bool(data.get(f"read_only_{name}")),
                always_read_only=one.read_only,
            )
            for name, one in sorted(giving.shares(host).items())
            if any(given_to(one.projects, project) for project in projects)
        ],
        "devices": [
            Choice(name, one.path, _only(one.projects, projects), name in devices)
            for name, one in sorted(giving.devices(host).items())
            if any(given_to(one.projects, project) for project in projects)
        ],
    }


def _only(given: tuple[str, ...], projects: list[str]) -> str:
    """Return which of these projects something is for, "" where it is for all of them."""
    fitting = [project for project in projects if given_to(given, project)]
    return "" if len(fitting) == len(projects) else ", ".join(fitting)


def wrong(error: CoreError, found: Groups) -> tuple[str, str] | None:
    """Return the advanced field that a refusal is about and its sentence; None where it is about none of them."""
    parts = (error.field or "").split(".")
    if parts[0] in ("mounts", "devices"):
        return parts[0], translated(error.message)
    field = field_of(error)
    names = {row["name"] for _group, rows in found for row in rows}
    return (field, translated(error.message)) if field in names else None
