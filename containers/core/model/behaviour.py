"""How a container's first process runs, when the container is started unasked, and what its consoles keep. Pure.

Three groups of settings, each a JSON object: ``init``, ``boot``, ``console``. What is left out of one is as in every
container. Sources: lxc.container.conf(5) for what their counterparts do; user_namespaces(7), signal(7).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Self, get_args

from ..errors import SpecError
from ..names import check_name
from ..sentences import say

Kind = Literal["system", "application"]
KINDS: Final = get_args(Kind)
TTYS_MAX: Final = 12
BUFFER_MIN_BYTES: Final = 4096
BUFFER_MAX_BYTES: Final = 16 * 1024**2
LOG_MIN_BYTES: Final = 4096
LOG_MAX_BYTES: Final = 1024**3
ROTATIONS_MAX: Final = 9
DELAY_MAX_SEC: Final = 3600
ORDER_MAX: Final = 1_000_000
GROUPS_MAX: Final = 32
ID_MAX: Final = 65535

_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\$?(?::[A-Za-z0-9_][A-Za-z0-9_.-]*\$?)?", re.ASCII)
_SIGNAL = re.compile(r"SIG[A-Z]+[0-9]?|SIGRTM(?:IN\+|AX-)[0-9]{1,2}|[1-9][0-9]?", re.ASCII)


class _Group:
    """What the three groups have in common."""

    group: str

    def _refuse(self, message: str, name: str) -> SpecError:
        return SpecError(message, field=f"{self.group}.{name}")

    def _check_flag(self, name: str) -> None:
        if not isinstance(getattr(self, name), bool):
            raise self._refuse("Use true or false.", name)

    def _check_number(self, name: str, least: int, most: int) -> None:
        value = getattr(self, name)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise self._refuse(
                say("%(name)s must be between %(least)s and %(most)s.", name=name, least=least, most=most), name
            )

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Build from JSON values; raises SpecError for an unknown field. null of a field is its default."""
        values = {name: value for name, value in data.items() if value is not None}
        known = {one.name for one in dataclasses.fields(cls)}  # type: ignore[arg-type]
        for name in values:
            if name not in known:
                raise SpecError(
                    say("%(group)s has no field %(name)r.", group=cls.group, name=name), field=f"{cls.group}.{name}"
                )
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})

    def given(self) -> dict[str, Any]:
        """Return what is not as in every container, as JSON values."""
        values, default = dataclasses.asdict(self), dataclasses.asdict(type(self)())  # type: ignore[call-overload]
        found = {name: value for name, value in values.items() if value != default[name]}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Init(_Group):
    """The first process, beside the spec's init_command, environment and halt_signal.

    kind: "system", init_command is process 1; "application", a small init of the runtime's own is process 1, which
    reaps and hands signals on, and the container ends with init_command, by its exit code, or 128 + signal.
    arguments: follow init_command. user: whom init_command runs as, "" for root: a name, a uid, either with ":" and a
    group's name or gid, as the container's own passwd and group files know them. groups: supplementary gids, instead of
    those that the group file gives. cwd: absolute. reboot_signal: asks for a restart from inside (None: SIGINT; an
    application is started again by the runtime). wait_for_all: an application's container ends with its last process,
    not with init_command.
    """

    group = "init"

    kind: Kind = "system"
    arguments: tuple[str, ...] = ()
    user: str = ""
    groups: tuple[int, ...] | None = None
    cwd: str = "/"
    reboot_signal: str | None = None
    wait_for_all: bool = False

    @property
    def application(self) -> bool:
        """Whether process 1 is the runtime's own."""
        return self.kind == "application"

    def check(self) -> None:
        """Raise SpecError (field ``init.NAME``) for what no start could do."""
        if self.kind not in KINDS:
            raise self._refuse("Use system or application.", "kind")
        if len(self.arguments) > 1024 or not all(isinstance(part, str) for part in self.arguments):
            raise self._refuse("Give a list of at most 1024 texts.", "arguments")
        if sum(len(part) for part in self.arguments) > 32768 or any(_unfit(part) for part in self.arguments):
            raise self._refuse("Arguments may not hold NUL, nor more than 32768 characters together.", "arguments")
        if not isinstance(self.user, str) or (self.user and (len(self.user) > 128 or not _USER.fullmatch(self.user))):
            raise self._refuse("Name a user or a uid, and after a colon a group or a gid.", "user")
        self._check_groups()
        good = isinstance(self.cwd, str) and self.cwd.startswith("/") and len(self.cwd) <= 4096
        if not good or _unfit(self.cwd) or "\n" in self.cwd:
            raise self._refuse("Give an absolute path.", "cwd")
        signal = self.reboot_signal
        if signal is not None and not (isinstance(signal, str) and _SIGNAL.fullmatch(signal)):
            raise self._refuse("Name a signal, such as SIGINT or SIGRTMIN+5.", "reboot_signal")
        self._check_flag("wait_for_all")

    def _check_groups(self) -> None:
        if self.groups is None:
            return
        good = len(self.groups) <= GROUPS_MAX and all(
            isinstance(gid, int) and not isinstance(gid, bool) and 0 <= gid <= ID_MAX for gid in self.groups
        )
        if not good:
            raise self._refuse(
                say("Give at most %(most)s numbers from 0 to %(most_2)s.", most=GROUPS_MAX, most_2=ID_MAX), "groups"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Boot(_Group):
    """When a container that starts with the host is started, among the others.

    groups: names, by which some of them can be started or stopped together. order: lower ones first, equal ones at the
    same time; stopped the other way round. delay_sec: to wait after its start, before the next order begins.
    """

    group = "boot"

    groups: tuple[str, ...] = ()
    order: int = 0
    delay_sec: int = 0

    def check(self) -> None:
        """Raise SpecError (field ``boot.NAME``)."""
        if len(self.groups) > GROUPS_MAX:
            raise self._refuse(say("Use at most %(most)s groups.", most=GROUPS_MAX), "groups")
        for name in self.groups:
            if not isinstance(name, str):
                raise self._refuse("Give a list of names.", "groups")
            check_name(name, field="boot.groups")
        self._check_number("order", -ORDER_MAX, ORDER_MAX)
        self._check_number("delay_sec", 0, DELAY_MAX_SEC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Consoles(_Group):
    """What there is to look at beside terminals that people open.

    ttys: how many of /dev/tty1 and so on there are. buffer_bytes: how much of the end of each console's output is kept
    in memory, and shown to whoever opens it. log_bytes: how long the console's log file may become, 0 for none;
    rotations: how many older ones are kept beside it. exclusive: one client at a time may type at a console,
    not several; any number may look on.
    """

    group = "console"

    ttys: int = 0
    buffer_bytes: int = 1024**2
    log_bytes: int = 1024**2
    rotations: int = 1
    exclusive: bool = False

    def check(self) -> None:
        """Raise SpecError (field ``console.NAME``)."""
        self._check_number("ttys", 0, TTYS_MAX)
        self._check_number("buffer_bytes", BUFFER_MIN_BYTES, BUFFER_MAX_BYTES)
        if self.log_bytes != 0:
            self._check_number("log_bytes", LOG_MIN_BYTES, LOG_MAX_BYTES)
        self._check_number("rotations", 0, ROTATIONS_MAX)
        self._check_flag("exclusive")


def _unfit(text: str) -> bool:
    return "\0" in text or any("\ud800" <= char <= "\udfff" for char in text)
