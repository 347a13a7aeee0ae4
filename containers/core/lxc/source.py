"""Where an LXC container's root file system lies, and how its owners are shifted there. Pure.

Source: lxc.container.conf(5), lxc.rootfs.path.
"""

from __future__ import annotations

import os.path
from dataclasses import dataclass
from typing import Any, Final, Self

from ..errors import SpecError
from ..model.idmap import IdMap
from .reading import Config

_DIRECTORIES: Final = ("dir", "btrfs")
_OVERLAYS: Final = ("overlay", "overlayfs")
_DEVICES: Final = ("loop", "lvm", "nbd", "rbd", "zfs", "aufs", "best")
LAYERS_MAX: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What a container is to be made of. layers: directories, bottom first; more than one are an overlay.

    uids, gids: which ids of the container are which on disk; empty where they are the same. path, name: of LXC's.
    move: LXC's container is removed afterwards.
    """

    path: str
    name: str
    layers: tuple[str, ...]
    uids: tuple[IdMap, ...] = ()
    gids: tuple[IdMap, ...] = ()
    move: bool = False

    @property
    def directory(self) -> str:
        """LXC's own directory of the container."""
        return os.path.join(self.path, self.name)

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        maps = {
            kind: [[one.container_id, one.host_id, one.size] for one in found]
            for kind, found in (("uids", self.uids), ("gids", self.gids))
        }
        return {"path": self.path, "name": self.name, "layers": list(self.layers), "move": self.move, **maps}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Return what as_dict gave."""
        maps = {kind: tuple(IdMap(*one) for one in data[kind]) for kind in ("uids", "gids")}
        return cls(**{**data, "layers": tuple(data["layers"]), **maps})


def written(config: Config) -> str | None:
    """Return the root file system as LXC writes it today, with its kind in front where one was named; None for none."""
    path, kind = config.get("lxc.rootfs.path"), config.get("lxc.rootfs.backend")
    if path is None or kind is None or path.partition(":")[0] in (*_DIRECTORIES, *_OVERLAYS, *_DEVICES):
        return path
    # a zfs dataset, for one, was named by the directory that it is mounted on
    return path if kind not in _OVERLAYS and path.startswith("/") else f"{kind}:{path}"


def layers(text: str | None) -> tuple[str, ...]:
    """Return the directories of a root file system, bottom first; raises SpecError (field ``rootfs``) with advice."""
    if not text:
        raise SpecError("It has no root file system of its own (lxc.rootfs.path).", field="rootfs")
    kind, colon, rest = text.partition(":")
    if text.startswith("/"):
        found: tuple[str, ...] = (text,)
    elif colon and kind in _DIRECTORIES:
        found = (rest,)
    elif colon and kind in _OVERLAYS:
        below, _colon, upper = rest.removeprefix("dir:").rpartition(":")
        # overlay names the topmost of the lower ones first
        found = (*reversed(below.split(":")), upper)
    else:
        raise SpecError(
            f"{text} is no directory: mount it, and name the place by lxc.rootfs.path in a copy of its configuration "
            "that --config is given.",
            field="rootfs",
        )
    found = tuple(os.path.normpath(one) for one in found if one)
    if not found or len(found) > LAYERS_MAX or any(not one.startswith("/") or one == "/" for one in found):
        raise SpecError(f"{text} does not name directories that are a container's.", field="rootfs")
    return found


def reversed_map(maps: tuple[IdMap, ...]) -> str:
    """Return the map, for /proc/PID/uid_map, of a user namespace that shifts what lies on disk back to 0 and up.

    Raises SpecError (field ``idmap``) where two ranges share an id: no such map can be written.
    """
    for index, one in enumerate(maps):
        for other in maps[:index]:
            inside = IdMap(0, one.container_id, one.size).overlaps(IdMap(0, other.container_id, other.size))
            if inside or one.overlaps(other):
                raise SpecError("Two ranges of lxc.idmap share an id.", field="idmap")
    return "".join(f"{one.host_id} {one.container_id} {one.size}\n" for one in maps)
