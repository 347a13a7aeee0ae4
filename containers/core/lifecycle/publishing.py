"""A container, or a snapshot of it, made an image: its layers are the image's, and nothing of it is copied.

What makes the container itself and no other is taken away in one more layer: keys, leases, the machine id. The commit
point is the image's file; before it a crash leaves litter only.
"""

from __future__ import annotations

import contextlib
from typing import Any

from ..failpoints import failpoint
from ..hoststore import store
from ..images import metadata, oci
from ..images.base import BuiltImage, Order, record
from ..images.layered import about_layer
from ..kernel import files
from ..model.spec import Spec
from ..storage import identity, overlay
from . import holding


def publish(order: Order, container_id: str, snapshot: str | None = None) -> BuiltImage:
    """Make an image of a container as it is now, or was at a snapshot; record it and return it.

    A running one is frozen while what it wrote is copied. Raises NotFound, Busy, TimedOut, StorageFull, Cancelled;
    nothing is left then.
    """
    host = order.host
    store.prepare(host)
    order.progress(10, "Finding its layers")
    with contextlib.ExitStack() as held:
        held.enter_context(store.lock(host, "image", order.name, wait_sec=0))
        held.enter_context(store.lock(host, "container", container_id))
        spec = store.load(host, container_id)
        if snapshot is None:
            layers = held.enter_context(holding.present(host, container_id))
        else:
            held.enter_context(store.lock(host, "layers", shared=True))
            layers = store.load_snapshot(host, container_id, snapshot).layers
        failpoint(host.state_dir, "publish.layers")
        order.check_cancelled()
        order.progress(60, "Taking away what is its own")
        root = overlay.fresh(host, layers, made_for=order.name)
        try:
            identity.forget(host, root)
            store.discard(host, host.layers_dir / root.writable / "work")
            overlay.describe(host.layers_dir / root.writable, made_for=order.name, kind="image")
            files.sync_tree(host.layers_dir / root.writable)
            failpoint(host.state_dir, "publish.cleaned")
            built = _image(order, spec, (*layers, root.writable), snapshot)
            order.check_cancelled()
            store.save_image(host, record(order, built))
        except BaseException:
            if root.writable not in _of_image(order):
                store.discard(host, host.layers_dir / root.writable)
            raise
        failpoint(host.state_dir, "publish.committed")
    order.progress(100, "Ready")
    return built


def _of_image(order: Order) -> tuple[str, ...]:
    found = store.images(order.host).get(order.name)
    return found.layers if found else ()


def _image(order: Order, spec: Spec, layers: tuple[str, ...], snapshot: str | None) -> BuiltImage:
    host = order.host
    size_bytes = 0
    for layer in layers:
        known = about_layer(host.layers_dir / layer).get("size_bytes")
        size_bytes += known if isinstance(known, int) else files.disk_bytes(store.rootfs(host, layer))
    release: bytes | None = None
    for layer in reversed(layers):
        for path in ("etc/os-release", "usr/lib/os-release"):
            release = release or oci.read_inside(store.rootfs(host, layer), path)
    return BuiltImage(
        layers=layers,
        size_bytes=size_bytes,
        defaults=defaults(spec),
        details=metadata.shown(
            kind=spec.init.kind,
            published_from=f"{spec.name}/{snapshot}" if snapshot else spec.name,
            **metadata.of_os_release(release or b""),
        ),
    )


def defaults(spec: Spec) -> dict[str, Any]:
    """Return what containers of an image that was this container take over; its limits and rights stay its own."""
    return {
        "init_command": list(spec.init_command),
        "environment": dict(spec.environment),
        **({"halt_signal": spec.halt_signal} if spec.halt_signal else {}),
        **({"init": spec.init.given()} if spec.init.given() else {}),
    }
