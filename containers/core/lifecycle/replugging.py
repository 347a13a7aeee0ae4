"""Network interfaces of a running container: added, changed and taken away while it runs.

The order is such that a process which dies anywhere leaves a container whose supervisor knows of every link that there
may be: it is told of new ones before they are made, and of old ones until they are gone. The caller's operation is then
begun again, and what is there already is made anew.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ..errors import CoreError, InvalidTransition, NotFound, SetupFailed, TimedOut
from ..failpoints import failpoint
from ..host import Host
from ..hoststore import store
from ..kernel import rtnetlink
from ..model.nics import ON_PARENT, Nic, host_network
from ..model.spec import Spec
from ..network import bridge, cards, inside, lending, plugging, rates
from ..network.plugging import Parents, Placed
from ..proc.records import RunFile
from ..protocol import Decoder, Kind, control, parse_control
from ..sentences import say

_ANSWER_SEC: Final = 60.0
"""Guards against a supervisor that hangs: on a host that stands still for some seconds none of them is given up."""
_READ_BYTES: Final = 64 * 1024
_STEP: Final = "change the network interfaces"
_IN_PLACE: Final = frozenset(
    {"mtu", "ipv4", "ipv4_gateway", "ipv6", "ipv6_gateway", "static", "ingress_bytes_per_sec", "egress_bytes_per_sec"}
)
"""What of a NIC can be changed without taking it out; of a routed one the addresses are routes of the host's."""


def change(host: Host, before: Spec, after: Spec, parents: Parents) -> bool:
    """Make a running container have the NICs of another spec of it; returns False where it does not run.

    parents: as in network.plugging, for both specs. A NIC is the same where its index is. Where it fails, the container
    has the NICs of before again, as far as that can be had. The caller stores the spec. Raises InvalidTransition for
    the host's network and for a supervisor that is too old, and what plugging.plug raises.
    """
    with store.lock(host, "container", before.id):
        run = RunFile.read(host.run_path(before.id))
        pidfd = run.init.open() if run is not None else None
        if run is None or pidfd is None:
            return False
        try:
            if before.nics != after.nics:
                _change(host, run.init.pid, before, after, parents)
        finally:
            os.close(pidfd)
        return True


