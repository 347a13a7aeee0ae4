"""`manage.py down`: stops the panel of a state directory, and with --containers everything."""

from __future__ import annotations

import logging
import os
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from containers.core.host import Host
from panel.instance import running
from panel.instance.options import DEFAULT_STATE_DIR


class Command(BaseCommand):
    help = "Stop the panel. --containers stops the containers too, and removes bridges, DHCP and packet filters."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--state-dir", default=DEFAULT_STATE_DIR, metavar="DIR", help=f"default {DEFAULT_STATE_DIR}"
        )
        parser.add_argument(
            "--containers", action="store_true", help="stop the containers too, and leave nothing behind"
        )
        parser.add_argument("--timeout", type=float, default=60.0, help="seconds for a clean stop (60), then by force")

    def handle(self, *args: Any, **options: Any) -> None:
        if os.geteuid() != 0:
            raise CommandError("`down` needs root: run it with sudo.")
        try:
            host = Host.open(Path(options["state_dir"]))
        except FileNotFoundError:
            self.stdout.write(f"There is no instance in {options['state_dir']}.")
            return
        stopped = running.stop_panel(host)
        self.stdout.write("The panel is stopped." if stopped else "The panel was not running.")
        if options["containers"]:
            from containers.upkeep.shutdown import stop_everything

            for line in stop_everything(host, timeout_sec=options["timeout"]):
                self.stdout.write(line)
            self._record()

    def _record(self) -> None:
        """Let the rows say that the containers are stopped, as the ticker would."""
        from django.db import DatabaseError

        from containers.models import local_host
        from containers.operations.runner import local_runtime
        from containers.upkeep import reconcile

        # nobody listens to notices any more
        logging.getLogger("containers.messaging.outbox").setLevel(logging.ERROR)
        try:
            reconcile.align_all(local_host(), local_runtime())
        except DatabaseError as error:
            self.stderr.write(f"The database does not answer ({error}); `up` will bring the rows up to date.")
