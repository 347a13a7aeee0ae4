"""The network interfaces of a container that comes out of a backup: as they were, with MACs and addresses of its own.

What a manifest says of them is somebody else's words: each is asked for as if whoever restores it had, and what he
cannot have is left out, by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ..core.errors import CoreError
from ..core.model.nics import NIC_TYPES, PAIRS
from ..models import Container
from . import nics
from .fitting import NOT_UNDERSTOOD, Left

_MOST: Final = 100
_TEXTS: Final = ("name", "parent", "mode")
_NUMBERS: Final = ("vlan", "mtu", "ingress_bytes_per_sec", "egress_bytes_per_sec")
_ADDRESSES: Final = ("ipv4", "ipv6")


def interfaces(told: Any, container: Container, network: str, find: nics.Find) -> tuple[list[nics.Values], list[Left]]:
    """Return rows in the making for what a manifest says of its interfaces, and what was left out.

    network: where the first one of a network of the panel's is to be, or one of its own where there is none. The others
    are on networks of the same names. find: as nics.plan() takes it, whose caller's lock is needed. Raises SpecError
    where not even that one can be made.
    """
    asked, left = _asked(told)
    first = next((number for number, one in asked.items() if one["type"] == "bridge"), -1)
    given = _moved(asked.get(first, {}), network)
    kept = {first: given if _fails(container, [given], find) is None else {"network": network}}
    for number, one in asked.items():
        if number == first:
            continue
        problem = _fails(container, _in_order({**kept, number: one}), find)
        if problem is None:
            kept[number] = one
        else:
            left.append(Left(f"nics.{one.get('name', number)}"[:100], problem[:300]))
    return nics.plan(container, _in_order(kept), find), left


def _moved(one: nics.Values, network: str) -> nics.Values:
    """Return an interface as it is asked for on a network: on another one it has whatever addresses that gives."""
    if one.get("network") == network:
        return one
    of_the_other = {f"{key}{end}" for key in _ADDRESSES for end in ("", "_gateway")}
    return {**{key: value for key, value in one.items() if key not in of_the_other}, "network": network}


def _in_order(asked: Mapping[int, nics.Values]) -> list[nics.Values]:
    """Return interfaces in the order of the manifest; one that is in none comes last."""
    return [asked[number] for number in sorted(asked, key=lambda number: (number < 0, number))]


def _fails(container: Container, asked: list[nics.Values], find: nics.Find) -> str | None:
    """Return why these interfaces cannot be had, None where they can."""
    try:
        nics.plan(container, asked, find)
    except CoreError as error:
        return error.message
    except NOT_UNDERSTOOD:
        return "It is not understood."
    return None


def _asked(told: Any) -> tuple[dict[int, nics.Values], list[Left]]:
    """Return what is to be asked for, by its number in the manifest."""
    found: dict[int, nics.Values] = {}
    left: list[Left] = []
    for number, one in enumerate(told[:_MOST] if isinstance(told, list) else ()):
        kind = one.get("type", "bridge") if isinstance(one, dict) else None
        if kind not in NIC_TYPES:
            left.append(Left(f"nics.{number}", "It is not understood."))
            continue
        wanted: nics.Values = {"type": kind, "static": one.get("static") is True}
        wanted |= {key: one[key] for key in _TEXTS if isinstance(one.get(key), str) and one[key]}
        wanted |= {key: one[key] for key in _NUMBERS if type(one.get(key)) is int}
        if kind == "bridge":
            wanted["network"] = one.get("network") if isinstance(one.get("network"), str) else ""
        if kind in PAIRS:
            for key in _ADDRESSES:
                wanted[key] = "auto" if one.get(key) else "none"
                gateway = one.get(f"{key}_gateway")
                wanted[f"{key}_gateway"] = "none" if not gateway else "dev" if gateway == "dev" else "auto"
        elif any(one.get(key) for key in _ADDRESSES):
            # nobody gives these out: two of them could be there at once
            left.append(Left(f"nics.{wanted.get('name', number)}.addresses"[:100], "They may be in use by now."))
            wanted["static"] = False
        found[number] = wanted
    return found, left
