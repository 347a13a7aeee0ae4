"""cgroup v2: one hierarchy with every controller in it.

Source: kernel Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable
from pathlib import Path

from ..errors import HostUnsupported, InUse
from ..kernel import bpf
from ..model.spec import Limits
from ..plans import devices
from ..plans.cgroup_files import CONTROLLERS_V2, Offered, Write, former, limits_v2, parse_keyed
from ..plans.samples import StatPaths
from ..sentences import say
from ..units import format_bytes
from .base import SUPERVISORS, Cgroups
from .blockdev import throttled_device
from .chosen import all_or_none, page_sizes, write_raw
from .places import Birth, Joined, offer, read_file, write_file

_POSSIBLE_CPUS = "/sys/devices/system/cpu/possible"


class CgroupsV2(Cgroups):
    """An instance's cgroups on a host with v2 alone."""

    version = 2

    def instance_dirs(self) -> tuple[Path, ...]:
        return (self.tree,)

    def controller_dir(self, controller: str) -> Path:
        return self.tree

    def _prepare(self) -> None:
        root = self.tree.parent
        there = set(read_file(f"{root}/cgroup.controllers").split())
        missing = {"cpu", "memory", "pids"} - there
        if missing:
            raise HostUnsupported(
                say("The kernel offers no %(names)s controller on cgroup v2.", names=", ".join(sorted(missing))),
                feature="cgroup-v2",
            )
        wanted = " ".join(f"+{name}" for name in CONTROLLERS_V2 if name in there)
        offer(root, wanted)
        self.tree.mkdir(mode=0o755, exist_ok=True)
        write_file(f"{self.tree}/cgroup.subtree_control", wanted)
        (self.tree / SUPERVISORS).mkdir(mode=0o755, exist_ok=True)

    def _make_others(self, container_id: str, limits: Limits, *, privileged: bool) -> None:
        """All is made where it is born."""

    def birth(self, container_id: str, *, privileged: bool) -> Birth:
        return Birth(f"{self.container_tree(container_id)}/ns")

    def _make_birthplace(self, container_id: str, limits: Limits, owner_uid: int) -> None:
        path = self._make_tree(container_id)
        self._attach_device_rules(path)
        for write in self._plan(path, limits, fresh=True):
            if write.raw:
                write_raw(write, f"{path}/{write.file}", [])
            else:
                write_file(f"{path}/{write.file}", write.value)
        # for the children: only now may the container's own directories be made, with controllers in them
        controllers = read_file(f"{path}/cgroup.controllers").split()
        enabled = " ".join(f"+{name}" for name in CONTROLLERS_V2 if name in controllers)
        write_file(f"{path}/cgroup.subtree_control", enabled)
        self._make_tree_leaves(path, owner_uid)

    def allow_devices(self, container_id: str, rules: Iterable[devices.DeviceRule]) -> None:
        self._attach_device_rules(self.container_tree(container_id), rules)

    @staticmethod
    def _attach_device_rules(path: Path, rules: Iterable[devices.DeviceRule] = ()) -> None:
        cgroup_fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            program_fd = bpf.load_device_program(devices.v2_program((*devices.DEFAULT_RULES, *rules)))
            try:
                bpf.replace_device_program(cgroup_fd, program_fd)
            finally:
                os.close(program_fd)
        finally:
            os.close(cgroup_fd)

    def _plan(self, path: Path, limits: Limits, *, fresh: bool) -> tuple[Write, ...]:
        every_cpu = None
        if limits.cpuset is not None:
            if not os.path.exists(path / "cpuset.cpus"):
                raise no_cpuset(say("the cgroup %(path)s was not given it.", path=self.tree.parent))
        elif not fresh and os.path.exists(path / "cpuset.cpus") and read_file(f"{path}/cpuset.cpus").strip():
            # every CPU that there can ever be: what the parent has is what counts then, as if there was none
            every_cpu = read_file(_POSSIBLE_CPUS).strip()
        return limits_v2(
            limits,
            offered=self._offered(path, limits, fresh=fresh),
            fresh=fresh,
            swap=os.path.exists(path / "memory.swap.max"),
            every_cpu=every_cpu,
        )

    def _offered(self, path: Path, limits: Limits, *, fresh: bool) -> Offered:
        there = os.path.exists(path / "io.max")
        weights: tuple[str, ...] = ()
        if limits.io_weight is not None or not fresh:
            weights = tuple(name for name in ("io.weight", "io.bfq.weight") if os.path.exists(path / name))
        if limits.hugepages:
            # seldom used: without it every cgroup is made a little faster
            for place in (self.tree.parent, self.tree):
                with contextlib.suppress(OSError):
                    write_file(f"{place}/cgroup.subtree_control", "+hugetlb")
        return Offered(
            io_device=throttled_device(self.state_dir, limits) if there else None,
            io_weight=weights[0] if weights else None,
            page_sizes=page_sizes(path) if limits.hugepages or not fresh else (),
        )

    def apply(self, container_id: str, limits: Limits) -> None:
        path = self.container_tree(container_id)
        done: list[tuple[str, str]] = []
        with self._while_there(container_id), all_or_none(done):
            for write in self._plan(path, limits, fresh=False):
                file = f"{path}/{write.file}"
                if write.raw:
                    write_raw(write, file, done)
                    continue
                old = former(write, read_file(file))
                if write.file == "cpuset.cpus" and not old:
                    # one that was never set, which it cannot be again while there are processes
                    old = read_file(_POSSIBLE_CPUS).strip()
                if write.file == "memory.max" and write.value != "max":
                    _lower_memory(path, int(write.value))
                else:
                    write_file(file, write.value)
                if old is not None:
                    done.append((file, old))

    def places(self, container_id: str, controller: str) -> tuple[Path, ...]:
        return (self.container_tree(container_id),)

    def joined(self, container_id: str) -> Joined:
        path = self.container_tree(container_id)
        return Joined(
            init_procs=(f"{path}/ns/cgroup.procs",),
            attach_procs=(f"{path}/attach/cgroup.procs",),
            supervisor_procs=self.supervisor_procs(),
        )

    def stat_paths(self, container_id: str) -> StatPaths:
        path = self.container_tree(container_id)
        pressure = (f"{path}/cpu.pressure", f"{path}/memory.pressure", f"{path}/io.pressure")
        return StatPaths(
            v1=False,
            cpu=f"{path}/cpu.stat",
            cpu_limit=f"{path}/cpu.max",
            throttled=None,
            memory=f"{path}/memory.current",
            memory_stat=f"{path}/memory.stat",
            swap=f"{path}/memory.swap.current" if os.path.exists(path / "memory.swap.current") else None,
            memory_limit=f"{path}/memory.max",
            memory_events=f"{path}/memory.events",
            pids=f"{path}/pids.current",
            io=f"{path}/io.stat" if os.path.exists(path / "io.stat") else None,
            pressure=pressure if os.path.exists(pressure[0]) else None,
        )

    def oom_kills(self, container_id: str) -> int:
        try:
            return parse_keyed(read_file(f"{self.container_tree(container_id)}/memory.events")).get("oom_kill", 0)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENODEV):
                return 0
            raise


