"""Storage by overlay: a stack of read-only layers and a writable one on top.

Layers lie on disk with the owners that the container sees (0..65535) below a directory that only root may enter.
The container mounts the overlay itself, idmapped and with ``userxattr``: whiteouts are 0/0 character devices,
opaque marks are ``user.overlay.opaque``. What was an upper directory is therefore a valid lower one, as it stands.
Source: kernel Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ..errors import SetupFailed
from ..failpoints import failpoint
from ..host import Host
from ..hoststore import pools, store
from ..hoststore.store import Root
from ..kernel import files, spare_files
from ..kernel.tree_copy import copy_tree
from ..model.spec import Spec
from ..sentences import say
from . import disks
from .root_plan import RootPlan
from .stack import copy_root_attributes

LAYERS_MAX: Final = 100
"""A deeper stack is merged at its next snapshot. The kernel's own ceiling is 500 (OVL_MAX_STACK)."""


def plan(host: Host, spec: Spec) -> RootPlan:
    """Return what to mount as a container's root, read from the store, not from spec.layers.

    Raises NotFound, or SetupFailed naming the layer that is missing.
    """
    root = store.load_root(host, spec.id)
    for layer in root.layers:
        require(host, layer)
    disk = "" if store.rootfs(host, root.writable).is_dir() else str(disks.path(host, root.writable))
    if not disk or not disks.there(host, root.writable):
        require(host, root.writable)
    writable = pools.directory(host, root.writable)
    return RootPlan(
        lowers=tuple(str(store.rootfs(host, layer)) for layer in reversed(root.layers)),
        writable=str(writable),
        upper=str(writable / "rootfs"),
        work=str(writable / "work"),
        disk=disk,
    )


def require(host: Host, layer: str) -> None:
    """Raise SetupFailed where a layer is not on this host, or what is named is none: it becomes part of a path."""
    path = store.rootfs(host, layer)
    if not store.is_layer_id(layer) or not path.is_dir():
        if store.is_layer_id(layer):
            pools.of_layer(host, layer)  # says so where its pool is not there
        raise SetupFailed(
            say("The layer %(layer)s is missing on this host.", layer=layer), step="find-layers", path=str(path)
        )


def fresh(
    host: Host,
    layers: tuple[str, ...],
    *,
    made_for: str,
    size: disks.Size | None = None,
    pool: pools.Pool | None = None,
) -> Root:
    """Make an empty writable layer above layers, which can hold as much as size says; None: as its pool can.

    pool: where it lies; None is the default one.

    Nothing refers to it yet: the caller holds the layers lock (shared) until something does. made_for: its id.
    """
    for layer in layers:
        require(host, layer)
    pool = pool or pools.default(host)
    writable = store.new_layer_id()
    directory = pool.layers_dir / writable
    pool.driver.make(directory)
    try:
        if size is None:
            _empty(directory, store.rootfs(host, layers[-1]))
        else:
            disks.make(directory / disks.NAME, size)
            failpoint(host.state_dir, "fresh.disk")
            with disks.opened(directory / disks.NAME) as top:
                _empty(top, store.rootfs(host, layers[-1]))
                spare_files.keep(top)
                files.sync_tree(top)
        describe(directory, made_for=made_for, kind="writable")
        pools.link(host, pool, writable)
    except BaseException:
        store.discard(host, directory)
        raise
    files.sync_all(directory, host.layers_dir)
    return Root(layers=layers, writable=writable)


def _empty(directory: Path, like: Path) -> None:
    (directory / "work").mkdir(mode=0o700)
    (directory / "rootfs").mkdir(mode=0o700)
    copy_root_attributes(like, directory / "rootfs")


