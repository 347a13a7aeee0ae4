"""Sends what may be lost from a thread of its own, so that no request and no operation ever waits for Redis."""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Final

LENGTH_MAX: Final = 10_000
EXIT_WAIT_SEC: Final = 1.0

log = logging.getLogger(__name__)


class Outbox:
    """A bounded, coalescing queue of calls and the daemon thread that makes them.

    A call that is still waiting is replaced by a newer one of the same key. When the queue is full the oldest goes.
    What a call raises is logged, and otherwise swallowed. Made for one process: after a fork it starts empty.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._reset()
        atexit.register(self.flush, EXIT_WAIT_SEC)

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._calls: OrderedDict[Hashable, Callable[[], None]] = OrderedDict()
        self._changed = threading.Condition()
        self._working = False
        self._thread: threading.Thread | None = None

    def post(self, key: Hashable, call: Callable[[], None]) -> None:
        """Have call made soon; returns at once."""
        if self._pid != os.getpid():
            self._reset()
        with self._changed:
            self._calls.pop(key, None)
            self._calls[key] = call
            while len(self._calls) > LENGTH_MAX:
                self._calls.popitem(last=False)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def flush(self, timeout_sec: float) -> bool:
        """Wait until everything has been tried, at most timeout_sec; return whether it has."""
        if self._pid != os.getpid():
            return True
        with self._changed:
            return self._changed.wait_for(lambda: not self._calls and not self._working, timeout_sec)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._working = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: bool(self._calls))
                _key, call = self._calls.popitem(last=False)
                self._working = True
            try:
                call()
            except Exception as error:  # noqa: BLE001  the edge: what is sent here may be lost, by design
                log.warning("%s: %s: %s", self._name, type(error).__name__, error)
