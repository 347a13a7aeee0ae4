"""Many containers as the JSON values of the API: five queries and no model objects, however many they are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

from django.db.models import QuerySet

from ..models import Container, Network, NetworkInterface, Operation
from . import present

_COLUMNS: Final = (
    *("pk", "name", "project__name", "status", "status_reason", "image_name", "description", "tags"),
    *("created_at", "expires_at", "started_at", "init_pid", "limits", "security", "autostart", "privileged"),
    *("ephemeral", "restart", "pool", "restart_count", "restart_at", "mounts", "devices", "hooks", "init_command"),
    *("environment", "halt_signal", "init", "boot", "console", "last_exit"),
)
_NIC_COLUMNS: Final = ("container_id", "network_id", "name", "type", "mac", "ipv4", "ipv6", "options")


def columns(rows: QuerySet[Container]) -> QuerySet[Any]:
    """Return the query for the columns that `containers` shows, as tuples with names."""
    chosen: QuerySet[Any] = rows.values_list(*_COLUMNS, named=True)
    return chosen


def containers(found: Sequence[Any]) -> list[dict[str, Any]]:
    """Return what `columns` found, as `present.container` returns it of one."""
    ids = [row.pk for row in found]
    names: dict[int | None, str] = dict(Network.objects.values_list("pk", "name"))
    nics: defaultdict[str, list[present.NamedNic]] = defaultdict(list)
    chosen = NetworkInterface.objects.filter(container__in=ids).order_by("index")
    for nic in chosen.values_list(*_NIC_COLUMNS, named=True):
        nics[nic.container_id].append((nic, names.get(nic.network_id)))
    # of the few that are unfinished, its own goes before a clone that makes it
    unfinished = list(Operation.objects.filter(status__in=Operation.UNFINISHED).defer("log", "arguments", "journal"))
    holding = {one.target_id: one for one in reversed(unfinished)} | {
        one.container_id: one for one in reversed(unfinished)
    }
    return [present.shape(row, row.project__name, nics.get(row.pk, ()), holding.get(row.pk)) for row in found]
