"""Waiting for a container to be in some state: what was, since one began to wait, counts as much as what is.

Statuses are looked up in a row's events too, so that one which lasted for a moment only, between two looks, is seen.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from ..core.errors import SpecError
from ..core.model.states import Status
from ..core.sentences import say
from ..models import Container, Event

DELETED: Final = "deleted"
STATES: Final = ("stopped", "running", "frozen", "error", DELETED)


@dataclass(frozen=True, slots=True)
class Watch:
    """A container that is waited for. since: its last event when that began."""

    container_id: str
    since: int


@dataclass(frozen=True, slots=True)
class Seen:
    """status: now. reached: which of the wanted ones was seen, None for none yet."""

    status: str
    reached: str | None


def parse(text: str, *, field: str = "status") -> frozenset[str]:
    """Return the states that a text names, separated by "," or "|", in either case; raises SpecError."""
    found = frozenset(word.strip().lower() for word in re.split(r"[,|]", text) if word.strip())
    if not found or not found <= frozenset(STATES):
        raise SpecError(say("Use %(names)s, one or several.", names=", ".join(STATES)), field=field)
    return found


def begin(container: Container) -> Watch:
    """Begin to wait for a container."""
    last = Event.objects.filter(container=container).order_by("-pk").values_list("pk", flat=True).first()
    return Watch(container.pk, last or 0)


def look(watch: Watch, wanted: frozenset[str]) -> Seen:
    """Return what is so now, and whether one of the wanted states is, or was since the watch began."""
    found = Container.objects.filter(pk=watch.container_id).values_list("status", flat=True).first()
    status = DELETED if found is None else str(Status.STOPPED if found == Status.ABSENT else found)
    if status in wanted:
        return Seen(status, status)
    passed = Event.objects.filter(container_id=watch.container_id, pk__gt=watch.since, kind="status", new__in=wanted)
    return Seen(status, passed.order_by("pk").values_list("new", flat=True).first())
