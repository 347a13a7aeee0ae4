"""manage.py ticker: samples once a second, keeps the history, reconciles. Runs as root, started by `up` or systemd."""

from __future__ import annotations

import signal
import threading
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand
from django.db import close_old_connections

from containers import reconcile
from containers.core.host import Host
from containers.ticker.chores import Chore
from containers.ticker.service import Ticker


class Command(BaseCommand):
    help = "Samples the containers once a second and brings database and host together."
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        stopped = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: stopped.set())
        host = Host.open(settings.STATE_DIR)
        ticker = Ticker(
            host,
            chores=(
                Chore("reconcile", 60.0, lambda: reconcile.full(host)),
                Chore("quick checks", 1.0, lambda: reconcile.quick(host)),
            ),
            on_event=lambda message: reconcile.on_event(host, message),
            after_each=close_old_connections,
        )
        ticker.start()
        stopped.wait()
        ticker.stop()
