"""/ws/events: tells a page what changed, of all that its viewer may see."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import parse_qs

from django.core.exceptions import ValidationError
from django.db import DataError

from containers.messaging import notices
from containers.models import Container, Event, Image, Network, Operation
from containers.showing import present
from panel.accounts.models import User

from .base import Consumer, in_database

Message = dict[str, Any]

ROLE_KINDS: Final = ("user", "project")
"""Notices after which the viewer's rights are looked at again at once."""


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
            async for notice in subscription:
                if notice["kind"] in ROLE_KINDS:
                    await self._rights_changed(notice)
                    continue
                if notice["kind"] == "resync":
                    await self.tell(type="resync")
                    continue
                message = await in_database(describe)(self.actor.user, notice)
                if message is not None:
                    await self.tell(**message)

    async def _rights_changed(self, notice: notices.Notice) -> None:
        """End the socket of a user who was disabled; let one whose role changed look at everything again."""
        if notice["kind"] == "user" and notice["id"] != str(self.actor.user.pk):
            return
        self.actor = await self._identify()  # raises what refuses the socket
        await self.tell(type="resync")


def describe(user: User, notice: notices.Notice) -> Message | None:
    """Return the message that a notice means for this user; None where it is not his to see, or not told of."""
    teller = _TELLERS.get(notice["kind"])
    try:
        return teller(user, notice) if teller else None
    except (ValidationError, ValueError, DataError):  # an id that is none: whoever holds a Redis password can publish
        return None


def _container(user: User, notice: notices.Notice) -> Message | None:
    row = Container.objects.visible_to(user).select_related("project").filter(pk=notice["id"]).first()
    if row is None:
        return None
    operation = present.unfinished_operation(row)
    return {
        "type": "container.changed",
        "name": row.name,
        "project": row.project.name,
        "status": present.status(row),
        "operation": str(operation.pk) if operation else None,
    }


def _container_deleted(user: User, notice: notices.Notice) -> Message | None:
    """Tell of a container that is gone: its row is too, so the notice says whose it was.

    Where there is another of its name by now, that one is told of instead: its page is not to be left.
    """
    may = user.host_admin or user.memberships.filter(project_id=int(notice.get("project_id") or 0)).exists()
    name = notice.get("name")
    if not (may and user.is_active and isinstance(name, str)):
        return None
    another = Container.objects.visible_to(user).filter(name=name).values_list("pk", flat=True).first()
    return _container(user, {**notice, "id": another}) if another else {"type": "container.deleted", "name": name}


def _event(user: User, notice: notices.Notice) -> Message | None:
    if not notice["id"].isdecimal():
        return None
    event = Event.objects.select_related("container").filter(pk=int(notice["id"])).first()
    if event is None:
        return None
    seen = Container.objects.visible_to(user).filter(pk=event.container_id).exists()
    if not seen:
        return None
    shape = present.event(event)
    return {"type": "container.event", "name": event.container.name, **shape}


def _operation(user: User, notice: notices.Notice) -> Message | None:
    row = Operation.objects.visible_to(user).filter(pk=notice["id"]).first()
    if row is None:
        return None
    return {
        "type": "operation.changed",
        "id": str(row.pk),
        "action": row.action,
        "container": row.container_name or None,
        "status": row.status,
        "progress_pct": row.progress_pct,
    }


def _image(user: User, notice: notices.Notice) -> Message | None:
    row = Image.objects.visible_to(user).filter(pk=notice["id"]).first()
    return {"type": "image.changed", "name": row.name, "state": row.state} if row else None


def _network(user: User, notice: notices.Notice) -> Message | None:
    row = Network.objects.visible_to(user).filter(pk=notice["id"]).first()
    return {"type": "network.changed", "name": row.name} if row else None


_TELLERS: Final = {
    "container": _container,
    "container-deleted": _container_deleted,
    "event": _event,
    "operation": _operation,
    "image": _image,
    "network": _network,
}
