"""What a pool's driver does for the layers that lie in it: the whole of what differs between one kind and another.

A layer is a directory with ``rootfs``, and while it is a container's own also ``work``; overlay joins layers, of
whatever pools. A driver makes such directories, copies them and removes them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol


class Driver(Protocol):
    """A module of this package. All that it is given lies in a pool, in directories that only root may enter."""

    AT_ONCE: bool
    """Whether copies of a layer are made at once, however large it is."""

    WHOLE: bool
    """Whether all that a container there is made of has to lie there, too."""

    def problem(self, directory: Path) -> str:
        """Try it in a directory; return why it does not work there in a sentence, "" where it does."""

    def make(self, path: Path) -> None:
        """Make an empty directory (0700) for a layer. Raises OSError, StorageFull."""

    def copy(self, source: Path, path: Path) -> bool:
        """Make path a copy of a layer's directory that nobody writes to, at once whatever it holds.

        Returns False, having made nothing, where that takes a walk over everything. Raises OSError, StorageFull.
        """

    def remove(self, path: Path) -> bool:
        """Remove a layer's directory at once; returns False where that takes a walk over everything."""
