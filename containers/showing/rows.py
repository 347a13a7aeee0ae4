"""Containers as the pages show them: the word for the state, and what may be done, or why not.

Queries are bounded whatever the number of containers: one for the rows and one each for interfaces, unfinished
operations and the viewer's roles.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from django.db.models import Count, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from panel.accounts.models import User

from ..core.model.states import Status
from ..models import Container, Operation, Snapshot
from ..rights.permissions import roles_that_may
from . import words
from .order import SORTS
from .sentences import translated

ICONS = {
    "start": "player-play",
    "stop": "player-stop",
    "restart": "refresh",
    "freeze": "snowflake",
    "unfreeze": "snowflake-off",
    "snapshot": "camera",
    "clone": "copy",
    "delete": "trash",
    "exec": "terminal-2",
    "update": "pencil",
    "rename": "pencil",
}
_UNSHOWN: Final = (
    *("limits", "security", "mounts", "devices", "hooks", "init", "boot", "console", "init_command", "environment"),
    *("layers", "lineage"),
)
"""Columns of JSON that no row of the list needs."""
LABELS = {
    "start": gettext_lazy("Start"),
    "stop": gettext_lazy("Stop"),
    "restart": gettext_lazy("Restart"),
    "freeze": gettext_lazy("Freeze"),
    "unfreeze": gettext_lazy("Unfreeze"),
    "snapshot": gettext_lazy("Snapshot…"),
    "clone": gettext_lazy("Clone…"),
    "delete": gettext_lazy("Delete…"),
    "exec": gettext_lazy("Terminal"),
}


@dataclass(frozen=True)
class Verb:
    """Something that can be asked of a container. reason: why it is disabled, "" where it can be done now."""

    action: str
    label: str
    icon: str
    doing: str
    reason: str


@dataclass
class Row:
    """One container for one viewer. role: the viewer's in its project, "host" above all, "" for none."""

    container: Container
    operation: Operation | None
    role: str
    viewer: User

    @property
    def name(self) -> str:
        """The container's name."""
        return self.container.name

    @property
    def status(self) -> str:
        """The state's class: that of the container, or `working` while an operation is unfinished."""
        return "working" if self.operation else self.container.status

    @property
    def word(self) -> str:
        """The state's word: Running, Starting…"""
        if self.operation:
            return str(words.DOING.get(self.operation.action, self.operation.action))
        if self.container.restarts:
            return str(words.DOING["restart"])
        return str(words.STATES.get(self.container.status, self.container.status))

    @property
    def by(self) -> str:
        """Who asked for what is under way, where it was somebody else."""
        if self.operation and self.operation.actor_name != self.viewer.username:
            return self.operation.actor_name
        return ""

    @cached_property
    def addresses(self) -> list[str]:
        """The reserved addresses, IPv4 first."""
        nics = list(self.container.interfaces.all())
        return [nic.ipv4 for nic in nics if nic.ipv4] + [nic.ipv6 for nic in nics if nic.ipv6]

    @property
    def snapshots(self) -> int:
        """How many snapshots there are."""
        counted = getattr(self.container, "snapshot_count", None)
        return int(counted) if counted is not None else self.container.snapshots.count()

    def may(self, action: str) -> bool:
        """Return whether the viewer's role allows an action."""
        return self.role == "host" or self.role in roles_that_may(action)

    def verb(self, action: str) -> Verb:
        """Return an action with the reason why it is disabled, if it is."""
        return Verb(
            action=action,
            label=str(LABELS.get(action) or words.ACTIONS[action]),
            icon=ICONS.get(action, "settings"),
            doing=str(words.DOING.get(action, "")),
            reason=self.reason(action),
        )

    def reason(self, action: str) -> str:
        """Return why an action can't be done now, or ""."""
        if not self.may(action):
            least = roles_that_may(action)
            return words.not_allowed(least[0] if least else "administrator")
        if self.operation:
            return _("Wait: %(doing)s") % {"doing": self.word}
        if action == "stop" and self.container.restarts:
            return ""
        return words.not_now(self.container.status, action)

    @property
    def power(self) -> Verb:
        """The one of start and stop that fits."""
        return self.verb("start" if self.container.status in (Status.STOPPED, Status.ERROR, Status.ABSENT) else "stop")

    @property
    def pause(self) -> Verb:
        """The one of freeze and unfreeze that fits; to stop it, while the restart policy waits to start it again."""
        if self.container.restarts:
            return self.verb("stop")
        return self.verb("unfreeze" if self.container.status == Status.FROZEN else "freeze")

    @property
    def restart(self) -> Verb:
        """Restart."""
        return self.verb("restart")

    @property
    def terminal(self) -> Verb:
        """Open a terminal."""
        return self.verb("exec")

    @property
    def snapshot(self) -> Verb:
        """Take a snapshot."""
        return self.verb("snapshot")

    @property
    def clone(self) -> Verb:
        """Make a copy."""
        return self.verb("clone")

    @property
    def delete(self) -> Verb:
        """Delete; running containers are stopped first, after the dialog said so."""
        verb = self.verb("delete")
        if verb.reason and self.may("delete") and not self.operation and self.container.status in ("running", "frozen"):
            return Verb(verb.action, verb.label, verb.icon, verb.doing, "")
        return verb

    @property
    def update(self) -> Verb:
        """Change settings."""
        return self.verb("update")

    @property
    def restore(self) -> Verb:
        """Go back to a snapshot."""
        return self.verb("restore")

    @property
    def snapshot_delete(self) -> Verb:
        """Remove a snapshot."""
        return self.verb("snapshot-delete")

    @property
    def snapshot_change(self) -> Verb:
        """Change a snapshot's name, note, pin and expiry."""
        return self.verb("snapshot-change")

    @property
    def rename_reason(self) -> str:
        """Why the name can't be changed now, or ""."""
        return self.reason("rename")

    @property
    def exit_at(self) -> dt.datetime | None:
        """When the last run ended."""
        at = (self.container.last_exit or {}).get("at")
        return parse_datetime(at) if isinstance(at, str) else None

    @property
    def exit_words(self) -> str:
        """How the last run ended, as a clause, where that was not what somebody asked for."""
        return words.exit_words(self.container.last_exit or {})

    @property
    def status_words(self) -> str:
        """Why its state is what it is, in the reader's language; "" where nobody knows."""
        reason = self.container.status_reason
        return str(words.EXITS.get(reason) or translated(reason))

    @property
    def trouble(self) -> str:
        """How the last run ended, as a clause, where somebody should look at it; "" while it runs."""
        last = self.container.last_exit or {}
        bad = last.get("reason") in words.BAD_EXITS or (last.get("reason") == "exit" and last.get("exit_code"))
        return self.exit_words if bad and self.container.status == Status.STOPPED else ""


