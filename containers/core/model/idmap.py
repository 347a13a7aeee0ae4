"""Which ids of a container are which ids of the host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ..host import IDS_PER_CONTAINER

ID_MAX: Final = 2**32 - 2
"""The highest id; 2^32 - 1 means "no id" to the kernel."""
IDS_MAX: Final = 2**24
"""How many ids a container may have."""
UNUSED_BASE: Final = 2**31 - IDS_MAX
"""The first of as many of the host's ids, which systemd leaves to nobody: in the last block below 2^31. What owns
nothing has them for a while, to read or write owners in a user namespace. Source: systemd, docs/UIDS-GIDS.md."""


@dataclass(frozen=True, slots=True)
class IdMap:
    """One range: container_id .. container_id + size - 1 inside is host_id .. host_id + size - 1 outside."""

    container_id: int
    host_id: int
    size: int

    def __post_init__(self) -> None:
        """Raise ValueError for a range that is empty, or that leaves the 32-bit ids."""
        if self.size < 1 or min(self.container_id, self.host_id) < 0:
            raise ValueError(f"not a range of ids: {self}")
        if max(self.container_id, self.host_id) + self.size - 1 > ID_MAX:
            raise ValueError(f"ids end at {ID_MAX}: {self}")

    def line(self) -> str:
        """Return the line for /proc/PID/uid_map and gid_map (user_namespaces(7))."""
        return f"{self.container_id} {self.host_id} {self.size}\n"

    def to_host(self, container_id: int) -> int | None:
        """Return the host's id, or None where the map has none."""
        offset = container_id - self.container_id
        return self.host_id + offset if 0 <= offset < self.size else None

    def overlaps(self, other: IdMap) -> bool:
        """Tell whether the two share an id on the host."""
        return self.host_id < other.host_id + other.size and other.host_id < self.host_id + self.size


def unused(count: int = IDS_MAX) -> IdMap:
    """Return the map of so many ids to ones that nobody has on the host."""
    return IdMap(0, UNUSED_BASE, count)


def for_container(id_base: int) -> IdMap:
    """Return the map of a container whose own range begins at id_base: 0..65535 inside.

    id_base: positive; a container never holds the host's root. Raises ValueError.
    """
    if id_base < 1:
        raise ValueError("a container's range never begins at the host's root")
    return IdMap(0, id_base, IDS_PER_CONTAINER)
