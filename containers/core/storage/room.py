"""How much room a file system has, and of which kind it is."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """A file system as df shows it to root. kind: such as ext4, "" where it is not known; inodes: None: as needed."""

    kind: str
    total_bytes: int
    used_bytes: int
    free_bytes: int
    inodes: int | None
    inodes_free: int | None


def of(path: Path) -> Room:
    """Return the room of the file system that holds a directory."""
    found = os.statvfs(path)
    return Room(
        kind=_kind(path),
        total_bytes=found.f_blocks * found.f_frsize,
        used_bytes=(found.f_blocks - found.f_bfree) * found.f_frsize,
        free_bytes=found.f_bavail * found.f_frsize,
        inodes=found.f_files or None,
        inodes_free=found.f_favail if found.f_files else None,
    )


def _kind(path: Path) -> str:
    """Return the type of the file system as the last mount says that is nearest above path (proc(5), mountinfo)."""
    place, best, kind = f"{path.resolve()}/", "", ""
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        before, _, after = line.partition(" - ")
        point = before.split()[4].encode("utf-8", "surrogateescape").decode("unicode_escape").rstrip("/") + "/"
        if place.startswith(point) and len(point) >= len(best):
            best, kind = point, after.split()[0]
    return kind
