"""What a place is where backups lie: a directory, or a part of an object store's bucket."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from ..errors import SpecError
from . import form
from .writing import Sink


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A backup in a place. modified_at: seconds since the epoch."""

    name: str
    size_bytes: int
    modified_at: float


class Place(Protocol):
    """Somewhere that backups lie. Every call raises SetupFailed or StorageFull where it cannot be reached."""

    @property
    def name(self) -> str:
        """What it is asked for by."""

    def writing(self, file: str, *, about_bytes: int) -> AbstractContextManager[Sink]:
        """Yield what takes a new backup's bytes; it is there, whole, at the end, and not at all where that fails.

        about_bytes: what it may come to, so that it is cut into parts that are not too many.
        """

    def reading(self, file: str) -> AbstractContextManager[int]:
        """Yield a descriptor of a backup's bytes, of a file or a pipe; raises NotFound."""

    def size_bytes(self, file: str) -> int:
        """Return how long a backup is; raises NotFound."""

    def remove(self, file: str) -> None:
        """Remove a backup, and what a killed writer left of it; one that is gone is fine."""

    def listed(self) -> list[File]:
        """Return the backups that lie there, by name."""


def checked(file: str) -> str:
    """Return the name of a backup; raises SpecError for what leads elsewhere."""
    if not form.is_file_name(file):
        raise SpecError("This is not the name of a backup.", field="file")
    return file