def describe(directory: Path, *, made_for: str, kind: str) -> None:
    """Write a layer's layer.json: for people and fsck, nothing is decided by it."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    files.write_json(directory / "layer.json", {"made_for": made_for, "kind": kind, "created_at": now}, sync=False)


def seal(host: Host, container_id: str) -> tuple[str, ...]:
    """Turn what a stopped container wrote into a read-only layer, and give it an empty writable one: by renames alone.

    Returns the container's read-only stack, which is its whole root now. One that wrote nothing is left as it is.
    The commit point is the rename of root.json. The caller holds the container's lock. One whose writable layer is a
    disk cannot be sealed: it is copied.
    """
    root = store.load_root(host, container_id)
    if untouched(host, root):
        return root.layers
    stack = (*root.layers, root.writable)
    with store.lock(host, "layers", shared=True):
        new = fresh(host, stack, made_for=container_id, pool=pools.of_layer(host, root.writable))
        failpoint(host.state_dir, "seal.fresh")
        store.save_root(host, container_id, dataclasses.replace(new, lineage=root.lineage))
    failpoint(host.state_dir, "seal.committed")
    # overlay's scratch space is of no more use below; what a crash leaves of it goes with the layer
    work = host.layers_dir / root.writable / "work"
    store.discard(host, work)
    return stack


@contextlib.contextmanager
def copied(host: Host, container_id: str, *, timeout_sec: float | None) -> Iterator[tuple[Path, Root]]:
    """Yield a directory of `store.making` with a copy of what a container that stands still wrote, to be published.

    Keeps owners, modes, times, ACLs, extended attributes (overlay's marks too), hard links, holes and device nodes
    (whiteouts). Made at once where the pool's driver can do that; else what takes longer than timeout_sec is given up,
    and the data is shared where the file system can. Not on the disk yet, for the container to stand still no longer
    than it must. Yields the root it was made from, too; raises TimedOut, StorageFull.
    """
    root = store.load_root(host, container_id)
    pool = pools.of_layer(host, root.writable)
    limited = disks.there(host, root.writable)
    with store.making(host, pool, like=None if limited else pools.directory(host, root.writable)) as into:
        if (into / "rootfs").is_dir():
            files.remove_tree(into / "work")
        else:
            with disks.tree(host, root.writable) as tree:
                copy_tree(tree, into / "rootfs", timeout_sec=timeout_sec)
        describe(into, made_for=container_id, kind="copy")
        yield into, root


def flush(host: Host, container_id: str) -> None:
    """Bring what a container wrote to the disk where copying it would do so: before it has to stand still."""
    pool = pools.of_layer(host, store.load_root(host, container_id).writable)
    if pool.driver.AT_ONCE:
        files.sync_tree(pool.place)


def publish(host: Host, directory: Path) -> str:
    """Make a finished directory of tmp/ a read-only layer by one rename, after it is on the disk; return its id.

    Nothing refers to it yet: the caller holds the layers lock (shared) until something does.
    """
    pool = pools.holding(host, directory)
    os.rename(directory, pool.layers_dir / directory.name)
    failpoint(host.state_dir, "publish.renamed")
    pools.link(host, pool, directory.name)
    files.sync_dir(host.layers_dir)
    return directory.name


def resized(host: Host, container_id: str, size: disks.Size | None) -> None:
    """Give a stopped container a writable layer of another size, with what is in its present one: a copy.

    The commit point is the rename of root.json. The caller holds the container's lock. Raises StorageFull where it does
    not fit; nothing has changed then.
    """
    root = store.load_root(host, container_id)
    with store.lock(host, "layers", shared=True):
        pool = pools.of_layer(host, root.writable)
        new = fresh(host, root.layers, made_for=container_id, size=size, pool=pool)
        try:
            with disks.tree(host, root.writable) as old, disks.tree(host, new.writable) as tree:
                copy_tree(old, tree)
                failpoint(host.state_dir, "resize.copied")
                files.sync_tree(tree)
        except BaseException:
            store.discard(host, host.layers_dir / new.writable)
            raise
        store.save_root(host, container_id, dataclasses.replace(new, lineage=root.lineage))
    failpoint(host.state_dir, "resize.committed")


def untouched(host: Host, root: Root) -> bool:
    """Tell whether a writable layer says nothing that the stack below does not."""
    below = store.rootfs(host, root.layers[-1])
    with disks.tree(host, root.writable) as upper:
        with os.scandir(upper) as entries:
            if next(entries, None) is not None:
                return False
        mine, theirs = os.stat(upper), os.stat(below)
    return (mine.st_mode, mine.st_uid, mine.st_gid) == (theirs.st_mode, theirs.st_uid, theirs.st_gid)
