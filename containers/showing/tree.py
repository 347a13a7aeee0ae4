"""A container's snapshots as a tree: which descends from which, and where what is now stands."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..models import Snapshot


@dataclass
class Branch:
    """A line of the tree. snapshot None: what is now. depth: how far it stands to the right."""

    snapshot: Snapshot | None
    depth: int

    @property
    def indent(self) -> int:
        """How far a page shows it to the right."""
        return min(self.depth, 5)


def parents(snapshots: Iterable[Snapshot]) -> dict[int, str | None]:
    """Return, by the snapshots' keys, the name of the youngest one that each descends from and that is still there."""
    there = {one.name: one for one in snapshots}
    return {one.pk: _youngest(one.lineage, there, one.created_at) for one in there.values()}


def _youngest(lineage: Sequence[str], there: dict[str, Snapshot], before: dt.datetime | None) -> str | None:
    for name in reversed(lineage):
        found = there.get(name)
        # one of the same name that was taken later is another
        if found is not None and (before is None or found.created_at <= before):
            return name
    return None


def drawn(snapshots: Iterable[Snapshot], lineage: Sequence[str]) -> list[Branch]:
    """Return the tree line by line, oldest first, with a line for what is now. lineage: the container's.

    A snapshot with one child stands above it at the same depth; further children are set to the right.
    """
    there = {one.name: one for one in snapshots}
    above = parents(there.values())
    below: dict[str | None, list[Snapshot]] = {}
    for one in sorted(there.values(), key=lambda one: (one.created_at, one.pk)):
        below.setdefault(above[one.pk], []).append(one)
    now = _youngest(lineage, there, None)
    lines: list[Branch] = []
    waiting: list[tuple[Snapshot | None, int]] = []

    def push(parent: str | None, depth: int) -> None:
        # what is now comes last, as the trunk; the older branches stand to the right of it
        children: list[Snapshot | None] = [*below.get(parent, ())]
        if parent == now:
            children.append(None)
        last = len(children) - 1
        waiting.extend((child, depth + (last - place)) for place, child in reversed(list(enumerate(children))))

    push(None, 0)
    while waiting:
        snapshot, depth = waiting.pop()
        lines.append(Branch(snapshot, depth))
        if snapshot is not None:
            push(snapshot.name, depth)
    return lines
