"""Programs that are run at certain points of a container's life, and what they are told. Pure.

Those of the host's lie in a directory of root's and are given by name in the policy; the point "start" runs a program
of the container's own, inside. Points, order and variables are LXC's: lxc.container.conf(5), "CONTAINER HOOKS".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from ..errors import SpecError
from ..names import check_name
from ..sentences import say

START: Final = "start"
MOUNTING: Final = ("pre-mount", "mount", "autodev")
"""Run as the container's root, in its mount namespace, before the root directory is changed."""
ENDING: Final = ("stop", "post-stop")
POINTS: Final = ("pre-start", *MOUNTING, "start-host", START, *ENDING, "clone", "destroy")
"""In their order."""
HOST_POINTS: Final = tuple(point for point in POINTS if point != START)
MOST: Final = 32
TIMEOUT_SEC: Final = 30
TIMEOUT_MAX_SEC: Final = 300
ENDING_SEC: Final = 30
"""The most at an ending, when somebody waits for the container to be gone."""
_PART_MAX: Final = 4096
_PARTS_MAX: Final = 64
OUTPUT_BYTES: Final = 2000
"""How much of the end of its output a failed hook's message holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """What is to be run. hook: a name of the policy's; "" at START, where command is what is run inside."""

    point: str
    hook: str = ""
    command: tuple[str, ...] = ()

    def check(self, field: str) -> None:
        """Raise SpecError (field ``hooks.N.NAME``) for what would not be run. field: ``hooks.N``."""
        if self.point not in POINTS:
            raise SpecError(say("Use %(names)s.", names=", ".join(POINTS)), field=f"{field}.point")
        if self.point == START:
            if self.hook:
                raise SpecError(
                    "A program of the container's own is run at start: give command.", field=f"{field}.hook"
                )
            _check_command(self.command, f"{field}.command")
            return
        if self.command:
            raise SpecError("Only start runs a command of the container's own: give hook.", field=f"{field}.command")
        check_name(self.hook, field=f"{field}.hook")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A hook as a start runs it: with a limit in seconds, known by its name in the hooks' directory."""

    point: str
    hook: str
    command: tuple[str, ...] = ()
    timeout_sec: int = TIMEOUT_SEC

    @property
    def step(self) -> str:
        """What is being done, for people."""
        return say("run the hook %(hook)s (%(point)s)", hook=self.hook or self.command[0], point=self.point)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Parse what dataclasses.asdict made."""
        return cls(**{**values, "command": tuple(values["command"])})


def _check_command(command: tuple[str, ...], field: str) -> None:
    texts = all(isinstance(part, str) and part.isprintable() and len(part) <= _PART_MAX for part in command)
    if not texts or not 1 <= len(command) <= _PARTS_MAX or not command[0].startswith("/"):
        raise SpecError("Give a program inside by its absolute path, and its arguments.", field=field)


def build_all(values: Sequence[Mapping[str, Any]]) -> tuple[Hook, ...]:
    """Return hooks made of JSON values, checked; raises SpecError naming the field."""
    if len(values) > MOST:
        raise SpecError(say("Use at most %(most)s.", most=MOST), field="hooks")
    found = []
    for number, one in enumerate(values):
        for name in one:
            if name not in ("point", "hook", "command"):
                raise SpecError(say("A hook has no field %(name)r.", name=name), field=f"hooks.{number}.{name}")
        hook = Hook(
            point=str(one.get("point", "")), hook=str(one.get("hook") or ""), command=tuple(one.get("command") or ())
        )
        hook.check(f"hooks.{number}")
        found.append(hook)
    return tuple(found)


def ending_sec(hooks: Sequence[Hook]) -> float:
    """Return how long the hooks at a container's end may take."""
    return float(ENDING_SEC * sum(hook.point in ENDING for hook in hooks))


def plain_hook(hook: Hook) -> dict[str, Any]:
    """Return a hook as JSON values, with what its point has a use for."""
    if hook.point == START:
        return {"point": hook.point, "command": list(hook.command)}
    return {"point": hook.point, "hook": hook.hook}


def environment(point: str, name: str, **more: object) -> dict[str, str]:
    """Return the variables of a hook: LXC's of version 1. more: further ones, without LXC_."""
    values = {
        "LXC_HOOK_VERSION": "1",
        "LXC_HOOK_TYPE": point,
        "LXC_HOOK_SECTION": "lxc",
        "LXC_NAME": name,
        "LXC_CGNS_AWARE": "1",
        "LXC_LOG_LEVEL": "ERROR",
    }
    return values | {f"LXC_{key}": str(value) for key, value in more.items() if value is not None}
