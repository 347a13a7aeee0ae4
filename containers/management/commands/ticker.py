"""manage.py ticker: samples once a second, keeps the history, reconciles. Runs as root, started by `up` or systemd."""

from __future__ import annotations

import logging
import signal
import threading
from pathlib import Path
from typing import Any, Final

from django.conf import settings
from django.core.management.base import BaseCommand
from django.db import close_old_connections

from containers.core import doctor
from containers.core.host import Host
from containers.core.lifecycle.lxcfs import Lxcfs
from containers.core.lifecycle.watching import Watch
from containers.ticker.chores import Chore, Chores
from containers.ticker.service import Ticker
from containers.upkeep import reconcile, retention, scheduling
from containers.upkeep.clocks import SteadyClock
from containers.upkeep.projects import carry_names
from containers.upkeep.sealing import Chain

log = logging.getLogger(__name__)

DOCTOR_SEC = 3600.0
"""How often the host is looked at again while the panel runs; `up` does it first."""
CHANGING_SEC = 60.0
"""How often firewalls are looked at while the panel runs."""
SCHEDULES_SEC = 5.0
"""How often is looked for what the clock asks for."""
RETENTION_SEC = 3600.0
"""How often what is older than it is kept is removed."""
SEAL_SEC = 5.0
"""How long a record of the audit trail may wait to be sealed."""
AUDIT_PAUSE_SEC = 0.05
AUDIT_SEC = 3600.0
"""How often the whole audit trail is compared with its seals."""

LXCFS_SEC: Final = 5.0
LOOK_AT_ALL_EVERY: Final = 10
"""Quick checks: at what changed by itself each second, at all containers each so many."""


class _Quick:
    """The chore of every second, and what is told meanwhile; both by one thread."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._watch = Watch(host)
        self._calls = 0
        self._rules = _signature(host.policy_path)

    def __call__(self) -> None:
        rules = _signature(self._host.policy_path)
        if rules != self._rules:
            reconcile.take_facts(self._host)
            self._rules = rules
        changed = self._watch.changed()
        everything = self._calls % LOOK_AT_ALL_EVERY == 0
        self._calls += 1
        if everything:
            reconcile.quick(self._host)
        else:
            reconcile.each_second(self._host, changed=changed)

    def told(self, events: list[dict[str, Any]]) -> None:
        """Take supervisors' news: what they tell of need not be found out once more."""
        self._watch.seen({str(event.get("id")) for event in events})
        reconcile.on_events(self._host, events)


def _signature(path: Path) -> tuple[int, int, int] | None:
    """Return what tells one version of a file from another; None where it is not there."""
    try:
        seen = path.stat()
    except OSError:
        return None
    return seen.st_ino, seen.st_size, seen.st_mtime_ns


class _Sealed:
    """The check of the audit trail, and what the last one found."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self.report: dict[str, Any] | None = None

    def __call__(self) -> None:
        found = self._chain.check(pause_sec=AUDIT_PAUSE_SEC)
        for problem in found.problems:
            log.error("the audit trail: %s", problem)
        self.report = found.as_dict()


class Command(BaseCommand):
    help = "Samples the containers once a second and brings database and host together."
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        stopped = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: stopped.set())
        host = Host.open(settings.STATE_DIR)
        chain = Chain(host.audit_path)
        sealed = _Sealed(chain)
        steady = SteadyClock(kept=host.run_dir / "clock.json")
        quick = _Quick(host)
        ticker = Ticker(
            host,
            chores=(
                Chore("doctor", DOCTOR_SEC, lambda: doctor.refresh(host, older_sec=DOCTOR_SEC / 2)),
                Chore("what others change", CHANGING_SEC, lambda: doctor.refresh_changing(host)),
                Chore("reconcile", 60.0, lambda: reconcile.full(host)),
                Chore("names of projects", 60.0, lambda: carry_names(host)),
                Chore("quick checks", 1.0, quick),
                Chore("lxcfs", LXCFS_SEC, Lxcfs(host).look),
                Chore("schedules", SCHEDULES_SEC, scheduling.Scheduler(steady)),
                Chore("retention", RETENTION_SEC, retention.Sweeper(chain, steady=steady)),
            ),
            on_events=quick.told,
            after_each=close_old_connections,
            audit=lambda: sealed.report,
        )
        sealing = Chores(
            (Chore("seal", SEAL_SEC, chain.seal), Chore("check of the audit trail", AUDIT_SEC, sealed)),
            on_events=lambda _events: None,
            after_each=close_old_connections,
        )  # beside the others: a long trail takes a while
        ticker.start()
        sealing.start()
        stopped.wait()
        sealing.stop()
        ticker.stop()
