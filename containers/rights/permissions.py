"""Which role may do what: one table, used by pages, API, WebSockets and the worker."""

from __future__ import annotations

from typing import Final

VIEWER: Final = "viewer"
OPERATOR: Final = "operator"
ADMINISTRATOR: Final = "administrator"
ROLES: Final = (VIEWER, OPERATOR, ADMINISTRATOR)

LEAST_ROLE: Final[dict[str, str]] = {
    "view": VIEWER,
    "start": OPERATOR,
    "stop": OPERATOR,
    "restart": OPERATOR,
    "freeze": OPERATOR,
    "unfreeze": OPERATOR,
    "snapshot": OPERATOR,
    "snapshot-change": OPERATOR,
    "snapshot-delete": OPERATOR,
    "trash-restore": ADMINISTRATOR,
    "trash-purge": ADMINISTRATOR,
    "restore": OPERATOR,
    "backup-export": OPERATOR,
    "backup-verify": OPERATOR,
    "backup-download": OPERATOR,
    "backup-delete": ADMINISTRATOR,
    "backup-import": ADMINISTRATOR,
    "backup-restore": ADMINISTRATOR,
    "files": OPERATOR,
    "put-back": OPERATOR,
    "schedule": OPERATOR,
    "exec": OPERATOR,
    "cgroup": OPERATOR,
    "terminal": OPERATOR,
    "use": OPERATOR,
    "cancel": OPERATOR,
    "create": ADMINISTRATOR,
    "clone": ADMINISTRATOR,
    "update": ADMINISTRATOR,
    "rename": ADMINISTRATOR,
    "delete": ADMINISTRATOR,
    "invite": ADMINISTRATOR,
    "audit": ADMINISTRATOR,
    "network-create": ADMINISTRATOR,
    "network-change": ADMINISTRATOR,
    "network-delete": ADMINISTRATOR,
}
"""The least role that may do an action in its project. What is not here, host administrators alone may do."""


def roles_that_may(action: str) -> tuple[str, ...]:
    """Return the roles that may do the action; empty where only host administrators may."""
    least = LEAST_ROLE.get(action)
    return ROLES[ROLES.index(least) :] if least else ()
