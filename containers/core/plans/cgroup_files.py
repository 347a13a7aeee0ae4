"""Limits as ordered writes to cgroup files, for both versions. Pure: nothing here touches a file.

Sources: kernel Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/{memory,blkio-controller,pids}.rst,
scheduler/sched-bwc.rst, cgroup-v1/cpusets.rst.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ..errors import HostUnsupported
from ..model import cpulist
from ..model.limits import Limits
from ..sentences import say

CPU_PERIOD_USEC: Final = 100_000
CPU_QUOTA_MIN_USEC: Final = 1_000
"""The kernel refuses less than a millisecond."""
WEIGHT_DEFAULT: Final = 100
TREE_BOUNDS: Final = {"cgroup.max.depth": "16", "cgroup.max.descendants": "512"}
"""What a container may make below its own cgroup2 root: each costs unaccounted kernel memory."""
DELEGATE: Final = ("cgroup.procs", "cgroup.threads", "cgroup.subtree_control")
"""The files that are a container's own, besides those the kernel names in /sys/kernel/cgroup/delegate."""
CONTROLLERS_V2: Final = ("cpu", "cpuset", "io", "memory", "pids")


@dataclass(frozen=True, slots=True)
class Write:
    """One write. controller: whose v1 hierarchy the file is in; the v2 writes name it too. raw: as somebody asked."""

    controller: str
    file: str
    value: str
    raw: bool = False

    def describe(self) -> str:
        """Return the write as one line for a person."""
        return f"{self.controller}: {self.value!r} to {self.file}"


@dataclass(frozen=True, slots=True)
class Offered:
    """What the container's cgroup has files for, beside those that every kernel offers.

    io_device: "MAJOR:MINOR" of the disk below the state directory, or None where there is none to throttle. io_weight:
    the file of a disk's share, None where no scheduler knows one. page_sizes: of huge pages. controllers: v1's.
    """

    io_device: str | None = None
    io_weight: str | None = None
    page_sizes: tuple[str, ...] = ()
    controllers: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class CpusV1:
    """A container's cpuset on v1. now: its CPUs. every: what it has without a limit. inner: "ns" is below it."""

    now: str
    every: str
    inner: bool


def cpu_quota_usec(cpus: float) -> int:
    """Return the CPU time that `cpus` cores give in one period, in microseconds."""
    return max(CPU_QUOTA_MIN_USEC, round(cpus * CPU_PERIOD_USEC))


def cpu_shares(weight: int) -> int:
    """Return v1's cpu.shares for a weight: 1024 is 100, as in the kernel's own conversion (cpu_weight_write_u64)."""
    return max(2, round(weight * 1024 / WEIGHT_DEFAULT))


def _swap(limits: Limits, *, swap: bool) -> None:
    if limits.swap_bytes and not swap:
        raise HostUnsupported(
            "This host's kernel does not account swap: leave the limit out.", feature="swap", field="limits.swap_bytes"
        )


def _io_weight(limits: Limits, offered: Offered, *, fresh: bool) -> list[Write]:
    """Return the write of a disk's share."""
    if limits.io_weight is not None and offered.io_weight is None:
        raise HostUnsupported(
            "This host's disks have no scheduler that knows shares (BFQ, or io.cost): leave it out.",
            feature="io-weight",
            field="limits.io_weight",
        )
    if offered.io_weight is None or (limits.io_weight is None and fresh):
        return []
    controller = offered.io_weight.partition(".")[0]
    return [Write(controller, offered.io_weight, str(limits.io_weight or WEIGHT_DEFAULT))]


def _hugepages(limits: Limits, offered: Offered, *, fresh: bool, file: str, none: str) -> list[Write]:
    wanted = limits.hugepages or {}
    if missing := sorted(set(wanted) - set(offered.page_sizes)):
        has = ", ".join(offered.page_sizes) or "none"
        raise HostUnsupported(
            say(
                "This host limits no pages of %(sizes)s for each container; it knows: %(known)s.",
                sizes=", ".join(missing),
                known=has,
            ),
            feature="hugetlb",
            field="limits.hugepages",
        )
    sizes = wanted if fresh else offered.page_sizes
    return [Write("hugetlb", f"hugetlb.{size}.{file}", str(wanted.get(size, none))) for size in sizes]


