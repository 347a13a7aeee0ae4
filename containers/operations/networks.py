"""network-create and network-delete."""

from __future__ import annotations

from ..bookkeeping import records
from ..bookkeeping.reservations import config_of
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
        taken = [subnet for config in others for subnet in config.subnets()]
        ipv4, ipv6 = job.runtime.choose_subnets(taken, network.name)
        network.ipv4 = network.ipv4 or (ipv4 if ipv4_auto else "")
        network.ipv6 = network.ipv6 or (ipv6 if ipv6_auto else "")
        # written first: whoever resumes must find the subnets that the bridge may have already
        Network.objects.filter(pk=network.pk).update(ipv4=network.ipv4, ipv6=network.ipv6)
    config = config_of(network)
    job.runtime.ensure_network(config, [*others, config])
    notify("network", network.pk)
    job.message = "Made."


def undo_create(job: Job) -> None:
    """Take away what there is of it, and its row."""
    if job.operation.network is None:
        return
    network = job.network
    job.runtime.remove_network(config_of(network), configs(network.host, without=network))
    records.undo_reservation(job.operation)


def delete(job: Job) -> None:
    """Take the bridge away, then the row."""
    network = job.network
    job.runtime.remove_network(config_of(network), configs(network.host, without=network))
    Network.objects.filter(pk=network.pk).delete()
    notify("network", network.pk)
    job.message = "Deleted."


def configs(host: Host, *, without: Network | None = None) -> list[NetworkConfig]:
    """Return the host's networks as the runtime wants them."""
    rows = Network.objects.filter(host=host)
    if without is not None:
        rows = rows.exclude(pk=without.pk)
    return [config_of(row) for row in rows if row.ipv4 or row.ipv6 or without is None]
