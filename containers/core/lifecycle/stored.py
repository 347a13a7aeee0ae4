"""What happens to containers on disk: create, delete, rename, snapshot, restore, clone, and the tidying afterwards.

Every change has one commit point, the rename of one file or directory; before it a crash leaves what was, after it what
was asked for, in both cases perhaps litter::

    create, clone, create_from
                       the container's directory, from tmp/ to containers/
    delete             the container's directory, to trash/
    snapshot           snapshots/NAME.json; of a stopped container root.json changes before, which shows nowhere inside
    restore            root.json
    rename             spec.json

recover() runs before anything else when the worker starts: it thaws what a killed snapshot left frozen and removes the
litter. It never has to finish or take back half of a change, because there is no such half.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .. import cgroups, files, store
from ..errors import AlreadyExists, Busy, CoreError, InvalidTransition, NotFound, TimedOut
from ..failpoints import failpoint
from ..host import Host
from ..names import check_name
from ..proc.records import RunFile
from ..spec import Spec, check_text
from ..storage import identity, litter, merge, overlay

Progress = Callable[[int, str], None]
FREEZE_TIMEOUT_SEC: Final = 10.0
FROZEN_MAX_SEC: Final = 30.0
"""How long a running container stands still for a copy of what it wrote, at most; what takes longer is given up."""
_FROZEN_BY_US: Final = "frozen-for-copy"
"""In a container's directory while it is frozen for the sake of a copy, and would not be otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotResult:
    """A snapshot that was made. layers: the stack that gives it back. size_bytes: what it takes on disk by itself."""

    layers: tuple[str, ...]
    size_bytes: int
    created_at: str


def _quiet(_pct: int, _message: str) -> None:
    """Tell nobody."""


def create(host: Host, spec: Spec, *, progress: Progress = _quiet) -> Spec:
    """Make a container from spec.layers (an image's); return its spec as stored.

    Raises SpecError, AlreadyExists, Busy, StorageFull, or SetupFailed where a layer is missing; nothing is left then.
    """
    progress(10, "Making its writable layer")
    _make(host, spec, twin=False)
    progress(100, "Created")
    return spec


def create_from(host: Host, spec: Spec, directory: Path) -> Spec:
    """Make a container of the tree ``rootfs`` in a directory of `store.making`, which becomes its one layer.

    Returns its spec, with its layers. Raises as create does; nothing is left then.
    """
    with store.lock(host, "container", spec.id), store.lock(host, "layers", shared=True):
        layer = overlay.publish(host, directory)
        made = dataclasses.replace(spec, layers=(layer,))
        try:
            failpoint(host.state_dir, "import.published")
            _make_held(host, made, twin=False)
        except BaseException:
            if not store.exists(host, spec.id):
                store.discard(host, host.layers_dir / layer)
            raise
    return made


def delete(host: Host, container_id: str) -> None:
    """Remove a stopped container with its snapshots, and the layers that nothing else uses. One that is gone is fine.

    Raises InvalidTransition while it runs, Busy; after the commit point nothing brings it back.
    """
    store.prepare(host)
    with store.lock(host, "container", container_id):
        if store.exists(host, container_id):
            _require_stopped(host, container_id, "delete")
        failpoint(host.state_dir, "delete.before")
        store.to_trash(host, host.container_dir(container_id))
        files.sync_dir(host.containers_dir)
        failpoint(host.state_dir, "delete.committed")
        store.forget_lock(host, "container", container_id)
    _tidy(host)


def rename(host: Host, container_id: str, name: str) -> Spec:
    """Give a stopped container another name, inside too unless it was given a hostname of its own; return its spec."""
    check_name(name)
    with store.lock(host, "container", container_id):
        _require_stopped(host, container_id, "rename")
        old = store.load(host, container_id)
        follows = old.hostname in ("", old.name)
        spec = dataclasses.replace(old, name=name, hostname=name if old.hostname and follows else old.hostname)
        identity.write(host, spec, store.load_root(host, container_id), twin=False)
        failpoint(host.state_dir, "rename.inside")
        store.save(host, spec)
    return spec


