"""Images of several layers, each known by its digest: what is there already is shared, and not fetched or made again.

What is new lies in one directory of ``store.making`` until all of it is complete and on the disk. Then the layers are
renamed into place and the image's record is written, under the layers lock: a crash before that leaves litter only.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from .. import cgroups
from ..archives import formats, rules, unpacking
from ..archives.unpacking import BadArchive
from ..errors import SetupFailed
from ..failpoints import failpoint
from ..hoststore import store
from ..kernel import files
from ..rules import policy_file
from ..sentences import say
from .base import BuiltImage, Order, record

ATTEMPTS: Final = 3
SPARE_BYTES: Final = 256 << 20
"""What an import leaves free on the disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What a maker has made. defaults: of the image's containers. details: what is shown of it."""

    defaults: dict[str, Any]
    details: dict[str, Any]


Maker = Callable[["Bench"], Made]


class _Vanished(Exception):
    """A layer that was there already was removed meanwhile: its last user has gone."""


@dataclass(slots=True)
class Bench:
    """Where an image is put together. directory: of store.making. stack: the layers so far, bottom first, by id."""

    order: Order
    directory: Path
    limits: rules.Limits
    stack: list[str] = field(default_factory=list)
    new: dict[str, Path] = field(default_factory=dict)
    _known: dict[str, str] | None = None

    def rootfs(self, layer: str) -> Path:
        """Return the tree of a layer of the stack."""
        return (self.new[layer] if layer in self.new else self.order.host.layers_dir / layer) / "rootfs"

    def share(self, *keys: str) -> str | None:
        """Put a layer that is there already on the stack; return its key, or None where there is none of the keys."""
        if self._known is None:
            self._known = known_layers(self.order)
        for key in keys:
            if key in self._known:
                self.stack.append(self._known[key])
                return key
        return None

    def begin(self) -> tuple[str, Path]:
        """Return a new layer's id and its empty tree (0755, root), not on the stack yet."""
        layer = store.new_layer_id()
        path = self.directory / "layers" / layer
        (path / "rootfs").mkdir(parents=True, mode=0o755)
        (path / "rootfs").chmod(0o755)  # whatever the umask is
        self.new[layer] = path
        return layer, path / "rootfs"

    def finish(self, layer: str, *, kind: str, key: str = "", **more: Any) -> None:
        """Put a layer that is complete on the stack. key: what it is known by; "" for what nobody else can have."""
        path = self.new[layer]
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        about = {"made_for": self.order.name, "kind": kind, "created_at": now, "key": key, **more}
        about["size_bytes"] = files.disk_bytes(path / "rootfs")
        files.write_json(path / "layer.json", about, sync=False)
        self.stack.append(layer)
        failpoint(self.order.host.state_dir, "image.layer")

    def unpack(
        self, archive: Path, rootfs: Path, *, layer: bool, tell: Callable[[float, int], None], named: str = "source"
    ) -> unpacking.Unpacked:
        """Unpack a file of root's own into a tree; tells the log what was left out. Raises as unpacking.unpack does."""
        found = formats.detect(head := head_of(archive))
        if found is None:
            other = formats.name_of(head)
            ours = ", ".join(one.name for one in formats.FORMATS)
            what = (
                say("This is a %(kind)s file; use one of: %(ours)s.", kind=other, ours=ours)
                if other
                else say("This is no archive; use one of: %(ours)s.", ours=ours)
            )
            raise BadArchive(
                what,
                field=named,
                entry="",
                limit="",
            )
        told = unpacking.unpack(
            archive,
            found,
            rootfs,
            groups=cgroups.open(self.order.host),
            layer=layer,
            limits=self.limits,
            tell=tell,
            check_cancelled=self.order.check_cancelled,
            named=named,
        )
        for kind, count in sorted(told.left_out.items()):
            self.order.log(f"Left out: {count} {_LEFT_OUT.get(kind, kind)}")
        return told


_LEFT_OUT: Final = {
    "devices": "device nodes, which the runtime makes itself",
    "xattrs": "extended attributes that an image may not have",
}


def head_of(path: Path) -> bytes:
    """Return the first bytes of a file, for formats.detect()."""
    with open(path, "rb") as file:
        return file.read(formats.HEAD_BYTES)


def known_layers(order: Order) -> dict[str, str]:
    """Return the layers on this host that have a key, by it."""
    found = {}
    for layer in store.layer_ids(order.host):
        about = about_layer(order.host.layers_dir / layer)
        if about.get("key"):
            found[str(about["key"])] = layer
    return found


def about_layer(directory: Path) -> dict[str, Any]:
    """Return what is written of a layer; nothing where it is gone, or was made by something that wrote nothing."""
    try:
        about: dict[str, Any] = files.read_json(directory / "layer.json")
    except (FileNotFoundError, SetupFailed):
        return {}
    return about


def make(order: Order, maker: Maker) -> BuiltImage:
    """Run a maker and record what it made; one that fails or is cancelled leaves nothing.

    The commit point is the image's file. Where a shared layer was removed meanwhile, it is made anew.
    """
    host = order.host
    store.prepare(host)
    rules_of_host = policy_file.load(host)
    with store.lock(host, "image", order.name, wait_sec=0):
        for attempt in range(1, ATTEMPTS + 1):
            with store.making(host) as directory:
                allowed = rules_of_host.images.max_bytes
                bench = Bench(order, directory, _limits(directory, allowed))
                with unpacking.within_room(bench.limits, allowed, directory):
                    made = maker(bench)
                order.check_cancelled()
                order.progress(98, "Storing")
                try:
                    built = _commit(bench, made)
                except _Vanished:
                    if attempt == ATTEMPTS:
                        raise SetupFailed("A layer was removed while it was to be shared.", step="image") from None
                    continue
            order.progress(100, "Ready")
            return built
    raise AssertionError("unreachable")


def _limits(directory: Path, most_bytes: int) -> rules.Limits:
    """Return how much may be unpacked: what the policy says, and no more than there is room for."""
    found = os.statvfs(directory)
    room = found.f_bavail * found.f_frsize - SPARE_BYTES
    return rules.Limits(bytes=max(1 << 20, min(most_bytes, room)))


def _commit(bench: Bench, made: Made) -> BuiltImage:
    host = bench.order.host
    files.sync_tree(bench.directory)
    failpoint(host.state_dir, "image.built")
    with store.lock(host, "layers", shared=True):
        shared = [layer for layer in bench.stack if layer not in bench.new]
        if not all((host.layers_dir / layer).is_dir() for layer in shared):
            raise _Vanished
        for layer, path in bench.new.items():
            if layer in bench.stack:
                os.rename(path, host.layers_dir / layer)
                failpoint(host.state_dir, "image.renamed")
        files.sync_dir(host.layers_dir)
        failpoint(host.state_dir, "image.published")
        sizes = [about_layer(host.layers_dir / layer).get("size_bytes", 0) for layer in bench.stack]
        built = BuiltImage(
            layers=tuple(bench.stack), size_bytes=sum(sizes), defaults=made.defaults, details=made.details
        )
        store.save_image(host, record(bench.order, built))
    failpoint(host.state_dir, "image.committed")
    return built
