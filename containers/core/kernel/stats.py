"""Samples of all running containers, from descriptors kept open: one pread(2) per file and second.

Opening, reading and closing costs ten times as much; with 200 containers that decides. Host-wide samples too.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ..plans.samples import (
    Sample,
    StatPaths,
    container_view,
    find_number,
    parse_cpu_limit,
    parse_io_v1,
    parse_io_v2,
    parse_limit,
    parse_net_dev,
    parse_psi_some,
)

_READ_BYTES: Final = 16384
"""memory.stat, the longest, has about 2 kB."""
_FILES: Final = (
    "cpu",
    "cpu_limit",
    "throttled",
    "memory",
    "memory_stat",
    "swap",
    "memory_limit",
    "memory_events",
    "pids",
    "io",
)
_PRESSURE: Final = ("psi0", "psi1", "psi2")
_LONG: Final = dict.fromkeys(("cpu", "memory_stat", "io"), _READ_BYTES)
"""Those that may be longer than a few lines."""
_STILL: Final = ("memory_stat", "throttled", "memory_events", "pids", "psi0", "psi1")
"""What stays as it is while its processes use neither CPU time nor other memory, as most do most of the time: they are
half of what all files cost to read."""
_DISK: Final = ("io", "psi2")
"""Bytes, and waiting for them. Who waits for a disk uses neither CPU time nor other memory, and the kernel may write
later what was made dirty; but once both have stood still for a second, with nothing dirty, whoever wants to change them
has to run first."""
_ANEW: Final = (*_STILL, *_DISK)
"""What is read where there may be anything new in it."""
_STILL_READS: Final = 10
"""So often they are read all the same: the kernel may call other pages inactive without taking any."""


class Gone(Exception):
    """The container's cgroup is not there (any more)."""


class Reader:
    """Reads one container's files. Owns their descriptors; close() it, or let read() do so when it raises Gone."""

    def __init__(self, paths: StatPaths) -> None:
        self._v1 = paths.v1
        self._fds: dict[str, int] = {}
        self._texts: dict[str, bytes] = {}
        self._figures: dict[str, Any] = {}
        self._skip: Collection[str] = ()
        # not all containers' in the same second
        self._still_reads = random.randrange(_STILL_READS)
        self._disk_rests = False
        self._always: list[tuple[str, int, int]] = []
        try:
            for name in _FILES:
                path = getattr(paths, name)
                if path is not None:
                    self._fds[name] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            for name, path in zip(_PRESSURE, paths.pressure or (), strict=False):
                self._fds[name] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            self._psi = paths.pressure is not None and self._psi_is_on()
            self._always = [(name, fd, _LONG.get(name, 512)) for name, fd in self._fds.items() if name not in _ANEW]
        except FileNotFoundError as error:
            self.close()
            raise Gone(str(error)) from None
        except BaseException:
            self.close()
            raise

    def _psi_is_on(self) -> bool:
        try:
            os.pread(self._fds[_PRESSURE[0]], 256, 0)
        except OSError:  # EOPNOTSUPP: the kernel has it, and it was not turned on
            for name in _PRESSURE:
                os.close(self._fds.pop(name))
            return False
        return True

    def close(self) -> None:
        """Close every descriptor; the second call does nothing."""
        self._always = []
        while self._fds:
            os.close(self._fds.popitem()[1])

    def read(self, *, at: float, monotonic: float, network: tuple[int, int], skip_disks: Collection[str]) -> Sample:
        """Return what the container uses now; raises Gone, and closes, where its cgroup was removed.

        What its files say is taken apart where it is not what they said the last time: most containers do nothing most
        of the time, and to find that out costs a third.
        """
        pread = os.pread
        try:
            texts = {name: pread(fd, size, 0) for name, fd, size in self._always}
            self._read_still(texts)
            if texts != self._texts or skip_disks != self._skip or not texts:
                self._figures = self._taken_apart(texts, skip_disks)
                self._texts, self._skip = texts, skip_disks
        except (OSError, KeyError) as error:  # ENODEV: the directory is gone, the descriptor is not
            self.close()
            raise Gone(str(error)) from None
        received, sent = network
        return Sample(at=at, monotonic=monotonic, network_rx_bytes=received, network_tx_bytes=sent, **self._figures)

    def _read_still(self, texts: dict[str, bytes]) -> None:
        """Add what the files say that tell nothing new while CPU time and memory are what they were."""
        before, self._still_reads = self._texts, self._still_reads + 1
        still = bool(before) and texts["cpu"] == before["cpu"] and texts["memory"] == before["memory"]
        anew: tuple[str, ...]
        if not still or self._still_reads >= _STILL_READS:
            self._still_reads, anew = 0, _ANEW
        else:
            anew = () if self._disk_rests else _DISK
        texts.update((name, before[name]) for name in _ANEW if name in before and name not in anew)
        texts.update((name, os.pread(self._fds[name], _READ_BYTES, 0)) for name in anew if name in self._fds)
        if anew:
            resting = still and all(texts.get(name) == before.get(name) for name in _DISK)
            self._disk_rests = resting and not self._to_be_written(texts["memory_stat"])

    def _to_be_written(self, memory_stat: bytes) -> int:
        """Return how much of a container's memory the kernel has still to write to a disk."""
        names = (b"total_dirty", b"total_writeback") if self._v1 else (b"file_dirty", b"file_writeback")
        return sum(find_number(memory_stat, name) for name in names)

    def _taken_apart(self, texts: Mapping[str, bytes], skip_disks: Collection[str]) -> dict[str, Any]:
        """Return what the files say, as fields of a Sample. Raises KeyError where they are closed already."""
        cpu, stat = texts["cpu"], texts["memory_stat"]
        io = texts.get("io", b"").decode()
        throttled_usec = find_number(cpu, b"throttled_usec")
        if "throttled" in texts:
            throttled_usec = find_number(texts["throttled"], b"throttled_time") // 1000
        if self._v1:
            swap = find_number(stat, b"total_swap")
            cache = find_number(stat, b"total_inactive_file")
            read, written = parse_io_v1(io, skip_disks)
        else:
            swap = int(texts.get("swap", b"0"))
            cache = find_number(stat, b"inactive_file")
            read, written = parse_io_v2(io, skip_disks)
        return {
            "cpu_usage_usec": find_number(cpu, b"usage_usec"),
            "cpu_throttled_usec": throttled_usec,
            "cpu_limit_cores": parse_cpu_limit(texts["cpu_limit"].decode()),
            "memory_bytes": max(0, int(texts["memory"]) - cache),
            "cache_bytes": cache,
            "memory_limit_bytes": parse_limit(texts["memory_limit"].decode()),
            "swap_bytes": swap,
            "processes": int(texts["pids"]),
            "oom_kills": find_number(texts["memory_events"], b"oom_kill"),
            "disk_read_bytes": read,
            "disk_write_bytes": written,
            "psi_usec": tuple(parse_psi_some(texts[name]) for name in _PRESSURE) if self._psi else None,
        }


