"""How much of the host's disk there is, and what each container wrote of it; the ticker measures it, and is asked."""

from __future__ import annotations

from dataclasses import dataclass

from . import ticker_client

_TIMEOUT_SEC = 2.0


@dataclass(frozen=True)
class Measured:
    """kind: of the file system. inodes: None where it makes them as needed. containers: bytes by id, when known."""

    kind: str
    total_bytes: int
    free_bytes: int
    inodes: int | None
    inodes_free: int | None
    containers: dict[str, int]


def measured() -> Measured:
    """Return what was last measured; raises TickerUnavailable."""
    return Measured(**ticker_client.ask(timeout_sec=_TIMEOUT_SEC, cmd="room"))
