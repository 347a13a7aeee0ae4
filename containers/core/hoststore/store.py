"""What exists on this host: one directory per container and layer, one file per image and snapshot.

A container's place in the file system is two files and no moves::

    containers/ID/spec.json        what it is asked to be
    containers/ID/root.json        {"layers": [bottom first], "writable": LAYER}: what its root is made of, now; and
                                   "spec" for a moment, where a restore changed both files by one rename
    containers/ID/snapshots/N.json what it was made of, then
    layers/LAYER/rootfs/           a tree, owners unshifted; read-only as soon as no root.json calls it writable
    layers/LAYER/work/             overlay's scratch space, in a writable layer only
    layers/LAYER/layer.json        why it was made

root.json is the only truth about a stack and is replaced by one rename: a snapshot, a restore or a merge is done or not
done, whenever the power fails. A layer that nothing refers to is litter and is collected (lifecycle/stored.py).
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import os
import re
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from ..errors import Busy, NotFound, SetupFailed
from ..failpoints import failpoint
from ..host import Host
from ..kernel import files
from ..model.spec import Spec, build
from ..names import check_name
from ..sentences import say
from . import points, pools

LockKind = Literal["image", "files", "container", "run", "basket", "layers", "trash"]
"""Taken in this order, never the other way."""
OF_CONTAINERS: Final[tuple[LockKind, ...]] = ("files", "container", "run")

_CONTAINER_ID = re.compile(r"[0-9a-f]{12}", re.ASCII)
_LAYER_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)
_POLL_SEC: Final = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """What a container's root file system is made of. layers: read-only ones, bottom first. writable: its own.

    lineage: the snapshots that it descends from, oldest first; those that were deleted since too.
    """

    layers: tuple[str, ...]
    writable: str
    lineage: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """Read-only layers that containers are made from.

    defaults: init_command, halt_signal, environment and more. details: what is shown of it, and decides nothing.
    """

    name: str
    source: dict[str, Any]
    layers: tuple[str, ...]
    size_bytes: int
    defaults: dict[str, Any]
    built_at: str = ""
    details: dict[str, Any] = field(default_factory=dict)


def prepare(host: Host) -> None:
    """Make the store's directories where they are missing; root only."""
    dirs = (host.containers_dir, host.layers_dir, host.images_dir, host.tmp_dir, host.trash_dir, host.basket_dir)
    for path in (host.store_dir, *dirs):
        path.mkdir(mode=0o700, exist_ok=True)
    host.locks_dir.mkdir(mode=0o700, parents=True, exist_ok=True)


def new_layer_id() -> str:
    """Return an id for a layer: 32 hexadecimal digits, never used again."""
    return uuid.uuid4().hex


# containers


def container_ids(host: Host) -> list[str]:
    """Return the ids of the containers on this host, sorted."""
    return sorted(name for name in _listed(host.containers_dir) if _CONTAINER_ID.fullmatch(name))


def exists(host: Host, container_id: str) -> bool:
    """Tell whether the container is on this host."""
    return _CONTAINER_ID.fullmatch(container_id) is not None and host.spec_path(container_id).exists()


def load(host: Host, container_id: str) -> Spec:
    """Return a container's spec, its layers as they are now; raises NotFound, or SetupFailed where it is damaged."""
    if not _CONTAINER_ID.fullmatch(container_id):
        raise NotFound("There is no such container on this host.")
    root = _root(host, container_id)
    try:
        # what a restore has put in force and not yet written where it belongs
        data = root.get("spec") or files.read_json(host.spec_path(container_id))
    except FileNotFoundError:
        raise NotFound("There is no such container on this host.") from None
    return dataclasses.replace(Spec.from_dict(data), layers=tuple(root["layers"]))


def save(host: Host, spec: Spec) -> None:
    """Replace a container's spec. Its layers are written along for the reader; root.json says what they are."""
    spec.check()
    if not host.container_dir(spec.id).is_dir():
        raise NotFound("There is no such container on this host.")
    files.write(host.spec_path(spec.id), (spec.to_json() + "\n").encode())
    with contextlib.suppress(NotFound):
        if "spec" in _root(host, spec.id):
            save_root(host, spec.id, load_root(host, spec.id))