def roles_of(user: User) -> dict[int, str]:
    """Return the user's role by project id."""
    return dict(user.memberships.values_list("project_id", "role"))


def rows_of(user: User, containers: Iterable[Container]) -> list[Row]:
    """Return containers with what is under way and what the user may do. Give a queryset made by `listed`."""
    found = list(containers)
    unfinished: dict[str, Operation] = {
        str(operation.container_id): operation
        for operation in Operation.objects.filter(
            container__in=[c.pk for c in found], status__in=Operation.UNFINISHED
        ).defer("log")
    }
    roles = {} if user.host_admin else roles_of(user)
    return [
        Row(c, unfinished.get(c.pk), "host" if user.host_admin else roles.get(c.project_id, ""), user) for c in found
    ]


def row_of(user: User, container: Container) -> Row:
    """Return one container as a row."""
    return rows_of(user, [container])[0]


def listed(user: User) -> QuerySet[Any]:
    """Return what the user may see, with what the list shows."""
    visible: QuerySet[Any] = Container.objects.visible_to(user)
    rows: QuerySet[Any] = visible.select_related("project", "image").prefetch_related("interfaces")
    # not a join: that would make a row of each snapshot, and group them all before the first twenty are taken
    points: QuerySet[Any] = Snapshot.objects.filter(container=OuterRef("pk")).order_by().values("container")
    number = Subquery(points.annotate(number=Count("pk")).values("number"))
    counted: QuerySet[Any] = rows.annotate(snapshot_count=Coalesce(number, 0))
    return counted


def light(rows: QuerySet[Any]) -> QuerySet[Any]:
    """Return the rows of `listed` without what a row of the list does not show: reading it all takes as long again."""
    some: QuerySet[Any] = rows.select_related(None).select_related("project").defer(*_UNSHOWN)
    return some


@dataclass(frozen=True)
class Filters:
    """What the address bar asks the list for."""

    q: str = ""
    status: str = ""
    project: str = ""
    tag: str = ""
    image: str = ""
    network: str = ""
    sort: str = "name"

    @classmethod
    def of(cls, query: Any) -> Filters:
        """Read them from a request's GET or POST."""
        sort = query.get("sort", "name")
        return cls(
            q=query.get("q", "").strip()[:100].replace("\0", ""),
            status=query.get("status", ""),
            project=query.get("project", ""),
            tag=query.get("tag", ""),
            image=query.get("image", ""),
            network=query.get("network", ""),
            sort=sort if sort in SORTS else "name",
        )

    @property
    def narrowed(self) -> bool:
        """Whether anything but the project is asked for."""
        return bool(self.q or self.status or self.tag or self.image or self.network)

    def apply(self, rows: QuerySet[Any], *, with_status: bool = True) -> QuerySet[Any]:
        """Return the rows that fit."""
        if self.project:
            rows = rows.filter(project__name=self.project)
        for word in self.q.split():
            rows = rows.filter(
                Q(name__icontains=word)
                | Q(description__icontains=word)
                | Q(image_name__icontains=word)
                | Q(interfaces__ipv4__startswith=word)
                | Q(interfaces__ipv6__startswith=word)
                | Q(tags__icontains=f'"{word}')
            )
        if self.tag:
            rows = rows.filter(tags__icontains=f'"{self.tag}"')
        if self.image:
            rows = rows.filter(image__name=self.image)
        if self.network:
            rows = rows.filter(interfaces__network__name=self.network)
        if with_status and self.status == "working":
            rows = rows.filter(operations__status__in=Operation.UNFINISHED)
        elif with_status and self.status:
            rows = rows.filter(status=self.status)
        narrowed: QuerySet[Any] = rows.distinct() if self.q or self.network or self.status == "working" else rows
        return narrowed


def counts(user: User, filters: Filters) -> dict[str, int]:
    """Return how many containers there are by status, and how many are being worked on, under the other filters."""
    visible: QuerySet[Any] = Container.objects.visible_to(user)
    fitting = filters.apply(visible, with_status=False)
    by_status = dict(
        Container.objects.filter(pk__in=fitting.values("pk")).order_by().values_list("status").annotate(n=Count("pk"))
    )
    by_status["all"] = sum(by_status.values())
    by_status["working"] = Operation.objects.filter(
        container__in=fitting.values("pk"), status__in=Operation.UNFINISHED
    ).count()
    return by_status
