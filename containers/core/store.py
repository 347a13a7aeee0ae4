"""What exists on this host: one directory per container and layer, one file per image and snapshot.

A container's place in the file system is two files and no moves::

    containers/ID/spec.json        what it is asked to be
    containers/ID/root.json        {"layers": [bottom first], "writable": LAYER}: what its root is made of, now
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
import fcntl
import os
import re
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from . import files
from .errors import Busy, NotFound
from .host import Host
from .names import check_name
from .spec import Spec, build

LockKind = Literal["image", "container", "layers", "trash"]
"""Taken in this order, never the other way."""

_CONTAINER_ID = re.compile(r"[0-9a-f]{12}", re.ASCII)
_LAYER_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)
_POLL_SEC: Final = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """What a container's root file system is made of. layers: read-only ones, bottom first. writable: its own."""

    layers: tuple[str, ...]
    writable: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A stack to go back to. size_bytes: what it added on disk. spec: the container's spec at that time."""

    name: str
    layers: tuple[str, ...]
    note: str = ""
    created_at: str = ""
    size_bytes: int = 0
    spec: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """Read-only layers that containers are made from. defaults: init_command, halt_signal, environment."""

    name: str
    source: dict[str, Any]
    layers: tuple[str, ...]
    size_bytes: int
    defaults: dict[str, Any]
    built_at: str = ""


def prepare(host: Host) -> None:
    """Make the store's directories where they are missing; root only."""
    for path in (host.store_dir, host.containers_dir, host.layers_dir, host.images_dir, host.tmp_dir, host.trash_dir):
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
    try:
        spec = Spec.from_dict(files.read_json(host.spec_path(container_id)))
    except FileNotFoundError:
        raise NotFound("There is no such container on this host.") from None
    return dataclasses.replace(spec, layers=load_root(host, container_id).layers)


def save(host: Host, spec: Spec) -> None:
    """Replace a container's spec. Its layers are written along for the reader; root.json says what they are."""
    spec.check()
    if not host.container_dir(spec.id).is_dir():
        raise NotFound("There is no such container on this host.")
    files.write(host.spec_path(spec.id), (spec.to_json() + "\n").encode())


def load_all(host: Host) -> tuple[dict[str, Spec], dict[str, str]]:
    """Return the specs by id, and, for what can't be read, the reason by id."""
    specs: dict[str, Spec] = {}
    damaged: dict[str, str] = {}
    for container_id in container_ids(host):
        try:
            specs[container_id] = load(host, container_id)
        except NotFound:
            if host.container_dir(container_id).exists():
                damaged[container_id] = "spec.json is missing."
        except Exception as error:  # noqa: BLE001  whatever is wrong with one must not hide the others
            damaged[container_id] = str(error)
    return specs, damaged


def root_path(host: Host, container_id: str) -> Path:
    """Return the path of the file that says what a container's root is made of."""
    return host.container_dir(container_id) / "root.json"


def load_root(host: Host, container_id: str) -> Root:
    """Return what a container's root is made of; raises NotFound."""
    try:
        data = files.read_json(root_path(host, container_id))
    except FileNotFoundError:
        raise NotFound("There is no such container on this host.") from None
    return Root(layers=tuple(data["layers"]), writable=data["writable"])


def save_root(host: Host, container_id: str, root: Root) -> None:
    """Replace what a container's root is made of: the commit point of whatever changes it."""
    files.write_json(root_path(host, container_id), dataclasses.asdict(root))


# snapshots


def snapshots_dir(host: Host, container_id: str) -> Path:
    """Return the directory of a container's snapshot records."""
    return host.container_dir(container_id) / "snapshots"


def snapshots(host: Host, container_id: str) -> list[Snapshot]:
    """Return a container's snapshots, oldest first."""
    directory = snapshots_dir(host, container_id)
    found = [_snapshot(directory / name) for name in _listed(directory) if _record(name)]
    return sorted(found, key=lambda snapshot: (snapshot.created_at, snapshot.name))


def load_snapshot(host: Host, container_id: str, name: str) -> Snapshot:
    """Return a snapshot; raises NotFound."""
    try:
        return _snapshot(_snapshot_path(host, container_id, name))
    except FileNotFoundError:
        raise NotFound(f"There is no snapshot {name}.") from None


def save_snapshot(host: Host, container_id: str, snapshot: Snapshot) -> None:
    """Record a snapshot."""
    files.write_json(_snapshot_path(host, container_id, snapshot.name), dataclasses.asdict(snapshot))


def remove_snapshot(host: Host, container_id: str, name: str) -> None:
    """Forget a snapshot; its layers go with the next collect. One that is not there is fine."""
    path = _snapshot_path(host, container_id, name)
    path.unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        files.sync_dir(path.parent)


def _snapshot_path(host: Host, container_id: str, name: str) -> Path:
    return snapshots_dir(host, container_id) / f"{check_name(name)}.json"


def _snapshot(path: Path) -> Snapshot:
    data = files.read_json(path)
    return build(Snapshot, {**data, "layers": tuple(data["layers"])}, "snapshot")


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
        raise NotFound(f"There is no image {name} on this host.") from None


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
def making(host: Host) -> Iterator[Path]:
    """Yield a new, empty directory in tmp/ to build something in, and remove it unless it was renamed away.

    Its maker holds a flock on it, so that what a killed one left behind can be told from what is still being made.
    """
    while True:
        path = host.tmp_dir / new_layer_id()
        path.mkdir(mode=0o700)
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
    for name in sorted(_listed(host.tmp_dir)):
        path = host.tmp_dir / name
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
    """Move something into the trash; returns whether it was there. empty_trash() removes it."""
    try:
        os.rename(path, host.trash_dir / new_layer_id())
    except FileNotFoundError:
        return False
    return True


def empty_trash(host: Host) -> None:
    """Remove what lies in the trash; one at a time does so, the others wait for it."""
    with lock(host, "trash", wait_sec=600):
        for name in _listed(host.trash_dir):
            files.remove_tree(host.trash_dir / name)


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
    """Hold a lock that dies with its holder (flock). Not re-entrant.

    shared: several may hold it so; an exclusive one waits for them. Raises Busy after wait_sec.
    """
    path = host.locks_dir / f"{kind}-{name}"
    if not path.parent.exists():  # nothing of the instance runs: the run directory went with the boot, or with `down`
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    deadline = time.monotonic() + wait_sec
    while (lock_fd := _try_lock(path, shared=shared)) is None:
        if time.monotonic() >= deadline:
            raise Busy(f"Another operation works on this {kind}.", lock=path.name)
        time.sleep(_POLL_SEC)
    try:
        yield
    finally:
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
