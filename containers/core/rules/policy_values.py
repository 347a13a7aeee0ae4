"""What a host's policy says, as values: the floor under every role, the defaults where it says nothing. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from ..errors import SpecError
from ..host import IDS_PER_CONTAINER
from ..plans import lxcfs
from ..sentences import say
from .ceilings import Ceilings
from .grants import DEFAULT_DEVICES, HostDevice, HostHook, Parent, Profile, Share
from .object_stores import ObjectStore
from .pool_rules import PoolRule


@dataclass(frozen=True, slots=True, kw_only=True)
class Containers:
    """What a container may be."""

    privileged: bool = False
    nesting: bool = False
    keyctl: bool = False
    apparmor: tuple[str, ...] = ()
    cgroup_files: tuple[str, ...] = ()
    lxcfs: str = lxcfs.DEFAULT_PLACE
    ids: int = IDS_PER_CONTAINER
    capabilities: tuple[str, ...] = ()
    parent_nics: tuple[str, ...] = ()
    host_network: bool = False
    file_bytes: int = 16 * 1024**3


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """Where images may come from, beside public addresses (host names and subnets), and how large they may be.

    insecure: hosts, with their port, that are asked without encryption; they need not be public.
    directories: of the host, absolute, by the names that their files are asked for by. max_bytes: unpacked.
    keyrings: files of OpenPGP keys, by the hosts (with their port) whose lists of images have to be signed by one of
    them; those that are asked without encryption have to be in it.
    """

    sources: tuple[str, ...] = ()
    insecure: tuple[str, ...] = ()
    max_bytes: int = 64 * 1024**3
    directories: Mapping[str, str] = field(default_factory=dict)
    keyrings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Backups:
    """Where backups may lie, and how large one may be. local: in the state directory, as the place called local.

    directories: of the host, absolute, by the names that they are asked for by. max_bytes: unpacked. s3: by name, too.
    """

    local: bool = True
    directories: Mapping[str, str] = field(default_factory=dict)
    max_bytes: int = 1 << 40
    s3: Mapping[str, ObjectStore] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """What the places are asked for by."""
        return [*(["local"] if self.local else []), *sorted([*self.directories, *self.s3])]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The whole policy of a host. projects: ceilings that replace the general ones, by project."""

    containers: Containers = field(default_factory=Containers)
    images: Images = field(default_factory=Images)
    backups: Backups = field(default_factory=Backups)
    ceilings: Ceilings = field(default_factory=Ceilings)
    projects: Mapping[str, Ceilings] = field(default_factory=dict)
    shares: Mapping[str, Share] = field(default_factory=dict)
    devices: Mapping[str, HostDevice] = field(default_factory=lambda: dict(DEFAULT_DEVICES))
    parents: Mapping[str, Parent] = field(default_factory=dict)
    seccomp: Mapping[str, Profile] = field(default_factory=dict)
    hooks: Mapping[str, HostHook] = field(default_factory=dict)
    pools: Mapping[str, PoolRule] = field(default_factory=dict)

    def ceilings_of(self, project: str) -> Ceilings:
        """Return the ceilings that hold for a project."""
        return self.projects.get(project, self.ceilings)


DEFAULT: Final = Policy()


def subnet(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """Return the subnet that a source of images is; raises SpecError where it is none."""
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise SpecError(say("policy.toml: %(error)s.", error=error), field="policy.images.sources") from None
