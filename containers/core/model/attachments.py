"""What a container is given of its host: shared directories and device nodes. Pure.

A container names a share or a device; which path that is on the host stands in the root-owned policy alone.
``Mount`` and ``Device`` are what is asked for, ``Bind`` and ``Node`` what it comes to on this host.
"""

from __future__ import annotations

import dataclasses
import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Self, get_args

from ..errors import SpecError
from ..names import check_name
from ..sentences import say

Propagation = Literal["private", "slave"]
DeviceType = Literal["b", "c"]

MOST: Final = 32
"""Mounts, and devices, that one container may have."""
PATH_MAX_CHARS: Final = 1024
ID_MAX: Final = 65535

_OURS: Final = ("/dev", "/proc", "/sys")
_OWN_DEVICES: Final = frozenset(
    "console fd full hugepages mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero .lxc".split()
)
_OWN_TERMINAL: Final = re.compile(r"tty[0-9]+", re.ASCII)
_MODE: Final = re.compile(r"0?[0-6]{3}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A shared directory in a container.

    share: its name in the host's policy. subpath: a directory or file in it, without links; "" is the share itself.
    target: absolute, inside. create: make the target where it is missing. optional: start without it where the source
    is missing. propagation: slave lets mounts made on the host later appear inside, where the policy allows it.
    """

    share: str
    target: str
    subpath: str = ""
    read_only: bool = False
    create: bool = True
    optional: bool = False
    propagation: Propagation = "private"

    def check(self, field: str) -> None:
        """Raise SpecError (field ``mounts.N.NAME``) for what would not be mounted. field: ``mounts.N``."""
        check_name(self.share, field=f"{field}.share")
        _check_path(self.target, f"{field}.target")
        if self.target == "/" or any(self.target == top or self.target.startswith(f"{top}/") for top in _OURS):
            raise SpecError("Nothing can be mounted over /, /dev, /proc and /sys.", field=f"{field}.target")
        if self.subpath:
            _check_path(f"/{self.subpath}", f"{field}.subpath")
        if self.propagation not in get_args(Propagation):
            raise SpecError("Use private or slave.", field=f"{field}.propagation")
        _check_flags(self, field, ("read_only", "create", "optional"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device node in a container's /dev.

    device: its name in the host's policy. path: inside, "" for where the host has it. mode: octal. uid, gid: inside.
    """

    device: str
    path: str = ""
    mode: str = "0666"
    uid: int = 0
    gid: int = 0

    def check(self, field: str) -> None:
        """Raise SpecError (field ``devices.N.NAME``) for what would not be made. field: ``devices.N``."""
        check_name(self.device, field=f"{field}.device")
        if self.path:
            check_device_path(self.path, f"{field}.path")
        if not isinstance(self.mode, str) or not _MODE.fullmatch(self.mode):
            raise SpecError("Give the mode in octal, such as 0660.", field=f"{field}.mode")
        for name in ("uid", "gid"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= ID_MAX:
                raise SpecError(
                    say("%(name)s must be between 0 and %(most)s.", name=name, most=ID_MAX), field=f"{field}.{name}"
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Bind:
    """A mount as the host makes it. path: the share's, absolute. submounts: of the host, in it, are seen inside."""

    share: str
    path: str
    subpath: str
    target: str
    read_only: bool
    create: bool
    optional: bool
    receives: bool
    submounts: bool

    @property
    def step(self) -> str:
        """What is being done, for people; without the host's path, which is not everybody's to know."""
        return say("mount the share %(source)s at %(target)s", source=self.source, target=self.target)

    @property
    def source(self) -> str:
        """The share and what of it, for people."""
        return f"{self.share}/{self.subpath}" if self.subpath else self.share


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A device node as the host makes it. path: of the host's own node, absolute. mode: permission bits."""

    device: str
    path: str
    target: str
    mode: int
    uid: int
    gid: int

    @property
    def step(self) -> str:
        """What is being done, for people."""
        return say("make the device %(device)s at %(target)s", device=self.device, target=self.target)


@dataclass(frozen=True, slots=True)
class Attachments:
    """Everything of the host that one container gets, in the order in which it is attached: outer targets first."""

    binds: tuple[Bind, ...] = ()
    nodes: tuple[Node, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.binds or self.nodes)

    def __iter__(self) -> Any:
        return iter((*sorted(self.binds, key=lambda bind: bind.target), *self.nodes))

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Parse what to_dict made; the sender is root, so that no more than the shape is checked."""
        return cls(
            tuple(Bind(**bind) for bind in values.get("binds", ())),
            tuple(Node(**node) for node in values.get("nodes", ())),
        )


def check_all(mounts: Sequence[Mount], devices: Sequence[Device]) -> None:
    """Raise SpecError naming the field for what is wrong with one of them, for too many, and for a target twice."""
    for number, mount in enumerate(mounts):
        mount.check(f"mounts.{number}")
    for number, device in enumerate(devices):
        device.check(f"devices.{number}")
    for name, key, values in (
        ("mounts", "target", [mount.target for mount in mounts]),
        ("devices", "device", [device.device for device in devices]),
    ):
        if len(values) > MOST:
            raise SpecError(say("Use at most %(most)s.", most=MOST), field=name)
        for number, value in enumerate(values):
            if value in values[:number]:
                raise SpecError(say("%(value)s is there twice.", value=value), field=f"{name}.{number}.{key}")


def check_device_path(path: str, field: str) -> None:
    """Raise SpecError unless a path lies below /dev, and is none of those that every container has."""
    _check_path(path, field)
    top, _, rest = path.removeprefix("/dev/").partition("/")
    if not path.startswith("/dev/") or top in _OWN_DEVICES or (_OWN_TERMINAL.fullmatch(top) and not rest):
        raise SpecError("Give a path below /dev that the container does not have already.", field=field)


def _check_path(path: Any, field: str) -> None:
    if not isinstance(path, str) or not path.startswith("/") or len(path) > PATH_MAX_CHARS:
        raise SpecError(say("Give an absolute path of at most %(most)s characters.", most=PATH_MAX_CHARS), field=field)
    if not path.isprintable() or any("\ud800" <= char <= "\udfff" for char in path):
        raise SpecError("Control characters are not allowed.", field=field)
    if posixpath.normpath(path) != path or path.startswith("//"):
        raise SpecError("Write the path without ., .. and doubled slashes.", field=field)


def _check_flags(entry: Any, field: str, names: Sequence[str]) -> None:
    for name in names:
        if not isinstance(getattr(entry, name), bool):
            raise SpecError(say("%(name)s is true or false.", name=name), field=f"{field}.{name}")
