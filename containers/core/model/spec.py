"""What a container is asked to be: the spec that lies in the host store, and its checks."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Self, TypeVar, get_args

from ..errors import SpecError
from ..host import SLOTS
from ..names import check_name
from ..sentences import say
from .attachments import Device, Mount, check_all
from .behaviour import Boot, Consoles, Init
from .hooks import Hook, build_all
from .limits import CPU_WEIGHT_MAX as CPU_WEIGHT_MAX
from .limits import CPUS_MIN as CPUS_MIN
from .limits import MEMORY_MIN_BYTES as MEMORY_MIN_BYTES
from .limits import PIDS_MIN as PIDS_MIN
from .limits import Limits as Limits
from .nics import Nic, build_nic
from .nics import check_all as check_nics
from .security import Security

_T = TypeVar("_T")

RestartPolicy = Literal["no", "on-failure", "always"]
RESTART_POLICIES: Final = get_args(RestartPolicy)

_ID = re.compile(r"[0-9a-f]{12}", re.ASCII)
_MACHINE_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)
_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}", re.ASCII)
_SIGNAL = re.compile(r"SIG[A-Z]+[0-9]?|SIGRTM(?:IN\+|AX-)[0-9]{1,2}|[1-9][0-9]?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """One container, as its directory in the host store holds it (``spec.json``).

    id: 12 hex digits, never reused, names every directory, socket and cgroup. slot: 0..1023, unique in the instance;
    the host id range is the instance's block + slot * 65536. layers: read-only layer ids, bottom first; the
    container's own writable layer lies above them, in a storage pool (core.hoststore.pools). machine_id: 32 hex digits.
    """

    id: str
    name: str
    project: str
    slot: int
    image: str
    layers: tuple[str, ...]
    machine_id: str
    created_at: str
    hostname: str = ""
    description: str = ""
    tags: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    nics: tuple[Nic, ...] = ()
    privileged: bool = False
    security: Security = field(default_factory=Security)
    init_command: tuple[str, ...] = ("/sbin/init",)
    environment: dict[str, str] = field(default_factory=dict)
    halt_signal: str | None = None
    autostart: bool = False
    ephemeral: bool = False
    restart: RestartPolicy = "no"
    pool: str = "default"
    mounts: tuple[Mount, ...] = ()
    devices: tuple[Device, ...] = ()
    hooks: tuple[Hook, ...] = ()
    init: Init = field(default_factory=Init)
    boot: Boot = field(default_factory=Boot)
    console: Consoles = field(default_factory=Consoles)
    generation: int = 1

    def check(self) -> None:
        """Raise SpecError naming the field where the spec is not one that the runtime would run.

        Root's last look at what rows say: every value that becomes part of a path, a name or a line is looked at here,
        but for the layers, which the store looks at (storage/overlay.py).
        """
        if not _ID.fullmatch(self.id):
            raise SpecError("The id must be 12 hexadecimal digits.", field="id")
        if not _MACHINE_ID.fullmatch(self.machine_id):
            raise SpecError("The machine id must be 32 hexadecimal digits.", field="machine_id")
        if not isinstance(self.slot, int) or not 0 <= self.slot < SLOTS:
            raise SpecError(say("The slot must be between 0 and %(most)s.", most=SLOTS - 1), field="slot")
        check_name(self.name)
        check_name(self.project, field="project")
        check_name(self.pool, field="pool")
        if self.hostname:
            check_name(self.hostname, field="hostname")
        self.limits.check_types()
        self.security.check(privileged=self.privileged)
        check_nics(self.nics, sysctls=tuple(self.security.sysctls))
        check_text(self.description, field="description", most=500, lines=True)
        for group in (self.init, self.boot, self.console):
            group.check()
        check_init_command(self.init_command, absolute=not self.init.application)
        check_environment(self.environment)
        if self.halt_signal is not None and not _SIGNAL.fullmatch(self.halt_signal):
            raise SpecError("Name a signal, such as SIGPWR or SIGRTMIN+3.", field="halt_signal")
        if self.restart not in RESTART_POLICIES:
            raise SpecError("Use no, on-failure or always.", field="restart")
        for tag in self.tags:
            check_name(tag, field="tags")
        check_all(self.mounts, self.devices)
        for number, hook in enumerate(self.hooks):
            hook.check(f"hooks.{number}")

    def to_json(self) -> str:
        """Return the spec as JSON text with sorted keys."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Parse what to_json wrote; raises SpecError for an unknown or a missing field."""
        return cls.from_dict(json.loads(text))

    @staticmethod
    def nics_from_json(text: str) -> tuple[int, tuple[Nic, ...]]:
        """Return slot and NICs of what to_json wrote; all of it is three times the work. Raises SpecError."""
        values = json.loads(text)
        try:
            return values["slot"], tuple(_nic(nic) for nic in values.get("nics", ()))
        except (KeyError, TypeError, AttributeError) as error:
            raise SpecError(
                say("%(where)s is incomplete: %(error)s", where="spec", error=error), field="spec"
            ) from None

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Build a spec from JSON values; raises SpecError for an unknown or a missing field."""
        values = dict(data)
        if values.pop("nesting", False):  # a field of its own in specs of before
            values["security"] = {**values.get("security", {}), "nesting": True}
        values["security"] = Security.from_dict(values.get("security", {}))
        for name, kind in (("init", Init), ("boot", Boot), ("console", Consoles)):
            values[name] = kind.from_dict(values.get(name, {}))
        values["limits"] = build(Limits, values.get("limits", {}), "limits")
        values["nics"] = tuple(_nic(nic) for nic in values.get("nics", ()))
        values["mounts"] = tuple(build(Mount, mount, "mounts") for mount in values.get("mounts", ()))
        values["devices"] = tuple(build(Device, device, "devices") for device in values.get("devices", ()))
        values["hooks"] = build_all(values.get("hooks", ()))
        for name in ("layers", "tags", "init_command"):
            if name in values:
                values[name] = tuple(values[name])
        return build(cls, values, "spec")


def _nic(values: dict[str, Any]) -> Nic:
    try:
        return build_nic(values)
    except TypeError as error:
        raise SpecError(say("A network interface is incomplete: %(error)s", error=error), field="nics") from None


def build(cls: type[_T], values: dict[str, Any], where: str) -> _T:
    """Make a dataclass from JSON values; raises SpecError for unknown and missing fields."""
    known = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for name in values:
        if name not in known:
            raise SpecError(say("%(where)s has no field %(name)r.", where=where, name=name), field=f"{where}.{name}")
    try:
        return cls(**values)
    except TypeError as error:
        raise SpecError(say("%(where)s is incomplete: %(error)s", where=where, error=error), field=where) from None


def encodable(text: str) -> bool:
    """Whether the text can be written to a file, or be handed to a program: half a surrogate pair cannot."""
    return not any("\ud800" <= char <= "\udfff" for char in text)


def check_text(value: str, *, field: str, most: int, lines: bool = False) -> str:
    """Return value if it is printable text of at most `most` characters; lines allows newlines and tabs."""
    if len(value) > most:
        raise SpecError(say("Use at most %(most)s characters.", most=most), field=field)
    if any(not char.isprintable() and not (lines and char in "\n\t") for char in value):
        raise SpecError("Control characters are not allowed.", field=field)
    return value


def check_init_command(command: tuple[str, ...], *, field: str = "init_command", absolute: bool = True) -> None:
    """Raise SpecError unless command is 1 to 64 arguments, none with NUL or newline, whose first is not empty.

    absolute: the first must be an absolute path; else it may also be a name that is looked up in PATH.
    """
    if not 1 <= len(command) <= 64 or not command[0]:
        raise SpecError("Give the command as a list of 1 to 64 arguments.", field=field)
    if absolute and not command[0].startswith("/"):
        raise SpecError("The command must begin with an absolute path.", field=field)
    if any(len(part) > 4096 or any(char in part for char in "\0\n") for part in command):
        raise SpecError("Arguments may not hold NUL or newline, nor more than 4096 characters.", field=field)
    if not all(map(encodable, command)):
        raise SpecError("The text is not valid Unicode.", field=field)


def check_environment(environment: dict[str, str], *, field: str = "environment", forbidden: str = "\0\n") -> None:
    """Raise SpecError for a bad variable name, for a forbidden character in a value, or for too much of either."""
    if len(environment) > 256:
        raise SpecError("Use at most 256 variables.", field=field)
    for name, value in environment.items():
        if not _ENVIRONMENT_NAME.fullmatch(name):
            raise SpecError(say("%(name)r is not a variable's name.", name=name), field=field)
        if len(value) > 32768 or any(char in value for char in forbidden):
            what = "NUL or newline" if "\n" in forbidden else "NUL"
            raise SpecError(
                say("The value of %(name)s is too long, or holds %(what)s.", name=name, what=what),
                field=f"{field}.{name}",
            )
        if not encodable(value):
            raise SpecError("The text is not valid Unicode.", field=f"{field}.{name}")
