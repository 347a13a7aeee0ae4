"""What has changed since the last look, cheaply enough to ask every second with hundreds of containers.

A start, a stop and a reboot each put a run file in place or take one away, which the directory's time tells; a
supervisor that is killed does not, but a pidfd of it is kept open and polled. Freezing leaves no trace here: the
supervisor tells of it, and whoever looks at everything now and then finds it too.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterable
from typing import Final

from ..host import Host
from ..proc.records import RunFile

_COARSE_NSEC: Final = 50_000_000
"""A directory's time is that of the last timer tick: two changes within one show the same."""


class Watch:
    """Keeps a descriptor for each running container's supervisor; close() frees them. Not thread-safe."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._poll = select.poll()
        self._pidfds: dict[str, int] = {}
        self._ids: dict[int, str] = {}
        self._files: dict[str, tuple[int, int]] = {}
        self._read_at: int | None = None

    def changed(self) -> set[str]:
        """Return the ids of containers that may not be as they were at the last call; at the first, all that run."""
        gone = {self._ids[fd] for fd, _event in self._poll.poll(0)}
        for container_id in gone:
            self._forget(container_id)
        return gone | self._look()

    def seen(self, ids: Iterable[str]) -> None:
        """Leave out of the next answer how these containers are now: they are looked at anyway, right after this."""
        for container_id in ids:
            path = self._host.run_path(container_id)
            try:
                now = _signature(os.stat(path, follow_symlinks=False))
            except FileNotFoundError:
                now = None
            if now != self._files.get(container_id):
                self._take(container_id, now)

    def close(self) -> None:
        """Close every descriptor."""
        for container_id in list(self._pidfds):
            self._forget(container_id)

    def _look(self) -> set[str]:
        """Return the ids whose run files came, went or were replaced."""
        try:
            modified = os.stat(self._host.supervisor_dir()).st_mtime_ns
            if modified == self._read_at:
                return set()
            settled = abs(time.time_ns() - modified) > _COARSE_NSEC
            files = self._run_files()
        except FileNotFoundError:
            modified, settled, files = 0, False, {}
        self._read_at = modified if settled else None
        changed = {one for one in self._files.keys() | files.keys() if self._files.get(one) != files.get(one)}
        for container_id in changed:
            self._take(container_id, files.get(container_id))
        return changed

    def _take(self, container_id: str, file: tuple[int, int] | None) -> None:
        """Write down which run file a container has now, None: none, and keep its supervisor."""
        self._forget(container_id)
        if file is None:
            self._files.pop(container_id, None)
        else:
            self._files[container_id] = file
            self._keep(container_id)

    def _run_files(self) -> dict[str, tuple[int, int]]:
        found = {}
        with os.scandir(self._host.supervisor_dir()) as entries:
            for entry in entries:
                name, _, ending = entry.name.rpartition(".")
                if ending == "json" and name and not name.startswith("."):
                    found[name] = _signature(entry.stat(follow_symlinks=False))
        return found

    def _keep(self, container_id: str) -> None:
        run = RunFile.read(self._host.run_path(container_id))
        pidfd = run.supervisor.open() if run else None
        if pidfd is not None:
            self._pidfds[container_id] = pidfd
            self._ids[pidfd] = container_id
            self._poll.register(pidfd, select.POLLIN)

    def _forget(self, container_id: str) -> None:
        pidfd = self._pidfds.pop(container_id, None)
        if pidfd is not None:
            self._poll.unregister(pidfd)
            del self._ids[pidfd]
            os.close(pidfd)


def _signature(status: os.stat_result) -> tuple[int, int]:
    """Return what tells a run file from the one before it."""
    return status.st_ino, status.st_mtime_ns
