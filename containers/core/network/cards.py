"""NICs that sit on a network card of the host's: macvlan, ipvlan and vlan, made straight in the container.

They have no side on the host: nothing of them is left when their namespace is gone, and nothing of the host's filters
sees what they send (docs/security.md). A link of the same MAC that is still being cleared away on the same card, of the
run before, is waited for (lxc#4694).
"""

from __future__ import annotations

import dataclasses
import errno
import time
from typing import TYPE_CHECKING, Any, Final

from ..errors import HostUnsupported, InUse, NotFound, SetupFailed
from ..kernel import rtnetlink
from ..model.network_config import plain
from ..model.nics import Nic
from ..sentences import say

if TYPE_CHECKING:
    from pyroute2 import IPRoute

CLEARED_SEC: Final = 15.0
_LOOK_SEC: Final = 0.02
_IPVLAN_MODES: Final = {"l2": 0, "l3": 1, "l3s": 2}


def create(ip: IPRoute, nic: Nic, link: str, netns_fd: int) -> int:
    """Make one NIC on a card of the host's, down; return its index in the container's namespace.

    ip: rtnetlink of the host's namespace. netns_fd is borrowed. Raises NotFound where there is no such card,
    InUse where it, or another on the card, is a macvlan of the mode passthru, HostUnsupported where the kernel has no
    such links, SetupFailed.
    """
    from pyroute2.netlink.exceptions import NetlinkError

    with rtnetlink.connect() as sock:
        card = rtnetlink.find(sock, link)
    if card is None:
        raise NotFound(say("This host has no network card %(link)s.", link=link), field="nics")
    request: dict[str, Any] = {"ifname": nic.name, "kind": nic.type, "link": card.index, "net_ns_fd": netns_fd}
    request |= _kind(nic)
    try:
        try:
            ip.link("add", **request)
        except NetlinkError as error:
            if error.code != errno.EEXIST or not _left_over(nic, netns_fd):
                raise
            ip.link("add", **request)
    except NetlinkError as error:
        if error.code == errno.EOPNOTSUPP:
            raise HostUnsupported(
                say("This kernel has no %(type)s links: modprobe %(name)s.", type=nic.type, name=_module(nic.type)),
                feature=nic.type,
            ) from None
        if nic.type == "macvlan" and error.code in (errno.EINVAL, errno.EBUSY):
            raise InUse(
                say(
                    "Other interfaces sit on the network card %(link)s, and one of the mode passthru has it alone.",
                    link=link,
                ),
                users=[link],
            ) from None
        raise SetupFailed.from_oserror(
            say("make the network interface %(name)s", name=nic.name), OSError(error.code, error.args[1], link)
        ) from error
    with rtnetlink.connect(netns_fd) as there:
        found = rtnetlink.find(there, nic.name)
        if found is None:
            raise SetupFailed(
                say("The link %(name)s went away while it was made.", name=nic.name), step="network", path=nic.name
            )
        try:
            _bring_up(there, found.index, nic)
        except BaseException:
            rtnetlink.delete(there, index=found.index)
            raise
    return found.index


def _kind(nic: Nic) -> dict[str, Any]:
    own = {"address": nic.mac} if nic.mac and nic.type != "ipvlan" else {}
    if nic.type == "macvlan":
        return {"macvlan_mode": nic.mode or "private", **own}
    if nic.type == "ipvlan":
        return {"ipvlan_mode": _IPVLAN_MODES[nic.mode or "l3"]}
    return {"vlan_id": nic.vlan, **own}


def _left_over(nic: Nic, netns_fd: int) -> bool:
    """Delete what an operation that was killed has made already; returns whether it was that."""
    with rtnetlink.connect(netns_fd) as there:
        found = rtnetlink.find(there, nic.name)
        return found is not None and found.kind == nic.type and rtnetlink.delete(there, index=found.index)


def _module(kind: str) -> str:
    return "8021q" if kind == "vlan" else kind


def _bring_up(there: Any, index: int, nic: Nic) -> None:
    """Bring a link up, once another one of its MAC is gone that is being cleared away."""
    deadline = time.monotonic() + CLEARED_SEC
    while True:
        try:
            rtnetlink.change(there, index, up=True)
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EBUSY) or time.monotonic() >= deadline:
                step = say("bring the network interface %(name)s up", name=nic.name)
                raise SetupFailed.from_oserror(step, error) from error
            time.sleep(_LOOK_SEC)
        else:
            return


def with_gateways(nic: Nic, link: str) -> Nic:
    """Return a NIC whose gateway "auto" is the card's own address on the host, as LXC has it. Raises NotFound."""
    wanted = {4: nic.ipv4_gateway, 6: nic.ipv6_gateway}
    if nic.type not in ("macvlan", "ipvlan") or "auto" not in wanted.values():
        return nic
    with rtnetlink.connect() as sock:
        card = rtnetlink.find(sock, link)
        known = rtnetlink.addresses(sock, card.index) if card is not None else []
    for version in (4, 6):
        if wanted[version] == "auto":
            own = [plain(text) for text in known if (":" in text) == (version == 6)]
            if not own:
                raise NotFound(
                    say(
                        "%(link)s has no IPv%(version)s address that could be the gateway.", link=link, version=version
                    ),
                    field="nics",
                )
            wanted[version] = own[0]
    return dataclasses.replace(nic, ipv4_gateway=wanted[4], ipv6_gateway=wanted[6])
