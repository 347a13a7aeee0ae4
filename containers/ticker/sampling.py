"""The sampling thread: every second, whatever else the ticker is doing."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from ..core.cgroups import Cgroups, raw
from ..core.errors import CoreError
from ..core.host import Host
from ..core.kernel.stats import Gone, HostSample, Sampler, present_limits, public_host, sample_host
from ..core.plans.samples import Rates, Sample, public, rates
from .cards import Cards
from .rings import Rings, Values, nothing

log = logging.getLogger(__name__)

HOST_ID: Final = "host"
"""The name of the host's own history among those of its containers."""
_PURGE_SEC: Final = 60
RECENT_COLUMNS: Final = (
    "cpu_cores",
    "memory_bytes",
    "network_rx_bytes_per_sec",
    "network_tx_bytes_per_sec",
    "disk_read_bytes_per_sec",
    "disk_write_bytes_per_sec",
    "processes",
    "psi_cpu_pct",
)
"""What the small lines of lists and tiles show."""
_FIRST_SEC: Final = 0.1
"""How far apart the two samples are that are taken at once of a container which has only just started."""
_encode = json.JSONEncoder(separators=(",", ":")).encode


class Encoded(Mapping[str, str]):
    """Samples as JSON text by container id, each encoded when somebody first asks for it: mostly nobody looks."""

    def __init__(self) -> None:
        self._parts: dict[str, tuple[Sample, Rates | None, int | None]] = {}
        self._texts: dict[str, str] = {}

    def add(self, container_id: str, sample: Sample, rate: Rates | None, disk_used_bytes: int | None) -> None:
        """Take one container's sample."""
        self._parts[container_id] = (sample, rate, disk_used_bytes)

    def __getitem__(self, container_id: str) -> str:
        text = self._texts.get(container_id)
        if text is None:
            sample, rate, used = self._parts[container_id]
            text = self._texts[container_id] = _encode(public(sample, rate, disk_used_bytes=used))
        return text

    def __contains__(self, container_id: object) -> bool:
        return container_id in self._parts

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)


@dataclass(frozen=True)
class Tick:
    """What one second brought. containers and host: JSON text, encoded once for all who listen."""

    at: float
    containers: Mapping[str, str]
    host: str


