"""In what two configurations differ, field by field. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Difference:
    """field: dotted, such as limits.memory_bytes. before, after: JSON values; None where it is not set."""

    field: str
    before: Any
    after: Any


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Difference]:
    """Return the fields that are not alike, by name; objects are compared by their own fields."""
    found: list[Difference] = []
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += [Difference(f"{name}.{one.field}", one.before, one.after) for one in differences(old, new)]
        elif old != new:
            found.append(Difference(name, old, new))
    return found