def _raw(limits: Limits) -> list[Write]:
    return [Write(file.partition(".")[0], file, value, raw=True) for file, value in (limits.cgroup or {}).items()]


def limits_v2(
    limits: Limits, *, offered: Offered, fresh: bool, swap: bool, every_cpu: str | None = None
) -> tuple[Write, ...]:
    """Return the writes that put limits in force on v2.

    fresh: the cgroup is new, so that what is unlimited needs no write. swap: memory.swap.max is there.
    every_cpu: all CPUs that there can be, where a cpuset is to be taken away: one with processes cannot be emptied
    (ENOSPC), and of this list the parent's own are in force, whichever those are later.
    With a memory limit the container may not swap unless it is given swap: the limit is what it costs the host,
    wherever the pages are. Raises HostUnsupported for a limit that this host has no file for.
    """
    _swap(limits, swap=swap)
    writes: list[Write] = []
    memory = limits.memory_bytes
    if memory is not None or not fresh:
        writes.append(Write("memory", "memory.max", "max" if memory is None else str(memory)))
        if swap:
            writes.append(Write("memory", "memory.swap.max", "max" if memory is None else str(limits.swap_bytes or 0)))
    if limits.cpus is not None or not fresh:
        quota = "max" if limits.cpus is None else str(cpu_quota_usec(limits.cpus))
        writes.append(Write("cpu", "cpu.max", f"{quota} {CPU_PERIOD_USEC}"))
    if limits.cpu_weight is not None or not fresh:
        writes.append(Write("cpu", "cpu.weight", str(limits.cpu_weight or WEIGHT_DEFAULT)))
    if limits.cpuset is not None or every_cpu is not None:
        writes.append(Write("cpuset", "cpuset.cpus", limits.cpuset or every_cpu or ""))
    if limits.pids is not None or not fresh:
        writes.append(Write("pids", "pids.max", "max" if limits.pids is None else str(limits.pids)))
    writes += _io_weight(limits, offered, fresh=fresh)
    writes += _hugepages(limits, offered, fresh=fresh, file="max", none="max")
    if offered.io_device is not None and (limits.throttled or not fresh):
        rates = (
            ("rbps", limits.io_read_bytes_per_sec),
            ("wbps", limits.io_write_bytes_per_sec),
            ("riops", limits.io_read_ops_per_sec),
            ("wiops", limits.io_write_ops_per_sec),
        )
        words = " ".join(f"{name}={rate or 'max'}" for name, rate in rates)
        writes.append(Write("io", "io.max", f"{offered.io_device} {words}"))
    return (*writes, *_raw(limits))


