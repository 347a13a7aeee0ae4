"""What a kind of storage does for a container's root file system. One file per kind."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..host import Host
from ..hoststore.pools import Pool
from ..hoststore.store import Root
from ..model.spec import Spec
from .disks import Size


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


class Storage(Protocol):
    """A module of this package. The caller holds the container's lock; what is unreferenced afterwards is collected."""

    def plan(self, host: Host, spec: Spec) -> RootPlan:
        """Return what to mount as the container's root."""

    def fresh(
        self, host: Host, layers: tuple[str, ...], *, made_for: str, size: Size | None, pool: Pool | None
    ) -> Root:
        """Make an empty writable layer above layers. The caller holds the layers lock until something refers to it."""

    def seal(self, host: Host, container_id: str) -> tuple[str, ...]:
        """Turn what a stopped container wrote into a read-only layer; return the stack that is its root now."""

    def copied(
        self, host: Host, container_id: str, *, timeout_sec: float | None
    ) -> AbstractContextManager[tuple[Path, Root]]:
        """Yield a copy, in the making, of what a frozen container wrote, and the root it was made from."""

    def publish(self, host: Host, directory: Path) -> str:
        """Make a finished directory a read-only layer; return its id."""
