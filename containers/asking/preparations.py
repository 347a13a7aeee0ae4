"""What is checked and reserved before an operation on a container is accepted, one function per action."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from panel.accounts.actor import Actor

from ..bookkeeping import reservations
from ..core.errors import AlreadyExists, InUse, NotFound
from ..core.names import check_name
from ..core.spec import check_text
from ..core.states import Action, Status, after
from ..models import Container, Snapshot
from . import queue, requests


def _fits(container: Container, action: Action) -> None:
    after(Status(container.status), action)


def _prepare_plain(action: Action) -> Callable[[Actor | None, Container, dict[str, Any]], dict[str, Any]]:
    def prepare(_actor: Actor | None, container: Container, arguments: dict[str, Any]) -> dict[str, Any]:
        # one that the restart policy is about to start again can be stopped: it then stays so
        if action is not Action.STOP or not container.restarts:
            _fits(container, action)
        if container.privileged and action in (Action.START, Action.RESTART):
            requests.check_privileged(container.host)
        if action in (Action.STOP, Action.RESTART):
            return {"arguments": requests.check_stop(arguments)}
        return {"arguments": arguments}

    return prepare


def _prepare_delete(_actor: Actor | None, container: Container, arguments: dict[str, Any]) -> dict[str, Any]:
    force = bool(arguments.get("force", False))
    if not (force and container.status in (Status.RUNNING, Status.FROZEN)):
        _fits(container, Action.DELETE)
    return {"arguments": {"force": force}}


def _prepare_update(_actor: Actor | None, container: Container, arguments: dict[str, Any]) -> dict[str, Any]:
    changes = dict(arguments)
    prepared: dict[str, Any] = {}
    if changes.get("name", container.name) != container.name:
        prepared = _prepare_rename(_actor, container, {"name": changes["name"]})["arguments"]
    changes.pop("name", None)
    _fits(container, Action.UPDATE)
    return {"arguments": {"changes": requests.check_changes(changes, container.host, container), **prepared}}


def _prepare_rename(_actor: Actor | None, container: Container, arguments: dict[str, Any]) -> dict[str, Any]:
    name = check_name(str(arguments.get("name", "")))
    if name != container.name:
        _fits(container, Action.RENAME)
        queue.refuse_taken(name)
    return {"arguments": {"name": name}}


def _prepare_snapshot(_actor: Actor | None, container: Container, arguments: dict[str, Any]) -> dict[str, Any]:
    _fits(container, Action.SNAPSHOT)
    taken = set(container.snapshots.values_list("name", flat=True))
    number, name = container.next_snapshot, arguments.get("name")
    if name is None:
        while f"snap{number}" in taken:
            number += 1
        name, number = f"snap{number}", number + 1
    elif check_name(name) in taken:
        raise AlreadyExists(f"There is a snapshot {name} already.", field="name")
    elif given := re.fullmatch(r"snap(0|[1-9][0-9]{0,8})", name):
        number = max(number, int(given[1]) + 1)
    Container.objects.filter(pk=container.pk).update(next_snapshot=number)
    note = check_text(str(arguments.get("note") or ""), field="note", most=requests.NOTE_MAX, lines=True)
    return {"arguments": {"name": name, "note": note}}


def _snapshot(container: Container, name: Any) -> Snapshot:
    found = container.snapshots.filter(name=name).first()
    if found is None:
        raise NotFound(f"{container.name} has no snapshot {name!r}.", field="snapshot")
    return found


def _prepare_snapshot_delete(_actor: Actor | None, container: Container, arguments: dict[str, Any]) -> dict[str, Any]:
    snapshot = _snapshot(container, arguments.get("snapshot"))
    if snapshot.pinned:
        raise InUse(f"The snapshot {snapshot.name} is pinned: unpin it first.", users=[container.name])
    _fits(container, Action.SNAPSHOT_DELETE)
    return {"arguments": {"snapshot": snapshot.name}}


def _prepare_restore(_actor: Actor | None, container: Container, arguments: dict[str, Any]) -> dict[str, Any]:
    snapshot = _snapshot(container, arguments.get("snapshot"))
    _fits(container, Action.RESTORE)
    return {"arguments": {"snapshot": snapshot.name}}


def _prepare_clone(_actor: Actor | None, container: Container, arguments: dict[str, Any]) -> dict[str, Any]:
    name = check_name(str(arguments.get("name", "")))
    snapshot = _snapshot(container, arguments["snapshot"]) if arguments.get("snapshot") else None
    _fits(container, Action.CLONE)
    queue.refuse_taken(name)
    nic = container.interfaces.select_related("network").first()
    if nic is None:
        raise NotFound(f"{container.name} has no network to clone.")
    same: tuple[str, ...] = ("project", "image", "image_name", "description", "tags", "limits", "security", "autostart")
    same = (
        *same,
        "privileged",
        "ephemeral",
        "restart",
        "init_command",
        "environment",
        "mounts",
        "devices",
        *requests.GROUPS,
    )
    columns = {field: getattr(container, field) for field in same}
    columns.update(name=name, halt_signal=container.halt_signal)
    clone = reservations.add_container(container.host, columns, nic.network)
    return {"arguments": {"name": name, "snapshot": snapshot.name if snapshot else None}, "target": clone}


PREPARE: Final[dict[str, Callable[[Actor | None, Container, dict[str, Any]], dict[str, Any]]]] = {
    **{
        action.value: _prepare_plain(action)
        for action in (Action.START, Action.STOP, Action.RESTART, Action.FREEZE, Action.UNFREEZE)
    },
    "update": _prepare_update,
    "rename": _prepare_rename,
    "snapshot": _prepare_snapshot,
    "snapshot-delete": _prepare_snapshot_delete,
    "restore": _prepare_restore,
    "clone": _prepare_clone,
    "delete": _prepare_delete,
}
"""What is checked and reserved for each action, in its transaction; returns more columns of the operation."""
