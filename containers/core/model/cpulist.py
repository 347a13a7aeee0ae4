"""Lists of CPUs as the kernel writes them: "0-3,8". Pure. Source: cpuset(7), "List format"."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

CPUS_MAX: Final = 8192
"""The most that a kernel is built for (CONFIG_NR_CPUS)."""
_PART: Final = re.compile(r"([0-9]{1,4})(?:-([0-9]{1,4}))?", re.ASCII)


def parse(text: str) -> frozenset[int]:
    """Return the CPUs of a list; of "" none. Raises ValueError for what is no list."""
    found: set[int] = set()
    for part in text.strip().split(",") if text.strip() else ():
        match = _PART.fullmatch(part.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last or last >= CPUS_MAX:
            raise ValueError(f"{part!r} is no CPU, and no range of CPUs")
        found.update(range(first, last + 1))
    return frozenset(found)


def write(cpus: Collection[int]) -> str:
    """Return the list of these CPUs, as short as it can be."""
    parts: list[list[int]] = []
    for number in sorted(cpus):
        if parts and parts[-1][1] == number - 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(f"{first}-{last}" if last > first else str(first) for first, last in parts)
