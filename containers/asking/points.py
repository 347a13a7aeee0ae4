"""What is checked and reserved before something is done with a snapshot, one function per action."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any, Final

from django.utils import timezone

from panel.accounts.actor import Actor

from ..bookkeeping import points
from ..core.errors import AlreadyExists, InUse, InvalidTransition, NotFound, SpecError
from ..core.filenames import parsed, shown, written
from ..core.model.spec import check_text
from ..core.model.states import Action, Status, after
from ..core.names import check_name
from ..core.sentences import say
from ..models import Container, Snapshot
from . import basket, configuration, interfaces, requests

SAFETY_DAYS: Final = 7
"""So long the state before a restore is kept."""
SAFETY: Final = "undo"
RESTORES: Final = ("all", "files", "configuration")
PATHS_MAX: Final = 1000
"""How many files and directories are put back at once."""
EXPIRY_MAX: Final = dt.timedelta(days=36500)


def fits(container: Container, action: Action) -> None:
    """Raise InvalidTransition where an action does not fit the container's status."""
    after(Status(container.status), action)


def find(container: Container, name: Any) -> Snapshot:
    """Return a snapshot; raises NotFound."""
    found = container.snapshots.filter(name=name).first()
    if found is None:
        raise NotFound(say("%(name)s has no snapshot %(name_2)r.", name=container.name, name_2=name), field="snapshot")
    return found


def snapshot(_actor: Actor | None, container: Container, arguments: dict[str, Any]) -> dict[str, Any]:
    """Prepare taking one: {"name"?, "note"?, "pinned"?, "expires_at"?, "kind"?}."""
    fits(container, Action.SNAPSHOT)
    taken = set(container.snapshots.values_list("name", flat=True))
    number, name = container.next_snapshot, arguments.get("name")
    if name is None:
        while f"snap{number}" in taken:
            number += 1
        name, number = f"snap{number}", number + 1
    elif check_name(name) in taken:
        raise AlreadyExists(say("There is a snapshot %(name)s already.", name=name), field="name")
    elif given := re.fullmatch(r"snap(0|[1-9][0-9]{0,8})", name):
        number = max(number, int(given[1]) + 1)
    Container.objects.filter(pk=container.pk).update(next_snapshot=number)
    asked = {
        "name": name,
        "note": _note(arguments.get("note")),
        "pinned": bool(arguments.get("pinned", False)),
        "expires_at": expiry(arguments.get("expires_at")),
    }
    # nobody asks for a schedule's by hand: what it takes is its own to prune
    kind = arguments.get("kind", "manual") if _actor is None else "manual"
    return {"arguments": {**asked, "kind": kind}}


def change(_actor: Actor | None, container: Container, arguments: dict[str, Any]) -> dict[str, Any]:
    """Prepare changing one: {"snapshot", "name"?, "note"?, "pinned"?, "expires_at"?}; what is not given stays."""
    found = find(container, arguments.get("snapshot"))
    fits(container, Action.SNAPSHOT_CHANGE)
    name = check_name(str(arguments.get("name", found.name)))
    if name != found.name and container.snapshots.filter(name=name).exists():
        raise AlreadyExists(say("There is a snapshot %(name)s already.", name=name), field="name")
    present = found.expires_at.isoformat() if found.expires_at else ""
    return {
        "arguments": {
            "snapshot": found.name,
            "name": name,
            "note": _note(arguments.get("note", found.note)),
            "pinned": bool(arguments.get("pinned", found.pinned)),
            "expires_at": expiry(arguments["expires_at"]) if "expires_at" in arguments else present,
        }
    }


def delete(actor: Actor | None, container: Container, arguments: dict[str, Any]) -> dict[str, Any]:
    """Prepare deleting one: {"snapshot"}; raises InUse where it is pinned."""
    found = find(container, arguments.get("snapshot"))
    if found.pinned:
        raise InUse(say("The snapshot %(name)s is pinned: unpin it first.", name=found.name), users=[container.name])
    fits(container, Action.SNAPSHOT_DELETE)
    # what was an undo, or by a schedule, was to go in any case
    keep = basket.days(actor, container.host, arguments) if found.kind == "manual" and found.holds != "files" else 0
    return {"arguments": {"snapshot": found.name, "keep_days": keep}}


