"""Starts what is marked so, once for each `up`: by order, at once what has the same, and after the delays asked for.

What is still to be started stands in the host's facts, so that a ticker which is killed goes on where it was:
``{"left": [ids], "starting": [ids], "until": time or None}``. `up` leaves True there, and False stands at the end.
A start that fails, or that somebody has undone meanwhile, holds nobody up.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Iterable
from typing import Any, Final

from django.utils import timezone

from ..asking import queue, services
from ..core.errors import CoreError
from ..core.model.behaviour import Boot
from ..core.model.states import Status
from ..models import Container, Host
from ..operations.runtime import Runtime
from . import rebuild

FACT: Final = "autostart"

log = logging.getLogger(__name__)


def step(host: Host, runtime: Runtime, *, begin: bool = False) -> None:
    """Go on as far as is possible now: called again and again, and when a container has started.

    begin: make up the list where `up` has left its mark; before that the host must have been put in order.
    """
    state = _state(host, begin=begin)
    while state is not None:
        before = dict(state)
        state = _advance(host, runtime, state)
        if state == before:
            return
        rebuild.save_facts(host, {FACT: state or False})


def waits(host: Host, container: Container) -> bool:
    """Whether a container is still to be started here, which nobody else should do before its turn."""
    state = host.facts.get(FACT)
    return container.autostart and (state is True or (isinstance(state, dict) and container.pk in state["left"]))


def in_order(containers: Iterable[Container]) -> list[list[Container]]:
    """Return containers in groups that are started together, the first one first: by order, in each by name."""
    groups: dict[int, list[Container]] = {}
    for container in sorted(containers, key=lambda row: row.name):
        groups.setdefault(boot_of(container).order, []).append(container)
    return [groups[order] for order in sorted(groups)]


def boot_of(container: Container) -> Boot:
    """Return when a container starts among the others; a row that cannot be read counts as one that says nothing."""
    try:
        boot = Boot.from_dict(container.boot)
        boot.check()
    except (CoreError, TypeError):
        return Boot()
    return boot


def _state(host: Host, *, begin: bool) -> dict[str, Any] | None:
    found = host.facts.get(FACT)
    if found is True and begin:
        rows = Container.objects.filter(host=host, status=Status.STOPPED, autostart=True)
        return {"left": [row.pk for group in in_order(rows) for row in group], "starting": [], "until": None}
    return found if isinstance(found, dict) else None


def _advance(host: Host, runtime: Runtime, state: dict[str, Any]) -> dict[str, Any] | None:
    """Return the state after one step; the same one while there is something to wait for, None at the end."""
    if state["starting"]:
        return _wait_for(runtime, state)
    if state["until"] is not None and not _due(state):
        return state
    rows = Container.objects.filter(pk__in=state["left"], host=host, autostart=True).select_related("host", "project")
    groups = in_order(rows)
    if not groups:
        return None
    for container in groups[0]:
        if container.status == Status.STOPPED:
            _start(container)
    begun = [container.pk for container in groups[0]]
    return {"left": [pk for pk in state["left"] if pk not in begun], "starting": begun, "until": None}


def _wait_for(runtime: Runtime, state: dict[str, Any]) -> dict[str, Any]:
    rows = list(Container.objects.filter(pk__in=state["starting"]))
    # the host knows it earlier than the row, which is written when the operation ends
    run = {row.pk for row in rows if _runs(runtime, row.pk)}
    if any(row.pk not in run and queue.unfinished(row) is not None for row in rows):
        return state
    delay = max((boot_of(row).delay_sec for row in rows if row.pk in run), default=0)
    until = (timezone.now() + dt.timedelta(seconds=delay)).isoformat() if delay else None
    return {"left": state["left"], "starting": [], "until": until, "delay_sec": delay}


def _runs(runtime: Runtime, container_id: str) -> bool:
    seen = runtime.observe([container_id]).get(container_id)
    return seen is not None and seen.status == Status.RUNNING


def _due(state: dict[str, Any]) -> bool:
    """Whether the delay is over; after a step of the clock it is no longer than it was asked for."""
    now, until = timezone.now(), dt.datetime.fromisoformat(state["until"])
    return until <= now or until > now + dt.timedelta(seconds=state.get("delay_sec", 0))


def _start(container: Container) -> None:
    try:
        services.request_by_system(container, "start")
    except CoreError as error:
        log.info("start of %s: %s", container.name, error.message)
