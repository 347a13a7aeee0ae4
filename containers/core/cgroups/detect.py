"""Which cgroup version this host has, and where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from ..errors import HostUnsupported
from ..host import Host
from ..sentences import say
from .base import Cgroups
from .v1 import CgroupsV1
from .v2 import CgroupsV2

_FLAGS: Final = frozenset({"rw", "ro", "none", "clone_children", "noprefix", "xattr", "cpuset_v2_mode", "favordynmods"})
_NEEDED_V1: Final = frozenset({"cpu", "memory", "pids"})


@dataclass(frozen=True)
class Mounts:
    """Where cgroups are mounted. v1: mount point → controllers (a named hierarchy counts as "name=…")."""

    v1: Mapping[Path, frozenset[str]]
    v2: Path | None


@lru_cache(maxsize=1)  # it is asked several times in each operation, and seldom says anything new
def parse_mounts(mountinfo: str) -> Mounts:
    """Find the cgroup hierarchies in the text of /proc/self/mountinfo; of several mounts of one the first counts."""
    v1: dict[frozenset[str], Path] = {}
    v2: Path | None = None
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        kind, _source, options = right.split(" ")[:3]
        if kind not in ("cgroup", "cgroup2"):
            continue
        point = Path(left.split()[4])
        if kind == "cgroup2":
            v2 = v2 or point
        else:
            controllers = frozenset(
                option
                for option in options.split(",")
                if option not in _FLAGS and not option.startswith("release_agent=")
            )
            v1.setdefault(controllers, point)
    return Mounts({point: controllers for controllers, point in v1.items()}, v2)


def open(host: Host) -> Cgroups:
    """Return the instance's cgroups; makes nothing yet. Raises HostUnsupported where a hierarchy is missing."""
    return open_named(host.cgroup_name, host.state_dir)


def open_named(name: str, state_dir: Path) -> Cgroups:
    """Return the cgroups below a directory `name` at the root of every hierarchy. See open()."""
    mounts = parse_mounts(Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape"))
    if mounts.v2 is None:
        raise HostUnsupported(
            "No cgroup2 file system is mounted. Mount one: mount -t cgroup2 none /sys/fs/cgroup/unified",
            feature="cgroup2",
        )
    on_v1 = frozenset().union(*mounts.v1.values()) if mounts.v1 else frozenset()
    if not on_v1 & _NEEDED_V1:
        return CgroupsV2(name, mounts.v2, state_dir)
    missing = _NEEDED_V1 - on_v1
    if missing:
        raise HostUnsupported(
            say("The cgroup v1 controllers %(names)s are not mounted.", names=", ".join(sorted(missing))),
            feature="cgroup-v1",
        )
    return CgroupsV1(name, mounts.v2, state_dir, mounts.v1)
