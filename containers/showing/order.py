"""In which order containers are listed: by name as people count (c2 before c10), and what the columns sort by."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from django.db.models import QuerySet

_DIGITS: Final = re.compile(r"(\d+)")


@dataclass(frozen=True)
class Column:
    """What a column of the list is sorted by. downwards: the largest first where one first asks for it; inverse: what
    is shown falls as the field rises, as an age does with the time of creation."""

    field: str
    downwards: bool = False
    inverse: bool = False


COLUMNS: Final = {
    "name": Column("name"),
    "status": Column("status"),
    "image": Column("image_name"),
    "created": Column("created_at", downwards=True, inverse=True),
    "snapshots": Column("snapshot_count", downwards=True),
}
SORTS: Final = frozenset(f"{sign}{key}" for key in COLUMNS for sign in ("", "-"))
"""What may be asked for; with a dash it is turned round."""


def natural(name: str) -> list[Any]:
    """Return what sorts names by their words, and by the numbers in them as numbers."""
    parts: list[Any] = _DIGITS.split(name)  # words at even places, digits at odd ones: like meets like
    parts[1::2] = map(int, parts[1::2])
    return parts


def in_order(rows: QuerySet[Any], sort: str) -> list[Any]:
    """Return the keys of the rows of `listed` in the order asked for; those alike go by name.

    All keys are read, with the name and the column: no database is asked to compare names as people do, and a
    thousand of them take a few milliseconds.
    """
    column = COLUMNS[sort.removeprefix("-")]
    turned = sort.startswith("-")
    found = sorted(rows.order_by().values_list("pk", "name", column.field), key=lambda row: natural(row[1]))
    if column.field == "name":
        return [row[0] for row in (reversed(found) if turned else found)]
    return [row[0] for row in sorted(found, key=lambda row: row[2], reverse=column.downwards != turned)]


def heads(sort: str) -> dict[str, dict[str, str]]:
    """Return of each column that sorts: `next`, what a click on it asks for, and `direction`, as aria-sort says it."""
    found = {}
    for key, column in COLUMNS.items():
        turned = sort == f"-{key}"
        falling = (column.downwards != turned) != column.inverse
        direction = "" if sort.removeprefix("-") != key else "descending" if falling else "ascending"
        found[key] = {"next": f"-{key}" if sort == key else key, "direction": direction}
    return found
