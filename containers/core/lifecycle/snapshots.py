"""Snapshots: taken, changed, deleted, gone back to. Each change has one commit point, as in stored.py."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

from ..errors import AlreadyExists, SpecError
from ..failpoints import failpoint
from ..host import Host
from ..hoststore import points, pools, store
from ..kernel import files
from ..model.spec import Spec, check_text
from ..names import check_name
from ..sentences import say
from ..storage import disks, identity, merge, overlay
from . import holding


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotResult:
    """A snapshot that was made. layers: the stack that gives it back. size_bytes: what it takes on disk by itself.

    lineage: the snapshots that it descends from; the container itself descends from those and this one now.
    """

    layers: tuple[str, ...]
    size_bytes: int
    created_at: str
    lineage: tuple[str, ...] = ()


def snapshot(
    host: Host,
    container_id: str,
    name: str,
    note: str = "",
    *,
    kind: points.Kind = "manual",
    pinned: bool = False,
    expires_at: str = "",
) -> SnapshotResult:
    """Keep what a container's root file system is now, and its configuration.

    A stopped one's writable layer becomes the snapshot by renames. A running one is frozen, its writable layer copied,
    and thawed again, whatever happens; a frozen one stays frozen. Raises SpecError, NotFound, AlreadyExists, Busy,
    TimedOut where it could not be frozen or the copy took more than FROZEN_MAX_SEC, StorageFull; it is thawed then.
    """
    check_name(name)
    check_text(note, field="note", most=500, lines=True)
    with store.lock(host, "container", container_id):
        spec = store.load(host, container_id)
        if any(known.name == name for known in points.listed(host, container_id)):
            raise AlreadyExists(
                say("%(name)s has a snapshot %(name_2)s already.", name=spec.name, name_2=name), field="name"
            )
        blank = points.Snapshot(name=name, layers=(), note=note, kind=kind, pinned=pinned, expires_at=expires_at)
        return _keep(host, spec, blank)


def _keep(host: Host, spec: Spec, blank: points.Snapshot) -> SnapshotResult:
    """Make the snapshot that blank names; the caller holds the container's lock."""
    before = set(spec.layers)
    lineage = store.load_root(host, spec.id).lineage
    with holding.present(host, spec.id) as layers:
        failpoint(host.state_dir, "snapshot.layers")
        size_bytes = sum(files.disk_bytes(store.rootfs(host, layer)) for layer in layers if layer not in before)
        made = SnapshotResult(layers=layers, size_bytes=size_bytes, created_at=holding.now(), lineage=lineage)
        kept = json.loads(spec.to_json())
        points.save(host, spec.id, dataclasses.replace(blank, spec=kept, **dataclasses.asdict(made)))
    failpoint(host.state_dir, "snapshot.committed")
    root = store.load_root(host, spec.id)
    store.save_root(host, spec.id, dataclasses.replace(root, lineage=points.descended(lineage, blank.name)))
    return made


def keep_configuration(host: Host, container_id: str, name: str, note: str = "", *, expires_at: str = "") -> None:
    """Make a safety point of the configuration alone, which costs nothing. One of that name that is there is kept."""
    check_name(name)
    with store.lock(host, "container", container_id):
        spec = store.load(host, container_id)
        if any(known.name == name for known in points.listed(host, container_id)):
            return
        kept, lineage = json.loads(spec.to_json()), store.load_root(host, container_id).lineage
        record = points.Snapshot(
            name=name,
            layers=(),
            note=note,
            created_at=holding.now(),
            spec=kept,
            kind="safety",
            expires_at=expires_at,
            lineage=lineage,
        )
        points.save(host, container_id, record)