def limits_v1(
    limits: Limits,
    *,
    offered: Offered,
    fresh: bool,
    swap: bool,
    memory_now_bytes: int,
    cpus: CpusV1 | None = None,
) -> tuple[Write, ...]:
    """Return the writes that put limits in force on v1, in an order that the kernel takes.

    memory.limit_in_bytes may never be above memory.memsw.limit_in_bytes: raising begins with memsw, lowering with
    the limit. memory_now_bytes: what memory.limit_in_bytes reads now. swap: memory.memsw.* is there. cpus: what its
    cpuset is now; None where that stays as it is. See limits_v2.
    """
    _swap(limits, swap=swap)
    writes: list[Write] = []
    if limits.memory_bytes is not None or not fresh:
        value = "-1" if limits.memory_bytes is None else str(limits.memory_bytes)
        memory = [Write("memory", "memory.limit_in_bytes", value)]
        if swap:
            both = "-1" if limits.memory_bytes is None else str(limits.memory_bytes + (limits.swap_bytes or 0))
            memory.append(Write("memory", "memory.memsw.limit_in_bytes", both))
        raising = limits.memory_bytes is None or limits.memory_bytes > memory_now_bytes
        writes += reversed(memory) if raising else memory
    if limits.cpus is not None or not fresh:
        quota = "-1" if limits.cpus is None else str(cpu_quota_usec(limits.cpus))
        writes.append(Write("cpu", "cpu.cfs_period_us", str(CPU_PERIOD_USEC)))
        writes.append(Write("cpu", "cpu.cfs_quota_us", quota))
    if limits.cpu_weight is not None or not fresh:
        writes.append(Write("cpu", "cpu.shares", str(cpu_shares(limits.cpu_weight or WEIGHT_DEFAULT))))
    if cpus is not None:
        writes += _cpuset_v1(limits.cpuset, cpus)
    if limits.pids is not None or not fresh:
        writes.append(Write("pids", "pids.max", "max" if limits.pids is None else str(limits.pids)))
    writes += _io_weight(limits, offered, fresh=fresh)
    writes += _hugepages(limits, offered, fresh=fresh, file="limit_in_bytes", none="-1")
    rates = (
        ("read_bps", limits.io_read_bytes_per_sec),
        ("write_bps", limits.io_write_bytes_per_sec),
        ("read_iops", limits.io_read_ops_per_sec),
        ("write_iops", limits.io_write_ops_per_sec),
    )
    for way, rate in rates:
        if offered.io_device is not None and (rate or not fresh):
            writes.append(Write("blkio", f"blkio.throttle.{way}_device", f"{offered.io_device} {rate or 0}"))
    for write in _raw(limits):
        if write.controller not in offered.controllers:
            raise HostUnsupported(
                say("This host's cgroup v1 has no controller %(name)s.", name=write.controller),
                feature="cgroup-file",
                field=f"limits.cgroup.{write.file}",
            )
        writes.append(write)
    return tuple(writes)


def _cpuset_v1(wanted: str | None, cpus: CpusV1) -> list[Write]:
    """Return the writes that change a cpuset: a child's CPUs must be among its parent's at every moment."""
    now, after = cpulist.parse(cpus.now), cpulist.parse(cpus.every if wanted is None else wanted)
    if now == after:
        return []
    if not cpus.inner:
        return [Write("cpuset", "cpuset.cpus", cpulist.write(after))]
    return [
        Write("cpuset", "cpuset.cpus", cpulist.write(now | after)),
        Write("cpuset", "ns/cpuset.cpus", cpulist.write(after)),
        Write("cpuset", "cpuset.cpus", cpulist.write(after)),
    ]


_NONE_OF_A_DEVICE: Final = {
    "io.latency": "target=max",
    "blkio.weight_device": "0",
    "blkio.bfq.weight_device": "0",
    "blkio.leaf_weight_device": "0",
}
"""What takes back a line of these files, which have none of a device that nothing was written for."""


def former(write: Write, text: str) -> str | None:
    """Return what undoes a write to a file that read as text before it; None where the text does not tell.

    A file of several devices is undone for the one that is written to, and so is any other that has a line for each
    of several things (misc.max, rdma.max, net_prio.ifpriomap).
    """
    lines = text.splitlines()
    if write.file == "io.max" or write.file.startswith("blkio.throttle."):
        device = write.value.partition(" ")[0]
        none = "rbps=max wbps=max riops=max wiops=max" if write.file == "io.max" else "0"
        return next((line for line in lines if line.startswith(f"{device} ")), f"{device} {none}")
    if write.file in ("io.weight", "io.bfq.weight"):  # the first line is every device's, "default 100"
        return lines[0] if lines else None
    if write.file == "memory.oom_control":  # written as a number, read as "oom_kill_disable 0" and counters
        return next((line.split()[-1] for line in lines if line.startswith("oom_kill_disable ")), None)
    key, space, _value = write.value.partition(" ")
    if write.file in _NONE_OF_A_DEVICE or (space and len(lines) > 1):
        absent = f"{key} {_NONE_OF_A_DEVICE[write.file]}" if write.file in _NONE_OF_A_DEVICE else None
        return next((line for line in lines if line.startswith(f"{key} ")), absent)
    return text.strip() if len(lines) <= 1 else None


def parse_keyed(text: str) -> dict[str, int]:
    """Parse "KEY NUMBER" lines, as in cgroup.events, memory.events, memory.stat and cpu.stat."""
    values: dict[str, int] = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if value.isdigit():
            values[key] = int(value)
    return values