def _lower_memory(path: Path, limit_bytes: int) -> None:
    """Set memory.max without killing anybody: v2 itself would rather kill than refuse.

    memory.high makes the kernel reclaim, in the writer, and slows down whoever grows meanwhile; what is then in use
    decides. Raises InUse with the old limit left in force.
    """
    if int(read_file(f"{path}/memory.current")) > limit_bytes:
        high = read_file(f"{path}/memory.high").strip()
        try:
            write_file(f"{path}/memory.high", str(limit_bytes))
            current = int(read_file(f"{path}/memory.current"))
            if current > limit_bytes:
                raise refused(current, limit_bytes)
            write_file(f"{path}/memory.max", str(limit_bytes))
        finally:
            write_file(f"{path}/memory.high", high)
    else:
        write_file(f"{path}/memory.max", str(limit_bytes))


def no_cpuset(here: str) -> HostUnsupported:
    """Return the error for a list of CPUs where nobody can be held to one. here: why, where the kernel itself can."""
    with open("/proc/cgroups", encoding="ascii") as listed:
        known = any(line.split()[0] == "cpuset" for line in listed)
    told = say("This host's kernel has a cpuset controller, but %(why)s", why=here)
    return HostUnsupported(
        told if known else "This host's kernel has no cpuset controller.", feature="cpuset", field="limits.cpuset"
    )


def refused(current_bytes: int, limit_bytes: int) -> InUse:
    """Return the error for a memory limit below what the container cannot give back."""
    return InUse(
        say(
            "The container uses %(used)s that the kernel cannot take back: %(limit)s is too "
            "little. Choose a higher limit, or stop something inside first.",
            used=format_bytes(current_bytes),
            limit=format_bytes(limit_bytes),
        ),
        field="limits.memory_bytes",
        users=[],
        memory_bytes=current_bytes,
    )
