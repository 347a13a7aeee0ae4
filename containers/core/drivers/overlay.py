"""Plain directories on any file system that overlay can write to; data is shared where it has reflinks."""

from __future__ import annotations

from pathlib import Path

AT_ONCE = False
WHOLE = False


def problem(_directory: Path) -> str:
    """Return nothing: all that it takes is overlay, which every pool is tried for."""
    return ""


def make(path: Path) -> None:
    """Make a directory."""
    path.mkdir(mode=0o700)


def copy(_source: Path, _path: Path) -> bool:
    """Copy nothing: it takes a walk."""
    return False


def remove(_path: Path) -> bool:
    """Remove nothing: it takes a walk."""
    return False
