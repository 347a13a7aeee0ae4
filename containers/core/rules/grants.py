"""What of the host the policy gives to which project, and what a container's wishes come to. Pure.

The policy file names directories and devices of the host; a spec holds those names only. ``resolve`` is the one place
where a name becomes a path, in the root worker, right before it is used.
"""

from __future__ import annotations

import ipaddress
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from ..errors import PolicyDenied, SpecError
from ..model import nics
from ..model.attachments import Attachments, Bind, Device, Mount, Node, check_device_path
from ..model.hooks import ENDING, ENDING_SEC, HOST_POINTS, START, TIMEOUT_MAX_SEC, TIMEOUT_SEC, Call, Hook
from ..sentences import say


class Wishes(Protocol):
    """What of a spec is looked at: whose container it is, and what it asks for."""

    @property
    def project(self) -> str:
        """The project's name."""

    @property
    def mounts(self) -> tuple[Mount, ...]:
        """The shared directories."""

    @property
    def devices(self) -> tuple[Device, ...]:
        """The device nodes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A directory of the host that containers may be given. projects: whose; "*" is every project's.

    read_only: whatever a container asks for. submounts: it may hold, and receive, other mounts of the host.
    """

    path: str
    projects: tuple[str, ...] = ()
    read_only: bool = False
    submounts: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HostDevice:
    """A device node of the host that containers may be given. projects: as of Share."""

    path: str
    projects: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A system call profile of the host's administrator. projects: as of Share. instead: not beside Boxroom's list."""

    projects: tuple[str, ...] = ()
    instead: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HostHook:
    """A program of the host's administrator. projects: as of Share. points: where containers may have it run.

    timeout_sec: how long it may take, 1 to TIMEOUT_MAX_SEC; at an ending ENDING_SEC at most.
    """

    projects: tuple[str, ...] = ()
    points: tuple[str, ...] = HOST_POINTS
    timeout_sec: int = TIMEOUT_SEC


DEFAULT_DEVICES: Final = {
    # both act in the opener's own namespaces: /dev/fuse for file systems that only the container sees, tun for links
    # in its own network namespace
    "fuse": HostDevice(path="/dev/fuse", projects=("*",)),
    "tun": HostDevice(path="/dev/net/tun", projects=("*",)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """A network card of the host that NICs may sit on. link: its name on the host. projects: as of Share.

    types: for which types of NICs. vlans: numbers that vlan NICs may have ("10", "100-199"). addresses: subnets that
    routed NICs may have addresses of; from them one is chosen where none is asked for.
    """

    link: str
    projects: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    vlans: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()


def given_to(projects: Iterable[str], project: str) -> bool:
    """Tell whether a share or a device of these projects is given to that one."""
    return not {"*", project}.isdisjoint(projects)


def check_hook(hook: HostHook, field: str) -> None:
    """Raise SpecError unless the policy's entry is one: known points, and a time that is not too long."""
    for point in hook.points:
        if point not in HOST_POINTS:
            raise SpecError(
                say("%(field)s.points must be of %(names)s.", field=field, names=", ".join(HOST_POINTS)),
                field=f"{field}.points",
            )
    if not 1 <= hook.timeout_sec <= TIMEOUT_MAX_SEC:
        raise SpecError(
            say("%(field)s.timeout_sec must be 1 to %(most)s.", field=field, most=TIMEOUT_MAX_SEC),
            field=f"{field}.timeout_sec",
        )


def hooks_of(known: Mapping[str, HostHook], project: str, wanted: Sequence[Hook]) -> tuple[Call, ...]:
    """Return hooks as they are run; raises PolicyDenied (``hooks.N.hook``) where one is not given to the project."""
    calls = []
    for number, one in enumerate(wanted):
        if one.point == START:
            calls.append(Call(point=one.point, hook="", command=one.command))
            continue
        hook = known.get(one.hook)
        if hook is None or not given_to(hook.projects, project) or one.point not in hook.points:
            raise PolicyDenied(
                say(
                    "This host's policy gives project %(project)s no hook at %(point)s of the name %(name)s.",
                    project=project,
                    point=one.point,
                    name=one.hook,
                ),
                field=f"hooks.{number}.hook",
            )
        seconds = min(hook.timeout_sec, ENDING_SEC) if one.point in ENDING else hook.timeout_sec
        calls.append(Call(point=one.point, hook=one.hook, timeout_sec=seconds))
    return tuple(calls)


