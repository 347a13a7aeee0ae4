"""The supervisor's event loop: readiness, deadlines, and nothing else. One thread, standard library only."""

from __future__ import annotations

import contextlib
import heapq
import select
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
    """Calls back when a descriptor is ready or a time has come. Descriptors stay their owner's to close.

    By hand, and not by the selectors module: that would be a tenth of a megabyte more that each supervisor touches.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watched: dict[int, tuple[Callback | None, Callback | None]] = {}
        self._timers: list[Timer] = []
        self._order = 0
        self._running = False

    @property
    def watching(self) -> bool:
        """Whether any descriptor is watched."""
        return bool(self._watched)

    def watch(self, fd: int, *, read: Callback | None = None, write: Callback | None = None) -> None:
        """Set what is called when fd is readable and when it is writable; both None forgets fd."""
        events = (select.EPOLLIN if read else 0) | (select.EPOLLOUT if write else 0)
        watched = self._watched
        if not events:
            if watched.pop(fd, None) is not None:
                with contextlib.suppress(OSError):  # closed already, which it should not be
                    self._epoll.unregister(fd)
        elif fd in watched:
            self._epoll.modify(fd, events)
            watched[fd] = (read, write)
        else:
            self._epoll.register(fd, events)
            watched[fd] = (read, write)

    def forget(self, fd: int) -> None:
        """Stop watching fd; call it before closing fd."""
        self.watch(fd)

    def later(self, delay_sec: float, call: Callback) -> Timer:
        """Call once after delay_sec."""
        self._order += 1
        timer = Timer(time.monotonic() + delay_sec, self._order, call)
        heapq.heappush(self._timers, timer)
        return timer

    def close(self) -> None:
        """Free what it holds; it is not used any more."""
        self._epoll.close()

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
            watched = self._watched
            for fd, ready, calls in [(fd, ready, watched.get(fd)) for fd, ready in self._epoll.poll(timeout)]:
                # a callback may have forgotten the descriptor of one that is still in this batch; an error or a hang-up
                # is told to whoever reads or writes
                read, write = calls or (None, None)
                if ready & ~select.EPOLLOUT and read and watched.get(fd) == calls:
                    read()
                if ready & ~select.EPOLLIN and write and watched.get(fd) == calls:
                    write()
            now = time.monotonic()
            while self._timers and self._timers[0].due <= now:
                call = heapq.heappop(self._timers).call
                if call is not None:
                    call()
