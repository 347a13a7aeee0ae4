"""What two stacks of layers do not have alike: cost grows with what the layers hold that they do not share.

A directory that neither stack's own layers touch is not looked into. Names come from the own layers only, but where
one of them hides what both stacks share below: there everything hidden is a difference, and is counted.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from .merged import DEPTH_MAX, Entry, Level, Merged, kind_of

LISTED_MAX: Final = 5000
COUNTED_MAX: Final = 500_000
_CHUNK_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Change:
    """One difference. change: added, changed, removed. kind: of what is there afterwards, or was. what: of changed.

    before_bytes, after_bytes: lengths of regular files, 0 for the others.
    """

    path: str
    change: str
    kind: str
    before_bytes: int = 0
    after_bytes: int = 0
    what: tuple[str, ...] = ()


@dataclass
class Changes:
    """The differences, the first LISTED_MAX one by one. complete: whether all were counted."""

    items: list[Change] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("added", "changed", "removed"), 0))
    sizes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("added", "changed", "removed"), 0))
    complete: bool = True

    def add(self, change: Change) -> None:
        """Count one, and list it where there is room."""
        self.counts[change.change] += 1
        self.sizes[change.change] += change.before_bytes if change.change == "removed" else change.after_bytes
        if len(self.items) < LISTED_MAX:
            self.items.append(change)

    def as_json(self) -> dict[str, Any]:
        """Return JSON values; file names that are no UTF-8 have their bytes as \\xNN."""
        items = [{**asdict(one), "path": shown(one.path), "what": list(one.what)} for one in self.items]
        total = {name: {"count": count, "size_bytes": self.sizes[name]} for name, count in self.counts.items()}
        listed = len(self.items) == sum(self.counts.values())
        return {"items": items, **total, "complete": self.complete, "all_listed": listed}


class _Full(Exception):
    """More differences than are counted."""


def shown(name: str) -> str:
    """Return a file name that can be told: what is no UTF-8 in it as \\xNN."""
    return os.fsencode(name).decode(errors="backslashreplace")


def changes(before: Sequence[int], after: Sequence[int], shared: int, path: str = "/") -> Changes:
    """Return what is to be done to one tree to have the other. shared: how many layers, from the bottom, are the same.

    path: to that alone, and to all in it; of names alone, no link is followed.

    before, after: open directories of the layers, uppermost first.
    """
    walk = _Walk(before, after, shared, path)
    with contextlib.suppress(_Full):
        walk.directory(walk.old.top, walk.new.top, "", 0)
    return walk.found


class _Walk:
    def __init__(self, before: Sequence[int], after: Sequence[int], shared: int, path: str = "/") -> None:
        self._way = [name for name in path.split("/") if name]
        self.old, self.new = Merged(before), Merged(after)
        self._own = (len(before) - shared, len(after) - shared)
        self.found = Changes()

    def directory(self, old: Level, new: Level, path: str, depth: int) -> None:
        """Compare two merged directories that are both there."""
        if depth > DEPTH_MAX:
            self.found.complete = False
            return
        for name in self._way[depth : depth + 1] or self._names(old, new):
            self._entry(old, new, name, f"{path}/{name}", depth)

    def _names(self, old: Level, new: Level) -> list[str]:
        levels = tuple(zip((old, new), self._own, strict=True))
        below = [tuple(number - own for number, _fd in level if number >= own) for level, own in levels]
        if below[0] != below[1]:
            return sorted({*self.old.names(old), *self.new.names(new)})
        own = [fd for level, count in levels for number, fd in level if number < count]
        return sorted({name for fd in own for name in os.listdir(fd)})

    def _entry(self, old: Level, new: Level, name: str, path: str, depth: int) -> None:
        was, now = self.old.look(old, name), self.new.look(new, name)
        if was is None and now is None:
            return
        if was is None or now is None or kind_of(was.status) != kind_of(now.status):
            if was is not None:
                self._whole(self.old, old, was, path, "removed", depth)
            if now is not None:
                self._whole(self.new, new, now, path, "added", depth)
            return
        try:
            what = tuple(_differ(was, now))
        except FileNotFoundError:
            return  # a running container removed it just now
        if what:
            self._tell(Change(path, "changed", kind_of(now.status), _bytes(was), _bytes(now), what))
        if now.is_directory:
            with self.old.below(old, name) as inner_old, self.new.below(new, name) as inner_new:
                self.directory(inner_old, inner_new, path, depth + 1)

    def _whole(self, tree: Merged, level: Level, entry: Entry, path: str, change: str, depth: int) -> None:
        """Tell of something that only one side has, with everything in it."""
        size = _bytes(entry)
        sizes = (size, 0) if change == "removed" else (0, size)
        self._tell(Change(path, change, kind_of(entry.status), *sizes))
        if not entry.is_directory:
            return
        if depth >= DEPTH_MAX:
            self.found.complete = False
            return
        with tree.below(level, entry.name) as inner:
            for name in self._way[depth + 1 : depth + 2] or tree.names(inner):
                child = tree.look(inner, name)
                if child is not None:
                    self._whole(tree, inner, child, f"{path}/{name}", change, depth + 1)

    def _tell(self, change: Change) -> None:
        if change.path.count("/") < len(self._way):
            return  # a directory on the way to what was asked for
        self.found.add(change)
        if sum(self.found.counts.values()) >= COUNTED_MAX:
            self.found.complete = False
            raise _Full


def _bytes(entry: Entry) -> int:
    return entry.status.st_size if entry.is_file else 0


def _differ(was: Entry, now: Entry) -> Iterator[str]:
    """Yield in what two entries of the same kind differ: content, target, device, mode, owner, attributes, times."""
    old, new = was.status, now.status
    if (old.st_dev, old.st_ino) == (new.st_dev, new.st_ino):
        return
    if now.is_file and (old.st_size != new.st_size or not _same_content(was, now)):
        yield "content"
    if stat.S_ISLNK(new.st_mode) and was.target() != now.target():
        yield "target"
    if kind_of(new) == "device" and (old.st_rdev, stat.S_IFMT(old.st_mode)) != (new.st_rdev, stat.S_IFMT(new.st_mode)):
        yield "device"
    if stat.S_IMODE(old.st_mode) != stat.S_IMODE(new.st_mode):
        yield "mode"
    if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
        yield "owner"
    if was.xattrs() != now.xattrs():
        yield "attributes"
    # a directory's changes with whatever is done in it
    if not now.is_directory and old.st_mtime_ns != new.st_mtime_ns:
        yield "times"


def _same_content(was: Entry, now: Entry) -> bool:
    with was.opened() as old_fd, now.opened() as new_fd:
        while True:
            old, new = os.read(old_fd, _CHUNK_BYTES), os.read(new_fd, _CHUNK_BYTES)
            if old != new:
                return False
            if not old:
                return True