def _change(host: Host, init_pid: int, before: Spec, after: Spec, parents: Parents) -> None:
    if host_network(before.nics) or host_network(after.nics):
        raise InvalidTransition("Stop the container first: it has no network namespace of its own.", action="update")
    old, new = ({nic.index: nic for nic in spec.nics} for spec in (before, after))
    moved = [nic for nic in new.values() if nic.index in old and _replaced(old[nic.index], nic)]
    gone = [nic for nic in before.nics if nic.index not in new or new[nic.index] in moved]
    come = [nic for nic in after.nics if nic.index not in old or nic in moved]
    kept = [
        (old[nic.index], nic) for nic in after.nics if nic.index in old and nic not in moved and old[nic.index] != nic
    ]
    netns_fd = os.open(f"/proc/{init_pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        # both, so that whatever is made has somebody who clears it away
        placed = _tell(host, before.id, init_pid, [*before.nics, *(nic for nic in come if nic.index not in old)], None)
        failpoint(host.state_dir, "replug.told")
        try:
            _take_and_put(host, after, gone, come, kept, netns_fd, parents, placed)
        except BaseException:
            with contextlib.suppress(CoreError, OSError):
                _put_back(host, before, come, kept, gone, netns_fd, parents, placed)
                _tell(host, before.id, init_pid, before.nics, placed)
            raise
        failpoint(host.state_dir, "replug.done")
        _tell(host, before.id, init_pid, after.nics, placed)
    finally:
        os.close(netns_fd)


def _replaced(old: Nic, new: Nic) -> bool:
    """Tell whether a NIC is so different that it has to be taken out first."""
    in_place = _IN_PLACE if old.type != "routed" else {"mtu", "ingress_bytes_per_sec", "egress_bytes_per_sec"}
    names = {entry.name for entry in dataclasses.fields(Nic)} - in_place
    return any(getattr(old, name) != getattr(new, name) for name in names)


def _take_and_put(
    host: Host,
    after: Spec,
    gone: Sequence[Nic],
    come: Sequence[Nic],
    kept: Sequence[tuple[Nic, Nic]],
    netns_fd: int,
    parents: Parents,
    placed: dict[int, int],
) -> None:
    for nic in gone:
        plugging.unplug(host, after, [nic], netns_fd, placed)
        placed.pop(nic.index, None)
    failpoint(host.state_dir, "replug.taken")
    # the filter first: an address that is not the NIC's any more is not to be sent from, a new one may be
    plugging.register(host, after)
    _note(placed, plugging.plug(host, after, come, netns_fd, parents))
    _bring_up(come, netns_fd)
    failpoint(host.state_dir, "replug.put")
    _adjust(host, after, kept, netns_fd, parents, placed)


def _put_back(
    host: Host,
    before: Spec,
    come: Sequence[Nic],
    kept: Sequence[tuple[Nic, Nic]],
    gone: Sequence[Nic],
    netns_fd: int,
    parents: Parents,
    placed: dict[int, int],
) -> None:
    for nic in come:
        plugging.unplug(host, before, [nic], netns_fd, placed)
        placed.pop(nic.index, None)
    plugging.register(host, before)
    _note(placed, plugging.plug(host, before, gone, netns_fd, parents))
    _bring_up(gone, netns_fd)
    _adjust(host, before, [(new, old) for old, new in kept], netns_fd, parents, placed)


def _note(placed: dict[int, int], made: Sequence[Placed]) -> None:
    placed |= {one.nic.index: one.index for one in made if one.index and one.nic.type != "phys"}


def _bring_up(nics: Sequence[Nic], netns_fd: int) -> None:
    """Bring links up inside, as every NIC is when init begins."""
    if not nics:
        return
    try:
        with rtnetlink.connect(netns_fd) as there:
            for nic in nics:
                found = rtnetlink.find(there, nic.name)
                if found is not None:
                    rtnetlink.change(there, found.index, up=True)
    except OSError as error:
        raise SetupFailed.from_oserror(_STEP, error) from error


def _adjust(
    host: Host,
    spec: Spec,
    kept: Sequence[tuple[Nic, Nic]],
    netns_fd: int,
    parents: Parents,
    placed: Mapping[int, int],
) -> None:
    """Change NICs in place: MTU, addresses, gateways, rates."""
    for before, after in kept:
        link = parents.get(after.parent, "")
        old, new = before, cards.with_gateways(after, link)
        with contextlib.suppress(NotFound):  # the card's address went meanwhile, and the way to it
            old = cards.with_gateways(before, link)
        with rtnetlink.connect(netns_fd) as there, rtnetlink.connect() as here, bridge.netlink(_STEP) as ip:
            outside = rtnetlink.find(here, new.host_link) if new.host_link else None
            if outside is not None and old.mtu != new.mtu:
                rtnetlink.change(here, outside.index, mtu=new.mtu or _plain_mtu(host, spec, new, link))
            index = outside.peer if outside is not None else placed.get(new.index, 0)
            if not index:
                found = rtnetlink.find(there, new.name)
                index = found.index if found is not None else 0
            if not index:
                raise NotFound(say("The network interface %(name)s is not in the container any more.", name=new.name))
            inside.unset(there, old, new, index)
            if new.mtu is None and old.mtu is not None:
                rtnetlink.change(there, index, mtu=_plain_mtu(host, spec, new, link))
            inside.configure(there, new, index)
            if outside is not None and (rates.wanted(old) or rates.wanted(new)):
                rates.set_rates(host, spec, new, ip, outside.index)


def _plain_mtu(host: Host, spec: Spec, nic: Nic, link: str) -> int:
    """Return the MTU that a NIC has where none is asked for. link: its card on the host, "" for none."""
    if nic.type == "phys":
        return next(
            (card.mtu for card in lending.read(host, spec.id).cards if card.nic == nic.index), bridge.DEFAULT_MTU
        )
    if nic.type == "bridge" or nic.type in ON_PARENT:
        with rtnetlink.connect() as here:
            found = rtnetlink.find(here, nic.bridge or link)
            if found is not None:
                return found.mtu
    return bridge.DEFAULT_MTU


def _tell(
    host: Host, container_id: str, init_pid: int, nics: Sequence[Nic], placed: Mapping[int, int] | None
) -> dict[int, int]:
    """Tell the supervisor what NICs there are; returns the links inside that it knows. placed None: as it does."""
    message: dict[str, Any] = {"cmd": "nics", "init_pid": init_pid, "nics": [dataclasses.asdict(nic) for nic in nics]}
    if placed is not None:
        message["placed"] = list(placed.items())
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as connection:
        connection.settimeout(_ANSWER_SEC)
        try:
            connection.connect(str(host.supervisor_socket(container_id)))
            connection.sendall(control(**message))
            said = _answer(connection)
        except TimeoutError:
            raise TimedOut("The supervisor did not answer in time.", step=_STEP) from None
        except (FileNotFoundError, ConnectionError):
            raise NotFound("The container is being started or stopped: try again.") from None
    if said.get("type") == "ok":
        return {int(nic): int(index) for nic, index in said["placed"]}
    if said.get("code") == "bad-frame":
        raise InvalidTransition("An older version started this container: restart it first.", action="update")
    raise NotFound(said.get("message") or "The supervisor went away.")


def _answer(connection: socket.socket) -> dict[str, Any]:
    decoder = Decoder()
    while data := connection.recv(_READ_BYTES):
        for kind, payload in decoder.feed(data):
            if kind is Kind.CONTROL:
                return parse_control(payload)
    return {"type": "gone"}
