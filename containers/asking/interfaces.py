"""Network interfaces that a container had: planned again, with what of them somebody else has by now chosen anew."""

from __future__ import annotations

from typing import Any, Final

from panel.accounts.actor import Actor

from ..bookkeeping import reservations, specs
from ..core.errors import SpecError
from ..core.model.network_config import plain
from ..core.model.nics import Nic
from ..core.model.spec import Spec
from ..models import Container, Network, NetworkInterface
from . import nics
from .resources import usable_network

FRESH: Final = {"mac": None, "ipv4": "auto", "ipv6": "auto", "network": "default"}


def planned(
    actor: Actor, container: Container, had: list[dict[str, Any]], present: list[NetworkInterface] | None = None
) -> list[dict[str, Any]]:
    """Return rows in the making for interfaces as they were asked for once (asking.nics.as_wanted).

    The caller holds lock_host(). Raises as nics.plan does for what cannot be had in any way.
    """
    wanted = [dict(one) for one in had]
    known = {row.network.name: row.network for row in present or () if row.network is not None}

    def find(name: str) -> Network:
        return known.get(name) or usable_network(actor, name, container.project, container.host)

    while True:
        try:
            return nics.plan(container, wanted, find, present or ())
        except SpecError as error:
            # nics.NUMBER.NAME: what cannot be had is chosen anew
            parts = (error.field or "").split(".")
            if len(parts) != 3 or parts[2] not in FRESH or wanted[int(parts[1])].get(parts[2]) == FRESH[parts[2]]:
                raise
            wanted[int(parts[1])][parts[2]] = FRESH[parts[2]]


def restored(actor: Actor, container: Container, spec: dict[str, Any]) -> list[dict[str, Any]] | None:
    """Return the interfaces of a snapshot's configuration as rows in the making; None where they are those of now.

    One that is there keeps its MAC and addresses, as long as it is of the same type and on the same network.
    """
    present = list(container.interfaces.select_related("network").order_by("index"))
    own = {row.name: nics.as_wanted(row) for row in present}
    wanted = []
    for nic in Spec.from_dict(spec).nics:
        one, now = nics.as_wanted(_row(container, nic)), own.get(nic.name)
        if now is not None and (now["type"], now["network"]) == (one["type"], one["network"]):
            one |= {key: now[key] for key in ("mac", "ipv4", "ipv6")}
        wanted.append(one)
    if wanted == list(own.values()):
        return None
    container.host = reservations.lock_host(container.host)
    return planned(actor, container, wanted, present)


def _row(container: Container, nic: Nic) -> NetworkInterface:
    """Return a NIC of the store's as a row that is not saved."""
    network = Network.objects.filter(host=container.host, name=nic.network).first() if nic.network else None
    on_network = nic.type == "bridge"
    return NetworkInterface(
        name=nic.name,
        type=nic.type,
        index=nic.index,
        network=network,
        mac=nic.mac or None,
        ipv4=plain(nic.ipv4) if on_network and nic.ipv4 else None,
        ipv6=plain(nic.ipv6) if on_network and nic.ipv6 else None,
        options=specs.options_of(nic),
    )
