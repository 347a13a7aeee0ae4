"""What is checked and reserved before a container is cloned, once or many times."""

from __future__ import annotations

from typing import Any, Final

from panel.accounts.actor import Actor

from ..bookkeeping import points as rows
from ..bookkeeping import reservations
from ..core.errors import SpecError
from ..core.model.states import Action
from ..core.names import check_name
from ..core.sentences import say
from ..models import Container
from . import configuration, nics, points, pools, queue

MOST: Final = 50
SAME: Final = (
    "project",
    "image",
    "image_name",
    "description",
    "tags",
    "limits",
    "security",
    "autostart",
    "privileged",
    "ephemeral",
    "restart",
    "pool",
    "init_command",
    "environment",
    "halt_signal",
    "mounts",
    "devices",
    "hooks",
    *configuration.GROUPS,
)


def prepare(_actor: Actor | None, container: Container, arguments: dict[str, Any]) -> dict[str, Any]:
    """Prepare it: {"name", "snapshot"?, "count"?, "full"?, "start"?, "ephemeral"?, "expires_at"?, "pool"?}."""
    wanted = _names(str(arguments.get("name", "")), arguments.get("count"))
    snapshot = points.find(container, arguments["snapshot"]) if arguments.get("snapshot") else None
    if snapshot is not None and snapshot.holds == "configuration":
        raise SpecError("This point holds the configuration only.", field="snapshot")
    points.fits(container, Action.CLONE)
    for name in wanted:
        queue.refuse_taken(name)
    columns = {field: getattr(container, field) for field in SAME}
    if arguments.get("ephemeral") is not None:
        columns["ephemeral"] = bool(arguments["ephemeral"])
    if arguments.get("pool"):
        columns["pool"] = str(arguments["pool"])
        columns["limits"] = pools.check(container.host, container.project.name, columns["pool"], columns["limits"])
    until = rows.moment(points.expiry(arguments.get("expires_at")))
    interfaces = list(container.interfaces.select_related("network").order_by("index"))
    networks = {row.network.name: row.network for row in interfaces if row.network is not None}
    clones = []
    for name in wanted:
        clone = reservations.add_container(container.host, {**columns, "name": name, "expires_at": until})
        like = [nics.for_clone(row) for row in interfaces]
        nics.write(clone, nics.plan(clone, like, networks.__getitem__))
        clones.append(clone)
    asked = {
        "name": wanted[0],
        "snapshot": snapshot.name if snapshot else None,
        "full": bool(arguments.get("full", False)),
        "start": bool(arguments.get("start", False)),
        "targets": [clone.pk for clone in clones],
    }
    return {"arguments": asked, "target": clones[0]}


def _names(name: str, count: Any) -> list[str]:
    """Return the clones' names: the one that is given, or as many with a number."""
    if count is None:
        return [check_name(name)]
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= MOST:
        raise SpecError(say("Give a number from 1 to %(most)s.", most=MOST), field="count")
    return [check_name(f"{name}-{number}") for number in range(1, count + 1)]
