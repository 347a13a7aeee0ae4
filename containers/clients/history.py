"""What a container used, over time and now, for pages and API: read from the ticker, with the events beside it."""

from __future__ import annotations

import datetime as dt
import time
from typing import Any, Final

from ..core.errors import SpecError
from ..core.model.states import Status
from ..models import Container, Event
from . import ticker_client

POINTS_MAX: Final = 2000
SPAN_MAX_SEC: Final = 366 * 86400
EVENTS_MAX: Final = 200
HOST: Final = "host"
LIMITS_SEC: Final = 2.0
"""How long a page waits for the limits that the kernel holds; a process without a core is away for a second."""


def history(container: Container, begin: int, end: int, points: int) -> dict[str, Any]:
    """Return a container's history from begin up to end (Unix time), in at most `points` equal steps.

    {"from", "step_sec", "count", "series": {column: [value or null]}, "events": [{"at", "kind", …}], "cpus", "limits"}:
    entry i of a column is for from + i * step_sec; the columns are those of containers/ticker/rings.py. cpus: the
    host's. Raises SpecError naming from, to or points, and TickerUnavailable.
    """
    _check(begin, end, points)
    found = ticker_client.ask(cmd="history", container=container.pk, **{"from": begin, "to": end}, points=points)
    found["events"] = _events(container, begin, end)
    found["limits"] = container.limits
    found["cpus"] = container.host.facts.get("cpus")
    return found


def host_history(begin: int, end: int, points: int) -> dict[str, Any]:
    """Return the host's own history, in the same shape, without events."""
    _check(begin, end, points)
    return ticker_client.ask(cmd="history", container=HOST, **{"from": begin, "to": end}, points=points)


def latest(container: Container) -> dict[str, Any] | None:
    """Return the container's latest sample as the API gives it; None while it does not run.

    Raises TickerUnavailable.
    """
    found = ticker_client.ask(cmd="latest", containers=[container.pk])
    sample: dict[str, Any] | None = found["containers"].get(container.pk)
    if sample is not None:
        sample["at"] = rfc3339(sample["at"])
    return sample


def host_latest() -> dict[str, Any]:
    """Return the host's latest sample. Raises TickerUnavailable."""
    found: dict[str, Any] = ticker_client.ask(cmd="latest", containers=[])["host"]
    return found


def present_limits(container: Container) -> dict[str, Any]:
    """Return what the kernel holds a container to now: memory_bytes, cpus, pids (None: no limit).

    Empty where it does not run, or the ticker does not answer in time: the pages then show what was asked for alone.
    """
    if container.status not in (Status.RUNNING, Status.FROZEN):
        return {}
    try:
        return ticker_client.ask(timeout_sec=LIMITS_SEC, cmd="limits", container=container.pk)
    except ticker_client.TickerUnavailable:
        return {}


def rfc3339(at: float) -> str:
    """Return a Unix time as the API writes times."""
    return dt.datetime.fromtimestamp(at, dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _check(begin: int, end: int, points: int) -> None:
    if not 0 <= begin < end:
        raise SpecError("from must be before to.", field="from")
    if end - begin > SPAN_MAX_SEC or end > time.time() + 86400:
        raise SpecError("At most a year, up to now, is kept.", field="to")
    if not 1 <= points <= POINTS_MAX:
        raise SpecError(f"points must be between 1 and {POINTS_MAX}.", field="points")


def _events(container: Container, begin: int, end: int) -> list[dict[str, Any]]:
    """Return the newest events in the range, oldest first."""
    first, last = (dt.datetime.fromtimestamp(at, dt.UTC) for at in (begin, end))
    rows = Event.objects.filter(container=container, at__gte=first, at__lt=last).order_by("-at")[:EVENTS_MAX]
    return [
        {
            "at": row.at.timestamp(),
            "kind": row.kind,
            "old": row.old,
            "new": row.new,
            "reason": row.reason,
            "actor": row.actor_name,
        }
        for row in reversed(rows)
    ]
