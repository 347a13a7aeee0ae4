"""The ticker put together: three threads that never wait for one another.

sampling, every second; the server of the ticker's socket; the chores, of which one may take as long as it likes.
"""

from __future__ import annotations

import dataclasses
import logging
import resource
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..core import cgroups
from ..core.errors import CoreError, SpecError
from ..core.host import Host
from ..core.hoststore import consolelog, store
from ..core.lifecycle import pooling
from ..core.rules import policy, policy_file
from ..core.storage import disks, room
from .backups import BackupStreams
from .chores import Chore, Chores, Event
from .disk import DiskMeter
from .filing import Filers
from .reading import Readers
from .sampling import Samples, SamplingThread, Tick
from .server import Server

log = logging.getLogger(__name__)


class Ticker:
    """All of it, for one instance. start() returns at once; stop() ends every thread and removes the sockets."""

    def __init__(
        self,
        host: Host,
        *,
        chores: Sequence[Chore] = (),
        on_events: Callable[[list[Event]], object] = lambda _events: None,
        after_each: Callable[[], object] = lambda: None,
        audit: Callable[[], dict[str, Any] | None] = lambda: None,
    ) -> None:
        _raise_descriptor_limit()
        self._host = host
        self._disk = DiskMeter(lambda: store.container_ids(host), self._writable_layer)
        self._chores = Chores(chores, on_events=on_events, after_each=after_each)
        self.samples = Samples(
            host,
            cgroups.open(host),
            disk_used=self._disk.used_bytes,
            publish=lambda tick: self._server.publish(tick),
            on_oom=lambda container_id: self._chores.event({"id": container_id, "event": "oom"}),
        )
        self._server = Server(
            host.ticker_socket,
            host.events_socket,
            history=self.samples.history,
            recent=self.samples.recent,
            limits=self.samples.present_limits,
            cgroup_file=self.samples.cgroup_file,
            latest=self._latest,
            on_event=self._chores.event,
            console=self._console,
            audit=audit,
            room=self._room,
        )
        self._sampling = SamplingThread(self.samples.tick)
        self._readers, self._filers = Readers(host), Filers(host)
        self._backups = BackupStreams(host)
        self._asked = (self._backups, self._filers, self._readers)

    def start(self) -> None:
        """Start every thread."""
        for thread in (self._server, self._sampling, self._disk, self._chores, *self._asked):
            thread.start()

    def stop(self, timeout_sec: float = 5.0) -> None:
        """End the threads; a chore that takes longer than timeout_sec ends with the process."""
        for thread in (*self._asked, self._chores, self._disk, self._sampling, self._server):
            thread.stop()
        for thread in (*self._asked, self._sampling, self._server, self._disk, self._chores):
            thread.join(timeout_sec)
        self.samples.close()

    def _latest(self, wanted: frozenset[str] | None) -> Tick:
        """Return the present figures; the disk of those that somebody asks for by name is measured more often."""
        for container_id in self.samples.running(wanted or frozenset()):
            self._disk.asked_for(container_id)
        return self.samples.latest_of(wanted)

    def _console(self, container_id: str, size: int) -> dict[str, Any]:
        """Return the end of what a container wrote to its console."""
        data, total = consolelog.tail(self._host, container_id, size)
        return {"text": data.decode(errors="replace"), "size_bytes": total}

    def _room(self) -> dict[str, Any]:
        """Return the room on the disk, and what was last measured of each container, running or not."""
        try:
            rules = policy_file.load(self._host)
        except SpecError:  # the doctor says so
            rules = policy.DEFAULT
        found = [dataclasses.asdict(one) for one in pooling.seen(self._host, rules.pools)]
        whole = dataclasses.asdict(room.of(self._host.layers_dir))
        return {**whole, "containers": self._disk.all_used(), "pools": found}

    def _writable_layer(self, container_id: str) -> Path | None:
        """Return the directory, or the disk, of a container's own layer: only what it wrote, not the image."""
        try:
            return disks.source(self._host, store.load_root(self._host, container_id).writable)
        except (CoreError, OSError, ValueError):
            return None


def _raise_descriptor_limit() -> None:
    """Allow as many descriptors as the host lets: each running container takes a dozen."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
