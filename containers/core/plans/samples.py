"""Samples of what a container uses, and what two of them say together. Pure: text in, numbers out.

Counters stay counters (they only grow while the container runs); a rate is made of two samples, by rates().
Sources: kernel Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/{memory,blkio-controller}.rst, accounting/psi.rst.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any, Final, NamedTuple

from .cgroup_files import CPU_PERIOD_USEC

_UNLIMITED_BYTES: Final = 2**62
"""v1 writes "no limit" as PAGE_COUNTER_MAX, which is above this."""


@dataclass(frozen=True, slots=True)
class StatPaths:
    """Files that tell what one container uses; None where this host has none. v1 tells the formats apart."""

    v1: bool
    cpu: str
    cpu_limit: str
    throttled: str | None
    """Where cpu does not tell for how long the limit held it back: v1's cpu.stat."""
    memory: str
    memory_stat: str
    swap: str | None
    memory_limit: str
    memory_events: str
    pids: str
    io: str | None
    pressure: tuple[str, str, str] | None
    """cpu.pressure, memory.pressure, io.pressure; None where the kernel has PSI off."""


class Sample(NamedTuple):
    """What one container used at one moment, from its own view.

    A tuple, because each second makes one for each container, and a frozen dataclass takes three times as long to make.

    at: Unix time. monotonic: seconds, for rates. memory_bytes: without the page cache that can go at once, as the
    limit counts when it matters; cache_bytes: that cache. None: this host cannot tell.
    """

    at: float
    monotonic: float
    cpu_usage_usec: int
    cpu_throttled_usec: int
    cpu_limit_cores: float | None
    memory_bytes: int
    cache_bytes: int
    memory_limit_bytes: int | None
    swap_bytes: int
    processes: int
    oom_kills: int
    network_rx_bytes: int
    network_tx_bytes: int
    disk_read_bytes: int
    disk_write_bytes: int
    psi_usec: tuple[int, int, int] | None
    """Time in which some process waited for CPU, memory, I/O."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What happened between two samples. cpu_cores: 1.0 is one core, all the time. psi_pct: CPU, memory, I/O."""

    cpu_cores: float
    network_rx_bytes_per_sec: float
    network_tx_bytes_per_sec: float
    disk_read_bytes_per_sec: float
    disk_write_bytes_per_sec: float
    psi_pct: tuple[float, float, float] | None


_NOTHING: Final = Rates(
    cpu_cores=0.0,
    network_rx_bytes_per_sec=0.0,
    network_tx_bytes_per_sec=0.0,
    disk_read_bytes_per_sec=0.0,
    disk_write_bytes_per_sec=0.0,
    psi_pct=None,
)
_NOTHING_WAITED: Final = replace(_NOTHING, psi_pct=(0.0, 0.0, 0.0))
_counted: Final = attrgetter(
    "cpu_usage_usec", "network_rx_bytes", "network_tx_bytes", "disk_read_bytes", "disk_write_bytes", "psi_usec"
)
"""The counters of a Sample that rates are made of."""


def rates(old: Sample, new: Sample) -> Rates | None:
    """Return what happened from old to new; None where no time passed or the container was started anew between.

    A network counter that went back alone (a new link) counts from zero.
    """
    seconds = new.monotonic - old.monotonic
    if seconds <= 0 or new.cpu_usage_usec < old.cpu_usage_usec:
        return None
    if _counted(old) == _counted(new):
        return _NOTHING if new.psi_usec is None else _NOTHING_WAITED

    def per_second(before: int, after: int) -> float:
        return (after - before if after >= before else after) / seconds

    psi = None
    if old.psi_usec is not None and old.psi_usec == new.psi_usec:
        psi = (0.0, 0.0, 0.0)
    elif old.psi_usec is not None and new.psi_usec is not None:
        shares = [min(100.0, per_second(a, b) / 1e4) for a, b in zip(old.psi_usec, new.psi_usec, strict=True)]
        psi = (shares[0], shares[1], shares[2])
    return Rates(
        cpu_cores=(new.cpu_usage_usec - old.cpu_usage_usec) / seconds / 1e6,
        network_rx_bytes_per_sec=per_second(old.network_rx_bytes, new.network_rx_bytes),
        network_tx_bytes_per_sec=per_second(old.network_tx_bytes, new.network_tx_bytes),
        disk_read_bytes_per_sec=per_second(old.disk_read_bytes, new.disk_read_bytes),
        disk_write_bytes_per_sec=per_second(old.disk_write_bytes, new.disk_write_bytes),
        psi_pct=psi,
    )


