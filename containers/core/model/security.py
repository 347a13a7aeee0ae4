"""What a container's processes may do beyond, or short of, what every container may; and the checks of it. Pure.

All of it takes effect when init is started. Sources: capabilities(7), getrlimit(2), proc(5), and the kernel's
Documentation/admin-guide/sysctl/ and Documentation/userspace-api/no_new_privs.rst.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ..errors import SpecError
from ..host import IDS_PER_CONTAINER
from ..names import check_name
from .capabilities import NAMES
from .idmap import IDS_MAX

UNLIMITED: Final = "unlimited"
Bound = int | str
"""A number, or UNLIMITED."""

PRLIMITS: Final = (
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
)
"""The names of getrlimit(2) in small letters, without RLIMIT_. Bytes, seconds (cpu), microseconds (rttime), numbers."""

PRLIMITS_LEAST: Final = {"as": 256 * 1024**2, "data": 64 * 1024**2, "nofile": 64, "nproc": 1, "stack": 128 * 1024}
"""With less, what makes the container's first process could not even start it."""

_KERNEL_SYSCTLS: Final = frozenset(
    {
        "fs.mqueue.msg_default",
        "fs.mqueue.msg_max",
        "fs.mqueue.msgsize_default",
        "fs.mqueue.msgsize_max",
        "fs.mqueue.queues_max",
        "kernel.auto_msgmni",
        "kernel.domainname",
        "kernel.msg_next_id",
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.sem_next_id",
        "kernel.shm_next_id",
        "kernel.shm_rmid_forced",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
    }
)
"""Of the IPC and UTS namespaces: each container has its own. Whoever adds one makes sure of that."""

_NET_SYSCTL: Final = re.compile(r"net(?:\.[A-Za-z0-9_-]{1,64}){1,8}", re.ASCII)
_SYSCTLS_MAX: Final = 128
_VALUE_MAX: Final = 1024
_OOM_MAX: Final = 1000
_NUMBER_MAX: Final = 2**62
_CHECKS: Final = ("nesting", "no_new_privs", "keyctl")
CLOCKS: Final = ("boottime", "monotonic")
"""The clocks of time_namespaces(7) that a container may have an offset of."""
CLOCK_OFFSET_MAX_SEC: Final = 2**31
PERSONALITIES: Final = ("linux32",)
APPARMOR_GENERATED: Final = "generated"
_APPARMOR: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+/-]{0,199}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prlimit:
    """A resource limit: a number, or UNLIMITED, each."""

    soft: Bound
    hard: Bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Security:
    """The rights of one container's processes.

    nesting: containers inside the container are meant to work. capabilities_drop: taken from what is kept otherwise.
    capabilities_keep: what is kept instead of the default; None: the default. Both by their names of capabilities(7),
    in small letters without CAP_. no_new_privs: set-uid programs and file capabilities give nothing. sysctls: name ->
    value, of namespaces that the container has to itself. prlimits: of init and of all that is started inside, by the
    names of PRLIMITS. oom_score_adj: 0 to 1000; a privileged container's may be below 0, down to -1000.
    keyctl: it may use key rings; it always begins with an empty one of its own. seccomp: the name of a profile that the
    policy gives, "" for Boxroom's own list alone. clock_offsets: seconds added to CLOCKS. personality: of
    PERSONALITIES, "" for the host's. apparmor: APPARMOR_GENERATED, a profile that the policy allows, or "" for none.
    ids: how many users and groups an unprivileged container has; those beyond the first 65536 are for inner ones.
    """

    nesting: bool = False
    capabilities_drop: tuple[str, ...] = ()
    capabilities_keep: tuple[str, ...] | None = None
    no_new_privs: bool = False
    sysctls: dict[str, str] = field(default_factory=dict)
    prlimits: dict[str, Prlimit] = field(default_factory=dict)
    oom_score_adj: int = 0
    keyctl: bool = False
    seccomp: str = ""
    clock_offsets: dict[str, float] = field(default_factory=dict)
    personality: str = ""
    apparmor: str = ""
    ids: int = IDS_PER_CONTAINER

    def check(self, *, privileged: bool) -> None:
        """Raise SpecError (field ``security.NAME``) for what no start could put in force."""
        for name in _CHECKS:
            if not isinstance(getattr(self, name), bool):
                raise _error("Use true or false.", name)
        for name in ("capabilities_drop", "capabilities_keep"):
            for capability in getattr(self, name) or ():
                if capability not in NAMES:
                    raise _error(f"There is no capability {capability!r}.", name)
        _check_sysctls(self.sysctls)
        for name, limit in self.prlimits.items():
            _check_prlimit(name, limit)
        _check_oom(self.oom_score_adj, privileged=privileged)
        _check_clocks(self.clock_offsets)
        whole = isinstance(self.ids, int) and not isinstance(self.ids, bool)
        if not whole or not IDS_PER_CONTAINER <= self.ids <= IDS_MAX or self.ids % IDS_PER_CONTAINER:
            raise _error(f"Use a multiple of {IDS_PER_CONTAINER}, up to {IDS_MAX}.", "ids")
        if self.seccomp:
            check_name(self.seccomp, field="security.seccomp")
        if self.personality and self.personality not in PERSONALITIES:
            raise _error(f"Use {', '.join(PERSONALITIES)}.", "personality")
        if self.apparmor and not (isinstance(self.apparmor, str) and _APPARMOR.fullmatch(self.apparmor)):
            raise _error("Use generated, or the name of a profile.", "apparmor")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Security:
        """Build from JSON values; raises SpecError for an unknown field, and for a value of a wrong shape.

        Capabilities are taken as CAP_SYS_TIME too; a prlimit as one value for both of its halves. None of a field is
        its default.
        """
        values = {name: value for name, value in data.items() if value is not None}
        known = {one.name for one in dataclasses.fields(cls)}
        for name in values:
            if name not in known:
                raise _error(f"security has no field {name!r}.", name)
        for name in ("capabilities_drop", "capabilities_keep"):
            if name in values:
                values[name] = _capabilities(values[name], name)
        for name in ("sysctls", "prlimits", "clock_offsets"):
            if not isinstance(values.get(name, {}), Mapping):
                raise _error("Give names with their values.", name)
        if "sysctls" in values:
            values["sysctls"] = {name: _text(value) for name, value in values["sysctls"].items()}
        if "prlimits" in values:
            values["prlimits"] = {name: _prlimit(name, limit) for name, limit in values["prlimits"].items()}
        return cls(**values)

    def given(self) -> dict[str, Any]:
        """Return what is not as in every container, as JSON values."""
        values = dataclasses.asdict(self)
        default = dataclasses.asdict(Security())
        found = {name: value for name, value in values.items() if value != default[name]}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}


