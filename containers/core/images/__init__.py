"""Root file systems that containers are made from, and the ways of making them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from ..errors import SpecError
from ..host import Host
from ..sentences import say
from . import busybox, debootstrap, given, layered, registry, simplestreams
from .base import Builder, BuiltImage, Log, Order, Progress, make

BUILDERS: Final[dict[str, Builder]] = {"busybox": busybox.build, "debootstrap": debootstrap.build}
"""Those that fill one tree, by the source's type."""
MAKERS: Final[dict[str, layered.Maker]] = {
    "file": given.from_file,
    "oci": registry.from_registry,
    "simplestreams": simplestreams.from_server,
    "upload": given.from_file,
    "url": given.from_url,
}
"""Those that bring layers of somebody else's, by the source's type."""


def build(
    host: Host,
    name: str,
    source: dict[str, Any],
    *,
    progress: Progress = lambda _pct, _message: None,
    log: Log = lambda _line: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> BuiltImage:
    """Make an image as its source says, record it in the store and return it; an older one of that name is replaced.

    source: as in the API, ``{"type": "busybox"}`` or
    ``{"type": "debootstrap", "suite", "variant"?, "init"?, "packages"?, "mirror"?}``,
    ``{"type": "oci", "reference", "project"?}``,
    ``{"type": "simplestreams", "server", "alias", "architecture"?}``,
    ``{"type": "url", "url", "sha256"?}``, ``{"type": "upload", "upload", "metadata"?, "sha256"?}`` or
    ``{"type": "file", "directory", "path", "metadata"?, "sha256"?}``.
    progress: told percentages and what is done. log: told lines of output. cancelled: asked at least twice a second.
    Raises SpecError naming the field, Busy while the same image is being made, Cancelled, SetupFailed with the step
    and the last lines, StorageFull; in all of these nothing is left.
    """
    kind = source.get("type", "")
    order = Order(host=host, name=name, source=source, progress=progress, log=log, cancelled=cancelled)
    if kind in MAKERS:
        return layered.make(order, MAKERS[kind])
    if kind not in BUILDERS:
        raise SpecError(
            say("An image can be made by: %(names)s.", names=", ".join((*BUILDERS, *MAKERS))), field="source.type"
        )
    return make(order, BUILDERS[kind])
