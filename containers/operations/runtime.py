"""What the handlers ask of the host: the one seam between operations and the runtime."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..core.hoststore.points import Kind
from ..core.model.deleted import Entry
from ..core.model.network_config import NetworkConfig
from ..core.model.spec import Limits, Spec
from ..core.model.states import Status

Progress = Callable[[int, str], None]
Log = Callable[[str], None]
Cancelled = Callable[[], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What the kernel and the store say of one container, now. last_exit: as in the API."""

    status: Status
    reason: str = ""
    init_pid: int | None = None
    started_at: dt.datetime | None = None
    last_exit: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A snapshot that is there now. layers: bottom first."""

    layers: tuple[str, ...]
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What a snapshot is to be. kind: why it is taken; expires_at: ISO 8601, or empty for never."""

    name: str
    note: str = ""
    kind: Kind = "manual"
    pinned: bool = False
    expires_at: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """An image that is there now. defaults: init_command, halt_signal, environment, where it has them.

    details: what is shown of it.
    """

    layers: tuple[str, ...]
    size_bytes: int
    defaults: dict[str, Any]
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What of a container a clone is made from: a snapshot, or layers that a clone before has; None: what is now.

    full: everything is copied, and nothing shared.
    """

    snapshot: str | None = None
    layers: tuple[str, ...] | None = None
    full: bool = False


class Runtime(Protocol):
    """One host. Every call raises CoreError or OSError; every change made twice is made once."""

    def observe(self, container_ids: Iterable[str] | None = None) -> dict[str, Observed]:
        """Return what is there, by id: everything, or those of these that are there."""
        ...

    def stored(self) -> dict[str, Spec]:
        """Return the specs in the store, by id."""
        ...

    def check_policy(self, spec: Spec) -> None:
        """Raise PolicyDenied where the host's policy forbids the spec."""
        ...

    def best_pool(self, project: str) -> str:
        """Return the name of the storage pool that suits a new container of a project best."""
        ...

    def create(self, spec: Spec, progress: Progress) -> Spec:
        """Make the container on disk, and let the network know it; return its spec as stored."""
        ...

    def save(self, spec: Spec) -> None:
        """Replace the spec in the store, and what the network knows of it."""
        ...

    def delete(self, container_id: str, thrown: Entry | None = None) -> None:
        """Remove a stopped container and everything that leads back to it; nothing there is fine.

        thrown: what it is in the trash, where it is to be had back for some days.
        """
        ...

    def basket(self) -> dict[str, Entry]:
        """Return what is in the trash, by id."""
        ...

    def take_back(self, entry: Entry, spec: Spec | None, name: str) -> None:
        """Put something from the trash back: a container with this spec, a snapshot by this name, an image."""
        ...

    def purge(self, entry_id: str) -> None:
        """Remove something from the trash for good; nothing there is fine."""
        ...

    def start(self, spec: Spec, progress: Progress, cancelled: Cancelled, stdio: str = "") -> None:
        """Start a stopped container; SetupFailed says which step failed, and nothing is left running then.

        stdio: by which name somebody on the host waits for an application's standard streams; "" for nobody.
        """
        ...

    def stop(self, container_id: str, *, timeout_sec: float, force: bool, kill: bool) -> None:
        """Stop, thawing first; TimedOut where it does not end in time and kill is false."""
        ...

    def reboot(self, container_id: str, *, timeout_sec: float) -> None:
        """Have a running container's init boot again; TimedOut where it does not in time."""
        ...

    def freeze(self, container_id: str) -> None:
        """Freeze all processes of a running container."""
        ...

    def thaw(self, container_id: str) -> None:
        """Let a frozen container go on."""
        ...

    def apply_limits(self, container_id: str, limits: Limits) -> None:
        """Change the limits of a running container; InUse where it needs more than that."""
        ...

    def resize(self, container_id: str, limits: Limits, before: Limits) -> None:
        """Hold what a container writes to another size; InvalidTransition where it has to be stopped for it."""
        ...

    def attach(self, spec: Spec, before: Spec) -> None:
        """Change what a running container has of the host's directories and devices; one that is stopped stays so."""
        ...

    def change_nics(self, spec: Spec, before: Spec) -> None:
        """Change which network interfaces a running container has, and how; one that is stopped stays so."""
        ...

    def snapshot(self, container_id: str, kept: Kept) -> Taken:
        """Keep the container's present state; one of that name that is there already is returned."""
        ...

    def keep_configuration(self, container_id: str, kept: Kept) -> None:
        """Make a safety point of the configuration alone; one of that name that is there already is kept."""
        ...

    def change_snapshot(self, container_id: str, name: str, kept: Kept) -> None:
        """Give a snapshot the name, the note, the pin and the expiry of kept; done already is done."""
        ...

    def remove_snapshot(self, container_id: str, name: str, thrown: Entry | None = None) -> None:
        """Forget a snapshot; nothing there is fine. thrown: as for delete."""
        ...

    def restore(self, container_id: str, name: str, *, spec: Spec | None, safety: Kept) -> Spec:
        """Take a stopped container back to a snapshot; return its spec, with other layers.

        spec: what it is to be from then on, where its configuration comes back too. safety: a snapshot of what is now,
        made before; one of that name is kept.
        """
        ...

    def put_back(
        self, container_id: str, name: str, paths: Sequence[str], *, exact: bool, tell: Callable[[int, int], None]
    ) -> dict[str, Any]:
        """Put files and directories of a snapshot back; return how many, as core.lifecycle.filing tells it.

        paths: as calls carry them. tell: called with the entries and bytes so far.
        """
        ...

    def clone(self, source_id: str, spec: Spec, origin: Origin, progress: Progress) -> Spec:
        """Make a container of another's present state, or of a snapshot of it; return its spec, with its layers."""
        ...

    def import_lxc(self, spec: Spec, progress: Progress, cancelled: Cancelled, commit: Callable[[], None]) -> Spec:
        """Make the container of one of LXC's, as root ordered on the host; return its spec, with its layer.

        commit: called when the copy is there and nothing refers to it yet; what it raises ends the import.
        """
        ...

    def take_in(self, spec: Spec, make: Callable[[], Spec]) -> None:
        """Make a container by make(), which returns its spec, and let the network know it.

        Raises PolicyDenied where the host's policy, or a ceiling of the project, forbids the spec.
        """
        ...

    def end_import(self, container_id: str) -> str:
        """Remove LXC's container if it was to be moved; return what could not be removed. Twice is once."""
        ...

    def build_image(
        self, name: str, source: dict[str, Any], progress: Progress, log: Log, cancelled: Cancelled
    ) -> Built:
        """Make an image, from the beginning; nothing is left where it fails or is cancelled (Cancelled)."""
        ...

    def catalogue(self, server: str, progress: Progress, cancelled: Cancelled) -> list[dict[str, Any]]:
        """Return what an image server offers for this host: alias, os, release, variant, architecture, ..."""
        ...

    def images(self) -> dict[str, Built]:
        """Return the images in the store, by name."""
        ...

    def remove_image(self, name: str, thrown: Entry | None = None) -> None:
        """Forget an image; nothing there is fine. thrown: as for delete."""
        ...

    def choose_subnets(self, taken: Sequence[str], seed: str) -> tuple[str, str]:
        """Return gateways of a free IPv4 and a free IPv6 subnet."""
        ...

    def ensure_network(self, config: NetworkConfig, configs: Sequence[NetworkConfig]) -> None:
        """Make one network; configs: all that there are, this one too."""
        ...

    def change_network(self, old: NetworkConfig, new: NetworkConfig, configs: Sequence[NetworkConfig]) -> None:
        """Make one network another, as it runs; configs: all that there will be. Nothing to change is fine."""
        ...

    def remove_network(self, config: NetworkConfig, configs: Sequence[NetworkConfig]) -> None:
        """Take a network away; configs: those that stay."""
        ...

    def ensure_networks(self, configs: Sequence[NetworkConfig]) -> None:
        """Make the host have these networks, and no other of this instance."""
        ...

    def bridges_there(self, spec: Spec) -> bool:
        """Whether the host has every bridge that this container's NICs are to be on."""
        ...

    def sweep(self) -> list[str]:
        """Clear away what killed supervisors left; return the ids of their containers."""
        ...

    def snapshots(self, container_id: str) -> dict[str, dict[str, Any]]:
        """Return the store's snapshots of a container by name: layers, note, created_at, size_bytes, spec."""
        ...

    def lineage(self, container_id: str) -> tuple[str, ...]:
        """Return the snapshots that a container descends from, oldest first; raises NotFound."""
        ...

    def register(self, spec: Spec) -> None:
        """Let the network know a container; twice is once."""
        ...

    def tidy(self) -> list[str]:
        """Remove what leads back to no container and is of no use to anybody; say what it was."""
        ...

    def facts(self) -> dict[str, Any]:
        """Return what limits and policy are checked against: memory_bytes, cpus, pids, disk_limits, disk_growth,
        policy."""
        ...
