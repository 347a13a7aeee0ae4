"""What can be asked for of a container, new or there already: each column of its row, and what may stand in it."""

from __future__ import annotations

import dataclasses
import re
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from ..core.errors import InvalidTransition, PolicyDenied, SpecError
from ..core.model.behaviour import Boot, Consoles, Init
from ..core.model.hooks import build_all as build_hooks
from ..core.model.hooks import plain_hook
from ..core.model.security import Security
from ..core.model.spec import RESTART_POLICIES, Limits, build, check_environment, check_init_command, check_text
from ..core.names import check_name
from ..core.rules import policy
from ..core.sentences import say
from ..models import Container, Host
from . import giving, pools
from .told import policy_of

TAGS_MAX: Final = 32
_NO_CEILING: Final = 2**50
GROUPS: Final[dict[str, type[Init] | type[Boot] | type[Consoles]]] = {"init": Init, "boot": Boot, "console": Consoles}
_GIVEN: Final = ("mounts", "devices")


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a column is asked for with: all changes of that moment, and the container, None for a new one."""

    host: Host
    present: Container | None
    changes: Mapping[str, Any]

    def before(self, column: str) -> dict[str, Any]:
        """Return what stands in a column of several settings; those that nobody names stay."""
        return dict(getattr(self.present, column)) if self.present else {}


def check_changes(changes: dict[str, Any], host: Host, present: Container | None = None) -> dict[str, Any]:
    """Return changes as columns of a container's row; raises SpecError naming the field, or PolicyDenied.

    present: the container that is changed; of its limits, security settings and the like those that are not named stay.
    """
    for name in changes:
        if name not in CHANGEABLE:
            raise SpecError(say("%(name)s cannot be changed.", name=name), field=name)
    asked = _Asked(host, present, changes)
    given = {name: value for name, value in changes.items() if name in _GIVEN}
    columns: dict[str, Any] = giving.check(given, host, present.project.name) if given and present else {}
    columns |= {name: _CHECKS[name](value, asked) for name, value in changes.items() if name not in _GIVEN}
    if present is not None and {"init", "init_command"} & columns.keys():
        check_command(columns.get("init_command", present.init_command), columns.get("init", present.init))
    if columns.get("privileged") and not (present and present.privileged):
        check_privileged(host)
    return columns


def _limits(value: Limits | dict[str, Any], asked: _Asked) -> dict[str, Any]:
    before = asked.before("limits")
    named = dataclasses.asdict(value) if isinstance(value, Limits) else value
    limits = check_limits({**before, **named}, asked.host, before)
    if asked.present is not None:
        pools.check_limits(asked.host, asked.present.pool, limits)
    return limits


def _security(value: dict[str, Any], asked: _Asked) -> dict[str, Any]:
    privileged = asked.changes.get("privileged", asked.present is not None and asked.present.privileged)
    settings = check_security({**asked.before("security"), **value}, asked.host, privileged=bool(privileged))
    if asked.present is not None:
        giving.check_profile(asked.host, asked.present.project.name, str(settings.get("seccomp", "")))
    return settings


def _hooks(value: Any, asked: _Asked) -> list[dict[str, Any]]:
    hooks = build_hooks(value or ())
    if asked.present is not None:
        giving.check_hooks(asked.host, asked.present.project.name, hooks)
    return [plain_hook(hook) for hook in hooks]


def _tags(value: Any, _asked: _Asked) -> list[str]:
    tags = list(dict.fromkeys(value))
    if len(tags) > TAGS_MAX:
        raise SpecError(say("Use at most %(most)s tags.", most=TAGS_MAX), field="tags")
    return [check_name(tag, field="tags") for tag in tags]


def _description(value: str, _asked: _Asked) -> str:
    return check_text(value, field="description", most=500, lines=True)


def _group(name: str, value: dict[str, Any], asked: _Asked) -> dict[str, Any]:
    return check_group(name, {**asked.before(name), **value})


def _init_command(value: Any, _asked: _Asked) -> list[str]:
    if value is not None:
        # whether a name to be looked up will do is known when its kind is: see check_command
        check_init_command(tuple(value), absolute=False)
    return list(value or ())


def _environment(value: dict[str, str] | None, _asked: _Asked) -> dict[str, str]:
    check_environment(value or {})
    return dict(value or {})


def _halt_signal(value: str | None, _asked: _Asked) -> str:
    return check_signal(value) if value else ""


def _restart(value: str, _asked: _Asked) -> str:
    if value not in RESTART_POLICIES:
        raise SpecError("Use no, on-failure or always.", field="restart")
    return value


def _switch(value: Any, _asked: _Asked) -> bool:
    return bool(value)


_CHECKS: Final[Mapping[str, Callable[[Any, _Asked], Any]]] = {
    "autostart": _switch,
    "description": _description,
    "environment": _environment,
    "ephemeral": _switch,
    "halt_signal": _halt_signal,
    "hooks": _hooks,
    "init_command": _init_command,
    "limits": _limits,
    "privileged": _switch,
    "restart": _restart,
    "security": _security,
    "tags": _tags,
    **{name: partial(_group, name) for name in GROUPS},
}
CHANGEABLE: Final = frozenset({*_CHECKS, *_GIVEN})


def check_group(name: str, values: dict[str, Any]) -> dict[str, Any]:
    """Return what of init, boot or console is not as in every container; raises SpecError naming the field."""
    group = GROUPS[name].from_dict(values)
    group.check()
    if isinstance(group, Init) and group.reboot_signal:
        check_signal(group.reboot_signal, field="init.reboot_signal")
    return group.given()


def check_command(command: Sequence[str], init: Mapping[str, Any]) -> None:
    """Raise SpecError where a command cannot be process 1, which nobody looks up in PATH.

    command: [] for the image's own. init: as in a container's row, with what its image adds.
    """
    if command and init.get("kind", "system") == "system":
        check_init_command(tuple(command))


def check_privileged(host: Host) -> None:
    """Raise PolicyDenied unless the host's policy, as its worker last told it, allows privileged containers."""
    with policy_of(host):
        if not host.facts.get("policy", {}).get("privileged"):
            raise PolicyDenied("This host's policy does not allow privileged containers.", field="privileged")