def change_snapshot(
    host: Host, container_id: str, name: str, *, new_name: str, note: str, pinned: bool, expires_at: str
) -> None:
    """Give a snapshot another name, note, pin and expiry. Raises NotFound, AlreadyExists, SpecError."""
    check_name(new_name)
    check_text(note, field="note", most=500, lines=True)
    with store.lock(host, "container", container_id):
        known = {one.name: one for one in points.listed(host, container_id)}
        if new_name != name and new_name in known:
            if name not in known:
                return  # done by an attempt before this one
            raise AlreadyExists(say("There is a snapshot %(name)s already.", name=new_name), field="name")
        found = points.load(host, container_id, name)
        changed = dataclasses.replace(found, name=new_name, note=note, pinned=pinned, expires_at=expires_at)
        if new_name != name:
            # those that descend from it say so by its name: first, so that a crash leaves an ancestor nobody has
            for one in known.values():
                if name in one.lineage:
                    points.save(host, container_id, dataclasses.replace(one, lineage=_renamed(one, name, new_name)))
            root = store.load_root(host, container_id)
            if name in root.lineage:
                store.save_root(host, container_id, dataclasses.replace(root, lineage=_renamed(root, name, new_name)))
            failpoint(host.state_dir, "snapshot-change.lineage")
        points.rename(host, container_id, name, changed)


def _renamed(one: points.Snapshot | store.Root, name: str, new_name: str) -> tuple[str, ...]:
    return tuple(new_name if ancestor == name else ancestor for ancestor in one.lineage)


def delete_snapshot(host: Host, container_id: str, name: str) -> None:
    """Forget a snapshot, and remove the layers that nothing else uses. One that is gone is fine."""
    with store.lock(host, "container", container_id):
        points.remove(host, container_id, name)
        failpoint(host.state_dir, "snapshot-delete.committed")
    holding.tidy(host)


@dataclass(frozen=True, slots=True, kw_only=True)
class Safety:
    """The snapshot by which a restore is undone: its name, its note, and until when it is kept (ISO 8601)."""

    name: str
    note: str = ""
    expires_at: str = ""


def restore(
    host: Host,
    container_id: str,
    layers: tuple[str, ...],
    *,
    lineage: tuple[str, ...] = (),
    spec: Spec | None = None,
    safety: Safety | None = None,
) -> Spec:
    """Take a stopped container back to the stack of one of its snapshots; return its spec, with these layers.

    Its name, addresses and machine id stay what they are now; so does its configuration, unless spec is another one,
    which comes into force by the same rename as the files. lineage: what it descends from afterwards. safety: a
    snapshot of what is now is made first; one of that name, by an attempt that did not get to its end, is kept as it
    is. Without one, what was written since is gone, unless a snapshot holds it. Raises NotFound, InvalidTransition
    while it runs, Busy, StorageFull, SpecError, SetupFailed where a layer is missing; nothing has changed then.
    """
    if not layers:
        raise SpecError("This point holds the configuration only.", field="snapshot")
    with store.lock(host, "container", container_id):
        holding.require_stopped(host, container_id, "restore")
        now = store.load(host, container_id)
        if safety is not None and all(one.name != safety.name for one in points.listed(host, container_id)):
            blank = points.Snapshot(kind="safety", layers=(), **dataclasses.asdict(safety))
            _keep(host, now, blank)
            failpoint(host.state_dir, "restore.safe")
        wanted = dataclasses.replace(spec or now, layers=layers, pool=now.pool)
        pool = pools.of_layer(host, store.load_root(host, container_id).writable)
        with store.lock(host, "layers", shared=True):
            layers = merge.gathered(host, layers, made_for=container_id, pool=pool)
            wanted = dataclasses.replace(wanted, layers=layers)
            fresh = overlay.fresh(host, layers, made_for=container_id, size=disks.wanted(wanted.limits), pool=pool)
            root = dataclasses.replace(fresh, lineage=lineage)
            failpoint(host.state_dir, "restore.fresh")
            identity.write(host, wanted, root, twin=False, fresh=True)
            failpoint(host.state_dir, "restore.written")
            store.exchange(host, wanted, root)
        failpoint(host.state_dir, "restore.committed")
        store.settle(host, container_id)
        failpoint(host.state_dir, "restore.settled")
    holding.tidy(host)
    return wanted
