"""What was heard lately: so that a page hears what was told between its making and its socket, and nothing twice.

A page is made at a position, and its socket asks for what came since. Where that is not known any more, the page
reads everything again.
"""

from __future__ import annotations

import secrets
from collections import deque
from typing import Any, Final

KEPT_MAX: Final = 1000
"""Notices that are kept."""


class Heard:
    """The last notices, numbered from when the listening began. Written by one thread, read by any."""

    def __init__(self) -> None:
        self._kept: deque[tuple[int, dict[str, Any]]] = deque(maxlen=KEPT_MAX)
        self._at: tuple[str, int] | None = None

    def begin(self) -> None:
        """Begin anew: whatever was told up to now may have been missed."""
        self._kept.clear()
        self._at = (secrets.token_hex(4), 0)

    def end(self) -> None:
        """Nobody listens from now on: what is told now is missed."""
        self._at = None

    def add(self, notice: dict[str, Any]) -> None:
        """Keep one more."""
        if self._at is not None:
            name, number = self._at
            self._kept.append((number + 1, notice))
            self._at = (name, number + 1)

    @property
    def position(self) -> str:
        """Where the listening is now; empty where nobody listens. Another thread may ask."""
        at = self._at
        return f"{at[0]}-{at[1]}" if at else ""

    def since(self, position: str) -> list[dict[str, Any]] | None:
        """Return what was told after a position, oldest first; None where that is not all known."""
        name, _, text = position.partition("-")
        if self._at is None or self._at[0] != name or not (text.isascii() and text.isdecimal()):
            return None
        last, asked = self._at[1], int(text[:18])
        if asked > last or last - asked > len(self._kept):
            return None
        return [notice for number, notice in self._kept if number > asked]
