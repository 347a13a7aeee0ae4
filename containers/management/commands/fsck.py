"""`manage.py fsck`: what leads back to no container, and rows that disagree with the host."""

from __future__ import annotations

import json
import shutil
import time
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from containers.bookkeeping import reservations
from containers.core.host import Host as CoreHost
from containers.core.lifecycle import leaks
from containers.models import Network, local_host
from containers.operations import runner
from containers.upkeep import rebuild, reconcile
from containers.upkeep.sealing import Chain

SETTLE_SEC = 1.0
"""What is still there after this time is not just going away."""

Finding = dict[str, Any]


class Command(BaseCommand):
    """Look for leaks and disagreements; take them away on request."""

    help = "Looks for anything that leads back to no container, and for rows that disagree with the host."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="print a list of JSON objects")
        parser.add_argument("--repair", action="store_true", help="mend what was found, and list it")

    def handle(self, *_args: Any, **options: Any) -> None:
        try:
            host = CoreHost.open(settings.STATE_DIR)
        except FileNotFoundError:
            raise CommandError(f"There is no Boxroom in {settings.STATE_DIR}.") from None
        down = not host.run_dir.exists()
        try:
            found = self._settled(host)
            left: list[Finding] = found
            if options["repair"] and found:
                left = self._repair(host)
        finally:
            if down:  # the search took locks there; nothing else of the instance is left
                shutil.rmtree(host.run_dir, ignore_errors=True)
        self._print(found, left, as_json=options["json"], repaired=options["repair"])
        if left:
            raise SystemExit(1)

    def _settled(self, host: CoreHost) -> list[Finding]:
        """Return what is found twice, with a pause between: a container that is just ending is no leak."""
        first = _find(host)
        if not first:
            return []
        time.sleep(SETTLE_SEC)
        again = _find(host)
        return [finding for finding in again if finding in first]

    def _repair(self, host: CoreHost) -> list[Finding]:
        """Mend what can be; return what is left."""
        configs = _configs()
        leaks.repair(host, leaks.find(host, configs), configs)
        runtime = runner.local_runtime()
        runtime.ensure_networks(configs)
        rebuild.mend_rows(local_host(), runtime, host)
        reconcile.align_all(local_host(), runtime)
        return self._settled(host)

    def _print(self, found: list[Finding], left: list[Finding], *, as_json: bool, repaired: bool) -> None:
        if as_json:
            mended = [{**finding, "mended": finding not in left} for finding in found] if repaired else found
            self.stdout.write(json.dumps(mended, indent=1))
            return
        for finding in found:
            word = "" if not repaired else "left: " if finding in left else "mended: "
            self.stdout.write(f"{word}{finding['kind']} {finding['name']}: {finding['what']}")
        if not found:
            self.stdout.write("Nothing to mend: everything leads back to a container.")


def _configs() -> list[Any]:
    return [reservations.config_of(network) for network in Network.objects.filter(host=local_host())]


def _find(host: CoreHost) -> list[Finding]:
    leaked = [leak.as_dict() for leak in leaks.find(host, _configs())]
    broken = Chain(host.audit_path).check().problems
    seals: list[Finding] = [{"kind": "audit-trail", "name": "seal", "what": problem} for problem in broken]
    return leaked + reconcile.disagreements(host) + seals
