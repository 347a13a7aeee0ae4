"""Slots and addresses: what a new container is given, in the transaction that makes its row."""

from __future__ import annotations

import ipaddress
import uuid
from typing import Any

from django.conf import settings

from ..core.errors import HostUnsupported
from ..core.host import SLOTS
from ..core.host import Host as CoreHost
from ..core.model.network_config import MAX_NETWORKS, NetworkConfig
from ..core.sentences import say
from ..models import Container, Host, Network, Operation


def core_host() -> CoreHost:
    """Return the instance's names and paths. The web process may name them, not open them."""
    return CoreHost(settings.STATE_DIR, settings.BOXROOM_INSTANCE)


def lock_host(host: Host) -> Host:
    """Hold the host's row until the transaction ends, so that two at once cannot be given the same."""
    return Host.objects.select_for_update().get(pk=host.pk)


def free_slot(host: Host) -> int:
    """Return a slot that no container has, and not the one that was freed last. The caller holds lock_host()."""
    taken = set(Container.objects.filter(host=host).values_list("slot", flat=True))
    for step in range(SLOTS):
        slot = (host.next_slot + step) % SLOTS
        if slot not in taken:
            host.next_slot = (slot + 1) % SLOTS
            host.save(update_fields=["next_slot"])
            return slot
    raise HostUnsupported(say("This host holds %(most)s containers already.", most=SLOTS), feature="slot")


def free_network_number(host: Host) -> int:
    """Return the lowest number that no network has. The caller holds lock_host()."""
    taken = set(Network.objects.filter(host=host).values_list("number", flat=True))
    for number in range(MAX_NETWORKS):
        if number not in taken:
            return number
    raise HostUnsupported(
        say("This host holds %(most)s networks already.", most=MAX_NETWORKS), feature="network-number"
    )


def config_of(network: Network) -> NetworkConfig:
    """Return a network's row as the runtime wants it."""
    return NetworkConfig(
        name=network.name,
        number=network.number,
        ipv4=network.ipv4 or None,
        ipv6=network.ipv6 or None,
        nat=network.nat,
    )


def subnets_held(host: Host, without: Network | None = None) -> list[str]:
    """Return the subnets of the host's networks, and those that one has until its change is done, or will have."""
    rows = [row for row in Network.objects.filter(host=host) if without is None or row.pk != without.pk]
    held = [subnet for row in rows for subnet in config_of(row).subnets()]
    changing = Operation.objects.filter(host=host, action="network-change", status__in=Operation.UNFINISHED)
    for network_id, arguments in changing.values_list("network", "arguments"):
        if without is None or network_id != without.pk:
            texts = [arguments[side][key] for side in ("before", "after") for key in ("ipv4", "ipv6")]
            held += [str(ipaddress.ip_interface(text).network) for text in texts if text]
    return held


def add_container(host: Host, columns: dict[str, Any]) -> Container:
    """Make a container's row with its slot and its machine-id, and no NIC yet. The caller holds lock_host()."""
    container: Container = Container.objects.create(
        host=host, slot=free_slot(host), machine_id=uuid.uuid4().hex, **columns
    )
    return container
