"""What a container is lent of the host's own network: cards that move in, and neighbour entries on cards that stay.

Before anything is lent it is written down (``CONTAINER.lent`` beside the run file), and the container's network
namespace is held by a mount: a virtual link would go with its namespace, and hardware would come back under whatever
name the container gave it (lxc#4409). Whoever comes last gives back: the supervisor at the container's end, the worker
after a failed start, the reconciler after a supervisor that was killed, fsck. Twice is once.

Standard library only: supervisors use it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ..errors import InUse, NotFound, SetupFailed
from ..failpoints import failpoint
from ..host import Host
from ..kernel import locking, rtnetlink
from ..kernel.syscalls import MNT_DETACH, mount, umount
from ..plans.mount_flags import MS_BIND
from ..sentences import say
from . import parents

SUFFIX: Final = ".lent"
_STEP: Final = "lend a network card"
_ABOVE: Final = ("ipvlan", "macvlan", "macvtap", "vlan")
_FIRST_INDEX: Final = 2**30
"""Numbers of lent cards are chosen from here on, where the kernel gives none of itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A card that was lent, as it was before. nic: the index of the container's NIC.

    addresses: those that were set for good, not by DHCP or advertisements.
    index: its number on the host. inside: its number in there, chosen before it moves; the container cannot change it.
    """

    nic: int
    inside: int
    index: int
    name: str
    mtu: int
    mac: str
    up: bool
    altnames: tuple[str, ...] = ()
    permanent: str = ""
    device: str = ""
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An address that the host answers for on one of its links, for a routed NIC."""

    link: str
    address: str


@dataclass(frozen=True, slots=True)
class Lent:
    """Everything that one container was lent."""

    cards: tuple[Card, ...] = ()
    answers: tuple[Answer, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.cards or self.answers)


def path(host: Host, container_id: str) -> Path:
    """Return where it is written down."""
    return host.supervisor_dir() / f"{container_id}{SUFFIX}"


def read(host: Host, container_id: str) -> Lent:
    """Return what a container was lent; the directory is root's, so it is trusted."""
    try:
        values: dict[str, Any] = json.loads(path(host, container_id).read_text())
    except FileNotFoundError:
        return Lent()
    lists = ("altnames", "addresses")
    cards = tuple(Card(**{**card, **{key: tuple(card.get(key, ())) for key in lists}}) for card in values["cards"])
    return Lent(cards, tuple(Answer(**answer) for answer in values["answers"]))


def _write(host: Host, container_id: str, lent: Lent) -> None:
    target = path(host, container_id)
    if not lent:
        target.unlink(missing_ok=True)
        return
    temporary = target.with_name(f".{target.name}.tmp")
    temporary.write_text(json.dumps(dataclasses.asdict(lent)))
    temporary.replace(target)


def borrowers(host: Host) -> dict[str, Lent]:
    """Return what is lent now, by the container's id."""
    found = {}
    with contextlib.suppress(FileNotFoundError):
        for name in sorted(os.listdir(host.supervisor_dir())):
            if name.endswith(SUFFIX) and not name.startswith("."):
                container_id = name.removesuffix(SUFFIX)
                found[container_id] = read(host, container_id)
    return found


@contextlib.contextmanager
def _held(host: Host) -> Iterator[None]:
    """Have lending and giving back to oneself."""
    host.locks_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with locking.held(host.locks_dir / "lending"):
        yield


# -- lending ----------------------------------------------------------------------------------------------------------


def lend(host: Host, container_id: str, netns_fd: int, *, nic: int, link: str, inside: str, mac: str = "") -> int:
    """Move a card of the host into a container's network namespace, down; return its index there.

    nic, inside: the NIC's index and name. mac: "" to keep its own. netns_fd is borrowed.
    Raises NotFound where the host has no such card, InUse where it cannot be given away, SetupFailed.
    """
    with _held(host), rtnetlink.connect() as sock:
        found = _lendable(host, sock, link)
        card = Card(
            nic=nic,
            inside=_FIRST_INDEX + int.from_bytes(os.urandom(3), "big"),
            index=found.index,
            name=found.name,
            mtu=found.mtu,
            mac=found.mac,
            up=bool(found.flags & rtnetlink.IFF_UP),
            altnames=found.altnames,
            permanent=found.permanent,
            device=found.device,
            addresses=tuple(rtnetlink.addresses(sock, found.index, permanent=True)),
        )
        lent = read(host, container_id)
        _write(host, container_id, Lent((*lent.cards, card), lent.answers))
        failpoint(host.state_dir, "lend.written")
        try:
            pin(host, container_id, netns_fd)
            failpoint(host.state_dir, "lend.pinned")
            rtnetlink.change(sock, found.index, up=False)
            rtnetlink.change(sock, found.index, netns_fd=netns_fd, name=inside, new_index=card.inside)
            failpoint(host.state_dir, "lend.moved")
            if mac:
                with rtnetlink.connect(netns_fd) as there:
                    rtnetlink.change(there, card.inside, mac=mac)
        except OSError as error:
            _give_back(host, container_id, only=nic)
            raise SetupFailed.from_oserror(_STEP, error) from error
    return card.inside


