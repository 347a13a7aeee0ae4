"""What a container's status may be, and which action fits which status."""

from __future__ import annotations

import enum

from ..errors import InvalidTransition
from ..sentences import say


class Status(enum.StrEnum):
    """What was last observed of a container. "Starting…" is derived from its unfinished operation."""

    ABSENT = "absent"
    """A row with nothing on the host yet, or any more."""
    STOPPED = "stopped"
    RUNNING = "running"
    FROZEN = "frozen"
    ERROR = "error"
    """The host could not tell, or the container's store is damaged; the reason stands beside it."""


class Action(enum.StrEnum):
    """What can be asked of a container."""

    CREATE = "create"
    START = "start"
    STOP = "stop"
    RESTART = "restart"
    FREEZE = "freeze"
    UNFREEZE = "unfreeze"
    UPDATE = "update"
    RENAME = "rename"
    SNAPSHOT = "snapshot"
    SNAPSHOT_CHANGE = "snapshot-change"
    SNAPSHOT_DELETE = "snapshot-delete"
    RESTORE = "restore"
    PUT_BACK = "put-back"
    CLONE = "clone"
    DELETE = "delete"
    EXEC = "exec"


_ALL_PRESENT = (Status.STOPPED, Status.RUNNING, Status.FROZEN)

TRANSITIONS: dict[tuple[Status, Action], Status] = {
    (Status.ABSENT, Action.CREATE): Status.STOPPED,
    (Status.ABSENT, Action.DELETE): Status.ABSENT,
    (Status.STOPPED, Action.START): Status.RUNNING,
    (Status.ERROR, Action.START): Status.RUNNING,
    (Status.RUNNING, Action.STOP): Status.STOPPED,
    (Status.FROZEN, Action.STOP): Status.STOPPED,
    (Status.ERROR, Action.STOP): Status.STOPPED,
    (Status.RUNNING, Action.RESTART): Status.RUNNING,
    (Status.FROZEN, Action.RESTART): Status.RUNNING,
    (Status.RUNNING, Action.FREEZE): Status.FROZEN,
    (Status.FROZEN, Action.UNFREEZE): Status.RUNNING,
    (Status.STOPPED, Action.RENAME): Status.STOPPED,
    (Status.STOPPED, Action.DELETE): Status.ABSENT,
    (Status.ERROR, Action.DELETE): Status.ABSENT,
    (Status.RUNNING, Action.EXEC): Status.RUNNING,
    (Status.ERROR, Action.UPDATE): Status.ERROR,
    **{
        (status, action): status
        for status in _ALL_PRESENT
        for action in (
            Action.UPDATE,
            Action.SNAPSHOT,
            Action.SNAPSHOT_CHANGE,
            Action.SNAPSHOT_DELETE,
            Action.RESTORE,
            Action.PUT_BACK,
            Action.CLONE,
        )
    },
}
"""(status, action) → the status afterwards. What is not here does not fit."""


def after(status: Status, action: Action) -> Status:
    """Return the status that follows; raises InvalidTransition where the action does not fit."""
    try:
        return TRANSITIONS[status, action]
    except KeyError:
        raise InvalidTransition(
            say("Not possible while the container is %(status)s: %(action)s.", status=status, action=action),
            status=str(status),
            action=str(action),
        ) from None


def allowed(status: Status) -> frozenset[Action]:
    """Return the actions that fit the status."""
    return frozenset(action for (known, action) in TRANSITIONS if known is status)
