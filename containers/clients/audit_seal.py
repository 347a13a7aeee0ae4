"""Whether the audit trail is as root sealed it. The ticker checks it from time to time, and is asked here."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

from . import ticker_client

_TIMEOUT_SEC = 2.0


@dataclass(frozen=True)
class Seal:
    """What the last check found. at: when. problems: sentences as JSON (core.sentences). waiting: not sealed then."""

    at: dt.datetime
    intact: bool
    links: int
    waiting: int
    problems: tuple[dict[str, Any], ...]


def state() -> Seal | None:
    """Return what the last check found, None before the first one; raises TickerUnavailable."""
    found = ticker_client.ask(timeout_sec=_TIMEOUT_SEC, cmd="audit")
    if not found:
        return None
    return Seal(
        at=dt.datetime.fromisoformat(found["at"]),
        intact=bool(found["intact"]),
        links=int(found["links"]),
        waiting=int(found["waiting"]),
        problems=tuple(found["problems"]),
    )
