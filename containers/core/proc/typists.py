"""How much of what each one typed was taken: what a lost connection swallowed is sent again, and nothing comes twice.

A typist is one page's view of one session, over all of its connections. A connection that breaks leaves its client in
doubt how much of what it sent arrived. The next one is told, by count, and the rest is sent again.
"""

from __future__ import annotations

import re
from typing import Final

KNOWN_MAX: Final = 64
"""How many a session remembers: those that typed last. It has 16 viewers at the most at a time."""
TELL_BYTES: Final = 16 * 1024
"""How much may be taken before its typist, who keeps it until then, is told so."""
_NAME: Final = re.compile(r"[0-9A-Za-z-]{1,64}")

Typist = tuple[int | None, str]
"""Who has signed in, and what the page calls itself: nobody speaks for another."""


def typist(user_id: int | None, name: object) -> Typist | None:
    """Return who types, None where the client does not say. Raises ValueError where that is no name."""
    if name is None:
        return None
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError("not a typist's name")
    return user_id, name


class Typists:
    """The counts of one session, the last to type last."""

    def __init__(self) -> None:
        self._taken: dict[Typist, int] = {}

    def taken(self, who: Typist) -> int | None:
        """Return how many bytes of theirs were taken; None for somebody new, or forgotten by now."""
        return self._taken.get(who)

    def note(self, who: Typist, count: int) -> None:
        """Remember how many bytes were taken in all."""
        self._taken.pop(who, None)
        self._taken[who] = count
        if len(self._taken) > KNOWN_MAX:
            del self._taken[next(iter(self._taken))]
