"""What is checked and reserved before an operation on a container is accepted, one function per action."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from panel.accounts.actor import Actor

from ..bookkeeping import reservations
from ..core.model.states import Action, Status
from ..core.names import check_name
from ..models import Container, Network
from . import basket, cloning, configuration, nics, points, queue, requests
from .resources import usable_network


def _prepare_plain(action: Action) -> Callable[[Actor | None, Container, dict[str, Any]], dict[str, Any]]:
    def prepare(_actor: Actor | None, container: Container, arguments: dict[str, Any]) -> dict[str, Any]:
        # one that the restart policy is about to start again can be stopped: it then stays so
        if action is not Action.STOP or not container.restarts:
            points.fits(container, action)
        if container.privileged and action in (Action.START, Action.RESTART):
            configuration.check_privileged(container.host)
        if action in (Action.STOP, Action.RESTART):
            return {"arguments": requests.check_stop(arguments)}
        return {"arguments": arguments}

    return prepare


def _prepare_delete(actor: Actor | None, container: Container, arguments: dict[str, Any]) -> dict[str, Any]:
    force = bool(arguments.get("force", False))
    if not (force and container.status in (Status.RUNNING, Status.FROZEN)):
        points.fits(container, Action.DELETE)
    keep = 0 if container.ephemeral else basket.days(actor, container.host, arguments)
    return {"arguments": {"force": force, "keep_days": keep}}


def _prepare_update(_actor: Actor | None, container: Container, arguments: dict[str, Any]) -> dict[str, Any]:
    changes = dict(arguments)
    prepared: dict[str, Any] = {}
    if changes.get("name", container.name) != container.name:
        prepared = _prepare_rename(_actor, container, {"name": changes["name"]})["arguments"]
    changes.pop("name", None)
    points.fits(container, Action.UPDATE)
    if (wanted := changes.pop("nics", None)) is not None:
        prepared["nics"] = _nics(_actor, container, wanted)
    checked = configuration.check_changes(changes, container.host, container)
    if container.status in (Status.RUNNING, Status.FROZEN):
        configuration.check_disk_in_use(container, checked.get("limits", container.limits))
    return {"arguments": {"changes": checked, **prepared}}


def _nics(actor: Actor | None, container: Container, wanted: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the container's interfaces as they will be; a network that it is on already it may stay on."""
    reservations.lock_host(container.host)
    present = list(container.interfaces.select_related("network").order_by("index"))
    networks = {row.network.name: row.network for row in present if row.network is not None}

    def find(name: str) -> Network:
        if name in networks or actor is None:
            return networks[name]
        return usable_network(actor, name, container.project, container.host)

    return nics.plan(container, wanted, find, present)


def _prepare_rename(_actor: Actor | None, container: Container, arguments: dict[str, Any]) -> dict[str, Any]:
    name = check_name(str(arguments.get("name", "")))
    if name != container.name:
        points.fits(container, Action.RENAME)
        queue.refuse_taken(name)
    return {"arguments": {"name": name}}


PREPARE: Final[dict[str, Callable[[Actor | None, Container, dict[str, Any]], dict[str, Any]]]] = {
    **{
        action.value: _prepare_plain(action)
        for action in (Action.START, Action.STOP, Action.RESTART, Action.FREEZE, Action.UNFREEZE)
    },
    "update": _prepare_update,
    "rename": _prepare_rename,
    "snapshot": points.snapshot,
    "snapshot-change": points.change,
    "snapshot-delete": points.delete,
    "restore": points.restore,
    "put-back": points.put_back,
    "clone": cloning.prepare,
    "delete": _prepare_delete,
}
"""What is checked and reserved for each action, in its transaction; returns more columns of the operation."""
