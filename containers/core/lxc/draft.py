"""What a translation is put together in: the container as it will be, and what became of each key. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from ..errors import SpecError
from ..model.attachments import Device, check_all
from ..model.idmap import IdMap
from ..rules.grants import HostDevice, Parent, Share, given_to
from .reading import Config, Entry

Fate = Literal["taken", "translated", "left out"]
_PLENTY: Final = 2**50


@dataclass(frozen=True, slots=True)
class Told:
    """What became of one key. words: what it is now, or why there is nothing of it; one sentence without a full stop.

    The same without anything to do here is "taken"; what is said by other means here is "translated".
    """

    fate: Fate
    words: str


def taken(words: str) -> Told:
    """Return that a key says here what it said there."""
    return Told("taken", words)


def translated(words: str) -> Told:
    """Return that something else stands for a key here."""
    return Told("translated", words)


def left_out(words: str) -> Told:
    """Return that nothing here stands for a key."""
    return Told("left out", words)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A setting and what became of it."""

    entry: Entry
    told: Told

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "key": self.entry.written,
            "value": self.entry.value,
            "file": self.entry.file,
            "line": self.entry.line,
            "fate": self.told.fate,
            "words": self.told.words,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a translation must know of here.

    name, project: the container's here. network: the one that it joins; network_ipv6: it speaks IPv6. privileged: it
    stays privileged. memory_bytes, cpus, pids: what the host has, the ceilings of limits; online: its CPUs, as a list.
    machine: as uname(2) says it. shares, devices: what the policy gives to containers, by name. nodes: devices of those
    by "c MAJOR:MINOR". profiles: system call profiles of those, by the paths of files that say the same. apparmor: the
    AppArmor profiles that the policy allows; None where the host has no AppArmor. cgroup_files, capabilities: as in the
    policy.
    hooks: the policy's, by the paths of programs that are the same. cgroup_version: the host's; None for either.
    fields: what of a container can be asked for; None for all. macs, addresses: the MAC addresses that other containers
    have, and the addresses of their routed interfaces.
    """

    name: str
    project: str = "default"
    network: str = "default"
    network_ipv6: bool = False
    privileged: bool = False
    memory_bytes: int = _PLENTY
    cpus: int = _PLENTY
    pids: int = _PLENTY
    online: str | None = None
    machine: str = "x86_64"
    shares: Mapping[str, Share] = field(default_factory=dict)
    devices: Mapping[str, HostDevice] = field(default_factory=dict)
    nodes: Mapping[str, str] = field(default_factory=dict)
    profiles: Mapping[str, str] = field(default_factory=dict)
    apparmor: tuple[str, ...] | None = None
    cgroup_files: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    hooks: Mapping[str, str] = field(default_factory=dict)
    fields: frozenset[str] | None = None
    parents: Mapping[str, Parent] = field(default_factory=dict)
    host_network: bool = False
    cgroup_version: int | None = None
    macs: Collection[str] = ()
    addresses: Collection[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """The first network interface that is taken over. mac: None for one of our own."""

    name: str = "eth0"
    mac: str | None = None


@dataclass(slots=True, kw_only=True)
class Draft:
    """The container in the making. values: what requests name so (asking.configuration.CHANGEABLE), JSON values."""

    config: Config
    facts: Facts
    values: dict[str, Any] = field(default_factory=dict)
    interface: Interface | None = None
    first: int = -1
    nics: dict[int, dict[str, Any]] = field(default_factory=dict)
    net_types: dict[int, Told] = field(default_factory=dict)
    revised: dict[str, Told] = field(default_factory=dict)
    """What became of some keys after all, by their names, once every key was looked at."""
    idmap: list[tuple[str, IdMap]] = field(default_factory=list)

    @property
    def only_none(self) -> bool:
        """Whether there are interfaces, all of type none: LXC then gives the container the host's network.

        Source: lxc's start.c, lxc_requests_empty_network.
        """
        interfaces = self.config.interfaces().values()
        return bool(interfaces) and all(one.get("type") == ["none"] for one in interfaces)

    @property
    def limits(self) -> dict[str, Any]:
        """The limits, to be added to."""
        found: dict[str, Any] = self.values.setdefault("limits", {})
        return found

    @property
    def security(self) -> dict[str, Any]:
        """The rights, to be added to."""
        found: dict[str, Any] = self.values.setdefault("security", {})
        return found

    def give_device(self, name: str, path: str = "") -> Told:
        """Give the container a device of the policy's, once. path: inside, "" for where the host has it."""
        known = self.facts.devices.get(name)
        if known is None or not given_to(known.projects, self.facts.project):
            return left_out(f"the policy does not give the device {name} to project {self.facts.project}")
        devices: list[dict[str, Any]] = self.values.get("devices", [])
        if all(one["device"] != name for one in devices):
            devices = [*devices, {"device": name, "path": path}]
            try:
                check_all((), [Device(**one) for one in devices])
            except SpecError as error:
                return left_out(error.message.rstrip("."))
            self.values["devices"] = devices
        return translated(f"the device {name} of the host's policy")
