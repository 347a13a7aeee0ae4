"""What running containers receive and send by cards that have no side on the host: macvlan, ipvlan, vlan, phys.

Of a veth pair the host sees the other end; of these only the container's own network namespace tells, in
/proc/PID/net/dev (proc_pid_net(5)).
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

from ..core.errors import CoreError
from ..core.host import Host
from ..core.model.nics import ON_PARENT
from ..core.model.spec import Spec
from ..core.plans.samples import parse_net_dev
from ..core.proc.records import RunFile

_AGAIN_SEC: Final = 5.0
"""How soon it is noticed that a container was given a card, or lost one, while it runs."""


@dataclass
class _Container:
    """One container's cards: by their names inside whether they are the host's own, and what was counted so far."""

    looked_at: float
    changed_ns: int
    lent: dict[str, bool] = field(default_factory=dict)
    init_pid: int = 0
    counters: dict[str, tuple[int, int]] = field(default_factory=dict)
    received: int = 0
    sent: int = 0


class InnerCards:
    """Counts bytes; those of a card that was lent from when it is first seen, as it has carried the host's before.

    Not thread-safe.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._containers: dict[str, _Container] = {}

    def carried(self, container_id: str) -> tuple[int, int]:
        """Return (received, sent) bytes of a running container's cards; they never go back while it runs."""
        found = self._look(container_id)
        if found.lent:
            try:
                with open(f"/proc/{found.init_pid}/net/dev", encoding="ascii") as file:
                    self._count(found, parse_net_dev(file.read()))
            except OSError:  # it has just ended
                pass
        return found.received, found.sent

    def forget(self, running: Collection[str]) -> None:
        """Drop what is known of containers that do not run."""
        for gone in self._containers.keys() - set(running):
            del self._containers[gone]

    def _look(self, container_id: str) -> _Container:
        """Return what is known of a container's cards, read anew where its configuration has changed."""
        now, found = time.monotonic(), self._containers.get(container_id)
        if found is not None and now - found.looked_at < _AGAIN_SEC:
            return found
        path = self._host.spec_path(container_id)
        try:
            changed_ns = path.stat().st_mtime_ns
            if found is not None and found.changed_ns == changed_ns and not found.lent:
                found.looked_at = now
                return found
            spec, run = Spec.from_json(path.read_text()), RunFile.read(self._host.run_path(container_id))
        except (OSError, ValueError, CoreError):
            changed_ns, spec, run = 0, None, None
        found = self._containers.setdefault(container_id, _Container(now, changed_ns))
        found.looked_at, found.changed_ns = now, changed_ns
        if spec is not None and run is not None:
            if run.init.pid != found.init_pid:  # rebooted from inside: its links are new ones, which count from 0
                found.counters.clear()
            found.init_pid = run.init.pid
            found.lent = {nic.name: nic.type == "phys" for nic in spec.nics if nic.type in ON_PARENT}
        return found

    @staticmethod
    def _count(found: _Container, links: dict[str, tuple[int, int]]) -> None:
        for name, lent in found.lent.items():
            now = links.get(name)
            if now is None:
                found.counters.pop(name, None)
                continue
            before = found.counters.get(name, now if lent else (0, 0))
            found.counters[name] = now
            found.received += now[0] - before[0] if now[0] >= before[0] else now[0]
            found.sent += now[1] - before[1] if now[1] >= before[1] else now[1]