def snapshot(host: Host, container_id: str, name: str, note: str = "") -> SnapshotResult:
    """Keep what a container's root file system is now.

    A stopped one's writable layer becomes the snapshot by renames. A running one is frozen, its writable layer copied,
    and thawed again, whatever happens; a frozen one stays frozen. Raises SpecError, NotFound, AlreadyExists, Busy,
    TimedOut where it could not be frozen or the copy took more than FROZEN_MAX_SEC, StorageFull; it is thawed then.
    """
    check_name(name)
    check_text(note, field="note", most=500, lines=True)
    with store.lock(host, "container", container_id):
        spec = store.load(host, container_id)
        if any(known.name == name for known in store.snapshots(host, container_id)):
            raise AlreadyExists(f"{spec.name} has a snapshot {name} already.", field="name")
        before = set(spec.layers)
        with _present(host, container_id) as layers:
            failpoint(host.state_dir, "snapshot.layers")
            size_bytes = sum(files.disk_bytes(store.rootfs(host, layer)) for layer in layers if layer not in before)
            made = SnapshotResult(layers=layers, size_bytes=size_bytes, created_at=_now())
            kept = json.loads(spec.to_json())
            record = store.Snapshot(name=name, note=note, spec=kept, **dataclasses.asdict(made))
            store.save_snapshot(host, container_id, record)
        failpoint(host.state_dir, "snapshot.committed")
    return made


def delete_snapshot(host: Host, container_id: str, name: str) -> None:
    """Forget a snapshot, and remove the layers that nothing else uses. One that is gone is fine."""
    with store.lock(host, "container", container_id):
        store.remove_snapshot(host, container_id, name)
        failpoint(host.state_dir, "snapshot-delete.committed")
    _tidy(host)


def restore(host: Host, container_id: str, layers: tuple[str, ...]) -> Spec:
    """Take a stopped container back to the stack of one of its snapshots; return its spec, with these layers.

    Its name, addresses, limits and machine id stay what they are now. What it wrote since is gone, unless a snapshot
    holds it. Raises NotFound, InvalidTransition while it runs, Busy, StorageFull, SetupFailed where a layer is missing.
    """
    with store.lock(host, "container", container_id):
        _require_stopped(host, container_id, "restore")
        spec = dataclasses.replace(store.load(host, container_id), layers=layers)
        with store.lock(host, "layers", shared=True):
            root = overlay.fresh(host, layers, made_for=container_id)
            failpoint(host.state_dir, "restore.fresh")
            identity.write(host, spec, root, twin=False)
            failpoint(host.state_dir, "restore.written")
            store.save_root(host, container_id, root)
        failpoint(host.state_dir, "restore.committed")
        store.save(host, spec)
    _tidy(host)
    return spec


def clone(
    host: Host,
    source_id: str,
    new_spec: Spec,
    *,
    snapshot_layers: tuple[str, ...] | None = None,
    progress: Progress = _quiet,
) -> Spec:
    """Make a container from another, as it is now or as a snapshot of it was; return its spec, with its layers.

    new_spec: complete but for its layers; its name, machine id and NICs are its own. Inside, what makes a machine
    unique is reset (storage/identity.py). Nothing is copied but what a running source wrote into its writable layer.
    Raises as create and snapshot do.
    """
    progress(10, "Finding its layers")
    with contextlib.ExitStack() as held:
        held.enter_context(store.lock(host, "container", source_id))
        store.load(host, source_id)
        if snapshot_layers is None:
            layers = held.enter_context(_present(host, source_id))
        else:
            held.enter_context(store.lock(host, "layers", shared=True))
            layers = snapshot_layers
        failpoint(host.state_dir, "clone.layers")
        progress(60, "Making its writable layer")
        spec = dataclasses.replace(new_spec, layers=layers)
        _make(host, spec, twin=True)
    progress(100, "Cloned")
    return spec


def delete_image(host: Host, name: str) -> None:
    """Forget an image, and remove its layers unless containers or snapshots use them. One that is gone is fine."""
    with store.lock(host, "image", name, wait_sec=0):
        store.remove_image(host, name)
        store.forget_lock(host, "image", name)
    _tidy(host)


def recover(host: Host) -> list[str]:
    """Put right what a killed process left: thaw, sweep. Returns what was mended, in words; nothing the second time."""
    store.prepare(host)
    mended = []
    for container_id in store.container_ids(host):
        marker = _marker(host, container_id)
        if not marker.exists():
            continue
        with contextlib.suppress(Busy), store.lock(host, "container", container_id, wait_sec=0):
            with contextlib.suppress(NotFound):
                cgroups.open(host).thaw(container_id, inner=False)
            marker.unlink(missing_ok=True)
            mended.append(f"thawed: {container_id}")
    return mended + litter.sweep(host)


def collect(host: Host) -> list[str]:
    """Remove the layers that nothing refers to and empty the trash; see storage/litter.py."""
    return litter.collect(host)


def orphans(host: Host) -> list[litter.Orphan]:
    """Return what in the store leads back to nothing; see storage/litter.py."""
    return litter.orphans(host)


def _make(host: Host, spec: Spec, *, twin: bool) -> None:
    """Make a container from spec.layers; its directory appears whole, by one rename, or not at all."""
    store.prepare(host)
    with store.lock(host, "container", spec.id), store.lock(host, "layers", shared=True):
        _make_held(host, spec, twin=twin)


