"""Whether the clock can be believed, before anything is removed that does not come back."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from django.utils import timezone

from ..core.kernel.pids import boot_id

STEP_SEC: Final = 60.0
DOUBT_SEC: Final = 86400.0

Clocks = Callable[[], tuple[dt.datetime, float]]
"""Gives the time, and the seconds of a clock that nobody sets."""

log = logging.getLogger(__name__)


def present() -> tuple[dt.datetime, float]:
    """Return the time, and the seconds since this host was booted."""
    return timezone.now(), time.clock_gettime(time.CLOCK_BOOTTIME)


class SteadyClock:
    """Tells whether the clock can be believed: one that was set is, after it has run on for a day.

    NTP sets by less than STEP_SEC at once. What is known is kept in a file, so that a clock which was set while the
    panel was down, or before the ticker was started anew, is not believed for that.
    """

    def __init__(self, clocks: Clocks | None = None, *, kept: Path | None = None) -> None:
        """clocks: for tests. kept: the file; what stands there counts until the host is booted again."""
        self._clocks = clocks or present
        self._kept = kept
        self._ahead_sec: float | None = None
        self._believed_at = float("-inf")
        self._recall()

    def __call__(self) -> bool:
        """Look at it; call often."""
        now, ticks = self._clocks()
        ahead_sec = now.timestamp() - ticks
        was = self._ahead_sec
        self._ahead_sec = ahead_sec
        if was is not None and abs(ahead_sec - was) > STEP_SEC:
            log.warning("the clock was set: nothing that has expired is removed for a day")
            self._believed_at = ticks + DOUBT_SEC
            self._keep()
        elif was is None or abs(ahead_sec - self._kept_sec) > STEP_SEC / 2:
            # what NTP has moved it by little by little is no step
            self._keep()
        return ticks >= self._believed_at

    def _recall(self) -> None:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            found = json.loads(self._kept.read_text()) if self._kept else {}
            if found["boot_id"] == boot_id():
                self._ahead_sec = float(found["ahead_sec"])
                self._believed_at = float(found["believed_at"])
        self._kept_sec = self._ahead_sec or 0.0

    def _keep(self) -> None:
        """Write it down, whole or not at all; a full disk costs only what a restart would have remembered."""
        self._kept_sec = self._ahead_sec or 0.0
        if self._kept is None:
            return
        found = {"boot_id": boot_id(), "ahead_sec": self._ahead_sec, "believed_at": max(self._believed_at, 0.0)}
        fresh = self._kept.with_suffix(".new")
        try:
            fresh.write_text(json.dumps(found))
            os.replace(fresh, self._kept)
        except OSError as error:
            log.warning("what the clock shows cannot be kept: %s", error)
