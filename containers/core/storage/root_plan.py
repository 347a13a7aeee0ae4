"""What is mounted as the root directory of a container."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RootPlan:
    """The directories of a container's root, absolute; owners unshifted (0..65535), to be mounted idmapped.

    lowers: read-only trees, top first, as overlay wants them. writable: the directory that holds upper and work, both
    of which have to be reached through one and the same mount. disk: the file whose file system is to be mounted as
    that directory first, "" where it is there as it stands.
    """

    lowers: tuple[str, ...]
    writable: str
    upper: str
    work: str
    disk: str = ""

    def describe(self) -> str:
        """Return the plan in one line."""
        return f"overlay: {len(self.lowers)} read-only layers below {self.upper}"
