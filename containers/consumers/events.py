"""/ws/events: tells a page what changed, of all that its viewer may see."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Final
from urllib.parse import parse_qs

from django.core.exceptions import ValidationError
from django.db import DataError
from django.db.models import F

from containers.asking import queue
from containers.messaging import notices
from containers.models import Container, Event, Image, Network, Operation
from containers.showing import present
from panel.accounts.models import User

from .base import Consumer, in_database

Message = dict[str, Any]

ROLE_KINDS: Final = ("user", "project")
"""Notices after which the viewer's rights are looked at again at once."""
TO_ALL: Final = (*ROLE_KINDS, "resync")
"""Notices that are about no row which a viewer may see or not."""


class EventsConsumer(Consumer):
    """Reads each changed row again under the viewer's own rights, and tells what the API would.

    A notice may be lost, so after a loss of Redis the page gets {"type": "resync"} and reads everything again. What was
    told since the page was made (?since=POSITION) comes first.
    """

    async def opened(self) -> None:
        """Begin to listen."""
        self.beside(self._listen())

    async def _listen(self) -> None:
        since = parse_qs(self.scope["query_string"].decode("latin-1")).get("since", [""])[0]
        with notices.hub().subscribe(since) as subscription:
            while True:
                await self._hand_on(await subscription.get_all())

    async def _hand_on(self, found: list[notices.Notice]) -> None:
        """Tell what some notices mean, in their order; what was told before a change of rights is told before it."""
        for about_all, some in groupby(found, lambda notice: notice["kind"] in TO_ALL):
            if not about_all:
                await self._tell_what(list(some))
                continue
            for notice in some:
                if notice["kind"] == "resync":
                    await self.tell(type="resync")
                else:
                    await self._rights_changed(notice)

    async def _tell_what(self, found: list[notices.Notice]) -> None:
        """Tell what some notices mean, of each kind before the next one's questions, which take a while, are asked."""
        parts, ask = descriptions(self.actor.user, found), in_database(next)
        while (part := await ask(parts, None)) is not None:
            for message in part:
                await self.tell(**message)

    async def _rights_changed(self, notice: notices.Notice) -> None:
        """End the socket of a user who was disabled; let one whose role changed look at everything again."""
        if notice["kind"] == "user" and notice["id"] != str(self.actor.user.pk):
            return
        self.actor = await self._identify()  # raises what refuses the socket
        await self.tell(type="resync")


def descriptions(user: User, found: Sequence[notices.Notice]) -> Iterator[list[Message]]:
    """Yield the messages that notices mean for this user, those of a kind in their order.

    None for what is not his to see. They say what is so now, not what was so when a notice was sent: so it does not
    matter that one kind comes before the others.
    """
    by_kind: dict[str, list[notices.Notice]] = defaultdict(list)
    for notice in found:
        by_kind[notice["kind"]].append(notice)
    for kind, some in by_kind.items():
        if kind in _TELLERS:
            meant = _meant(user, kind, some)
            yield [meant[notice["id"]] for notice in some if notice["id"] in meant]


def _meant(user: User, kind: str, some: Sequence[notices.Notice]) -> dict[str, Message]:
    """Return what notices of one kind mean, by their id."""
    try:
        return _TELLERS[kind](user, {notice["id"]: notice for notice in some})
    # an id that is none: whoever holds a Redis password can publish
    except (ValidationError, ValueError, OverflowError, DataError):
        if len(some) == 1:
            return {}
        return {name: message for one in some for name, message in _meant(user, kind, [one]).items()}


Told = Mapping[str, notices.Notice]
"""Notices of one kind by their id."""


def _containers(user: User, told: Told) -> dict[str, Message]:
    rows = Container.objects.visible_to(user).filter(pk__in=told).select_related("project")
    found = list(rows.only("name", "project__name", "status"))
    holding = queue.holding([row.pk for row in found])
    return {
        row.pk: {
            "type": "container.changed",
            "name": row.name,
            "project": row.project.name,
            "status": present.status(row),
            "operation": str(holding[row.pk]) if row.pk in holding else None,
        }
        for row in found
    }


def _containers_deleted(user: User, told: Told) -> dict[str, Message]:
    """Tell of containers that are gone: their rows are too, so the notices say whose they were.

    Where there is another of such a name by now, that one is told of instead: its page is not to be left.
    """
    messages: dict[str, Message] = {}
    for deleted_id, notice in told.items():
        may = user.host_admin or user.memberships.filter(project_id=int(notice.get("project_id") or 0)).exists()
        name = notice.get("name")
        if not (may and user.is_active and isinstance(name, str)):
            continue
        another = Container.objects.visible_to(user).filter(name=name).values_list("pk", flat=True).first()
        if another is None:
            messages[deleted_id] = {"type": "container.deleted", "name": name}
        elif another in (instead := _containers(user, {another: notice})):
            messages[deleted_id] = instead[another]
    return messages


def _events(user: User, told: Told) -> dict[str, Message]:
    rows = Event.objects.filter(pk__in=[int(one) for one in told if one.isdecimal()])
    seen = rows.filter(container__in=Container.objects.visible_to(user)).annotate(container_name=F("container__name"))
    return {str(row.pk): {"type": "container.event", "name": row.container_name, **present.event(row)} for row in seen}


def _operations(user: User, told: Told) -> dict[str, Message]:
    return {
        str(row.pk): {
            "type": "operation.changed",
            "id": str(row.pk),
            "action": row.action,
            "container": row.container_name or None,
            "status": row.status,
            "progress_pct": row.progress_pct,
        }
        for row in Operation.objects.visible_to(user).filter(pk__in=told).defer("log", "journal", "arguments")
    }


def _images(user: User, told: Told) -> dict[str, Message]:
    rows = Image.objects.visible_to(user).filter(pk__in=told).only("name", "state")
    return {str(row.pk): {"type": "image.changed", "name": row.name, "state": row.state} for row in rows}


def _networks(user: User, told: Told) -> dict[str, Message]:
    rows = Network.objects.visible_to(user).filter(pk__in=told).only("name")
    return {str(row.pk): {"type": "network.changed", "name": row.name} for row in rows}


_TELLERS: Final[dict[str, Callable[[User, Told], dict[str, Message]]]] = {
    "container": _containers,
    "container-deleted": _containers_deleted,
    "event": _events,
    "operation": _operations,
    "image": _images,
    "network": _networks,
}