def profile_of(profiles: Mapping[str, Profile], project: str, name: str) -> Profile:
    """Return how a project's containers may use a profile, "" being none; raises PolicyDenied where they may not."""
    known = profiles.get(name)
    if not name:
        return Profile()
    if known is None or not given_to(known.projects, project):
        raise PolicyDenied(
            say(
                "This host's policy gives project %(project)s no system call profile of the name %(name)s.",
                project=project,
                name=name,
            ),
            field="security.seccomp",
        )
    return known


def check_path(path: Any, field: str, *, device: bool) -> None:
    """Raise SpecError unless the policy's path is absolute and plain; a device's lies below /dev."""
    if not isinstance(path, str) or not path.startswith("/") or posixpath.normpath(path) != path or path == "/":
        raise SpecError(say("%(field)s must be an absolute path, without . and .. in it.", field=field), field=field)
    if device:
        check_device_path(path, field)


def check_parent(parent: Parent, field: str) -> None:
    """Raise SpecError unless the policy's entry is one: a link's name, known types, numbers and subnets."""
    if not 1 <= len(parent.link) <= 15 or not parent.link.isprintable() or {"/", " "} & set(parent.link):
        raise SpecError(say("%(field)s.link must be a network card's name.", field=field), field=f"{field}.link")
    known = (*sorted(nics.ON_PARENT), "routed")
    if not parent.types or not set(parent.types) <= set(known):
        raise SpecError(
            say("%(field)s.types must be of %(names)s.", field=field, names=", ".join(known)), field=f"{field}.types"
        )
    for text in parent.addresses:
        if not nics.is_subnet(text):
            raise SpecError(
                say("%(field)s.addresses must be subnets, not %(text)r.", field=field, text=text),
                field=f"{field}.addresses",
            )
    for text in parent.vlans:
        first, _, last = text.partition("-")
        if not all(one.isascii() and one.isdigit() and 1 <= int(one) <= 4094 for one in (first, last or first)):
            raise SpecError(
                say("%(field)s.vlans must be numbers from 1 to 4094, or ranges.", field=field), field=f"{field}.vlans"
            )


def links_of(parents: Mapping[str, Parent], project: str, wanted: Sequence[nics.Nic]) -> dict[str, str]:
    """Return the host's links by the names that NICs call them by; raises PolicyDenied naming the field.

    What is not there and what is another project's are refused in the same words.
    """
    found = {}
    for number, nic in enumerate(wanted):
        if not nic.parent:
            if nic.type == "routed":
                _routable(parents, project, nic, f"nics.{number}")
            continue
        parent = parents.get(nic.parent)
        if parent is None or not given_to(parent.projects, project) or nic.type not in parent.types:
            raise PolicyDenied(
                say(
                    "This host's policy gives project %(project)s no network card %(parent)s for %(type)s interfaces.",
                    project=project,
                    parent=nic.parent,
                    type=nic.type,
                ),
                field=f"nics.{number}.parent",
            )
        if nic.type == "vlan" and not has_vlan(parent, nic.vlan or 0):
            raise PolicyDenied(
                say(
                    "This host's policy does not give the VLAN %(vlan)s of %(parent)s.",
                    vlan=nic.vlan,
                    parent=nic.parent,
                ),
                field=f"nics.{number}.vlan",
            )
        if nic.type == "routed":
            _routable({nic.parent: parent}, project, nic, f"nics.{number}")
        found[nic.parent] = parent.link
    return found


