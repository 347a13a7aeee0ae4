"""How fast a container may receive and send on a NIC: on the host's side of its pair.

What it receives is shaped as it leaves the host's side (tbf); what it sends is dropped above the rate as it arrives
there, by a chain of the instance's table in nftables' family netdev. Both go with the link, but for the chain, whose
name leads back to the container.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..errors import HostUnsupported
from ..host import Host
from ..model.nics import Nic
from ..model.spec import Spec
from . import nftrun
from .ruleset import Json

if TYPE_CHECKING:
    from pyroute2 import IPRoute

BURST_SEC: Final = 0.1
BURST_MIN_BYTES: Final = 32 * 1024
LATENCY: Final = "400ms"
_PREFIX: Final = "rate_"
_ROOT: Final = 0xFFFFFFFF
"""TC_H_ROOT. Source: include/uapi/linux/pkt_sched.h."""


def wanted(nic: Nic) -> bool:
    """Tell whether a NIC is held to a rate."""
    return nic.ingress_bytes_per_sec is not None or nic.egress_bytes_per_sec is not None


def chain(container_id: str, index: int) -> str:
    """Return the name of a NIC's chain."""
    return f"{_PREFIX}{container_id}_{index}"


def set_rates(host: Host, spec: Spec, nic: Nic, ip: IPRoute, index: int) -> None:
    """Hold a NIC to its rates, or to none. index: of its host side. Raises HostUnsupported, SetupFailed."""
    from pyroute2.netlink.exceptions import NetlinkError

    if any(one.get("kind") == "tbf" for one in ip.get_qdiscs(index=index)):
        ip.tc("del", index=index, parent=_ROOT)
    if nic.ingress_bytes_per_sec is not None:
        rate = nic.ingress_bytes_per_sec
        try:
            ip.tc("add", "tbf", index, 0, rate=rate, burst=_burst(rate), latency=LATENCY)
        except NetlinkError as error:
            raise HostUnsupported(
                f"This kernel cannot shape a link ({error.args[1]}): modprobe sch_tbf.", feature="sch_tbf"
            ) from None
    forget(host, spec.id, nic)
    if nic.egress_bytes_per_sec is not None:
        nftrun.run(_rules(host, chain(spec.id, nic.index), nic.host_link, nic.egress_bytes_per_sec))


def _burst(rate: int) -> int:
    return max(BURST_MIN_BYTES, int(rate * BURST_SEC))


def _rules(host: Host, name: str, link: str, rate: int) -> list[Json]:
    at = {"family": "netdev", "table": host.nft_table}
    limit = {"rate": rate, "rate_unit": "bytes", "per": "second", "burst": _burst(rate), "burst_unit": "bytes"}
    hook = {"type": "filter", "hook": "ingress", "dev": link, "prio": 0, "policy": "accept"}
    return [
        {"add": {"table": {"family": "netdev", "name": host.nft_table}}},
        {"add": {"chain": {**at, "name": name, **hook}}},
        {
            "add": {
                "rule": {
                    **at,
                    "chain": name,
                    "expr": [{"limit": {**limit, "inv": True}}, {"counter": None}, {"drop": None}],
                }
            }
        },
    ]


def chains(host: Host) -> list[str]:
    """Return the names of the chains that there are; none where nobody is held to a rate."""
    entries = nftrun.listing("table", "netdev", host.nft_table)
    return [entry["chain"]["name"] for entry in entries if "chain" in entry]


def forget(host: Host, container_id: str, nic: Nic | None = None) -> None:
    """Remove the chain of a NIC, or those of all of a container; twice is once."""
    prefix = chain(container_id, nic.index) if nic is not None else f"{_PREFIX}{container_id}_"
    remove(host, [name for name in chains(host) if name == prefix or (nic is None and name.startswith(prefix))])


def keep_wanted(host: Host, spec: Spec) -> None:
    """Remove what a container's NICs are not held to any more: a chain would find a later link of the same name."""
    kept = {chain(spec.id, nic.index) for nic in spec.nics if nic.egress_bytes_per_sec is not None}
    mine = [name for name in chains(host) if name.startswith(f"{_PREFIX}{spec.id}_")]
    remove(host, [name for name in mine if name not in kept])


def remove(host: Host, names: list[str]) -> None:
    """Remove chains that are there, and the table with the last of them."""
    at = {"family": "netdev", "table": host.nft_table}
    if not names:
        return
    nftrun.run([{verb: {"chain": {**at, "name": name}}} for name in names for verb in ("flush", "delete")])
    if not chains(host):
        table = {"table": {"family": "netdev", "name": host.nft_table}}
        nftrun.run([{"add": table}, {"delete": table}])
