"""What a process that stays does with its interpreter once it has loaded what it needs."""

from __future__ import annotations

import gc
import sys
from typing import Final

SWITCH_SEC: Final = 0.0005
"""A thread that computes lets another, which a key press, a notice or a doorbell waits for, go first this soon."""
ALLOCATIONS: Final = 20_000
"""New objects between two looks for cycles; a request makes thousands, and nearly all of them go by themselves."""


def settle() -> None:
    """Look for cycles seldom, and never among what was loaded at the start; change threads often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(ALLOCATIONS, 20, 20)
    sys.setswitchinterval(SWITCH_SEC)
