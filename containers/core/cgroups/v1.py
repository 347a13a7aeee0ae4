"""cgroup v1 beside a cgroup2 tree without controllers ("hybrid").

Limits sit in the v1 hierarchies, where an unprivileged container may look but not write: the files belong to the
host's root. A privileged container's root is the host's, so its processes sit one level deeper (c-ID/ns): what its
cgroup namespace lets it mount begins below the limits.

Source: kernel Documentation/admin-guide/cgroup-v1/.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from ..errors import InUse
from ..model.spec import Limits
from ..plans import devices
from ..plans.cgroup_files import CpusV1, Offered, Write, former, limits_v1, parse_keyed
from ..plans.samples import StatPaths
from ..sentences import say
from .base import SUPERVISORS, Cgroups
from .blockdev import throttled_device
from .chosen import all_or_none, page_sizes, write_raw
from .places import Birth, Joined, read_file, write_file
from .tree import CONTAINER_PREFIX
from .v2 import no_cpuset, refused


class CgroupsV1(Cgroups):
    """An instance's cgroups on a hybrid host. hierarchies: mount point → the controllers (or name=…) there."""

    version = 1

    def __init__(self, name: str, tree_root: Path, state_dir: Path, hierarchies: Mapping[Path, frozenset[str]]) -> None:
        super().__init__(name, tree_root, state_dir)
        self._hierarchies = {point / name: controllers for point, controllers in hierarchies.items()}
        self._controllers = {
            controller: base for base, controllers in self._hierarchies.items() for controller in controllers
        }

    def instance_dirs(self) -> tuple[Path, ...]:
        return (*self._hierarchies, self.tree)

    def controller_dir(self, controller: str) -> Path:
        return self._controllers[controller]

    def _prepare(self) -> None:
        for base, controllers in self._hierarchies.items():
            base.mkdir(mode=0o755, exist_ok=True)
            # a release agent of the host's must not run for every container that ends
            write_file(f"{base}/notify_on_release", "0")
            if "cpuset" in controllers:
                _fill_cpuset(base)
        self.tree.mkdir(mode=0o755, exist_ok=True)
        (self.tree / SUPERVISORS).mkdir(mode=0o755, exist_ok=True)

    def _container_dir(self, controller: str, container_id: str) -> Path:
        return self._controllers[controller] / f"{CONTAINER_PREFIX}{container_id}"

    def _make_birthplace(self, container_id: str, limits: Limits, owner_uid: int) -> None:
        self._make_tree_leaves(self._make_tree(container_id), owner_uid)

    def _make_others(self, container_id: str, limits: Limits, *, privileged: bool) -> None:
        for base in self._hierarchies:
            os.mkdir(f"{base}/{CONTAINER_PREFIX}{container_id}", 0o755)
        if "devices" in self._controllers:
            path = self._container_dir("devices", container_id)
            for file, value in devices.v1_writes():
                write_file(f"{path}/{file}", value)
        for write in self._plan(container_id, limits, fresh=True):
            if write.raw:
                write_raw(write, self._file(container_id, write), [])
            else:
                write_file(self._file(container_id, write), write.value)
        if privileged:  # after the rules above, which a new directory takes over
            for base in self._hierarchies:
                (base / f"{CONTAINER_PREFIX}{container_id}" / "ns").mkdir(mode=0o755)

    def _file(self, container_id: str, write: Write) -> str:
        return f"{self._container_dir(write.controller, container_id)}/{write.file}"

    def _plan(self, container_id: str, limits: Limits, *, fresh: bool) -> tuple[Write, ...]:
        memory = self._container_dir("memory", container_id)
        return limits_v1(
            limits,
            offered=self._offered(container_id, limits, fresh=fresh),
            fresh=fresh,
            swap=os.path.exists(memory / "memory.memsw.limit_in_bytes"),
            memory_now_bytes=int(read_file(f"{memory}/memory.limit_in_bytes")),
            cpus=self._cpus(container_id, limits) if limits.cpuset is not None or not fresh else None,
        )

    def _offered(self, container_id: str, limits: Limits, *, fresh: bool) -> Offered:
        controllers = frozenset(self._controllers)
        weights: tuple[str, ...] = ()
        sizes: tuple[str, ...] = ()
        if "blkio" in controllers and (limits.io_weight is not None or not fresh):
            path = self._container_dir("blkio", container_id)
            weights = tuple(name for name in ("blkio.bfq.weight", "blkio.weight") if (path / name).exists())
        if "hugetlb" in controllers and (limits.hugepages or not fresh):
            sizes = page_sizes(self._container_dir("hugetlb", container_id))
        return Offered(
            io_device=throttled_device(self.state_dir, limits) if "blkio" in controllers else None,
            io_weight=weights[0] if weights else None,
            page_sizes=sizes,
            controllers=controllers,
        )

    def _cpus(self, container_id: str, limits: Limits) -> CpusV1 | None:
        base = self._controllers.get("cpuset")
        if base is None:
            if limits.cpuset is not None:
                raise no_cpuset(say("its hierarchy is not mounted here."))
            return None
        path = self._container_dir("cpuset", container_id)
        every = read_file(f"{base}/cpuset.effective_cpus").strip()
        return CpusV1(read_file(f"{path}/cpuset.cpus").strip(), every, (path / "ns").exists())

    def apply(self, container_id: str, limits: Limits) -> None:
        done: list[tuple[str, str]] = []
        with self._while_there(container_id), all_or_none(done):
            for write in self._plan(container_id, limits, fresh=False):
                file = self._file(container_id, write)
                if write.raw:
                    write_raw(write, file, done)
                    continue
                old = former(write, read_file(file))
                self._write_limit(container_id, file, write, limits)
                if old is not None:
                    done.append((file, old))

    def allow_devices(self, container_id: str, rules: Iterable[devices.DeviceRule]) -> None:
        if "devices" not in self._controllers:
            return
        path = self._container_dir("devices", container_id)
        wanted = (*devices.DEFAULT_RULES, *rules)
        # a directory below takes over what is denied above it, and not what is allowed
        for place in (path, path / "ns"):
            if place.exists():
                for file, value in devices.v1_changes(read_file(f"{place}/devices.list"), wanted):
                    write_file(f"{place}/{file}", value)

    def _write_limit(self, container_id: str, file: str, write: Write, limits: Limits) -> None:
        try:
            write_file(file, write.value)
        except OSError as error:
            # the kernel has tried to reclaim, and left the old limit in force
            if error.errno == errno.EBUSY and write.controller == "memory":
                used = int(read_file(f"{self._container_dir('memory', container_id)}/memory.usage_in_bytes"))
                raise refused(used, limits.memory_bytes or 0) from error
            if error.errno == errno.EBUSY and write.controller == "cpuset":
                raise InUse(
                    "Cgroups that the container made hold CPUs that it is to lose.", field="limits.cpuset", users=[]
                ) from error
            raise

    def places(self, container_id: str, controller: str) -> tuple[Path, ...]:
        tree = self.container_tree(container_id)  # pressure, freezing and what all of it is named for: cgroup.*
        return (self._container_dir(controller, container_id), tree) if controller in self._controllers else (tree,)

    def birth(self, container_id: str, *, privileged: bool) -> Birth:
        inner = f"{CONTAINER_PREFIX}{container_id}{'/ns' if privileged else ''}"
        return Birth(
            f"{self.container_tree(container_id)}/ns", tuple(f"{base}/{inner}/tasks" for base in self._hierarchies)
        )

    def joined(self, container_id: str) -> Joined:
        tree = self.container_tree(container_id)
        places = []
        for base in self._hierarchies:
            path = base / f"{CONTAINER_PREFIX}{container_id}"
            inner = path / "ns"
            places.append(f"{inner if inner.exists() else path}/cgroup.procs")
        return Joined(
            init_procs=(*places, f"{tree}/ns/cgroup.procs"),
            attach_procs=(*places, f"{tree}/attach/cgroup.procs"),
            supervisor_procs=self.supervisor_procs(),
        )

    def supervisor_procs(self) -> tuple[str, ...]:
        places = super().supervisor_procs()
        return (*(f"{base}/cgroup.procs" for base in self._hierarchies), *places)

    def stat_paths(self, container_id: str) -> StatPaths:
        tree = self.container_tree(container_id)
        memory = self._container_dir("memory", container_id)
        pressure = (f"{tree}/cpu.pressure", f"{tree}/memory.pressure", f"{tree}/io.pressure")
        blkio = self._controllers.get("blkio")
        throttle = f"{CONTAINER_PREFIX}{container_id}/blkio.throttle.io_service_bytes_recursive"
        return StatPaths(
            v1=True,
            cpu=f"{tree}/cpu.stat",
            cpu_limit=f"{self._container_dir('cpu', container_id)}/cpu.cfs_quota_us",
            throttled=f"{self._container_dir('cpu', container_id)}/cpu.stat",
            memory=f"{memory}/memory.usage_in_bytes",
            memory_stat=f"{memory}/memory.stat",
            swap=None,  # memory.stat tells it
            memory_limit=f"{memory}/memory.limit_in_bytes",
            memory_events=f"{memory}/memory.oom_control",
            pids=f"{self._container_dir('pids', container_id)}/pids.current",
            io=str(blkio / throttle) if blkio else None,
            pressure=pressure if os.path.exists(pressure[0]) else None,
        )

    def oom_kills(self, container_id: str) -> int:
        """Return the sum over the container's memory cgroups: v1 counts where the victim was, not above."""
        kills = 0
        for directory, _children, _files in os.walk(self._container_dir("memory", container_id)):
            with contextlib.suppress(FileNotFoundError):
                kills += parse_keyed(read_file(f"{directory}/memory.oom_control")).get("oom_kill", 0)
        return kills


def _fill_cpuset(base: Path) -> None:
    """Give a new cpuset its parent's CPUs and memory nodes: it has none at first, and then takes no process."""
    for name in ("cpus", "mems"):
        if not read_file(f"{base}/cpuset.{name}").strip():
            write_file(f"{base}/cpuset.{name}", read_file(f"{base.parent}/cpuset.effective_{name}").strip())
    # what is made below copies from here
    write_file(f"{base}/cgroup.clone_children", "1")
