"""Storage pools: where on this host layers may lie, and which layer lies where.

The pool ``default`` is the store itself. Any other is a directory of its own on whatever file system, which the
policy file names; the store keeps a link to it, and a link to every layer in it::

    pools/NAME -> PATH/boxroom-INSTANCE      layers/, tmp/, trash/ as in the store, and pool.json: name, driver
    layers/LAYER -> ../pools/NAME/layers/LAYER

so that whoever opens a layer need not know of pools. A layer is there as soon as its link is, and only as long; a
directory in a pool without a link is litter, and so is a link that nothing refers to.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from .. import drivers
from ..drivers.base import Driver
from ..errors import NotFound, SetupFailed
from ..host import Host
from ..kernel import files
from ..names import check_name
from ..rules.pool_rules import DEFAULT
from ..sentences import say

_OTHERS_WRITE: Final = 0o022


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """A place for layers. place: the directory that holds layers/, tmp/ and trash/. kind: its driver's name."""

    name: str
    place: Path
    kind: str

    @property
    def layers_dir(self) -> Path:
        """One directory per layer."""
        return self.place / "layers"

    @property
    def tmp_dir(self) -> Path:
        """What is being made; a leftover is litter."""
        return self.place / "tmp"

    @property
    def trash_dir(self) -> Path:
        """What is being removed; a leftover is removed at the next chance."""
        return self.place / "trash"

    @property
    def driver(self) -> Driver:
        """What makes, copies and removes directories here."""
        return drivers.named(self.kind)


def default(host: Host) -> Pool:
    """Return the pool that is the store itself."""
    return Pool(name=DEFAULT, place=host.store_dir, kind="overlay")


def open_pool(host: Host, name: str) -> Pool:
    """Return a pool that is there; raises NotFound, or SetupFailed where its file system is not."""
    if name == DEFAULT:
        return default(host)
    check_name(name, field="pool")
    link = host.pools_dir / name
    try:
        place = link.resolve(strict=True)
        data: dict[str, Any] = files.read_json(place / "pool.json")
    except FileNotFoundError:
        if link.is_symlink():
            raise _away(name, link) from None
        raise NotFound(say("There is no storage pool %(name)s on this host.", name=name), field="pool") from None
    return Pool(name=name, place=place, kind=str(data["driver"]))


def there(host: Host) -> Iterator[Pool]:
    """Yield the pools of this host whose file systems are there, the default one first."""
    yield default(host)
    for name in _names(host):
        try:
            yield open_pool(host, name)
        except (NotFound, SetupFailed):
            continue


def name_of(host: Host, layer: str) -> str:
    """Return the name of the pool that a layer lies in."""
    try:
        return os.readlink(host.layers_dir / layer).split("/")[2]
    except (OSError, IndexError):  # a directory of the store's own, or nothing
        return DEFAULT


def of_layer(host: Host, layer: str) -> Pool:
    """Return the pool that a layer lies in; raises SetupFailed where its file system is not there."""
    return open_pool(host, name_of(host, layer))


def holding(host: Host, path: Path) -> Pool:
    """Return the pool that a path of the store, or of a pool, lies in."""
    place = os.path.realpath(path.parent)
    for pool in there(host):
        if pool.name != DEFAULT and place.startswith(f"{pool.place}/"):
            return pool
    return default(host)


def directory(host: Host, layer: str) -> Path:
    """Return where a layer's directory is, not by way of its link."""
    path = host.layers_dir / layer
    return path.resolve() if path.is_symlink() else path


def link(host: Host, pool: Pool, layer: str) -> None:
    """Have a layer be there that lies in a pool, on the disk; in the default one it is there already."""
    if pool.name == DEFAULT:
        return
    files.sync_dir(pool.layers_dir)
    os.symlink(f"../pools/{pool.name}/layers/{layer}", host.layers_dir / layer)


def unlinked(host: Host) -> Iterator[Path]:
    """Yield what lies among the layers of a pool and is none: the caller keeps others from making layers."""
    for pool in there(host):
        if pool.name != DEFAULT:
            for name in sorted(os.listdir(pool.layers_dir)):
                if name_of(host, name) != pool.name:
                    yield pool.layers_dir / name


def settle(host: Host, name: str, path: str, kind: str) -> Pool:
    """Make a pool in a directory of the host's, or open the one that is there.

    Raises SetupFailed: the directory is missing, others than root may write to it, its driver does not work there, or
    layers of the pool lie elsewhere.
    """
    place, driver = _checked(host, name, path, kind)
    if not (place / "pool.json").exists():
        for part in (place, place / "layers", place / "tmp", place / "trash"):
            part.mkdir(mode=0o700, exist_ok=True)
        if problem := driver.problem(place / "tmp"):
            raise refused(name, problem)
        files.write_json(place / "pool.json", {"name": name, "driver": kind})
    known = host.pools_dir / name
    if not known.is_symlink() or os.readlink(known) != str(place):
        host.pools_dir.mkdir(mode=0o700, exist_ok=True)
        temporary = host.pools_dir / f".{name}.{secrets.token_hex(4)}"
        temporary.symlink_to(place)
        temporary.rename(known)
        files.sync_dir(host.pools_dir)
    return open_pool(host, name)


def look(host: Host, name: str, path: str, kind: str) -> Path:
    """Return the directory in which a pool is, or would be made; raises as settle does. Makes and tries nothing."""
    place, _driver = _checked(host, name, path, kind)
    return place / "tmp" if (place / "pool.json").exists() else Path(path)


def refused(name: str, problem: str) -> SetupFailed:
    """Return the error that says why a pool cannot be used."""
    return SetupFailed(say("The storage pool %(name)s: %(why)s", name=name, why=problem), step="open the pool")


def _checked(host: Host, name: str, path: str, kind: str) -> tuple[Path, Driver]:
    """Return where a pool's own directory is, made or not, and its driver; raises SetupFailed."""
    check_name(name, field="pool")
    driver = drivers.named(kind)
    _own(name, Path(path))
    place = Path(os.path.realpath(path)) / f"boxroom-{host.instance}"
    try:
        present = files.read_json(place / "pool.json")
    except FileNotFoundError:
        # an empty directory where the pool's file system is not mounted is not a new pool
        if any(name_of(host, layer) == name for layer in os.listdir(host.layers_dir)):
            raise _away(name, place) from None
    else:
        # two names for one place would each take the other's layers for litter
        if present.get("name") != name:
            raise refused(name, f"its directory is that of the pool {present.get('name')}.")
        if present.get("driver") != kind:
            raise refused(name, f"it was made with the driver {present.get('driver')}.")
    return place, driver


def _own(name: str, path: Path) -> None:
    """Refuse a directory that others than root could put something else into the place of."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise SetupFailed.from_oserror("open the pool", error) from error
    if not os.path.isdir(path) or status.st_uid != 0 or status.st_mode & _OTHERS_WRITE:
        raise SetupFailed(
            say("The storage pool %(name)s must be a directory that only root may write to.", name=name),
            step="open the pool",
            path=str(path),
        )


def _away(name: str, path: Path) -> SetupFailed:
    return SetupFailed(
        say("The storage pool %(name)s is not there: is its file system mounted?", name=name),
        step="open the pool",
        path=str(path),
    )


def _names(host: Host) -> list[str]:
    try:
        return sorted(name for name in os.listdir(host.pools_dir) if not name.startswith("."))
    except FileNotFoundError:
        return []