class Samples:
    """Takes samples, keeps their history, and hands each second's to `publish` (called in the sampling thread).

    disk_used: what a container's writable layer takes, or None. on_oom: called with a container's id when the
    kernel ended a process in it for want of memory. Only one thread calls tick(); history() and latest
    may be used from others.
    """

    def __init__(
        self,
        host: Host,
        cgroups: Cgroups,
        *,
        disk_used: Callable[[str], int | None],
        publish: Callable[[Tick], None],
        on_oom: Callable[[str], object] = lambda _id: None,
    ) -> None:
        self._host = host
        self._cgroups = cgroups
        self._disk_used = disk_used
        self._publish = publish
        self._on_oom = on_oom
        self._cards = Cards(host)
        self._sampler = Sampler(cgroups.stat_paths, self._cards.links, self._cards.carried)
        self._last: dict[str, Sample] = {}
        self._last_host: HostSample | None = None
        self._rings: dict[str, Rings] = {}
        self._lock = threading.Lock()
        self._purged_at = float("-inf")
        self._disk_full = False
        self._complete: frozenset[str] = frozenset()
        self.latest = Tick(0.0, {}, "{}")
        host.stats_dir.mkdir(mode=0o700, exist_ok=True)

    def tick(self) -> None:
        """Sample everything once, record it and publish it."""
        ids = self._cgroups.running_ids()
        self._cards.forget(ids)
        samples = self._sampler.sample(ids)
        host_sample = sample_host(self._host.state_dir)
        host_public = public_host(self._last_host, host_sample)
        encoded = Encoded()
        complete = set()
        for container_id, sample in samples.items():
            old = self._last.get(container_id)
            rate = rates(old, sample) if old else None
            if sample.oom_kills > self._oom_kills_before(old if rate else None, sample):
                self._on_oom(container_id)
            used = self._disk_used(container_id)
            if rate is not None and used is not None:
                complete.add(container_id)
            encoded.add(container_id, sample, rate, used)
            self._record(container_id, sample.at, _columns(sample, rate, used))
        self._record(HOST_ID, host_sample.at, _host_columns(host_public))
        self._last, self._last_host, self._complete = samples, host_sample, frozenset(complete)
        self.latest = Tick(host_sample.at, encoded, _encode(host_public))
        self._publish(self.latest)
        if host_sample.monotonic - self._purged_at > _PURGE_SEC:
            self._purged_at = host_sample.monotonic
            self._purge(set(ids))

    def _oom_kills_before(self, old: Sample | None, sample: Sample) -> int:
        """Return what the counter was a second ago. old: None where the container did not run then, or we did not."""
        if old is not None:
            return old.oom_kills
        return 0 if self._last_host is not None else sample.oom_kills

    def running(self, wanted: frozenset[str]) -> set[str]:
        """Return those of these containers that run. For any thread."""
        return set(self._cgroups.running_ids()) & wanted if wanted else set()

    def latest_of(self, wanted: frozenset[str] | None) -> Tick:
        """Return the latest samples; those of `wanted` that are not complete yet are taken now.

        wanted: ids; None: all, as they are. For any thread.
        """
        tick = self.latest
        missing = self.running((wanted or frozenset()) - self._complete)
        if not missing:
            return tick
        cards = Cards(self._host)
        sampler = Sampler(self._cgroups.stat_paths, cards.links, cards.carried)
        try:
            first = sampler.sample(missing)
            time.sleep(_FIRST_SEC)
            second = sampler.sample(missing)
        finally:
            sampler.close()
        fresh = {
            name: _encode(
                public(sample, rates(first[name], sample) if name in first else None,
                       disk_used_bytes=self._disk_used(name))
            )
            for name, sample in second.items()
        }  # fmt: skip
        return replace(tick, containers={**tick.containers, **fresh})

    def history(self, container_id: str, begin: int, end: int, points: int) -> dict[str, Any]:
        """Return a container's history, as Rings.query does; nothing but None for one that never ran."""
        with self._lock:
            rings = self._rings.get(container_id)
            path = self._path(container_id)
            if rings is None and not path.exists():
                return nothing(begin, end, points, now=int(time.time()))
            opened = rings or Rings(path)
            try:
                return opened.query(begin, end, points, now=int(time.time()))
            finally:
                if rings is None:
                    opened.close()

    def recent(self, ids: Sequence[str], seconds: int) -> dict[str, Any]:
        """Return the last seconds of several containers and of the host, for the small lines of a list.

        {"from", "step_sec", "containers": {id: {column: [value or None]}}, "host": {column: […]}}; what does not run is
        left out.
        """
        end = int(time.time())
        found = {}
        for name in (*ids, HOST_ID):
            # held for one container at a time: the sampling thread needs it, too
            with self._lock:
                rings = self._rings.get(name)
                if rings is not None:
                    found[name] = rings.recent(end, seconds, RECENT_COLUMNS)
        host = found.pop(HOST_ID, {})
        return {"from": end - seconds, "step_sec": 1, "containers": found, "host": host}

    def present_limits(self, container_id: str) -> dict[str, Any]:
        """Return what core.kernel.stats.present_limits says of a container; empty where it does not run."""
        try:
            return dict(present_limits(self._cgroups.stat_paths(container_id)))
        except (Gone, OSError, CoreError):
            return {}

    def cgroup_file(self, container_id: str, file: str) -> dict[str, Any]:
        """Return {"value": text} of a file of a container's cgroup, or {"refused": error}; see core.cgroups.raw."""
        try:
            return {"value": raw.read(self._cgroups, container_id, file)}
        except CoreError as error:
            return {"refused": error.as_dict()}

    def close(self) -> None:
        """Close every descriptor."""
        self._sampler.close()
        with self._lock:
            while self._rings:
                self._rings.popitem()[1].close()

    def _path(self, container_id: str) -> Path:
        return self._host.stats_dir / f"{container_id}.rings"

    def _record(self, name: str, at: float, values: Values) -> None:
        """Append to a history; a full disk costs samples, not the ticker."""
        try:
            with self._lock:
                rings = self._rings.get(name)
                if rings is None:
                    rings = self._rings[name] = Rings(self._path(name))
                rings.append(int(at), values)
        except OSError as error:
            if not self._disk_full:
                log.error("samples cannot be kept: %s", error)
            self._disk_full = True
        else:
            self._disk_full = False

    def _purge(self, running: set[str]) -> None:
        """Close the histories of what stopped, and remove those of what was deleted."""
        with self._lock:
            for name in self._rings.keys() - running - {HOST_ID}:
                self._rings.pop(name).close()
        try:
            kept = {path.name for path in self._host.containers_dir.iterdir()} | running | {HOST_ID}
        except FileNotFoundError:
            return
        for path in self._host.stats_dir.glob("*.rings"):
            if path.stem not in kept:
                path.unlink(missing_ok=True)


