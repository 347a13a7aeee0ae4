"""What a container wrote to its console, while it runs and after; read by the ticker, as the files are root's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ..models import Container
from . import ticker_client

TAIL_BYTES: Final = 64 * 1024
TAIL_MAX_BYTES: Final = 8 * 1024**2


@dataclass(frozen=True)
class ConsoleLog:
    """text: the end of it, bytes that are no UTF-8 replaced. size_bytes: of all that is kept."""

    text: str
    size_bytes: int


def read(container: Container, tail_bytes: int = TAIL_BYTES) -> ConsoleLog:
    """Return the last bytes of a container's console, TAIL_MAX_BYTES at most; raises TickerUnavailable."""
    found = ticker_client.ask(cmd="console", container=container.pk, bytes=min(tail_bytes, TAIL_MAX_BYTES))
    return ConsoleLog(str(found["text"]), int(found["size_bytes"]))
