"""image-catalogue: what an image server offers, fetched and kept in the host's facts."""

from __future__ import annotations

from typing import Final

from django.db import transaction
from django.utils import timezone

from ..asking.catalogues import FACT
from ..core.sentences import say
from ..models import Host
from .job import Job

SERVERS_KEPT: Final = 4
"""Of how many image servers the lists are kept; the oldest goes."""


def fetch(job: Job) -> None:
    """Fetch a server's list; the one that was there stays where this fails."""
    server = str(job.arguments["server"])
    items = job.runtime.catalogue(server, job.progress, job.cancelled)
    with transaction.atomic():
        row = Host.objects.select_for_update().get(pk=job.operation.host_id)
        kept = {name: value for name, value in (row.facts.get(FACT) or {}).items() if name != server}
        newest = sorted(kept.items(), key=lambda one: str(one[1].get("at")))[-(SERVERS_KEPT - 1) :]
        fetched = {"at": timezone.now().isoformat(), "items": items}
        row.facts = {**row.facts, FACT: {**dict(newest), server: fetched}}
        row.save(update_fields=["facts"])
    job.message = say("%(n)s images are offered.", n=len(items))