DEFAULT: Final = Security()


def _error(message: str, name: str) -> SpecError:
    return SpecError(message, field=f"security.{name}")


def _capabilities(value: Any, name: str) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(one, str) for one in value):
        raise _error("Give a list of names.", name)
    return tuple(dict.fromkeys(one.strip().lower().removeprefix("cap_") for one in value))


def _text(value: Any) -> Any:
    """Return a number as text: JSON's numbers are welcome as values of sysctls."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _prlimit(name: str, value: Any) -> Prlimit:
    if isinstance(value, Prlimit):
        return value
    if isinstance(value, Mapping):
        if set(value) != {"soft", "hard"}:
            raise _error('Give one value, or {"soft", "hard"}.', f"prlimits.{name}")
        return Prlimit(soft=value["soft"], hard=value["hard"])
    return Prlimit(soft=value, hard=value)


def _check_sysctls(sysctls: dict[str, str]) -> None:
    if len(sysctls) > _SYSCTLS_MAX:
        raise _error(f"Use at most {_SYSCTLS_MAX}.", "sysctls")
    for name, value in sysctls.items():
        if name not in _KERNEL_SYSCTLS and not _NET_SYSCTL.fullmatch(name):
            raise _error(f"{name} is not a container's own: use net.*, kernel.shm*, msg*, sem, domainname, fs.mqueue.*",
                         f"sysctls.{name}")  # fmt: skip
        good = isinstance(value, str) and 0 < len(value) <= _VALUE_MAX
        if not good or any(not char.isprintable() and char != "\t" for char in value) or not value.isascii():
            raise _error(f"{name} needs a value, on one line.", f"sysctls.{name}")


def _check_prlimit(name: str, limit: Prlimit) -> None:
    where = f"prlimits.{name}"
    if name not in PRLIMITS:
        raise _error(f"There is no limit {name!r}: use {', '.join(PRLIMITS)}.", where)
    for bound in (limit.soft, limit.hard):
        number = isinstance(bound, int) and not isinstance(bound, bool) and 0 <= bound <= _NUMBER_MAX
        if not number and bound != UNLIMITED:
            raise _error("Give whole numbers, or unlimited.", where)
        if isinstance(bound, int) and bound < PRLIMITS_LEAST.get(name, 0):
            raise _error(f"{name} must be at least {PRLIMITS_LEAST[name]}.", where)
    if name == "nofile" and UNLIMITED in (limit.soft, limit.hard):
        raise _error("nofile needs numbers: the kernel knows no unlimited of it.", where)
    if bound_value(limit.soft) > bound_value(limit.hard):
        raise _error("soft may not be above hard.", where)


def _check_oom(value: int, *, privileged: bool) -> None:
    least = -_OOM_MAX if privileged else 0
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= _OOM_MAX:
        raise _error(f"oom_score_adj must be between {least} and {_OOM_MAX}.", "oom_score_adj")


def _check_clocks(offsets: dict[str, float]) -> None:
    for name, value in offsets.items():
        if name not in CLOCKS:
            raise _error(f"There is no clock {name!r}: use {', '.join(CLOCKS)}.", f"clock_offsets.{name}")
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not -CLOCK_OFFSET_MAX_SEC <= value <= CLOCK_OFFSET_MAX_SEC:
            most = CLOCK_OFFSET_MAX_SEC
            raise _error(f"Give seconds between {-most} and {most}.", f"clock_offsets.{name}")


def bound_value(bound: Bound) -> float:
    """Return a bound as a number that compares; infinity for UNLIMITED."""
    return float("inf") if isinstance(bound, str) else bound