def _make_held(host: Host, spec: Spec, *, twin: bool) -> None:
    """Do what _make does; the caller holds the container's lock and the layers lock (shared)."""
    spec.check()
    if host.container_dir(spec.id).exists():
        raise AlreadyExists(f"The container {spec.name} is on this host already.")
    root = overlay.fresh(host, spec.layers, made_for=spec.id)
    try:
        failpoint(host.state_dir, "create.fresh")
        identity.write(host, spec, root, twin=twin)
        failpoint(host.state_dir, "create.written")
        _place(host, spec, root)
    except BaseException:
        store.discard(host, host.layers_dir / root.writable)
        raise
    failpoint(host.state_dir, "create.committed")


def _place(host: Host, spec: Spec, root: store.Root) -> None:
    """Make a container's directory, whole and on disk, and put it in place."""
    with store.making(host) as directory:
        files.write(directory / "spec.json", (spec.to_json() + "\n").encode())
        files.write_json(directory / "root.json", dataclasses.asdict(root))
        (directory / "snapshots").mkdir(mode=0o700)
        files.sync_dir(directory)
        failpoint(host.state_dir, "create.placed")
        directory.rename(host.container_dir(spec.id))
        files.sync_dir(host.containers_dir)


@contextlib.contextmanager
def _present(host: Host, container_id: str) -> Iterator[tuple[str, ...]]:
    """Yield read-only layers that are what the container's root is now, and keep them from being collected meanwhile.

    The caller holds the container's lock.
    """
    if _alive(host, container_id):
        with store.making(host) as directory:
            with _frozen(host, container_id):
                failpoint(host.state_dir, "copy.frozen")
                root = _copied(host, container_id, directory)
            files.sync_tree(directory)
            failpoint(host.state_dir, "copy.copied")
            with store.lock(host, "layers", shared=True):
                layers = (*root.layers, overlay.publish(host, directory))
                yield merge.bounded(host, layers, made_for=container_id)
        return
    overlay.seal(host, container_id)
    with store.lock(host, "layers", shared=True):
        root = store.load_root(host, container_id)
        layers = merge.bounded(host, root.layers, made_for=container_id)
        if layers != root.layers:
            store.save_root(host, container_id, dataclasses.replace(root, layers=layers))
        yield layers


def _copied(host: Host, container_id: str, directory: Path) -> store.Root:
    """Copy what a frozen container wrote; raises TimedOut saying what can be done instead where it takes too long."""
    try:
        return overlay.copy(host, container_id, directory, timeout_sec=FROZEN_MAX_SEC)
    except TimedOut:
        raise TimedOut(
            f"What the container wrote could not be copied within {FROZEN_MAX_SEC:g} s, and it may not stand still for "
            "longer; it runs on unchanged. A stopped container needs no copy.",
            step="copy",
        ) from None


@contextlib.contextmanager
def _frozen(host: Host, container_id: str) -> Iterator[None]:
    """Hold a running container still; it runs on afterwards, whatever happens, unless it was frozen before."""
    groups = cgroups.open(host)
    if groups.frozen(container_id, inner=False):
        yield
        return
    marker = _marker(host, container_id)
    files.write(marker, b"", sync=False)
    try:
        groups.freeze(container_id, FREEZE_TIMEOUT_SEC)
        yield
    finally:
        with contextlib.suppress(NotFound):
            groups.thaw(container_id, inner=False)
        marker.unlink(missing_ok=True)


def _marker(host: Host, container_id: str) -> Path:
    return host.container_dir(container_id) / _FROZEN_BY_US


def _require_stopped(host: Host, container_id: str, action: str) -> None:
    """Raise NotFound, or InvalidTransition while anything of the container lives."""
    if not store.exists(host, container_id):
        raise NotFound("There is no such container on this host.")
    if _alive(host, container_id):
        raise InvalidTransition(f"Stop the container first: it cannot be asked to {action} while it runs.")


def _alive(host: Host, container_id: str) -> bool:
    """Tell whether a process or a supervisor of the container is there; while it reboots only the latter is."""
    return cgroups.open(host).populated(container_id) or _supervised(host, container_id)


def _supervised(host: Host, container_id: str) -> bool:
    run = RunFile.read(host.run_path(container_id))
    pidfd = run.supervisor.open() if run is not None else None
    if pidfd is None:
        return False
    os.close(pidfd)
    return True


def _tidy(host: Host) -> None:
    """Collect now, or leave it to the next time: what was asked for is done, and litter harms nobody.

    A build may be being recorded, or another container be damaged, so that nobody knows what it refers to.
    """
    with contextlib.suppress(CoreError):
        litter.collect(host)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
