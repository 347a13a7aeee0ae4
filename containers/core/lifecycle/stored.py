"""What happens to containers on disk: create, delete, rename, snapshot, restore, clone, and the tidying afterwards.

Every change has one commit point, the rename of one file or directory; before it a crash leaves what was, after it what
was asked for, in both cases perhaps litter::

    create, clone, create_from, create_with
                       the container's directory, from tmp/ to containers/
    delete             the container's directory, to trash/
    snapshot           snapshots/NAME.json; of a stopped container root.json changes before, which shows nowhere inside
    restore            root.json, which holds the spec too until spec.json has it
    rename             spec.json

recover() runs before anything else when the worker starts: it thaws what a killed snapshot left frozen, moves a spec
out of root.json and removes the litter. It never has to finish or take back half of a change: there is no such half.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from .. import cgroups
from ..cgroups import cages
from ..errors import AlreadyExists, Busy, CoreError, NotFound
from ..failpoints import failpoint
from ..host import Host
from ..hoststore import points, pools, store
from ..kernel import files
from ..model.spec import Spec
from ..names import check_name
from ..sentences import say
from ..storage import disks, identity, litter, merge, overlay
from . import holding, runs
from .snapshots import SnapshotResult, delete_snapshot, restore, snapshot

__all__ = [
    "SnapshotResult",
    "clone",
    "collect",
    "create",
    "create_from",
    "create_with",
    "delete",
    "delete_image",
    "delete_snapshot",
    "orphans",
    "recover",
    "rename",
    "restore",
    "snapshot",
]

Progress = Callable[[int, str], None]


def _quiet(_pct: int, _message: str) -> None:
    """Tell nobody."""


def create(host: Host, spec: Spec, *, progress: Progress = _quiet) -> Spec:
    """Make a container from spec.layers (an image's); return its spec as stored.

    Raises SpecError, AlreadyExists, Busy, StorageFull, or SetupFailed where a layer is missing; nothing is left then.
    """
    progress(10, "Making its writable layer")
    made = _make(host, spec, twin=False)
    progress(100, "Created")
    return made


def create_from(host: Host, spec: Spec, directory: Path) -> Spec:
    """Make a container of the tree ``rootfs`` in a directory of `store.making`, which becomes its one layer.

    Returns its spec, with its layers. Raises as create does; nothing is left then.
    """
    with store.lock(host, "container", spec.id), store.lock(host, "layers", shared=True):
        layer = overlay.publish(host, directory)
        made = dataclasses.replace(spec, layers=(layer,))
        try:
            failpoint(host.state_dir, "import.published")
            made = _make_held(host, made, twin=False)
        except BaseException:
            if not store.exists(host, spec.id):
                store.discard(host, host.layers_dir / layer)
            raise
    return made


def create_with(
    host: Host, spec: Spec, kept: Sequence[points.Snapshot], *, lineage: tuple[str, ...], twin: bool
) -> Spec:
    """Make a container from spec.layers, which somebody holds, with snapshots; return its spec as stored.

    lineage: the snapshots that it descends from. twin: another container has the same files. Raises as create does.
    """
    return _make(host, spec, twin=twin, kept=kept, lineage=lineage)


def delete(host: Host, container_id: str) -> None:
    """Remove a stopped container with its snapshots, and the layers that nothing else uses. One that is gone is fine.

    Raises InvalidTransition while it runs, Busy; after the commit point nothing brings it back.
    """
    store.prepare(host)
    with store.lock(host, "container", container_id):
        if store.exists(host, container_id):
            holding.require_stopped(host, container_id, "delete")
            runs.settle(host, container_id)
        failpoint(host.state_dir, "delete.before")
        store.to_trash(host, host.container_dir(container_id))
        files.sync_dir(host.containers_dir)
        failpoint(host.state_dir, "delete.committed")
        store.forget_locks(host, container_id)
    holding.tidy(host)


def rename(host: Host, container_id: str, name: str) -> Spec:
    """Give a stopped container another name, inside too unless it was given a hostname of its own; return its spec."""
    check_name(name)
    with store.lock(host, "container", container_id):
        holding.require_stopped(host, container_id, "rename")
        old = store.load(host, container_id)
        follows = old.hostname in ("", old.name)
        spec = dataclasses.replace(old, name=name, hostname=name if old.hostname and follows else old.hostname)
        identity.write(host, spec, store.load_root(host, container_id), twin=False)
        failpoint(host.state_dir, "rename.inside")
        store.save(host, spec)
    return spec


def clone(
    host: Host,
    source_id: str,
    new_spec: Spec,
    *,
    snapshot_layers: tuple[str, ...] | None = None,
    full: bool = False,
    progress: Progress = _quiet,
) -> Spec:
    """Make a container from another, as it is now or as a snapshot of it was; return its spec, with its layers.

    new_spec: complete but for its layers; its name, machine id and NICs are its own. Inside, what makes a machine
    unique is reset (storage/identity.py). Nothing is copied but what a running source wrote into its writable layer;
    full: everything, so that it shares no layer with anybody. Raises as create and snapshot do.
    """
    progress(10, "Finding its layers")
    with contextlib.ExitStack() as held:
        held.enter_context(store.lock(host, "container", source_id))
        store.load(host, source_id)
        if snapshot_layers is None:
            layers = held.enter_context(holding.present(host, source_id))
        else:
            held.enter_context(store.lock(host, "layers", shared=True))
            layers = snapshot_layers
        if full:
            progress(30, "Copying everything")
            layers = merge.flattened(host, layers, made_for=new_spec.id, pool=pools.open_pool(host, new_spec.pool))
        failpoint(host.state_dir, "clone.layers")
        progress(60, "Making its writable layer")
        spec = _make(host, dataclasses.replace(new_spec, layers=layers), twin=True)
    if full or spec.layers != layers:
        holding.tidy(host)  # of what a running source wrote there is a copy that was only copied once more
    progress(100, "Cloned")
    return spec


def delete_image(host: Host, name: str) -> None:
    """Forget an image, and remove its layers unless containers or snapshots use them. One that is gone is fine."""
    with store.lock(host, "image", name, wait_sec=0):
        store.remove_image(host, name)
        store.forget_lock(host, "image", name)
    holding.tidy(host)


def recover(host: Host) -> list[str]:
    """Put right what a killed process left: thaw, sweep. Returns what was mended, in words; nothing the second time."""
    store.prepare(host)
    mended = []
    for container_id in store.container_ids(host):
        marker = holding.marker(host, container_id)
        with contextlib.suppress(CoreError), store.lock(host, "container", container_id, wait_sec=0):
            if store.settle(host, container_id):
                mended.append(f"settled: {container_id}")
        if not marker.exists():
            continue
        with contextlib.suppress(Busy), store.lock(host, "container", container_id, wait_sec=0):
            with contextlib.suppress(NotFound):
                cgroups.open(host).thaw(container_id, inner=False)
            marker.unlink(missing_ok=True)
            mended.append(f"thawed: {container_id}")
    mended += [f"nobody's cgroup: {name}" for name in cages.sweep(cgroups.open(host))]
    mended += [f"a broken-off start's cgroup: {container_id}" for container_id in runs.sweep_cgroups(host)]
    return mended + litter.sweep(host)


def collect(host: Host) -> list[str]:
    """Remove the layers that nothing refers to and empty the trash; see storage/litter.py."""
    return litter.collect(host)


def orphans(host: Host) -> list[litter.Orphan]:
    """Return what in the store leads back to nothing; see storage/litter.py."""
    return litter.orphans(host)


def _make(
    host: Host, spec: Spec, *, twin: bool, kept: Sequence[points.Snapshot] = (), lineage: tuple[str, ...] = ()
) -> Spec:
    """Make a container from spec.layers; its directory appears whole, by one rename, or not at all.

    Returns its spec: where its pool's driver wants that, its layers are copies.
    """
    store.prepare(host)
    with store.lock(host, "container", spec.id), store.lock(host, "layers", shared=True):
        return _make_held(host, spec, twin=twin, kept=kept, lineage=lineage)


def _make_held(
    host: Host, spec: Spec, *, twin: bool, kept: Sequence[points.Snapshot] = (), lineage: tuple[str, ...] = ()
) -> Spec:
    """Do what _make does; the caller holds the container's lock and the layers lock (shared)."""
    spec.check()
    if host.container_dir(spec.id).exists():
        raise AlreadyExists(say("The container %(name)s is on this host already.", name=spec.name))
    pool = pools.open_pool(host, spec.pool)
    spec = dataclasses.replace(spec, layers=merge.gathered(host, spec.layers, made_for=spec.id, pool=pool))
    fresh = overlay.fresh(host, spec.layers, made_for=spec.id, size=disks.wanted(spec.limits), pool=pool)
    root = dataclasses.replace(fresh, lineage=lineage)
    try:
        failpoint(host.state_dir, "create.fresh")
        identity.write(host, spec, root, twin=twin, fresh=True)
        failpoint(host.state_dir, "create.written")
        _place(host, spec, root, kept)
    except BaseException:
        store.discard(host, host.layers_dir / root.writable)
        raise
    failpoint(host.state_dir, "create.committed")
    return spec


def _place(host: Host, spec: Spec, root: store.Root, kept: Sequence[points.Snapshot]) -> None:
    """Make a container's directory, whole and on disk, and put it in place."""
    with store.making(host) as directory:
        points_dir = directory / "snapshots"
        points_dir.mkdir(mode=0o700)
        files.write(directory / "spec.json", (spec.to_json() + "\n").encode(), sync=False)
        files.write_json(directory / "root.json", dataclasses.asdict(root), sync=False)
        for one in kept:
            files.write_json(points_dir / f"{check_name(one.name)}.json", dataclasses.asdict(one))
        files.sync_all(directory / "spec.json", directory / "root.json", points_dir, directory)
        failpoint(host.state_dir, "create.placed")
        directory.rename(host.container_dir(spec.id))
        files.sync_dir(host.containers_dir)
