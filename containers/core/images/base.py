"""What every way of making an image shares: its orders, its result, and how a finished tree becomes a layer."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ..errors import Cancelled
from ..failpoints import failpoint
from ..host import Host
from ..hoststore import store
from ..kernel import files
from ..sentences import say
from ..storage import overlay

Progress = Callable[[int, str], None]
"""Told the percentage (0..100) and what is being done."""
Log = Callable[[str], None]
"""Told each line of output, without its newline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltImage:
    """A finished image. defaults: init_command, halt_signal, environment and more, for its containers.

    details: what is shown of it and decides nothing, such as architecture, os, release, digest, ports.
    """

    layers: tuple[str, ...]
    size_bytes: int
    defaults: dict[str, Any]
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What somebody wants made, and who is told. cancelled: asked often; True ends the build, leaving nothing."""

    host: Host
    name: str
    source: dict[str, Any]
    progress: Progress
    log: Log
    cancelled: Callable[[], bool]

    def check_cancelled(self) -> None:
        """Raise Cancelled where somebody asked to stop."""
        if self.cancelled():
            raise Cancelled(say("Making the image %(name)s was cancelled.", name=self.name))


class Builder(Protocol):
    """One way of making an image."""

    def __call__(self, order: Order, rootfs: Path) -> dict[str, Any]:
        """Fill rootfs, an empty directory (0755, root), and return the defaults of its containers."""


def make(order: Order, builder: Builder) -> BuiltImage:
    """Run a builder and record what it made; a build that fails or is cancelled leaves nothing.

    The commit point is the image's file; a layer without it is litter.
    """
    host = order.host
    store.prepare(host)
    with store.lock(host, "image", order.name, wait_sec=0), store.making(host) as directory:
        rootfs = directory / "rootfs"
        rootfs.mkdir(mode=0o755)
        rootfs.chmod(0o755)  # whatever the umask is
        defaults = builder(order, rootfs)
        order.check_cancelled()
        order.progress(98, "Storing")
        overlay.describe(directory, made_for=order.name, kind="image")
        size_bytes = files.disk_bytes(rootfs)
        files.sync_tree(directory)
        failpoint(host.state_dir, "image.built")
        with store.lock(host, "layers", shared=True):
            layer = overlay.publish(host, directory)
            failpoint(host.state_dir, "image.published")
            built = BuiltImage(layers=(layer,), size_bytes=size_bytes, defaults=defaults)
            store.save_image(host, record(order, built))
        failpoint(host.state_dir, "image.committed")
    order.progress(100, "Ready")
    return built


def record(order: Order, built: BuiltImage) -> store.Image:
    """Return what the store keeps of a finished image."""
    return store.Image(
        name=order.name,
        source=order.source,
        layers=built.layers,
        size_bytes=built.size_bytes,
        defaults=built.defaults,
        details=built.details,
        built_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def put(rootfs: Path, path: str, text: str, *, mode: int = 0o644) -> None:
    """Write a file of an image that is being made, with its directories; only for trees that are not hostile."""
    target = rootfs / path.lstrip("/")
    for directory in reversed(target.relative_to(rootfs).parents):
        if not (rootfs / directory).exists():
            (rootfs / directory).mkdir()
            (rootfs / directory).chmod(0o755)  # whatever the umask is
    target.unlink(missing_ok=True)
    target.write_text(text)
    target.chmod(mode)
