"""Where it shows what running containers receive and send.

Of a veth pair the host sees the other end. Of cards that have no side on the host (macvlan, ipvlan, vlan, phys) only
the container's own network namespace tells, in /proc/PID/net/dev (proc_pid_net(5)).
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Final

from ..core.errors import CoreError
from ..core.host import Host
from ..core.model.nics import MOST, ON_PARENT, Nic
from ..core.model.spec import Spec
from ..core.plans.samples import parse_net_dev
from ..core.proc.records import RunFile

_AGAIN_SEC: Final = 5.0
"""How soon it is noticed that a container was given a card, or lost one, while it runs."""


@dataclass
class _Container:
    """One container's cards: by their names inside whether they are the host's own, and what was counted so far.

    links: names of the host's sides of others.
    """

    looked_at: float
    changed_ns: int
    links: frozenset[str] = frozenset()
    lent: dict[str, bool] = field(default_factory=dict)
    init_pid: int = 0
    counters: dict[str, tuple[int, int]] = field(default_factory=dict)
    received: int = 0
    sent: int = 0


class Cards:
    """Counts bytes; those of a card that was lent from when it is first seen, as it has carried the host's before.

    Not thread-safe.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._containers: dict[str, _Container] = {}

    def links(self, container_id: str) -> Collection[str]:
        """Return the names of the host's sides of a container's NICs, those that it may be given later among them."""
        return self._look(container_id).links

    def carried(self, container_id: str) -> tuple[int, int]:
        """Return (received, sent) bytes of a running container's other cards; they never go back while it runs."""
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
        told = None
        try:
            changed_ns = path.stat().st_mtime_ns
            if found is not None and found.changed_ns == changed_ns and not found.lent:
                found.looked_at = now
                return found
            told = Spec.nics_from_json(path.read_text())
        except (OSError, ValueError, CoreError):
            changed_ns = 0
        found = self._containers.setdefault(container_id, _Container(now, changed_ns))
        found.looked_at, found.changed_ns = now, changed_ns
        if told is not None:
            self._take(container_id, found, *told)
        return found

    def _take(self, container_id: str, found: _Container, slot: int, nics: Sequence[Nic]) -> None:
        later = (self._host.veth_name(slot, index) for index in range(MOST))
        found.links = frozenset({nic.host_link for nic in nics if nic.host_link}.union(later))
        lent = {nic.name: nic.type == "phys" for nic in nics if nic.type in ON_PARENT}
        run = RunFile.read(self._host.run_path(container_id)) if lent else None
        if run is not None and run.init.pid != found.init_pid:
            # rebooted from inside: its links are new ones, which count from 0
            found.counters.clear()
            found.init_pid = run.init.pid
        found.lent = lent if run is not None else {}

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