def _lendable(host: Host, sock: socket.socket, link: str) -> rtnetlink.Link:
    found = rtnetlink.find(sock, link)
    if found is None:
        for other, lent in borrowers(host).items():
            if any(card.name == link for card in lent.cards):
                raise InUse(say("The network card %(link)s is another container's now.", link=link), users=[other])
        raise NotFound(say("This host has no network card %(link)s.", link=link), field="nics")
    if found.name == "lo" or found.kind == "bridge":
        raise InUse(say("%(link)s is no card that a container could be lent.", link=link), users=[link])
    above = [one.name for one in rtnetlink.links(sock) if one.peer == found.index and one.kind in _ABOVE]
    if found.master or above:
        raise InUse(
            say("The network card %(link)s is part of a bridge, or carries other links.", link=link),
            users=above or [link],
        )
    return found


def answer_for(host: Host, container_id: str, link: str, addresses: list[str]) -> None:
    """Have the host answer for addresses on one of its links (proxy ARP, proxy NDP). Raises NotFound, SetupFailed."""
    with _held(host), rtnetlink.connect() as sock:
        found = rtnetlink.find(sock, link)
        if found is None:
            raise NotFound(say("This host has no network card %(link)s.", link=link), field="nics")
        lent = read(host, container_id)
        fresh = [Answer(link=found.name, address=one) for one in addresses]
        _write(
            host, container_id, Lent(lent.cards, (*lent.answers, *(one for one in fresh if one not in lent.answers)))
        )
        failpoint(host.state_dir, "lend.answers")
        if any(":" in one for one in addresses):
            parents.answering(host, found.name)
        failpoint(host.state_dir, "lend.settings")
        try:
            for one in fresh:
                rtnetlink.proxy(sock, found.index, one.address)
        except OSError as error:
            raise SetupFailed.from_oserror("answer for the container's address", error) from error


# -- the namespace ----------------------------------------------------------------------------------------------------


def pins(host: Host, container_id: str = "") -> list[Path]:
    """Return the mounts that hold a container's network namespace, or everybody's."""
    with contextlib.suppress(FileNotFoundError):
        names = sorted(os.listdir(host.netns_dir))
        return [host.netns_dir / name for name in names if not container_id or name.startswith(f"{container_id}.")]
    return []


def pin(host: Host, container_id: str, netns_fd: int) -> None:
    """Hold a network namespace beyond its last process; one that is held already is fine. Raises OSError."""
    inode = os.fstat(netns_fd).st_ino
    host.netns_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    target = host.netns_dir / f"{container_id}.{inode}"
    if target.exists() and os.stat(target).st_ino == inode:
        return
    target.touch(mode=0o600)
    mount(f"/proc/self/fd/{netns_fd}", str(target), None, MS_BIND)


def unpin(host: Host, container_id: str, *, keep_fd: int | None = None) -> None:
    """Let go of a container's namespaces, but for one; twice is once."""
    kept = os.fstat(keep_fd).st_ino if keep_fd is not None else None
    for target in pins(host, container_id):
        if kept is not None and target.name == f"{container_id}.{kept}":
            continue
        with contextlib.suppress(OSError):
            umount(str(target), MNT_DETACH)
        target.unlink(missing_ok=True)


# -- giving back ------------------------------------------------------------------------------------------------------


def give_back(host: Host, container_id: str, *, only: int | None = None) -> list[str]:
    """Give the host back what a container was lent: cards with name, other names, MTU, MAC and addresses, up if so.

    only: of one NIC, by its index, and no answers. Returns in words what could not be had as it was. Nothing lent is
    fine. Raises OSError where the kernel refuses; then it is still written down, for the next time.
    """
    if not path(host, container_id).exists() and not pins(host, container_id):
        return []
    with _held(host):
        return _give_back(host, container_id, only=only)


def stop_answering(host: Host, container_id: str, addresses: list[str]) -> None:
    """Have the host answer no more for these; those that are not lent are fine. Raises OSError."""
    with _held(host), rtnetlink.connect() as sock:
        lent = read(host, container_id)
        for one in lent.answers:
            if one.address in addresses:
                _no_answer(sock, one)
        kept = tuple(one for one in lent.answers if one.address not in addresses)
        _settle(host, container_id, kept)
        _write(host, container_id, Lent(lent.cards, kept))


def _no_answer(sock: socket.socket, one: Answer) -> None:
    found = rtnetlink.find(sock, one.link)
    if found is not None:
        rtnetlink.proxy(sock, found.index, one.address, remove=True)


