"""network-create, network-change and network-delete."""

from __future__ import annotations

import dataclasses
from typing import Any

from django.db import transaction

from ..bookkeeping import records
from ..bookkeeping.reservations import config_of, subnets_held
from ..core.model.network_config import NetworkConfig
from ..messaging.notices import notify
from ..models import Host, Network
from .job import Job


def create(job: Job) -> None:
    """Choose the subnets that were left to the host, and make the bridge."""
    network = job.network
    others = configs(network.host, without=network)
    ipv4_auto, ipv6_auto = bool(job.arguments.get("ipv4_auto")), bool(job.arguments.get("ipv6_auto"))
    if (ipv4_auto and not network.ipv4) or (ipv6_auto and not network.ipv6):
        ipv4, ipv6 = job.runtime.choose_subnets(subnets_held(network.host, network), network.name)
        network.ipv4 = network.ipv4 or (ipv4 if ipv4_auto else "")
        network.ipv6 = network.ipv6 or (ipv6 if ipv6_auto else "")
        # written first: whoever resumes must find the subnets that the bridge may have already
        Network.objects.filter(pk=network.pk).update(ipv4=network.ipv4, ipv6=network.ipv6)
    config = config_of(network)
    job.runtime.ensure_network(config, [*others, config])
    notify("network", network.pk)
    job.message = "Made."


def created(job: Job) -> bool:
    """Make sure of a network whose subnets are chosen, as the next reconcile would; False where none were yet."""
    network = job.network
    if any(job.arguments.get(f"{key}_auto") and not getattr(network, key) for key in ("ipv4", "ipv6")):
        return False
    job.runtime.ensure_networks(configs(network.host))
    job.message = "Made."
    return True


def undo_create(job: Job) -> None:
    """Take away what there is of it, and its row."""
    if job.operation.network is None:
        return
    network = job.network
    job.runtime.remove_network(config_of(network), configs(network.host, without=network))
    records.undo_reservation(job.operation)


def change(job: Job) -> None:
    """Put in force what was asked for, on the network as it runs, and choose the subnets that were left to the host."""
    network = job.network
    before, after = job.arguments["before"], dict(job.arguments["after"])
    autos = [key for key in ("ipv4", "ipv6") if job.arguments.get(f"{key}_auto")]
    if autos:
        chosen = {key: getattr(network, key) for key in autos}
        if not all(chosen.values()):
            chosen = dict(
                zip(
                    ("ipv4", "ipv6"),
                    job.runtime.choose_subnets(subnets_held(network.host, network), network.name),
                    strict=True,
                )
            )
        after |= {key: chosen[key] for key in autos}
    _rewrite(job, network, before, after)
    notify("network", network.pk)
    job.message = "Changed." if before != after else "Nothing to change."


def undo_change(job: Job) -> None:
    """Make it what it was, whatever of the change was done."""
    if job.operation.network is None:
        return
    now = {**job.arguments["after"], "ipv4": job.network.ipv4, "ipv6": job.network.ipv6}
    _rewrite(job, job.network, now, job.arguments["before"])
    notify("network", job.network.pk)


def _rewrite(job: Job, network: Network, before: dict[str, Any], after: dict[str, Any]) -> None:
    """Write a network's row, then make the host have it so."""
    # first the row: whoever resumes must find the subnets that the bridge may have already
    Network.objects.filter(pk=network.pk).update(**after)
    for key, value in after.items():
        setattr(network, key, value)
    new = config_of(network)
    old = dataclasses.replace(new, ipv4=before["ipv4"] or None, ipv6=before["ipv6"] or None, nat=bool(before["nat"]))
    job.runtime.change_network(old, new, [*configs(network.host, without=network), new])


def delete(job: Job) -> None:
    """Take the bridge away, then the row."""
    if job.removed_before():
        return
    network = job.network
    job.runtime.remove_network(config_of(network), configs(network.host, without=network))
    job.message = "Deleted."
    with transaction.atomic():
        job.remember(removed=job.message)
        Network.objects.filter(pk=network.pk).delete()
    notify("network", network.pk)


def configs(host: Host, *, without: Network | None = None) -> list[NetworkConfig]:
    """Return the host's networks as the runtime wants them."""
    rows = Network.objects.filter(host=host)
    if without is not None:
        rows = rows.exclude(pk=without.pk)
    return [config_of(row) for row in rows if row.ipv4 or row.ipv6 or without is None]
