"""Putting NICs into a container's network namespace, at a start and later, and taking them out again.

What is put in is either all there afterwards, or nothing of it is. The order for each: the packet filter's elements are
in the kernel, then the link comes up.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import PolicyDenied, SetupFailed
from ..failpoints import failpoint
from ..host import Host
from ..kernel import rtnetlink
from ..model.nics import ON_PARENT, Nic
from ..model.spec import Spec
from ..sentences import say
from . import bridge, cards, dnsmasq, inside, lending, nft, rates, routed, veth

if TYPE_CHECKING:
    from pyroute2 import IPRoute


@dataclass(frozen=True, slots=True)
class Placed:
    """A NIC in its container. nic: with the gateways that "auto" came to. index: the link's, in there; 0: its name."""

    nic: Nic
    index: int = 0


Parents = Mapping[str, str]
"""From a card's name in the policy to the host's link."""


def plug(host: Host, spec: Spec, nics: Sequence[Nic], netns_fd: int, parents: Parents) -> list[Placed]:
    """Put NICs of a container into its network namespace; netns_fd is borrowed.

    Links are down in there unless they were configured (inside.py). Raises SetupFailed, NotFound, InUse,
    HostUnsupported, PolicyDenied for a parent that is not given; then nothing of these NICs is left.
    """
    pairs = [nic for nic in nics if nic.type in ("bridge", "routed")]
    placed: list[Placed] = []
    step = f"network of {spec.name}"
    try:
        with ExitStack() as undo:
            if pairs:
                placed += _pairs(host, spec, pairs, netns_fd, parents, undo)
            if any(nic.type in ON_PARENT or rates.wanted(nic) for nic in nics):
                with bridge.netlink(step) as ip:
                    placed += _others(host, spec, nics, netns_fd, parents, ip, undo)
            _configure(placed, netns_fd)
            undo.pop_all()
    except OSError as error:
        raise SetupFailed.from_oserror(step, error) from error
    return placed


def _pairs(
    host: Host, spec: Spec, pairs: Sequence[Nic], netns_fd: int, parents: Parents, undo: ExitStack
) -> list[Placed]:
    # nft, if it must, looks beside us while the links, still down, are made; writing what is there already would cost a
    # grace period
    filters = nft.Look(host)
    with rtnetlink.connect() as sock:
        try:
            indexes = veth.create(sock, host, spec, pairs, netns_fd)
            for nic in pairs:
                undo.callback(veth.delete, [nic.host_link])
        finally:
            contents = filters.contents()
        failpoint(host.state_dir, "plug.pairs")
        if not contents.complete(spec):
            nft.register(host, spec)
        on_bridges = [index for nic, index in zip(pairs, indexes, strict=True) if nic.type == "bridge"]
        veth.bring_up(sock, on_bridges)
    for nic, index in zip(pairs, indexes, strict=True):
        if nic.type == "routed":
            nft.ensure_routed(host)
            undo.callback(_no_answers, host, spec, nic)
            routed.settle(host, spec, nic, index, _parent(parents, nic) if nic.parent else None)
    return [Placed(nic) for nic in pairs]


def _others(
    host: Host, spec: Spec, nics: Sequence[Nic], netns_fd: int, parents: Parents, ip: IPRoute, undo: ExitStack
) -> list[Placed]:
    """Hold pairs to their rates, and put in what takes a card of the host's."""
    placed = []
    for nic in nics:
        if nic.type in ON_PARENT:
            placed.append(_on_card(host, spec, nic, netns_fd, parents, ip, undo))
            failpoint(host.state_dir, "plug.card")
        elif rates.wanted(nic):
            index = bridge.link_index(ip, nic.host_link)
            if index is not None:
                rates.set_rates(host, spec, nic, ip, index)
    return placed


def _no_answers(host: Host, spec: Spec, nic: Nic) -> None:
    if routed.answers(nic):
        lending.stop_answering(host, spec.id, routed.answers(nic))


def _on_card(host: Host, spec: Spec, nic: Nic, netns_fd: int, parents: Parents, ip: IPRoute, undo: ExitStack) -> Placed:
    link = _parent(parents, nic)
    if nic.type == "phys":
        # what an operation that was killed had lent already
        lending.give_back(host, spec.id, only=nic.index)
        index = lending.lend(host, spec.id, netns_fd, nic=nic.index, link=link, inside=nic.name, mac=nic.mac)
        undo.callback(lending.give_back, host, spec.id, only=nic.index)
        return Placed(nic, index)
    index = cards.create(ip, nic, link, netns_fd)
    undo.callback(_delete_inside, netns_fd, index)
    return Placed(cards.with_gateways(nic, link), index)


def _parent(parents: Parents, nic: Nic) -> str:
    try:
        return parents[nic.parent]
    except KeyError:
        raise PolicyDenied(
            say("This host's policy gives no network card %(parent)s.", parent=nic.parent), field="nics"
        ) from None


def _configure(placed: Sequence[Placed], netns_fd: int) -> None:
    wanted = [one for one in placed if inside.is_set(one.nic)]
    if not wanted:
        return
    with rtnetlink.connect(netns_fd) as there:
        for one in wanted:
            index = one.index
            if not index:
                found = rtnetlink.find(there, one.nic.name)
                index = found.index if found else 0
            inside.configure(there, one.nic, index)


def _delete_inside(netns_fd: int, index: int) -> None:
    with contextlib.suppress(OSError), rtnetlink.connect(netns_fd) as there:
        rtnetlink.delete(there, index=index)


def unplug(host: Host, spec: Spec, nics: Sequence[Nic], netns_fd: int, placed: Mapping[int, int]) -> list[str]:
    """Take NICs out of a running container; twice is once. Returns in words what a lent card is not any more.

    spec: the container as it will be, without them. placed: the links' indexes inside, by the NICs' indexes.
    """
    veth.delete([nic.host_link for nic in nics if nic.host_link])
    problems = []
    for nic in nics:
        if nic.type == "phys":
            problems += lending.give_back(host, spec.id, only=nic.index)
        elif nic.type in ON_PARENT and nic.index in placed:
            _delete_inside(netns_fd, placed[nic.index])
        _no_answers(host, spec, nic)
        if nic.egress_bytes_per_sec is not None:
            rates.forget(host, spec.id, nic)
    return problems


def detach(host: Host, spec: Spec) -> None:
    """Take away what a container has on the host, and give the host back what was lent; twice is once."""
    veth.delete([nic.host_link for nic in spec.nics if nic.host_link])
    lending.tell(spec.id, lending.give_back(host, spec.id))


def register(host: Host, spec: Spec) -> None:
    """Let the packet filter, DHCP and DNS know a container, and forget what it had before."""
    with ThreadPoolExecutor(1) as beside:
        # most of it is waiting for nft
        filtered = beside.submit(nft.register, host, spec)
        dnsmasq.register(host, spec)
    filtered.result()
    rates.keep_wanted(host, spec)
