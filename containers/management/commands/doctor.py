"""`manage.py doctor`: what this host can do, why it matters, and how to mend what it can't."""

from __future__ import annotations

import json
import os
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from containers.core import doctor


class Command(BaseCommand):
    """Look at the host. Needs no database."""

    help = "Shows what this host can do: each with yes or no, why it matters, and the mend."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="print a list of JSON objects")
        parser.add_argument("--state-dir", default=os.environ.get("BOXROOM_STATE_DIR", "/var/lib/boxroom"))

    def handle(self, *_args: Any, **options: Any) -> None:
        checks = doctor.examine(options["state_dir"])
        if options["json"]:
            self.stdout.write(json.dumps([check.as_dict() for check in checks], indent=1))
        else:
            self._table(checks)
        if doctor.missing(checks):
            raise SystemExit(1)

    def _table(self, checks: list[doctor.Check]) -> None:
        for check in checks:
            word = "yes" if check.ok else "NO" if check.level == "required" else "no"
            self.stdout.write(f"{word:>3}  {check.what}")
            if not check.ok:
                self.stdout.write(f"     {check.level}: {check.why}")
                for line in check.mend.splitlines():
                    self.stdout.write(f"     mend: {line}")
        missing = doctor.missing(checks)
        lacking = [check for check in checks if not check.ok and check.level == "recommended"]
        self.stdout.write("")
        if missing:
            self.stdout.write(f"{len(missing)} of what is required is missing: containers will not run here.")
        else:
            self.stdout.write(f"Containers can run here. {len(lacking)} of what is recommended is missing.")
