"""Every container's spec at once, read again only where its files have changed.

What was read is kept in this process, by what tells one version of a file from another.
"""

from __future__ import annotations

import os
import time
from typing import Final

from ..errors import NotFound
from ..host import Host
from ..model.spec import Spec
from . import store

_FILES: Final = ("spec.json", "root.json")
_COARSE_NSEC: Final = 50_000_000
"""A file's times are those of the last timer tick: two versions within one may show the same."""
Version = tuple[tuple[int, int, int, int], ...]

_KNOWN: Final[dict[str, dict[str, tuple[Version, Spec]]]] = {}
"""By the directory of the containers, and by id. Specs are never changed, only replaced."""


def load_all(host: Host) -> tuple[dict[str, Spec], dict[str, str]]:
    """Return the specs by id, and, for what can't be read, the reason by id."""
    specs: dict[str, Spec] = {}
    damaged: dict[str, str] = {}
    place = str(host.containers_dir)
    known = _KNOWN.get(place, {})
    kept: dict[str, tuple[Version, Spec]] = {}
    for container_id in store.container_ids(host):
        try:
            version = _version(f"{place}/{container_id}")
            before = known.get(container_id)
            if before is not None and before[0] == version:
                kept[container_id] = before
                specs[container_id] = before[1]
                continue
            specs[container_id] = spec = store.load(host, container_id)
            # seen before it was read, and old enough that whatever comes later looks different
            if all(abs(time.time_ns() - changed) > _COARSE_NSEC for _ino, _size, _modified, changed in version):
                kept[container_id] = (version, spec)
        except NotFound:
            if host.container_dir(container_id).exists():
                damaged[container_id] = "spec.json is missing."
        except Exception as error:  # noqa: BLE001  whatever is wrong with one must not hide the others
            damaged[container_id] = str(error)
    _KNOWN[place] = kept
    return specs, damaged


def _version(directory: str) -> Version:
    """Return what tells one version of a container's two files from another."""
    found = []
    for name in _FILES:
        try:
            seen = os.stat(f"{directory}/{name}")
        except FileNotFoundError:
            found.append((0, 0, 0, 0))
        else:
            found.append((seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns))
    return tuple(found)
