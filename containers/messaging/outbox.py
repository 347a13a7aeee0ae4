"""Sends what may be lost from a thread of its own, so that no request and no operation ever waits for Redis."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

LENGTH_MAX: Final = 10_000
EXIT_WAIT_SEC: Final = 1.0

log = logging.getLogger(__name__)


T = TypeVar("T")


class Outbox(Generic[T]):
    """A bounded, coalescing queue and the daemon thread that sends what is in it.

    What still waits is replaced by what is newer and of the same key. When the queue is full the oldest goes. What
    sending raises is logged, and otherwise swallowed. Made for one process: after a fork it starts empty.

    What is patient goes after what is not, and with it; by itself when its time is up.
    """

    def __init__(self, name: str, send: Callable[[list[T]], object], *, together: int = 1) -> None:
        """send: gets what waits, oldest first, and at most so many together."""
        self._name = name
        self._send = send
        self._together = together
        self._reset()
        atexit.register(self.flush, EXIT_WAIT_SEC)

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._waiting: OrderedDict[Hashable, T] = OrderedDict()
        self._patient: OrderedDict[Hashable, T] = OrderedDict()
        self._due = 0.0
        self._changed = threading.Condition()
        self._working = False
        self._thread: threading.Thread | None = None

    def post(self, key: Hashable, item: T, *, within_sec: float = 0.0) -> None:
        """Have something sent soon; returns at once. within_sec: how long it may wait for others to go with."""
        if self._pid != os.getpid():
            self._reset()
        with self._changed:
            self._add(key, item, within_sec)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def _add(self, key: Hashable, item: T, within_sec: float) -> None:
        known = self._patient.pop(key, None) is not None
        if within_sec and key not in self._waiting:
            due = time.monotonic() + within_sec
            self._due = min(self._due, due) if self._patient or known else due
            self._patient[key] = item
        else:
            self._waiting.pop(key, None)
            self._waiting[key] = item
        while len(self._waiting) + len(self._patient) > LENGTH_MAX:
            (self._patient or self._waiting).popitem(last=False)

    def overtaken(self, key: Hashable) -> None:
        """Drop what is patient still, where somebody else has sent the same since it was posted."""
        with self._changed:
            self._patient.pop(key, None)
            self._changed.notify_all()

    def flush(self, timeout_sec: float) -> bool:
        """Wait until everything has been tried, at most timeout_sec; return whether it has."""
        if self._pid != os.getpid():
            return True
        with self._changed:
            self._due = 0.0
            self._changed.notify_all()
            return self._changed.wait_for(lambda: not (self._waiting or self._patient or self._working), timeout_sec)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._working = False
                self._changed.notify_all()
                self._wait()
                items = [self._next() for _ in range(min(self._together, len(self._waiting) + len(self._patient)))]
                self._working = True
            try:
                self._send(items)
            except Exception as error:  # noqa: BLE001  the edge: what is sent here may be lost, by design
                log.warning("%s: %s: %s", self._name, type(error).__name__, error)

    def _wait(self) -> None:
        """Wait until something has to go."""
        while not self._waiting:
            left = self._due - time.monotonic() if self._patient else None
            if left is not None and left <= 0:
                return
            self._changed.wait(left)

    def _next(self) -> T:
        return (self._waiting or self._patient).popitem(last=False)[1]