def present_limits(paths: StatPaths) -> dict[str, float | None]:
    """Return the limits that the kernel holds a container to now: memory_bytes, cpus, pids; None: none.

    Raises Gone where its cgroup is not there (any more).
    """
    try:
        memory, cpus, pids = (
            Path(name).read_text()
            for name in (paths.memory_limit, paths.cpu_limit, os.path.join(os.path.dirname(paths.pids), "pids.max"))
        )
    except OSError as error:
        raise Gone(str(error)) from None
    return {"memory_bytes": parse_limit(memory), "cpus": parse_cpu_limit(cpus), "pids": parse_limit(pids)}


@dataclass
class Sampler:
    """Samples every running container. paths: from an id to its files. links: from an id to its host links.

    inside: from an id to (received, sent) bytes of its links that have no side on the host.
    Not thread-safe: one thread samples.
    """

    paths: Callable[[str], StatPaths]
    links: Callable[[str], Collection[str]]
    inside: Callable[[str], tuple[int, int]] = lambda _id: (0, 0)
    _readers: dict[str, Reader] = field(default_factory=dict)
    _skip: frozenset[str] = frozenset()
    _skip_at: float = float("-inf")

    def sample(self, ids: Collection[str]) -> dict[str, Sample]:
        """Return a sample of every container of ids that runs; forgets those that are not among ids."""
        for gone in self._readers.keys() - set(ids):
            self._readers.pop(gone).close()
        at, monotonic = time.time(), time.monotonic()
        if monotonic - self._skip_at > 60:
            self._skip, self._skip_at = stacked_disks(), monotonic
        with open("/proc/net/dev", encoding="ascii") as file:
            network = parse_net_dev(file.read())
        found: dict[str, Sample] = {}
        for container_id in ids:
            for _attempt in range(2):  # stopped and started between two samples: open its new files
                try:
                    reader = self._readers.get(container_id)
                    if reader is None:
                        reader = self._readers[container_id] = Reader(self.paths(container_id))
                    received, sent = container_view(network, self.links(container_id))
                    more_received, more_sent = self.inside(container_id)
                    view = (received + more_received, sent + more_sent)
                    found[container_id] = reader.read(at=at, monotonic=monotonic, network=view, skip_disks=self._skip)
                    break
                except Gone:
                    self._readers.pop(container_id, None)
        return found

    def close(self) -> None:
        """Close every descriptor."""
        while self._readers:
            self._readers.popitem()[1].close()


