"""How much disk each container's writable layer takes: measured rarely, in a process of its own, at idle priority."""

from __future__ import annotations

import logging
import subprocess
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

PERIOD_SEC: Final = 60.0
"""How often a container is measured at most."""
ASKED_PERIOD_SEC: Final = 3.0
"""How often one is measured at most that somebody asks for."""
ASKED_SEC: Final = 15.0
"""For how long an answer keeps it among those."""
FIRST_SEC: Final = 0.5
SHARE: Final = 50
"""Pause this many times as long as a measurement took: 2 % of one core's time at most."""
PAUSE_SEC: Final = 1.0
"""The least pause: with hundreds of containers each is measured every few minutes."""
TIMEOUT_SEC: Final = 600.0


def measure(path: Path) -> int | None:
    """Return the bytes of disk that the files below path take; None where it is gone or takes too long.

    du walks by directory descriptors and follows no symlink, so that the container, which may change the tree
    meanwhile, cannot lead it elsewhere. What vanishes under way is only a warning of du's.
    """
    command = ["nice", "-n", "19", "du", "--summarize", "--one-file-system", "--block-size=1", "--", str(path)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=TIMEOUT_SEC, check=False, cwd="/")
    except (OSError, subprocess.TimeoutExpired):
        return None
    number = done.stdout.split(b"\t", 1)[0]
    return int(number) if number.isdigit() else None


class DiskMeter(threading.Thread):
    """Measures one directory after the other. names: the present containers' ids. place: one's directory, if any."""

    def __init__(self, names: Callable[[], Collection[str]], place: Callable[[str], Path | None]) -> None:
        super().__init__(name="disk-meter", daemon=True)
        self._names = names
        self._place = place
        self._used: dict[str, int] = {}
        self._measured_at: dict[str, float] = {}
        self._asked_at: dict[str, float] = {}
        self._measured = threading.Condition()
        self._wake = threading.Event()
        self._stop_requested = threading.Event()

    def used_bytes(self, container_id: str) -> int | None:
        """Return what was last measured, or None."""
        return self._used.get(container_id)

    def all_used(self) -> dict[str, int]:
        """Return what was last measured of each; for any thread."""
        return self._used.copy()

    def asked_for(self, container_id: str) -> None:
        """Measure this one more often for a while: somebody looks at it. For any thread.

        Where it was not measured yet, its first figure is waited for, FIRST_SEC at most.
        """
        self._asked_at[container_id] = time.monotonic()
        if container_id not in self._used:
            self._wake.set()
            with self._measured:
                self._measured.wait_for(lambda: container_id in self._used, FIRST_SEC)

    def stop(self) -> None:
        """Ask the thread to end; a measurement under way is not waited for."""
        self._stop_requested.set()
        self._wake.set()

    def run(self) -> None:
        """Measure until stop(): those never measured first, then the oldest figure."""
        pause = 1.0
        while not self._stop_requested.is_set():
            self._wake.wait(pause)
            self._wake.clear()
            if self._stop_requested.is_set():
                break
            try:
                pause = self._next()
            except OSError:
                log.exception("measuring the disk failed")
                pause = PERIOD_SEC

    def _next(self) -> float:
        """Measure the container whose turn it is; returns for how long to pause."""
        names = self._names()
        for gone in self._measured_at.keys() - set(names):
            del self._measured_at[gone]
            self._used.pop(gone, None)
        now = time.monotonic()
        for name, at in tuple(self._asked_at.items()):
            if now - at > ASKED_SEC:
                self._asked_at.pop(name, None)
        due = min(names, key=self._due_at, default=None)
        if due is None or self._due_at(due) > now:
            return 1.0
        place = self._place(due)
        used = measure(place) if place else None
        self._measured_at[due] = time.monotonic()
        if used is not None:
            with self._measured:
                self._used[due] = used
                self._measured.notify_all()
        return min(60.0, max(PAUSE_SEC, (time.monotonic() - now) * SHARE))

    def _due_at(self, name: str) -> float:
        """Return when a container is to be measured again (monotonic)."""
        period = ASKED_PERIOD_SEC if name in self._asked_at else PERIOD_SEC
        return self._measured_at.get(name, float("-inf")) + period