def _settle(host: Host, container_id: str, kept: Sequence[Answer]) -> None:
    """Set back what cards had before the host answered on them, but for those where it still does."""
    others = [one for other, lent in borrowers(host).items() if other != container_id for one in lent.answers]
    parents.settle(host, {one.link for one in (*others, *kept) if ":" in one.address})


def _give_back(host: Host, container_id: str, *, only: int | None) -> list[str]:
    lent = read(host, container_id)
    problems = []
    with rtnetlink.connect() as sock:
        for card in lent.cards:
            if only in (None, card.nic):
                problems += _return(host, sock, container_id, card)
                lent = Lent(tuple(one for one in lent.cards if one != card), lent.answers)
                _write(host, container_id, lent)
        if only is None:
            for one in lent.answers:
                _no_answer(sock, one)
            _settle(host, container_id, ())
            lent = Lent(lent.cards)
            _write(host, container_id, lent)
    if not lent.cards:
        unpin(host, container_id)
    return problems


def _return(host: Host, sock: socket.socket, container_id: str, card: Card) -> list[str]:
    """Bring one card home and make it what it was."""
    problems = []
    home_fd = rtnetlink.own_netns()
    try:
        name = card.name if rtnetlink.find(sock, card.name) is None else f"bx{card.name[:10]}.{card.nic:x}"
        came = _bring_home(host, container_id, card, home_fd, name)
    finally:
        os.close(home_fd)
    failpoint(host.state_dir, "give-back.moved")
    found = rtnetlink.find(sock, name) if came else _at_home(sock, card)
    if found is None:
        return [f"The network card {card.name} is gone: it is neither on the host nor in the container."]
    if found.name != card.name:
        rtnetlink.change(sock, found.index, up=False)
        try:
            rtnetlink.change(sock, found.index, name=card.name)
        except FileExistsError:
            problems.append(f"The network card {card.name} is {found.name} now: another link has its name.")
    rtnetlink.set_altnames(sock, found, card.altnames)
    if found.mac != card.mac:
        rtnetlink.change(sock, found.index, mac=card.mac)
    if found.mtu != card.mtu:
        rtnetlink.change(sock, found.index, mtu=card.mtu)
    if card.up:
        rtnetlink.change(sock, found.index, up=True)
    for text in card.addresses:
        rtnetlink.add_address(sock, found.index, text)
    return problems


def _bring_home(host: Host, container_id: str, card: Card, home_fd: int, name: str) -> bool:
    """Move a card out of whichever of the container's namespaces it is in; returns whether it was in one."""
    for target in pins(host, container_id):
        try:
            netns_fd = os.open(target, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            with rtnetlink.connect(netns_fd) as there:
                found = rtnetlink.find(there, index=card.inside)
                if found is None:
                    continue
                rtnetlink.change(there, card.inside, up=False)
                # the container may have called it as a link of the host's is called: it could not come home so
                rtnetlink.set_altnames(there, found, ())
                try:
                    rtnetlink.change(there, card.inside, netns_fd=home_fd, name=name, new_index=card.index)
                except OSError:  # another link has its number by now
                    rtnetlink.change(there, card.inside, netns_fd=home_fd, name=name)
                return True
        except OSError as error:
            if error.errno != errno.EINVAL:  # not a namespace: a pin that was not mounted yet
                raise
        finally:
            os.close(netns_fd)
    return False


def _at_home(sock: socket.socket, card: Card) -> rtnetlink.Link | None:
    """Return a card that was never moved, or that the kernel has brought back under another name."""
    found = rtnetlink.find(sock, card.name)
    if found is not None or not (card.permanent or card.device):
        return found
    same = [one for one in rtnetlink.links(sock) if (one.permanent, one.device) == (card.permanent, card.device)]
    return same[0] if len(same) == 1 else None


def move_on(host: Host, container_id: str, old_fd: int, new_fd: int, names: dict[int, str]) -> None:
    """Move what a container was lent to its new network namespace, down. names: of its cards in there, by NIC."""
    lent = read(host, container_id)
    if not lent.cards:
        return
    with _held(host):
        pin(host, container_id, new_fd)
        with rtnetlink.connect(old_fd) as there:
            for card in lent.cards:
                if rtnetlink.find(there, index=card.inside) is not None:
                    rtnetlink.change(there, card.inside, up=False)
                    name = names.get(card.nic, card.name)
                    rtnetlink.change(there, card.inside, netns_fd=new_fd, name=name, new_index=card.inside)
        unpin(host, container_id, keep_fd=new_fd)


def tell(container_id: str, problems: list[str]) -> None:
    """Write problems into the log of whoever gave back."""
    for problem in problems:
        print(f"{container_id}: {problem}", file=sys.stderr, flush=True)  # noqa: T201 - the log