def exchange(host: Host, spec: Spec, root: Root) -> None:
    """Replace a container's root and its spec by one rename: a reader, or a crash, sees both old or both new."""
    spec.check()
    whole = {**dataclasses.asdict(root), "spec": dataclasses.asdict(spec)}
    files.write_json(root_path(host, spec.id), whole)


def settle(host: Host, container_id: str) -> bool:
    """Write the spec that exchange() has put in force where it belongs; returns whether there was one."""
    pending = "spec" in _root(host, container_id)
    if pending:
        save(host, load(host, container_id))
    return pending


def root_path(host: Host, container_id: str) -> Path:
    """Return the path of the file that says what a container's root is made of."""
    return host.container_dir(container_id) / "root.json"


def load_root(host: Host, container_id: str) -> Root:
    """Return what a container's root is made of; raises NotFound."""
    data = _root(host, container_id)
    return Root(layers=tuple(data["layers"]), writable=data["writable"], lineage=tuple(data.get("lineage", ())))


def _root(host: Host, container_id: str) -> dict[str, Any]:
    try:
        data: dict[str, Any] = files.read_json(root_path(host, container_id))
    except FileNotFoundError:
        raise NotFound("There is no such container on this host.") from None
    return data


def save_root(host: Host, container_id: str, root: Root) -> None:
    """Replace what a container's root is made of: the commit point of whatever changes it."""
    files.write_json(root_path(host, container_id), dataclasses.asdict(root))


# snapshots: see points.py

Snapshot = points.Snapshot
snapshots_dir = points.directory
snapshots = points.listed
load_snapshot = points.load
remove_snapshot = points.remove


# images


def images(host: Host) -> dict[str, Image]:
    """Return the images on this host by name."""
    found = (_image(host.images_dir / name) for name in _listed(host.images_dir) if _record(name))
    return {image.name: image for image in found}


def load_image(host: Host, name: str) -> Image:
    """Return an image; raises NotFound."""
    try:
        return _image(host.images_dir / f"{check_name(name)}.json")
    except FileNotFoundError:
        raise NotFound(say("There is no image %(name)s on this host.", name=name)) from None


def save_image(host: Host, image: Image) -> None:
    """Record an image, or replace it: containers made from the old one keep their layers."""
    files.write_json(host.images_dir / f"{check_name(image.name)}.json", dataclasses.asdict(image))


def remove_image(host: Host, name: str) -> None:
    """Forget an image; its layers go with the next collect unless containers use them. None there is fine."""
    (host.images_dir / f"{check_name(name)}.json").unlink(missing_ok=True)
    files.sync_dir(host.images_dir)


def _image(path: Path) -> Image:
    data = files.read_json(path)
    return build(Image, {**data, "layers": tuple(data["layers"])}, "image")


# layers


def is_layer_id(text: str) -> bool:
    """Tell whether this is a layer's id, and so nothing that leads elsewhere as part of a path."""
    return _LAYER_ID.fullmatch(text) is not None


def layer_ids(host: Host) -> set[str]:
    """Return the ids of the layers on this host."""
    return {name for name in _listed(host.layers_dir) if _LAYER_ID.fullmatch(name)}


def rootfs(host: Host, layer: str) -> Path:
    """Return the tree of a layer."""
    return host.layers_dir / layer / "rootfs"


@contextlib.contextmanager
def making(host: Host, pool: pools.Pool | None = None, *, like: Path | None = None) -> Iterator[Path]:
    """Yield a new, empty directory in a pool's tmp/ to build something in, and remove it unless it was renamed away.

    Its maker holds a flock on it, so that what a killed one left behind can be told from what is still being made.
    pool: None is the default one. like: a layer's directory that it is a copy of, where the pool's driver copies at
    once; elsewhere it is empty all the same. Raises OSError, StorageFull.
    """
    pool = pool or pools.default(host)
    while True:
        path = pool.tmp_dir / new_layer_id()
        if like is None or not pool.driver.copy(like, path):
            pool.driver.make(path)
        held_fd = _held(path)
        if held_fd is not None:
            break
    try:
        yield path
    finally:
        os.close(held_fd)
        if path.exists():
            discard(host, path)


