"""The supervisor's event loop: readiness, deadlines, and nothing else. One thread, standard library only."""

from __future__ import annotations

import heapq
import itertools
import selectors
import time
from collections.abc import Callable
from dataclasses import dataclass, field

Callback = Callable[[], None]


@dataclass(order=True)
class Timer:
    """A call that waits for its time (monotonic seconds); cancel() makes it a no-op."""

    due: float
    order: int
    call: Callback | None = field(compare=False)

    def cancel(self) -> None:
        """Forget the call."""
        self.call = None


class Loop:
    """Calls back when a descriptor is ready or a time has come. Descriptors stay their owner's to close."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[Timer] = []
        self._order = itertools.count()
        self._running = False

    def watch(self, fd: int, *, read: Callback | None = None, write: Callback | None = None) -> None:
        """Set what is called when fd is readable and when it is writable; both None forgets fd."""
        events = (selectors.EVENT_READ if read else 0) | (selectors.EVENT_WRITE if write else 0)
        known = fd in self._selector.get_map()
        if not events:
            if known:
                self._selector.unregister(fd)
        elif known:
            self._selector.modify(fd, events, (read, write))
        else:
            self._selector.register(fd, events, (read, write))

    def forget(self, fd: int) -> None:
        """Stop watching fd; call it before closing fd."""
        self.watch(fd)

    def later(self, delay_sec: float, call: Callback) -> Timer:
        """Call once after delay_sec."""
        timer = Timer(time.monotonic() + delay_sec, next(self._order), call)
        heapq.heappush(self._timers, timer)
        return timer

    def close(self) -> None:
        """Free what it holds; it is not used any more."""
        self._selector.close()

    def stop(self) -> None:
        """Return from run() after the present callback."""
        self._running = False

    def run(self) -> None:
        """Serve until stop()."""
        self._running = True
        while self._running:
            while self._timers and self._timers[0].call is None:
                heapq.heappop(self._timers)
            timeout = max(0.0, self._timers[0].due - time.monotonic()) if self._timers else None
            for key, ready in self._selector.select(timeout):
                read, write = key.data
                # a callback may have forgotten the descriptor of one that is still in this batch
                if ready & selectors.EVENT_READ and read and self._current(key.fd) == key.data:
                    read()
                if ready & selectors.EVENT_WRITE and write and self._current(key.fd) == key.data:
                    write()
            now = time.monotonic()
            while self._timers and self._timers[0].due <= now:
                call = heapq.heappop(self._timers).call
                if call is not None:
                    call()

    def _current(self, fd: int) -> tuple[Callback | None, Callback | None] | None:
        key = self._selector.get_map().get(fd)
        return key.data if key else None
