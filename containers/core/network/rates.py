"""How fast a container may receive and send on a NIC: on the host's side of its pair.

What it receives is shaped as it leaves the host's side (tbf); what it sends is dropped above the rate as it arrives
there, by a chain of the instance's table in nftables' family netdev. Both go with the link, but for the chain, whose
name leads back to the container. Chains are made without nft: some end by a signal where another program's tables are
too new for them, and a chain of this family cannot be made apart, where its link is not.
Sources: include/uapi/linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from ..errors import HostUnsupported, SetupFailed
from ..host import Host
from ..kernel.netlink import APPEND, CREATE, NESTED, attribute
from ..model.nics import Nic
from ..model.spec import Spec
from ..sentences import say
from . import nfnetlink
from .nfnetlink import Message

if TYPE_CHECKING:
    from pyroute2 import IPRoute

BURST_SEC: Final = 0.1
BURST_MIN_BYTES: Final = 32 * 1024
LATENCY: Final = "400ms"
_PREFIX: Final = "rate_"
_FAMILY: Final = "netdev"
_ACCEPT, _DROP, _TO_VERDICT = 1, 0, 0
_LIMIT_BYTES, _LIMIT_OVER = 1, 1
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
                say("This kernel cannot shape a link (%(error)s): modprobe sch_tbf.", error=error.args[1]),
                feature="sch_tbf",
            ) from None
    forget(host, spec.id, nic)
    if nic.egress_bytes_per_sec is not None:
        wanted_chain = _requests(host, chain(spec.id, nic.index), nic.host_link, nic.egress_bytes_per_sec)
        with _filter() as sock:
            nfnetlink.commit(sock, wanted_chain)


def _burst(rate: int) -> int:
    return max(BURST_MIN_BYTES, int(rate * BURST_SEC))


def _requests(host: Host, name: str, link: str, rate: int) -> list[Message]:
    """Return what makes a chain that drops what arrives on a link above a rate."""
    head, table = nfnetlink.head(_FAMILY), nfnetlink.text(1, host.nft_table)
    hook = attribute(1, _be32(0)) + attribute(2, _be32(0)) + nfnetlink.text(3, link)
    chain_is = nfnetlink.text(3, name) + attribute(4 | NESTED, hook) + attribute(5, _be32(_ACCEPT))
    over = attribute(1, _be64(rate)) + attribute(2, _be64(1)) + attribute(3, _be32(_burst(rate)))
    over += attribute(4, _be32(_LIMIT_BYTES)) + attribute(5, _be32(_LIMIT_OVER))
    verdict = attribute(2 | NESTED, attribute(1, _be32(_DROP)))
    drop = attribute(1, _be32(_TO_VERDICT)) + attribute(2 | NESTED, verdict)
    steps = ((b"limit\0", over), (b"counter\0", b""), (b"immediate\0", drop))
    rule = b"".join(attribute(1 | NESTED, attribute(1, kind) + attribute(2 | NESTED, data)) for kind, data in steps)
    return [
        (nfnetlink.NEWTABLE, CREATE, head + table),
        (nfnetlink.NEWCHAIN, CREATE, head + table + chain_is + nfnetlink.text(7, "filter")),
        (
            nfnetlink.NEWRULE,
            CREATE | APPEND,
            head + table + nfnetlink.text(2, name) + attribute(4 | NESTED, rule),
        ),
    ]


def _be32(number: int) -> bytes:
    return struct.pack("!I", number)


def _be64(number: int) -> bytes:
    return struct.pack("!Q", number)


@contextlib.contextmanager
def _filter() -> Iterator[socket.socket]:
    """Have a socket for the packet filter; raises SetupFailed for what the kernel refuses."""
    try:
        with nfnetlink.connect() as sock:
            yield sock
    except OSError as error:
        raise SetupFailed.from_oserror("packet filter", error) from error


def chains(host: Host) -> list[str]:
    """Return the names of the chains that there are; none where nobody is held to a rate. Raises SetupFailed."""
    with _filter() as sock:
        return _chains(sock, host)


def _chains(sock: socket.socket, host: Host) -> list[str]:
    return nfnetlink.chain_names(sock, _FAMILY, host.nft_table)


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
    """Remove chains that are there, and the table with the last of them. Raises SetupFailed."""
    if not names:
        return
    head, table = nfnetlink.head(_FAMILY), nfnetlink.text(1, host.nft_table)
    gone: list[Message] = []
    for name in names:
        gone.append((nfnetlink.DELRULE, 0, head + table + nfnetlink.text(2, name)))
        gone.append((nfnetlink.DELCHAIN, 0, head + table + nfnetlink.text(3, name)))
    with _filter() as sock:
        nfnetlink.commit(sock, gone)
        while True:
            seen = nfnetlink.generation()
            if _chains(sock, host):
                return
            try:
                nfnetlink.commit(sock, nfnetlink.gone(_FAMILY, host.nft_table), seen=seen)
            except OSError as error:
                # somebody else has changed something meanwhile, maybe put a chain in here
                if error.errno != errno.ERESTART:
                    raise
            else:
                return