def stacked_disks() -> frozenset[str]:
    """Return "MAJOR:MINOR" of the disks below another (RAID, LVM, encryption): both count the same bytes."""
    below: set[str] = set()
    for entry in Path("/sys/class/block").iterdir():
        with suppress(OSError):
            if any((entry / "holders").iterdir()):
                below.add((entry / "dev").read_text().strip())
    return frozenset(below)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSample:
    """What the whole host used at one moment. cpu_*_usec: over all cores, since boot. psi_usec: as in Sample."""

    at: float
    monotonic: float
    cpus: int
    cpu_busy_usec: int
    cpu_total_usec: int
    load_1min: float
    memory_total_bytes: int
    memory_used_bytes: int
    swap_used_bytes: int
    disk_total_bytes: int
    disk_used_bytes: int
    disk_free_bytes: int
    """What others than root may still write: less than the rest where the file system keeps some back."""
    psi_usec: tuple[int, int, int] | None


def sample_host(state_dir: Path) -> HostSample:
    """Return what the host uses now; the disk is the one that holds state_dir."""
    # user nice system idle iowait irq softirq steal; guest time is part of user
    with open("/proc/stat", "rb") as file:
        ticks = [int(number) for number in file.readline().split()[1:9]]
    tick_usec = 1_000_000 // os.sysconf("SC_CLK_TCK")
    with open("/proc/meminfo", encoding="ascii") as meminfo:
        memory = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in meminfo}
    disk = os.statvfs(state_dir)
    return HostSample(
        at=time.time(),
        monotonic=time.monotonic(),
        cpus=len(os.sched_getaffinity(0)),
        cpu_busy_usec=(sum(ticks) - ticks[3] - ticks[4]) * tick_usec,
        cpu_total_usec=sum(ticks) * tick_usec,
        load_1min=os.getloadavg()[0],
        memory_total_bytes=memory["MemTotal"],
        memory_used_bytes=memory["MemTotal"] - memory["MemAvailable"],
        swap_used_bytes=memory["SwapTotal"] - memory["SwapFree"],
        disk_total_bytes=disk.f_blocks * disk.f_frsize,
        disk_used_bytes=(disk.f_blocks - disk.f_bfree) * disk.f_frsize,
        disk_free_bytes=disk.f_bavail * disk.f_frsize,
        psi_usec=_host_psi(),
    )


def _host_psi() -> tuple[int, int, int] | None:
    totals = []
    try:
        for name in ("cpu", "memory", "io"):
            with open(f"/proc/pressure/{name}", "rb") as file:
                totals.append(parse_psi_some(file.read()))
    except OSError:
        return None
    return totals[0], totals[1], totals[2]


def public_host(old: HostSample | None, new: HostSample) -> dict[str, Any]:
    """Return a host sample as the pages get it. cpu_pct: 100 is every core busy."""
    cpu = psi = None
    if old is not None and new.cpu_total_usec > old.cpu_total_usec and new.monotonic > old.monotonic:
        cpu = 100 * (new.cpu_busy_usec - old.cpu_busy_usec) / (new.cpu_total_usec - old.cpu_total_usec)
        cpu = round(max(0.0, cpu), 2)
        if old.psi_usec and new.psi_usec:
            seconds = new.monotonic - old.monotonic
            psi = [
                round(min(100.0, max(0, b - a) / seconds / 1e4), 2)
                for a, b in zip(old.psi_usec, new.psi_usec, strict=True)
            ]
    values: Mapping[str, Any] = {
        "at": new.at,
        "cpus": new.cpus,
        "cpu_pct": cpu,
        "load_1min": new.load_1min,
        "memory_bytes": new.memory_used_bytes,
        "memory_limit_bytes": new.memory_total_bytes,
        "swap_bytes": new.swap_used_bytes,
        "disk_used_bytes": new.disk_used_bytes,
        "disk_total_bytes": new.disk_total_bytes,
        "disk_free_bytes": new.disk_free_bytes,
        "psi_pct": psi,
    }
    return dict(values)