def check_security(values: dict[str, Any], host: Host, *, privileged: bool) -> dict[str, Any]:
    """Return the security settings that are not as in every container; raises SpecError, PolicyDenied naming the field.

    The policy is that of the host as its worker last told it.
    """
    security = Security.from_dict(values)
    security.check(privileged=privileged)
    told = host.facts.get("policy", {})
    allowed = policy.Containers(
        nesting=bool(told.get("nesting")),
        keyctl=bool(told.get("keyctl")),
        ids=int(told.get("ids", 0)),
        apparmor=tuple(told.get("apparmor", ())),
        capabilities=tuple(told.get("capabilities", ())),
    )
    with policy_of(host):
        policy.check_security(allowed, security, privileged=privileged)
    return security.given()


def check_limits(values: dict[str, Any], host: Host, before: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the limits that are set, checked against what the host has; raises SpecError naming the field.

    before: those of the container now. A disk that it has is not taken from it by what the doctor says by now.
    """
    limits = build(Limits, values, "limits")
    facts = host.facts
    limits.check(
        host_memory_bytes=facts.get("memory_bytes") or _NO_CEILING,
        host_cpus=facts.get("cpus") or _NO_CEILING,
        host_pids=facts.get("pids") or _NO_CEILING,
        host_online=facts.get("online"),
    )
    limits.check_types()
    files = tuple(facts.get("policy", {}).get("cgroup_files", ()))
    with policy_of(host):
        policy.check_cgroup(policy.Containers(cgroup_files=files), limits)
    new_disk = limits.disk_bytes is not None and limits.disk_bytes != (before or {}).get("disk_bytes")
    if new_disk and not facts.get("disk_limits"):
        raise SpecError("This host cannot hold a container to a size; its doctor says why.", field="limits.disk_bytes")
    return {name: value for name, value in dataclasses.asdict(limits).items() if value is not None}


def check_disk_in_use(container: Container, wanted: dict[str, Any]) -> None:
    """Refuse limits of a disk that can only be put in force while the container is stopped: InvalidTransition."""
    (before, files_before), (after, files_after) = (
        (limits.get("disk_bytes"), limits.get("disk_inodes")) for limits in (container.limits, wanted)
    )
    if (before, files_before) == (after, files_after):
        return
    larger = before is not None and after is not None and after > before and files_before == files_after
    if not (larger and container.host.facts.get("disk_growth")):
        message = "Stop it first: this takes a copy of what it wrote."
        if container.host.facts.get("disk_growth"):
            message = "Stop it first: while it runs a disk limit can only be raised."
        field = "limits.disk_bytes" if files_before == files_after else "limits.disk_inodes"
        raise InvalidTransition(message, field=field)


def check_signal(text: str, *, field: str = "halt_signal") -> str:
    """Return text if it is a signal: SIGPWR, SIGRTMIN+3, SIGRTMAX-1, or a number from 1 to 64; raises SpecError."""
    real_time = re.fullmatch(r"SIGRTM(?:IN\+|AX-)([0-9]{1,2})", text, re.ASCII)
    number = re.fullmatch(r"[1-9][0-9]?", text, re.ASCII)
    good = int(real_time[1]) <= 30 if real_time else int(text) <= 64 if number else text in signal.Signals.__members__
    if not good:
        raise SpecError("Name a signal, such as SIGPWR or SIGRTMIN+3.", field=field)
    return text
