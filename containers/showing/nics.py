"""Network interfaces on a container's settings page: what it has, what it may have, and what a form's fields mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from django.utils.translation import gettext as _

from ..asking import nics
from ..core.errors import CoreError, SpecError
from ..core.model.nics import MODES
from ..models import Network, NetworkInterface
from .rows import Row
from .sentences import translated

_TEXTS: Final = ("name", "mac", "ipv4", "ipv4_gateway", "ipv6", "ipv6_gateway", "mode")
_NUMBERS: Final = ("vlan", "mtu", "ingress_bytes_per_sec", "egress_bytes_per_sec")
FIELDS: Final = (*_TEXTS, *_NUMBERS)


def kinds() -> dict[str, str]:
    """Return what each type of interface is, in words."""
    return {
        "bridge": _("on a network"),
        "routed": _("routed by the host"),
        "macvlan": _("macvlan: a MAC of its own on the card"),
        "ipvlan": _("ipvlan: the card's MAC"),
        "vlan": _("a VLAN of the card"),
        "phys": _("the card itself, while the container runs"),
        "host": _("the host's own network"),
    }


def context(row: Row) -> dict[str, Any]:
    """Return what the part of the settings page needs. The reason is "" where nothing is in the way."""
    container = row.container
    visible = Network.objects.visible_to(row.viewer, "use").filter(host=container.host)
    usable = [net.name for net in visible if net.project_id in (None, container.project_id)]
    words = kinds()
    parents = nics.parents_of(container.host, container.project.name)
    places = [(f"bridge:{name}", name) for name in sorted(usable)]
    for name, parent in sorted(parents.items()):
        places += [(f"{kind}:{name}", f"{name} · {words[kind]}") for kind in parent["types"]]
    if container.host.facts.get("policy", {}).get("host_network"):
        places.append(("host:", words["host"]))
    interfaces = list(container.interfaces.select_related("network").order_by("index"))
    return {
        "nic_reason": row.reason("update"),
        "nic_rows": [_shown(one, words) for one in interfaces],
        "nic_places": places,
        "nic_modes": sorted({mode for modes in MODES.values() for mode in modes}),
    }


def _shown(row: NetworkInterface, words: Mapping[str, str]) -> dict[str, Any]:
    found = nics.as_wanted(row)
    place = found["network"] or found["parent"] or ""
    badges = [str(found[key]) for key in ("mode",) if found[key]]
    badges += [f"VLAN {found['vlan']}"] if found["vlan"] else []
    badges += [f"MTU {found['mtu']}"] if found["mtu"] else []
    badges += [_("set before it starts")] if found["static"] else []
    return {**found, "place": place, "kind": words[row.type], "badges": badges}


def added(row: Row, data: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the container's interfaces with one more, as a form's fields say; raises SpecError naming the field."""
    kind, _colon, name = data.get("place", "").partition(":")
    more: dict[str, Any] = {"type": kind or "bridge", "static": bool(data.get("static"))}
    more["network" if more["type"] == "bridge" else "parent"] = name or None
    number = row.container.interfaces.count()
    for key in _TEXTS:
        more[key] = data.get(key, "").strip() or None
    for key in _NUMBERS:
        text = data.get(key, "").strip()
        try:
            more[key] = int(text) if text else None
        except ValueError:
            raise SpecError(_("Give a number."), field=f"nics.{number}.{key}") from None
    if more["type"] not in MODES:
        more["mode"] = None
    return [*_present(row), more]


def without(row: Row, name: str) -> list[dict[str, Any]]:
    """Return the container's interfaces without one."""
    return [one for one in _present(row) if one["name"] != name]


def _present(row: Row) -> list[dict[str, Any]]:
    rows = row.container.interfaces.select_related("network").order_by("index")
    return [nics.as_wanted(one) for one in rows]


def in_place(error: CoreError) -> tuple[str, str]:
    """Return a form's field that a refusal is about ("all" for none), and the words for it."""
    parts = (error.field or "").split(".")
    field = parts[2] if len(parts) == 3 and parts[0] == "nics" else "all"
    field = "place" if field in ("network", "parent", "type") else field
    return (field if field in (*FIELDS, "place") else "all"), translated(error.message)