def has_vlan(parent: Parent, number: int) -> bool:
    """Tell whether NICs on the card may have the VLAN."""
    for text in parent.vlans:
        first, _, last = text.partition("-")
        if int(first) <= number <= int(last or first):
            return True
    return False


def routable(parents: Mapping[str, Parent], project: str) -> list[str]:
    """Return the subnets that a project's routed NICs may have addresses of."""
    given = [one for one in parents.values() if given_to(one.projects, project) and "routed" in one.types]
    return [text for one in given for text in one.addresses]


def _routable(parents: Mapping[str, Parent], project: str, nic: nics.Nic, field: str) -> None:
    """Raise PolicyDenied for what a routed NIC may not have: the host would send it what is others'."""
    subnets = routable(parents, project)
    for key, texts in (("ipv4", [nic.ipv4]), ("ipv6", [nic.ipv6]), ("routes", nic.routes)):
        for text in texts:
            if text is not None and not lies_in(subnets, text, whole=key == "routes"):
                raise PolicyDenied(
                    say(
                        "This host's policy does not route %(text)s to project %(project)s.", text=text, project=project
                    ),
                    field=f"{field}.{key}",
                )


def lies_in(subnets: Iterable[str], text: str, *, whole: bool) -> bool:
    """Tell whether an interface's address lies in one of the subnets; whole: all that its prefix length says does."""
    interface = ipaddress.ip_interface(text)
    wanted = interface.network if whole else ipaddress.ip_network(interface.ip)
    return any(
        one.version == wanted.version and wanted.subnet_of(one)  # type: ignore[arg-type]
        for one in map(ipaddress.ip_network, subnets)
    )


def resolve(shares: Mapping[str, Share], devices: Mapping[str, HostDevice], spec: Wishes) -> Attachments:
    """Return what a spec's mounts and devices come to on this host; raises PolicyDenied naming the field, and SpecError
    (``devices.N.path``) for two device nodes at one place.

    What is not there and what is another project's are refused in the same words.
    """
    nodes = tuple(_node(devices, spec, number) for number in range(len(spec.devices)))
    for number, node in enumerate(nodes):
        # one that stands at another's place, or would stand below it
        for other in nodes[:number]:
            if f"{node.target}/".startswith(f"{other.target}/") or other.target.startswith(f"{node.target}/"):
                raise SpecError(say("%(value)s is there twice.", value=node.target), field=f"devices.{number}.path")
    return Attachments(tuple(_bind(shares, spec, number) for number in range(len(spec.mounts))), nodes)


def _bind(shares: Mapping[str, Share], spec: Wishes, number: int) -> Bind:
    mount = spec.mounts[number]
    share = shares.get(mount.share)
    if share is None or not given_to(share.projects, spec.project):
        raise PolicyDenied(
            say(
                "This host's policy gives project %(project)s no shared directory of the name %(name)s.",
                project=spec.project,
                name=mount.share,
            ),
            field=f"mounts.{number}.share",
        )
    read_only = share.read_only or mount.read_only
    if mount.propagation == "slave" and (read_only or not share.submounts):
        raise PolicyDenied(
            "Only a writable share whose policy allows submounts can be a slave.", field=f"mounts.{number}.propagation"
        )
    return Bind(
        share=mount.share,
        path=share.path,
        subpath=mount.subpath,
        target=mount.target,
        read_only=read_only,
        create=mount.create,
        optional=mount.optional,
        receives=mount.propagation == "slave",
        submounts=share.submounts,
    )


def _node(devices: Mapping[str, HostDevice], spec: Wishes, number: int) -> Node:
    device = spec.devices[number]
    known = devices.get(device.device)
    if known is None or not given_to(known.projects, spec.project):
        raise PolicyDenied(
            say(
                "This host's policy gives project %(project)s no device of the name %(name)s.",
                project=spec.project,
                name=device.device,
            ),
            field=f"devices.{number}.device",
        )
    return Node(
        device=device.device,
        path=known.path,
        target=device.path or known.path,
        mode=int(device.mode, 8),
        uid=device.uid,
        gid=device.gid,
    )
