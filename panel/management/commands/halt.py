"""`manage.py halt`: what the host's own shutdown calls, so that containers end cleanly while all is still there."""

from __future__ import annotations

import os
from argparse import ArgumentParser
from pathlib import Path
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError

from containers.core.host import Host
from panel.instance.options import DEFAULT_STATE_DIR

TIMEOUT_SEC: Final = 150.0


class Command(BaseCommand):
    help = (
        "Halt every container because the host goes down, the last started first. Those marked autostart start at the "
        "next boot. The unit of `install` calls it; `down --containers` is for people."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--state-dir", default=DEFAULT_STATE_DIR, metavar="DIR")
        parser.add_argument("--timeout", type=float, default=TIMEOUT_SEC, help="seconds for all of them (150)")

    def handle(self, *args: Any, **options: Any) -> None:
        if os.geteuid() != 0:
            raise CommandError("`halt` needs root.")
        try:
            host = Host.open(Path(options["state_dir"]))
        except FileNotFoundError:
            return
        from containers.core.lifecycle import hostdown

        for line in hostdown.halt_all(host, timeout_sec=options["timeout"]):
            self.stdout.write(line)
