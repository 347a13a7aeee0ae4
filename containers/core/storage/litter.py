"""What nothing refers to any more: found, listed, removed. A crash leaves litter at worst, never half a container."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..backups import places
from ..backups.directories import Directory
from ..errors import Busy, NotFound, SetupFailed, SpecError
from ..failpoints import failpoint
from ..host import Host
from ..hoststore import basket, holds, pools, store
from ..kernel import files


@dataclass(frozen=True, slots=True, kw_only=True)
class Orphan:
    """Something in the store that leads back to no container and no image. path: absolute."""

    path: str
    why: str


def used_layers(host: Host) -> set[str]:
    """Return every layer that an image, a container, a snapshot or the trash refers to, or that somebody holds.

    Raises where one of them can't be read: what it refers to is unknown then, and nothing may be removed.
    """
    # before all the others: what somebody holds may be given to a container, and be held no longer
    used: set[str] = holds.layers(host)
    for image in store.images(host).values():
        used.update(image.layers)
    for container_id in store.container_ids(host):
        try:
            used |= _used_by(host, container_id)
        except (NotFound, FileNotFoundError):
            # deleted meanwhile, by one rename: it refers to nothing any more
            if host.container_dir(container_id).exists():
                raise
    # after the containers: what is deleted meanwhile is seen at one of the two places
    for entry_id in basket.ids(host):
        try:
            used |= basket.layers(host, entry_id)
        except FileNotFoundError:
            if basket.directory(host, entry_id).exists():
                raise
    return used


def _used_by(host: Host, container_id: str) -> set[str]:
    root = store.load_root(host, container_id)
    used = {*root.layers, root.writable}
    for snapshot in store.snapshots(host, container_id):
        used.update(snapshot.layers)
    return used


def collect(host: Host, *, wait_sec: float = 10.0) -> list[str]:
    """Remove the layers that nothing refers to, and empty the trash; return the ids of those layers.

    Raises Busy where something is being made for longer than wait_sec: collect again later, nothing is lost.
    """
    with store.lock(host, "layers", wait_sec=wait_sec):
        unused = sorted(store.layer_ids(host) - used_layers(host))
        unused = [layer for layer in unused if store.to_trash(host, host.layers_dir / layer)]
        for path in list(pools.unlinked(host)):
            store.to_trash(host, path)
    failpoint(host.state_dir, "collect.trashed")
    store.empty_trash(host)
    return unused


def sweep(host: Host) -> list[str]:
    """Remove everything that a killed process left in the store; return what it was, in words."""
    found = [f"unfinished: {path.name}" for path in store.abandoned(host) if store.to_trash(host, path)]
    for path in holds.abandoned(host):
        path.unlink(missing_ok=True)
        found.append(f"held by nobody: {path.name}")
    for place in _places(host):
        with contextlib.suppress(SetupFailed):  # it cannot be reached now
            found += [f"unfinished backup: {name}" for name in place.sweep()]
    for directory in _record_dirs(host):
        found += [f"half written: {path.name}" for path in files.remove_abandoned(directory)]
    found += [f"in the trash: {name}" for pool in pools.there(host) for name in sorted(os.listdir(pool.trash_dir))]
    found += [f"nothing in the trash: {entry_id}" for entry_id in _hollow(host) if _drop(host, entry_id)]
    with contextlib.suppress(Busy):  # something is being made right now: the next sweep comes
        found += [f"unused layer: {layer}" for layer in collect(host, wait_sec=1.0)]
    _drop_locks(host)
    return found


def _drop_locks(host: Host) -> None:
    """Remove the files of locks of containers that are gone, whose holders were killed."""
    with contextlib.suppress(FileNotFoundError):
        for entry in os.listdir(host.locks_dir):
            kind, _, name = entry.partition("-")
            for known in store.OF_CONTAINERS:
                if kind == known and not store.exists(host, name):
                    with contextlib.suppress(Busy), store.lock(host, known, name, wait_sec=0):
                        pass  # its file goes with it


def orphans(host: Host) -> list[Orphan]:
    """Return what sweep() would remove now, and what belongs to nothing at all. What is being made is none.

    Empty as soon as the last operation has ended.
    """
    found = [Orphan(path=str(path), why="Left by a process that was killed.") for path in store.abandoned(host)]
    found += [Orphan(path=str(path), why="Held by a process that was killed.") for path in holds.abandoned(host)]
    for place in _places(host):
        with contextlib.suppress(SetupFailed):
            found += [Orphan(path=str(place.path / name), why="A backup cut short.") for name in place.abandoned()]
    for directory in _record_dirs(host):
        for path in files.half_written(directory):
            found.append(Orphan(path=str(path), why="Left by a write that was cut short."))
    for entry_id in _hollow(host):
        found.append(Orphan(path=str(host.basket_dir / entry_id), why="Nothing in the trash."))
    try:
        with store.lock(host, "trash", wait_sec=0):
            for pool in pools.there(host):
                found += _entries(pool.trash_dir, "Waits for its removal.")
        with store.lock(host, "layers", wait_sec=0):
            near = {pool.name for pool in pools.there(host)}
            for layer in sorted(store.layer_ids(host) - used_layers(host)):
                if pools.name_of(host, layer) in near:
                    why = "No image, container or snapshot uses it."
                    found.append(Orphan(path=str(host.layers_dir / layer), why=why))
            found += [Orphan(path=str(path), why="Not a layer.") for path in pools.unlinked(host)]
    except Busy:
        pass  # something is at work right now: what it makes or removes is not litter
    known = {*store.container_ids(host)}
    found += _entries(host.containers_dir, "Not a container.", but=known)
    return found + _entries(host.layers_dir, "Not a layer.", but=store.layer_ids(host))


def _hollow(host: Host) -> list[str]:
    """Return the entries of the trash that hold nothing, and that nobody is at work on."""
    found = []
    for entry_id in basket.ids(host):
        with contextlib.suppress(Busy), store.lock(host, "basket", entry_id, wait_sec=0):
            if basket.hollow(host, entry_id):
                found.append(entry_id)
            store.forget_lock(host, "basket", entry_id)
    return found


def _drop(host: Host, entry_id: str) -> bool:
    with contextlib.suppress(Busy), store.lock(host, "basket", entry_id, wait_sec=0):
        gone = basket.hollow(host, entry_id) and store.to_trash(host, host.basket_dir / entry_id)
        store.forget_lock(host, "basket", entry_id)
        return gone
    return False


def _entries(directory: Path, why: str, *, but: Iterable[str] = ()) -> list[Orphan]:
    names = sorted(set(os.listdir(directory)) - set(but))
    return [Orphan(path=str(directory / name), why=why) for name in names]


def _places(host: Host) -> list[Directory]:
    """Return the directories that backups lie in; none while the policy cannot be read, as the doctor says."""
    try:
        return places.directories(host)
    except SpecError:
        return []


def _record_dirs(host: Host) -> list[Path]:
    """Return the directories in which records are replaced."""
    found = [host.images_dir, host.lists_dir]
    for container_id in store.container_ids(host):
        found += [host.container_dir(container_id), store.snapshots_dir(host, container_id)]
    return [directory for directory in found if directory.is_dir()]
