"""`manage.py audit check`, `audit begin-anew`: whether the audit trail is as it was sealed."""

from __future__ import annotations

import getpass
import json
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from containers.core.host import Host
from containers.upkeep.sealing import Chain


class Command(BaseCommand):
    """Follow the chain of the audit trail, or begin another one."""

    help = "Says whether the audit trail is as it was sealed. Exit 1 where it is not."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="check|begin-anew")
        check = verbs.add_parser("check", help="compare every record with its seal")
        check.add_argument("--json", action="store_true", help="print a JSON object")
        verbs.add_parser("begin-anew", help="seal what is there now anew, after the database came from a copy")

    def handle(self, *_args: Any, **options: Any) -> None:
        try:
            chain = Chain(Host.open(settings.STATE_DIR).audit_path)
        except FileNotFoundError:
            raise CommandError(f"There is no Boxroom in {settings.STATE_DIR}.") from None
        if options["verb"] == "begin-anew":
            chain.begin_anew(getpass.getuser())
            self.stdout.write("Everything that is there now is sealed, and this is on record.")
            return
        report = chain.check()
        if options["json"]:
            self.stdout.write(json.dumps({**report.as_dict(), "problems": report.problems}, indent=1))
        else:
            for problem in report.problems:
                self.stdout.write(problem)
            self.stdout.write(f"{report.links} links followed; {report.waiting} records wait for their seal.")
        if not report.intact:
            raise SystemExit(1)
