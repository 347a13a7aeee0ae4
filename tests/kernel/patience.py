"""Time in tests: BOXROOM_TEST_SLOW says by how much this machine is slower than one made of hardware."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final

import pytest

SLOW: Final = float(os.environ.get("BOXROOM_TEST_SLOW", "1"))
"""Software emulation is 10 to 20 times slower; deadlines are stretched by this, what must not be early is not."""


def patient(seconds: float) -> float:
    """Return how long to wait on this machine for what takes up to that many seconds on an ordinary one."""
    return seconds * SLOW


def wait_until(condition: Callable[[], object], timeout_sec: float = 60.0, what: str = "") -> None:
    """Wait for a condition to hold; fails the test where it does not in time.

    timeout_sec is for what never comes: who waits here may stand still for seconds, and so may all that it waits for.
    """
    deadline = time.monotonic() + patient(timeout_sec)
    late = False
    while not condition():
        if late:
            pytest.fail(f"not within {patient(timeout_sec)} s: {what or condition}")
        # the last look comes after the deadline, and not before a pause that went beyond it
        late = time.monotonic() > deadline
        time.sleep(0.01)
