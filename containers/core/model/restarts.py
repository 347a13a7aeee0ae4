"""When a restart policy wants a container to run again, and after how long. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

BACK_OFF_MAX_SEC: Final = 300.0
FAILURES: Final = ("signal", "oom", "reboot", "supervisor-lost")
"""reboot: it was to boot again from inside, and that failed; one that does has not ended."""
EXPLICIT: Final = ("stopped", "killed")
GIVEN_UP: Final = "given_up"
"""Set in the record of an end after which somebody said: leave it stopped."""


def wanted(policy: str, last_exit: Mapping[str, Any] | None, count: int) -> bool:
    """Whether the policy wants a stopped container to run again.

    last_exit: how its last run ended. count: how often the policy has started it in a row.
    """
    last = last_exit or {}
    reason = last.get("reason")
    if policy == "no" or reason in EXPLICIT or reason is None or last.get(GIVEN_UP):
        return False
    if reason == "start-failed":
        # a person's start that failed is his to repeat; the policy's own is tried again
        return count > 0
    if policy == "always":
        return True
    return reason in FAILURES or (reason == "exit" and last.get("exit_code") != 0)


def back_off_sec(count: int) -> float:
    """Return how long to wait before the next start, after count starts in a row."""
    return min(float(2 ** min(count, 16)), BACK_OFF_MAX_SEC)
