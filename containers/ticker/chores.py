"""What the ticker sets off besides sampling, in a thread of its own: reconciling on a timer, and supervisors' news."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

Event = dict[str, Any]

log = logging.getLogger(__name__)

_EVENTS_MAX: Final = 10_000
"""Past this many unread news the rest is dropped: the full reconciliation finds out all the same."""
GATHER_SEC: Final = 0.5
"""News are handed on at once after a time of silence, else together, this long after the ones before."""
PATIENT: Final = frozenset({"started"})
"""News that can wait as long in any case: nearly always an operation has begun it, and is writing it down by itself."""


@dataclass(frozen=True)
class Chore:
    """Something to be done again and again. period_sec: from start to start."""

    name: str
    period_sec: float
    do: Callable[[], object]


class Chores(threading.Thread):
    """Does the chores one at a time, each when it is due, and hands on events: at once, or many together.

    Every chore is done once at the start, in the order given. A failure is logged, and the chore tried again when it
    is next due. on_events: gets the events since it was called last, in their order. after_each: called after every
    call, whatever came of it (to give back a database connection, say).
    """

    def __init__(
        self,
        chores: Sequence[Chore],
        *,
        on_events: Callable[[list[Event]], object],
        after_each: Callable[[], object] = lambda: None,
    ) -> None:
        super().__init__(name="chores", daemon=True)
        self._chores = tuple(chores)
        self._on_events = on_events
        self._after_each = after_each
        self._events: queue.Queue[Event | None] = queue.Queue(_EVENTS_MAX)
        self._next_at = 0.0
        self._stop_requested = threading.Event()

    def event(self, message: Event) -> None:
        """Hand on an event; never waits."""
        try:
            self._events.put_nowait(message)
        except queue.Full:
            log.warning("too many events; dropped %r", message)

    def stop(self) -> None:
        """Ask the thread to end after the present call."""
        self._stop_requested.set()
        try:
            self._events.put_nowait(None)
        except queue.Full:
            pass

    def run(self) -> None:
        """Work until stop()."""
        due = {chore: time.monotonic() for chore in self._chores}
        while not self._stop_requested.is_set():
            now = time.monotonic()
            for chore in self._chores:
                if due[chore] <= now and not self._stop_requested.is_set():
                    self._call(chore.name, chore.do)
                    # seconds that passed meanwhile are left out, not made up for
                    missed = int((time.monotonic() - due[chore]) / chore.period_sec)
                    due[chore] += (missed + 1) * chore.period_sec
            self._hand_on(min(due.values(), default=time.monotonic() + 1))

    def _hand_on(self, until: float) -> None:
        """Hand on events until something is due; once in any case, so that neither has to wait for ever."""
        due = False
        while not (due or self._stop_requested.is_set()):
            events = list(self._gathered(until))
            if not events:
                return
            self._next_at = time.monotonic() + GATHER_SEC
            self._call("events", partial(self._on_events, events))
            due = time.monotonic() >= until

    def _gathered(self, until: float) -> Iterator[Event]:
        """Wait for an event, and yield it with those that come before it is to be handed on; none by that time: none.

        Each costs transactions and a look at every open page, of which many together take little more.
        """
        ready_at = until
        while True:
            try:
                event = self._events.get(timeout=max(0.0, ready_at - time.monotonic()))
            except queue.Empty:
                return
            if event is None:
                return
            now = time.monotonic()
            patience = GATHER_SEC if event.get("event") in PATIENT else 0.0
            ready_at = min(ready_at, max(self._next_at, now + patience))
            yield event

    def _call(self, name: str, do: Callable[[], object]) -> None:
        try:
            do()
        except Exception:
            log.exception("%s failed", name)
        finally:
            self._after_each()
