"""A container's NIC: a veth pair with one end on the host, on a bridge or not, and one straight in the container."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..errors import SetupFailed
from ..host import Host
from ..nics import Nic
from ..sentences import say
from ..spec import Spec
from .bridge import DEFAULT_MTU, link_index, netlink
from .subnets import host_side_mac

if TYPE_CHECKING:
    from pyroute2 import IPRoute


NTF_MASTER: Final = 0x04
NUD_NOARP: Final = 0x40
"""With NTF_MASTER: a static entry of the bridge. (NUD_PERMANENT would mean the host itself.)"""


def create(ip: IPRoute, host: Host, spec: Spec, nics: Iterable[Nic], netns_fd: int) -> list[int]:
    """Make NICs of the container, host sides down and on their bridges; return the host sides' indexes.

    nics: of the types bridge and routed. ip: rtnetlink of the host's namespace. netns_fd: the container's network
    namespace; borrowed. A leftover link of the same name is deleted first.
    Raises SetupFailed or NetlinkError, and then leaves no link.
    """
    made: list[int] = []
    with ExitStack() as undo:
        for nic in nics:
            made.append(_create(ip, host, spec, nic, netns_fd))
            undo.callback(_delete, ip, nic.host_link)
        undo.pop_all()
    return made


def bring_up(ip: IPRoute, indexes: Iterable[int]) -> None:
    """Let traffic through: call it when the packet filter is in place."""
    for index in indexes:
        ip.link("set", index=index, state="up")


def delete(names: Iterable[str]) -> None:
    """Delete links by name; what is gone already is fine. Takes about 20 ms each (a grace period of the kernel).

    One that cannot be deleted does not keep the others; then its error is raised at the end.
    """
    with netlink("deleting links") as ip, ExitStack() as each:
        for name in reversed(list(names)):
            each.callback(_delete, ip, name)


def _delete(ip: IPRoute, name: str) -> None:
    from pyroute2.netlink.exceptions import NetlinkError

    index = link_index(ip, name)
    if index is None:
        return
    try:
        ip.link("del", index=index)
    except NetlinkError as error:
        # the kernel's own cleanup of a dead network namespace may have come first
        if error.code != errno.ENODEV:
            raise


def _create(ip: IPRoute, host: Host, spec: Spec, nic: Nic, netns_fd: int) -> int:
    from pyroute2.netlink.exceptions import NetlinkError

    bridge = _bridge(ip, nic) if nic.type == "bridge" else None
    mtu = nic.mtu or (bridge.get("mtu") if bridge else DEFAULT_MTU)
    request: dict[str, Any] = {
        "ifname": nic.host_link,
        "kind": "veth",
        "address": host_side_mac(nic.mac),
        **({"master": bridge["index"]} if bridge else {}),
        "mtu": mtu,
        "peer": {"ifname": nic.name, "address": nic.mac, "mtu": mtu, "net_ns_fd": netns_fd},
    }
    try:
        ip.link("add", **request)
    except NetlinkError as error:
        if error.code != errno.EEXIST:
            raise
        _delete(ip, nic.host_link)
        ip.link("add", **request)
    index = link_index(ip, nic.host_link)
    if index is None:
        raise SetupFailed(
            say("The link %(host_link)s went away while it was made.", host_link=nic.host_link),
            step="network",
            path=nic.host_link,
        )
    with ExitStack() as undo:
        undo.callback(_delete, ip, nic.host_link)
        _settle(ip, host, spec, nic, index)
        undo.pop_all()
    return index


def _bridge(ip: IPRoute, nic: Nic) -> Any:
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        return ip.link("get", ifname=nic.bridge)[0]
    except NetlinkError as error:
        if error.code != errno.ENODEV:
            raise
        raise SetupFailed(
            say("The bridge %(bridge)s of network %(network)s is not there.", bridge=nic.bridge, network=nic.network),
            step="network",
            path=nic.bridge,
        ) from None


def _settle(ip: IPRoute, host: Host, spec: Spec, nic: Nic, index: int) -> None:
    # before it is up, so that the host never speaks IPv6 on it
    _disable_ipv6(nic.host_link)
    ip.link("set", index=index, ifalias=host.link_alias(spec.id))
    if nic.type != "bridge":
        return
    # the one known MAC is entered by hand: a container can neither learn its way in nor receive what is for others
    ip.brport("set", index=index, learning=0, unicast_flood=0, guard=1, isolated=0)
    ip.fdb("append", ifindex=index, lladdr=nic.mac, flags=NTF_MASTER, state=NUD_NOARP)


def _disable_ipv6(link: str) -> None:
    try:
        Path(f"/proc/sys/net/ipv6/conf/{link}/disable_ipv6").write_text("1")
    except FileNotFoundError:
        return  # a host without IPv6
    except OSError as error:
        raise SetupFailed.from_oserror("network", error) from error
