"""Shared directories and devices: who may have which, and the checks of what is asked for.

Whatever is here comes from the host's policy as its worker last told it. Root's worker looks again, at the policy
itself; and where a share lies is told to nobody.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..core.model.attachments import Device, Mount, check_all
from ..core.model.hooks import Hook
from ..core.model.spec import build
from ..core.rules import grants
from ..models import Host
from .told import policy_of

_UNTOLD = "/untold"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wishes:
    project: str
    mounts: tuple[Mount, ...]
    devices: tuple[Device, ...]


def shares(host: Host) -> dict[str, grants.Share]:
    """Return the host's shares by name; their paths are not told."""
    told: Mapping[str, Any] = host.facts.get("policy", {}).get("shares", {})
    return {
        name: grants.Share(
            path=_UNTOLD,
            projects=tuple(one["projects"]),
            read_only=one["read_only"],
            submounts=one["submounts"],
        )
        for name, one in told.items()
    }


def parents(host: Host) -> dict[str, grants.Parent]:
    """Return the host's network cards that containers may be given, by name; which links they are is not told."""
    told: Mapping[str, Any] = host.facts.get("policy", {}).get("parents", {})
    return {
        name: grants.Parent(
            link=_UNTOLD,
            projects=tuple(one["projects"]),
            types=tuple(one["types"]),
            vlans=tuple(one["vlans"]),
            addresses=tuple(one["addresses"]),
        )
        for name, one in told.items()
    }


def devices(host: Host) -> dict[str, grants.HostDevice]:
    """Return the devices that the host gives to anybody, by name."""
    told: Mapping[str, Any] = host.facts.get("policy", {}).get("devices", {})
    return {name: grants.HostDevice(path=one["path"], projects=tuple(one["projects"])) for name, one in told.items()}


def profiles(host: Host) -> dict[str, grants.Profile]:
    """Return the system call profiles that the host gives to anybody, by name."""
    told: Mapping[str, Any] = host.facts.get("policy", {}).get("seccomp", {})
    return {name: grants.Profile(projects=tuple(one["projects"])) for name, one in told.items()}


def hooks(host: Host) -> dict[str, grants.HostHook]:
    """Return the hooks that the host gives to anybody, by name."""
    told: Mapping[str, Any] = host.facts.get("policy", {}).get("hooks", {})
    return {
        name: grants.HostHook(
            projects=tuple(one["projects"]), points=tuple(one["points"]), timeout_sec=one["timeout_sec"]
        )
        for name, one in told.items()
    }


def check_hooks(host: Host, project: str, wanted: Sequence[Hook]) -> None:
    """Raise PolicyDenied (``hooks.N.hook``) where a hook is not given to the project."""
    with policy_of(host):
        grants.hooks_of(hooks(host), project, wanted)


def check_profile(host: Host, project: str, name: str) -> None:
    """Raise PolicyDenied where a system call profile is not given to the project; name: "" for the usual one."""
    with policy_of(host):
        grants.profile_of(profiles(host), project, name)


def check(wanted: Mapping[str, Sequence[Mapping[str, Any]]], host: Host, project: str) -> dict[str, Any]:
    """Return mounts and devices, those that are named, as columns of a container's row.

    Raises SpecError or PolicyDenied naming the field, such as ``mounts.0.share``.
    """
    mounts = tuple(build(Mount, dict(one), f"mounts.{n}") for n, one in enumerate(wanted.get("mounts", ())))
    nodes = tuple(build(Device, dict(one), f"devices.{n}") for n, one in enumerate(wanted.get("devices", ())))
    check_all(mounts, nodes)
    with policy_of(host):
        grants.resolve(shares(host), devices(host), _Wishes(project=project, mounts=mounts, devices=nodes))
    columns = {
        "mounts": [dataclasses.asdict(mount) for mount in mounts],
        "devices": [dataclasses.asdict(node) for node in nodes],
    }
    return {name: columns[name] for name in wanted}
