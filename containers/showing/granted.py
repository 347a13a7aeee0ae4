"""What the host's policy registers for containers: shared directories and devices, to whom, and who uses them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _

from panel.accounts import services
from panel.accounts.models import User

from ..asking import giving
from ..core.rules.grants import given_to
from ..models import Container, Host


@dataclass(frozen=True)
class Grant:
    """One thing that is registered. whom: the projects' names in words. users: (container, where it is inside).

    known: False for what containers have and the policy does not name any more.
    """

    name: str
    kind: str
    whom: str
    users: list[tuple[str, str]]
    known: bool = True


def granted(host: Host, user: User) -> dict[str, list[Grant]]:
    """Return shares and devices with the containers that have them; of both only what the user may see."""
    projects = list(services.visible_projects(user).values_list("name", flat=True))
    rows = Container.objects.visible_to(user).filter(host=host).order_by("name").values("name", "mounts", "devices")
    mounted: dict[str, list[tuple[str, str]]] = {}
    given: dict[str, list[tuple[str, str]]] = {}
    for row in rows:
        for mount in row["mounts"]:
            mounted.setdefault(mount["share"], []).append((row["name"], mount["target"]))
        for device in row["devices"]:
            given.setdefault(device["device"], []).append((row["name"], device.get("path") or ""))
    shares = [
        Grant(name, _how(one), _whom(one.projects), mounted.get(name, []))
        for name, one in sorted(giving.shares(host).items())
        if _seen(one.projects, projects, user)
    ]
    devices = [
        Grant(name, one.path, _whom(one.projects), given.get(name, []))
        for name, one in sorted(giving.devices(host).items())
        if _seen(one.projects, projects, user)
    ]
    return {"shares": shares + _unknown(mounted, shares), "devices": devices + _unknown(given, devices)}


def _seen(given: Iterable[str], projects: list[str], user: User) -> bool:
    return user.host_admin or any(given_to(tuple(given), project) for project in projects)


def _unknown(used: dict[str, list[tuple[str, str]]], known: list[Grant]) -> list[Grant]:
    """Return what containers have although the policy does not give it any more: they do not start with it."""
    names = {grant.name for grant in known}
    return [Grant(name, "", "", users, known=False) for name, users in sorted(used.items()) if name not in names]


def _whom(projects: tuple[str, ...]) -> str:
    return _("every project") if "*" in projects else ", ".join(projects) or _("nobody")


def _how(share: Any) -> str:
    words = [_("read-only") if share.read_only else _("writable")]
    if share.submounts:
        words.append(_("with the host's later mounts"))
    return ", ".join(words)
