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
        self._stop_requested = threading.Event()

    def used_bytes(self, container_id: str) -> int | None:
        """Return what was last measured, or None."""
        return self._used.get(container_id)

    def stop(self) -> None:
        """Ask the thread to end; a measurement under way is not waited for."""
        self._stop_requested.set()

    def run(self) -> None:
        """Measure until stop(): those never measured first, then the oldest figure."""
        pause = 1.0
        while not self._stop_requested.wait(pause):
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
        due = min(names, key=lambda name: self._measured_at.get(name, float("-inf")), default=None)
        if due is None or now - self._measured_at.get(due, float("-inf")) < PERIOD_SEC:
            return 1.0
        place = self._place(due)
        used = measure(place) if place else None
        self._measured_at[due] = time.monotonic()
        if used is not None:
            self._used[due] = used
        return min(60.0, max(PAUSE_SEC, (time.monotonic() - now) * SHARE))