def restore(actor: Actor | None, container: Container, arguments: dict[str, Any]) -> dict[str, Any]:
    """Prepare going back to one: {"snapshot", "what"?}; reserves the name of the safety point that is made first."""
    found = find(container, arguments.get("snapshot"))
    fits(container, Action.RESTORE)
    holds = found.holds
    what = arguments.get("what") or holds
    if what not in RESTORES:
        raise SpecError(say("Use one of %(names)s.", names=", ".join(RESTORES)), field="what")
    if what != "configuration" and holds == "configuration":
        raise SpecError("This point holds the configuration only.", field="what")
    if what != "files":
        _check_configuration(container, found)
    nics = interfaces.restored(actor, container, found.spec) if actor and what != "files" else None
    return {
        "arguments": {
            **({"nics": nics} if nics is not None else {}),
            "snapshot": found.name,
            "what": what,
            **safety(container, found.name),
        }
    }


def put_back(_actor: Actor | None, container: Container, arguments: dict[str, Any]) -> dict[str, Any]:
    """Prepare putting files back: {"snapshot", "paths", "exact"?}; reserves a name for the safety point."""
    found = find(container, arguments.get("snapshot"))
    fits(container, Action.PUT_BACK)
    if found.holds == "configuration":
        raise SpecError("This point holds the configuration only.", field="snapshot")
    if container.privileged and container.status != Status.STOPPED:
        raise InvalidTransition(
            "The files of a privileged container can be changed while it is stopped, or in its terminal."
        )
    paths = [parsed(str(path), field="paths") for path in arguments.get("paths") or ()]
    if not 1 <= len(paths) <= PATHS_MAX:
        raise SpecError(say("Name 1 to %(most)s files or directories.", most=PATHS_MAX), field="paths")
    if "/" in paths:
        raise SpecError("To take all of it back, restore the snapshot.", field="paths")
    until = timezone.now() + dt.timedelta(days=SAFETY_DAYS)
    return {
        "arguments": {
            "snapshot": found.name,
            "paths": [written(path) for path in paths],
            "exact": bool(arguments.get("exact", False)),
            "safety": _safety_name(container),
            "safety_note": f"→ {found.name}: {shown(paths[0])}{' …' if len(paths) > 1 else ''}"[: requests.NOTE_MAX],
            "safety_until": until.isoformat(timespec="seconds"),
        }
    }


def _check_configuration(container: Container, found: Snapshot) -> None:
    """Refuse at once what the worker will refuse for sure: what this host has not, or its policy forbids."""
    columns = points.configuration(found.spec)
    configuration.check_limits(columns["limits"], container.host)
    if columns["privileged"] and not container.privileged:
        configuration.check_privileged(container.host)


def safety(container: Container, name: str) -> dict[str, Any]:
    """Return the arguments of the safety point of a restore to something of that name, which is reserved by them."""
    until = timezone.now() + dt.timedelta(days=SAFETY_DAYS)
    return {
        "safety": _safety_name(container),
        "safety_note": f"→ {name}",
        "safety_until": until.isoformat(timespec="seconds"),
    }


def _safety_name(container: Container) -> str:
    """Return undoN, for an N above all that are there."""
    names = container.snapshots.filter(name__startswith=SAFETY).values_list("name", flat=True)
    numbers = [int(match[1]) for name in names if (match := re.fullmatch(rf"{SAFETY}([0-9]{{1,9}})", name))]
    return f"{SAFETY}{max(numbers, default=-1) + 1}"


def _note(value: Any) -> str:
    return check_text(str(value or ""), field="note", most=requests.NOTE_MAX, lines=True)


def expiry(value: Any, *, field: str = "expires_at") -> str:
    """Return when something expires as ISO 8601, or nothing for never; raises SpecError for what is not to come."""
    if value in (None, ""):
        return ""
    try:
        at = value if isinstance(value, dt.datetime) else dt.datetime.fromisoformat(str(value))
    except ValueError:
        raise SpecError("Give a time as in 2027-01-31T12:00:00Z.", field=field) from None
    at = at if at.tzinfo else at.replace(tzinfo=dt.UTC)
    now = timezone.now()
    if not now < at < now + EXPIRY_MAX:
        raise SpecError("The time must be in the future.", field=field)
    return at.astimezone(dt.UTC).isoformat(timespec="seconds")
