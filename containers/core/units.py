"""Sizes, shares and times as people write and read them."""

from __future__ import annotations

_STEPS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def format_bytes(count: float) -> str:
    """Return a size in binary units with at most one decimal: ``512 MiB``, ``1.5 GiB``."""
    value = float(count)
    for step in _STEPS:
        if abs(value) < 1024 or step == _STEPS[-1]:
            text = f"{value:.1f}".removesuffix(".0") if step != "B" else str(int(value))
            return f"{text} {step}"
        value /= 1024
    raise AssertionError("unreachable")
