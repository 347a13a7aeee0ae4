"""What of the host the policy gives to which project, and what a container's wishes come to. Pure.

The policy file names directories and devices of the host; a spec holds those names only. ``resolve`` is the one place
where a name becomes a path, in the root worker, right before it is used.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from .attachments import Attachments, Bind, Device, Mount, Node, check_device_path
from .errors import PolicyDenied, SpecError
from .sentences import say


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


DEFAULT_DEVICES: Final = {
    # both act in the opener's own namespaces: /dev/fuse for file systems that only the container sees, tun for links
    # in its own network namespace
    "fuse": HostDevice(path="/dev/fuse", projects=("*",)),
    "tun": HostDevice(path="/dev/net/tun", projects=("*",)),
}


_NOT_GIVEN: Final = "This host's policy gives project %s no %s of the name %s."


def given_to(projects: Iterable[str], project: str) -> bool:
    """Tell whether a share or a device of these projects is given to that one."""
    return not {"*", project}.isdisjoint(projects)


def profile_of(profiles: Mapping[str, Profile], project: str, name: str) -> Profile:
    """Return how a project's containers may use a profile, "" being none; raises PolicyDenied where they may not."""
    known = profiles.get(name)
    if not name:
        return Profile()
    if known is None or not given_to(known.projects, project):
        raise PolicyDenied(_NOT_GIVEN % (project, "system call profile", name), field="security.seccomp")
    return known


def check_path(path: Any, field: str, *, device: bool) -> None:
    """Raise SpecError unless the policy's path is absolute and plain; a device's lies below /dev."""
    if not isinstance(path, str) or not path.startswith("/") or posixpath.normpath(path) != path or path == "/":
        raise SpecError(say("%(field)s must be an absolute path, without . and .. in it.", field=field), field=field)
    if device:
        check_device_path(path, field)


def resolve(shares: Mapping[str, Share], devices: Mapping[str, HostDevice], spec: Wishes) -> Attachments:
    """Return what a spec's mounts and devices come to on this host; raises PolicyDenied naming the field.

    What is not there and what is another project's are refused in the same words.
    """
    return Attachments(
        tuple(_bind(shares, spec, number) for number in range(len(spec.mounts))),
        tuple(_node(devices, spec, number) for number in range(len(spec.devices))),
    )


def _bind(shares: Mapping[str, Share], spec: Wishes, number: int) -> Bind:
    mount = spec.mounts[number]
    share = shares.get(mount.share)
    if share is None or not given_to(share.projects, spec.project):
        raise PolicyDenied(_NOT_GIVEN % (spec.project, "shared directory", mount.share), field=f"mounts.{number}.share")
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
        raise PolicyDenied(_NOT_GIVEN % (spec.project, "device", device.device), field=f"devices.{number}.device")
    return Node(
        device=device.device,
        path=known.path,
        target=device.path or known.path,
        mode=int(device.mode, 8),
        uid=device.uid,
        gid=device.gid,
    )