def _columns(sample: Sample, rate: Rates | None, disk_used: int | None) -> Values:
    """Return a sample in the order of rings.COLUMNS."""
    psi = rate.psi_pct if rate and rate.psi_pct else (None, None, None)
    return (
        rate.cpu_cores if rate else None,
        rate.cpu_cores if rate else None,
        sample.cpu_limit_cores,
        sample.memory_bytes,
        sample.memory_bytes,
        sample.memory_limit_bytes,
        sample.swap_bytes,
        sample.cache_bytes,
        sample.processes,
        rate.network_rx_bytes_per_sec if rate else None,
        rate.network_tx_bytes_per_sec if rate else None,
        rate.disk_read_bytes_per_sec if rate else None,
        rate.disk_write_bytes_per_sec if rate else None,
        disk_used,
        *psi,
    )


def _host_columns(host: dict[str, Any]) -> Values:
    """Return the host's sample in the order of rings.COLUMNS; what only a container has is None."""
    cores = None if host["cpu_pct"] is None else host["cpu_pct"] / 100 * host["cpus"]
    psi = host["psi_pct"] or (None, None, None)
    memory = host["memory_bytes"]
    fixed = (cores, cores, host["cpus"], memory, memory, host["memory_limit_bytes"], host["swap_bytes"])
    return (*fixed, None, None, None, None, None, None, host["disk_used_bytes"], *psi)


class SamplingThread(threading.Thread):
    """Calls tick() in the middle of every second of the wall clock, by the monotonic clock.

    The middle, so that neither a late wake-up nor the clock's slewing puts two samples into one second's record.
    """

    def __init__(self, tick: Callable[[], None]) -> None:
        super().__init__(name="sampling", daemon=True)
        self._tick = tick
        self._stop_event = threading.Event()
        self.late = 0
        """Seconds that were left out because the one before took too long."""

    def stop(self) -> None:
        """Ask the thread to end after the present sample."""
        self._stop_event.set()

    def run(self) -> None:
        """Sample until stop()."""
        due = next_due(None, time.monotonic(), time.time())
        while not self._stop_event.wait(max(0.0, due - time.monotonic())):
            try:
                self._tick()
            except Exception:
                log.exception("a sample failed")
            now = time.monotonic()
            following = next_due(due, now, time.time())
            self.late += max(0, round(following - due) - 1)
            due = following


def next_due(due: float | None, monotonic: float, wall: float) -> float:
    """Return the monotonic time of the sample after the one that was due at `due` (None: the first).

    One second later, moved to the middle of a wall-clock second where it is no longer near it (the clock was stepped);
    seconds that have passed already are left out.
    """
    following = monotonic if due is None else due + 1
    if following <= monotonic and due is not None:
        following += int(monotonic - following) + 1
    phase = (wall + following - monotonic) % 1
    if not 0.3 <= phase <= 0.7:
        following += (0.5 - phase) % 1
    return following