def abandoned(host: Host) -> list[Path]:
    """Return what lies in tmp/ and nobody is making any more."""
    found = []
    for directory in [pool.tmp_dir for pool in pools.there(host)]:
        for name in sorted(_listed(directory)):
            path = directory / name
            if not path.is_dir():
                found.append(path)
            elif (held_fd := _held(path)) is not None:
                os.close(held_fd)
                found.append(path)
    return found


def _held(path: Path) -> int | None:
    """Lock a directory of tmp/; None where somebody else has it, or it is gone. The caller owns the descriptor."""
    try:
        held_fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(held_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(held_fd).st_ino == os.stat(path).st_ino:
            return held_fd
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(held_fd)
    return None


def discard(host: Host, path: Path) -> None:
    """Move something into the trash, at once and whole, and then remove it; nothing there is fine."""
    if to_trash(host, path):
        empty_trash(host)


def to_trash(host: Host, path: Path) -> bool:
    """Move something into the trash of its pool; returns whether it was there. empty_trash() removes it.

    A layer of a pool whose file system is not there now stays as it is. What is part of a subvolume is removed at once.
    """
    if path.parent == host.layers_dir and path.is_symlink():
        return _layer_to_trash(host, path)
    try:
        os.rename(path, pools.holding(host, path).trash_dir / new_layer_id())
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        files.remove_tree(path)
    return True


def _layer_to_trash(host: Host, path: Path) -> bool:
    """Move a layer of a pool into the pool's trash, and then remove its link: without it, the layer would be litter."""
    try:
        pool = pools.of_layer(host, path.name)
    except (NotFound, SetupFailed):
        return False
    with contextlib.suppress(FileNotFoundError):
        os.rename(pool.layers_dir / path.name, pool.trash_dir / new_layer_id())
    failpoint(host.state_dir, "trash.moved")
    path.unlink(missing_ok=True)
    return True


def empty_trash(host: Host) -> None:
    """Remove what lies in the trash; one at a time does so, the others wait for it."""
    with lock(host, "trash", wait_sec=600):
        for pool in pools.there(host):
            for name in _listed(pool.trash_dir):
                if not pool.driver.remove(pool.trash_dir / name):
                    files.remove_tree(pool.trash_dir / name)


def _listed(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


def _record(name: str) -> bool:
    """Tell whether a file is a record and not one that is being written (those begin with a dot)."""
    return name.endswith(".json") and not name.startswith(".")


# locks


@contextlib.contextmanager
def lock(
    host: Host, kind: LockKind, name: str = "all", *, shared: bool = False, wait_sec: float = 10.0
) -> Iterator[None]:
    """Hold a lock that dies with its holder (flock). Not re-entrant. The file of one whose container is gone goes, too.

    shared: several may hold it so; an exclusive one waits for them. Raises Busy after wait_sec.
    """
    path = host.locks_dir / f"{kind}-{name}"
    if not path.parent.exists():  # nothing of the instance runs: the run directory went with the boot, or with `down`
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    deadline = time.monotonic() + wait_sec
    while (lock_fd := _try_lock(path, shared=shared)) is None:
        if time.monotonic() >= deadline:
            raise Busy(say("Another operation works on this %(kind)s.", kind=kind), lock=path.name)
        time.sleep(_POLL_SEC)
    try:
        yield
    finally:
        # whoever looked at all containers may have waited for the one that was being deleted
        if kind in OF_CONTAINERS and not shared and not exists(host, name):
            forget_lock(host, kind, name)
        os.close(lock_fd)


def _try_lock(path: Path, *, shared: bool) -> int | None:
    """Return the descriptor that holds the lock, or None; the caller owns it."""
    lock_fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock_fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        # its last holder may have removed the file after we opened it: then it locks nothing any more
        if os.fstat(lock_fd).st_ino == os.stat(path).st_ino:
            return lock_fd
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(lock_fd)
    return None


def forget_lock(host: Host, kind: LockKind, name: str) -> None:
    """Remove the file of a lock that the caller holds and nobody will need again."""
    (host.locks_dir / f"{kind}-{name}").unlink(missing_ok=True)


def forget_locks(host: Host, container_id: str) -> None:
    """Remove the files of the locks of a container that is gone; the caller holds its lock."""
    for kind in OF_CONTAINERS:
        forget_lock(host, kind, container_id)
