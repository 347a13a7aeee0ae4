"""A project's new name in the specs of its containers on the host, which are what a lost database is made of again."""

from __future__ import annotations

import dataclasses

from ..core.errors import CoreError
from ..core.host import Host
from ..core.hoststore import every, store
from ..models import Container, Operation


def carry_names(host: Host) -> int:
    """Write the names that projects have now into the stored specs; return how many were changed.

    A container that an operation works on is left for the next time.
    """
    stored, _damaged = every.load_all(host)
    rows = Container.objects.filter(pk__in=list(stored)).exclude(operations__status__in=Operation.UNFINISHED)
    changed = 0
    for container_id, name in rows.values_list("pk", "project__name"):
        if stored[container_id].project == name:
            continue
        try:
            with store.lock(host, "container", container_id, wait_sec=0):
                spec = store.load(host, container_id)
                store.save(host, dataclasses.replace(spec, project=name))
                changed += 1
        except CoreError:
            continue  # somebody has it, or it is gone
    return changed
