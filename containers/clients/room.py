"""How much of the host's disk there is, and what each container wrote of it; the ticker measures it, and is asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from . import ticker_client

_TIMEOUT_SEC = 10.0


@dataclass(frozen=True)
class Measured:
    """kind: of the file system. inodes: None where it makes them as needed. containers: bytes by id, when known.

    pools: {"name", "driver", "room" (the same of its file system, None where it is not there), "problem"}.
    """

    kind: str
    total_bytes: int
    used_bytes: int
    free_bytes: int
    inodes: int | None
    inodes_free: int | None
    containers: dict[str, int]
    pools: list[dict[str, Any]] = field(default_factory=list)


def measured() -> Measured:
    """Return what was last measured; raises TickerUnavailable."""
    return Measured(**ticker_client.ask(timeout_sec=_TIMEOUT_SEC, cmd="room"))