def parse_limit(text: str) -> int | None:
    """Parse memory.max or memory.limit_in_bytes; None: no limit."""
    text = text.strip()
    if text == "max":
        return None
    value = int(text)
    return None if value >= _UNLIMITED_BYTES else value


def parse_cpu_limit(text: str) -> float | None:
    """Parse cpu.max ("QUOTA PERIOD") or cpu.cfs_quota_us (of the period that cgroup_files sets), in cores."""
    quota, _, period = text.strip().partition(" ")
    if quota in ("max", "-1"):
        return None
    return int(quota) / int(period or CPU_PERIOD_USEC)


def find_number(text: bytes, key: bytes) -> int:
    """Return the number after "KEY " at the beginning of a line; 0 where there is none."""
    if text.startswith(key + b" "):
        begin = len(key) + 1
    else:
        begin = text.find(b"\n" + key + b" ")
        if begin < 0:
            return 0
        begin += len(key) + 2
    end = text.find(b"\n", begin)
    return int(text[begin : end if end >= 0 else None])


def parse_io_v2(text: str, skip: Collection[str] = ()) -> tuple[int, int]:
    """Return (read, written) bytes of io.stat, over all devices but those in skip ("MAJOR:MINOR")."""
    read = written = 0
    for line in text.splitlines():
        device, _, rest = line.partition(" ")
        if device in skip:
            continue
        for pair in rest.split():
            key, _, value = pair.partition("=")
            if key == "rbytes":
                read += int(value)
            elif key == "wbytes":
                written += int(value)
    return read, written


def parse_io_v1(text: str, skip: Collection[str] = ()) -> tuple[int, int]:
    """Return (read, written) bytes of blkio.throttle.io_service_bytes_recursive; skip as in parse_io_v2."""
    read = written = 0
    for line in text.splitlines():
        parts = line.split()
        if len(parts) == 3 and parts[0] not in skip:
            if parts[1] == "Read":
                read += int(parts[2])
            elif parts[1] == "Write":
                written += int(parts[2])
    return read, written


def parse_psi_some(text: bytes) -> int:
    """Return the total of the "some" line of a pressure file, in microseconds."""
    begin = text.find(b"total=")
    end = text.find(b"\n", begin)
    return int(text[begin + 6 : end]) if begin >= 0 else 0


def parse_net_dev(text: str) -> dict[str, tuple[int, int]]:
    """Return name → (received, sent) bytes of every link in /proc/net/dev, as the host sees them."""
    links: dict[str, tuple[int, int]] = {}
    for line in text.splitlines()[2:]:
        name, _, rest = line.partition(":")
        numbers = rest.split(None, 9)
        links[name.strip()] = (int(numbers[0]), int(numbers[8]))
    return links


def container_view(host: Mapping[str, tuple[int, int]], links: Collection[str]) -> tuple[int, int]:
    """Return (received, sent) bytes of a container: what its host links sent, it received."""
    received = sent = 0
    for link in host.keys() & links:
        host_received, host_sent = host[link]
        received += host_sent
        sent += host_received
    return received, sent


def public(sample: Sample, rate: Rates | None, *, disk_used_bytes: int | None) -> dict[str, Any]:
    """Return a sample as the API and /ws/stats give it. cpu_pct: 100 is one core; None until a second sample."""
    psi = rate.psi_pct if rate else None
    return {
        "at": sample.at,
        "cpu_usage_usec": sample.cpu_usage_usec,
        "cpu_throttled_usec": sample.cpu_throttled_usec,
        "cpu_pct": round(rate.cpu_cores * 100, 2) if rate else None,
        "cpu_limit_cores": sample.cpu_limit_cores,
        "memory_bytes": sample.memory_bytes,
        "cache_bytes": sample.cache_bytes,
        "memory_limit_bytes": sample.memory_limit_bytes,
        "swap_bytes": sample.swap_bytes,
        "processes": sample.processes,
        "network_rx_bytes": sample.network_rx_bytes,
        "network_tx_bytes": sample.network_tx_bytes,
        "network_rx_bytes_per_sec": round(rate.network_rx_bytes_per_sec) if rate else None,
        "network_tx_bytes_per_sec": round(rate.network_tx_bytes_per_sec) if rate else None,
        "disk_read_bytes": sample.disk_read_bytes,
        "disk_write_bytes": sample.disk_write_bytes,
        "disk_read_bytes_per_sec": round(rate.disk_read_bytes_per_sec) if rate else None,
        "disk_write_bytes_per_sec": round(rate.disk_write_bytes_per_sec) if rate else None,
        "disk_used_bytes": disk_used_bytes,
        "oom_kills": sample.oom_kills,
        "psi_pct": [round(share, 2) for share in psi] if psi else None,
    }
