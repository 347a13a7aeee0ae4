"""What of a backup's configuration its importer may have: each value is checked as if he had asked for it.

The configuration is somebody else's words. What is not understood, what this host has not and what its policy forbids
is left out, by name; the rest is as it was.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from ..bookkeeping import specs
from ..core.errors import CoreError
from ..core.host import Host
from ..core.model.hooks import build_all as build_hooks
from ..core.model.hooks import plain_hook
from ..core.rules import grants
from ..models import Container
from . import configuration, giving

_PLAIN: Final = ("description", "tags", "init_command", "environment", "halt_signal", "restart", "autostart")
_GROUPS: Final = ("limits", "security", *configuration.GROUPS)
_LISTS: Final = ("mounts", "devices", "hooks")
_TYPES: Final[dict[str, type]] = {
    "description": str,
    "tags": list,
    "init_command": list,
    "environment": dict,
    "restart": str,
    "autostart": bool,
}
NOT_UNDERSTOOD: Final = (TypeError, ValueError, KeyError, AttributeError, IndexError, OverflowError)
"""What checks of values raise that are none."""
_MACHINE_ID: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Left:
    """Something that was left out: its name, such as ``devices.kvm``, and why."""

    what: str
    why: str


def is_machine_id(value: object) -> bool:
    """Tell whether this is a machine id."""
    return isinstance(value, str) and _MACHINE_ID.fullmatch(value) is not None


def columns(told: dict[str, Any], container: Container, *, privileged: bool) -> tuple[dict[str, Any], list[Left]]:
    """Return the columns of a container's row that a backup's configuration sets, and what was left out of it.

    told: as a manifest has it; its name, addresses, project and image are not looked at. privileged: may whoever asks
    have privileged containers at all; the host's policy is asked, too.
    """
    fit = _Fit(container)
    if told.get("privileged") is True:
        if privileged:
            fit.take("privileged", lambda: configuration.check_changes({"privileged": True}, container.host))
        else:
            fit.leave("privileged", "Host administrators alone may restore privileged containers.")
    for name in _PLAIN:
        if name in told and told[name] not in (None, ""):
            fit.take(name, partial(fit.plain, name, told[name]))
    for name in _GROUPS:
        if told.get(name):
            fit.group(name, told[name])
    for name in _LISTS:
        if told.get(name):
            fit.items(name, told[name])
    return fit.columns, fit.left_out


def spec_with(container: Container, values: dict[str, Any], host: Host) -> dict[str, Any]:
    """Return the spec of a container's row with other columns, as JSON values, as a snapshot keeps it."""
    other = copy.copy(container)
    for name, value in values.items():
        setattr(other, name, value)
    spec = specs.spec_of(other, host, list(container.interfaces.select_related("network").order_by("index")))
    spec.check()
    found: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(spec)))
    return found


def _typed(name: str, value: Any) -> Any:
    wanted = _TYPES.get(name, str)
    if not isinstance(value, wanted):
        raise TypeError(name)
    inside = [*value.keys(), *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    if not all(isinstance(one, str) for one in inside):
        raise TypeError(name)
    return value


class _Fit:
    def __init__(self, container: Container) -> None:
        self._host, self._project = container.host, container.project.name
        self.columns: dict[str, Any] = {}
        self.left_out: list[Left] = []

    def leave(self, what: str, why: str) -> None:
        """Note that something is left out."""
        self.left_out.append(Left(what[:100], why[:300]))

    def plain(self, name: str, value: Any) -> dict[str, Any]:
        """Return a column that is a value of its own."""
        return configuration.check_changes({name: _typed(name, value)}, self._host)

    def take(self, what: str, check: Callable[[], dict[str, Any]]) -> bool:
        """Take what check returns, or note why not."""
        try:
            found = check()
        except CoreError as error:
            self.leave(what, error.message)
            return False
        except NOT_UNDERSTOOD:
            self.leave(what, "It is not understood.")
            return False
        self.columns |= found
        return True

    def group(self, name: str, values: Any) -> None:
        """Take a group's values, one after the other: those that are refused are left out alone."""
        if not isinstance(values, dict):
            self.leave(name, "It is not understood.")
            return
        kept: dict[str, Any] = {}
        for key, value in values.items():
            if value is not None and self.take(f"{name}.{key}", partial(self._group, name, {**kept, key: value})):
                kept[key] = value

    def _group(self, name: str, values: dict[str, Any]) -> dict[str, Any]:
        asked = {name: values}
        if name == "security":
            grants.profile_of(giving.profiles(self._host), self._project, str(values.get("seccomp") or ""))
            asked["privileged"] = self.columns.get("privileged", False)
        found = configuration.check_changes(asked, self._host)
        return {name: found[name]}

    def items(self, name: str, values: Any) -> None:
        """Take a list's entries, one after the other."""
        if not isinstance(values, list):
            self.leave(name, "It is not understood.")
            return
        kept: list[Any] = []
        for number, value in enumerate(values[:100]):
            label = value.get("share") or value.get("device") or value.get("hook") if isinstance(value, dict) else None
            what = f"{name}.{label if isinstance(label, str) else number}"
            if self.take(what, partial(self._list, name, [*kept, value])):
                kept.append(value)

    def _list(self, name: str, values: list[Any]) -> dict[str, Any]:
        if name == "hooks":
            hooks = build_hooks(values)
            grants.hooks_of(giving.hooks(self._host), self._project, hooks)
            return {"hooks": [plain_hook(hook) for hook in hooks]}
        return giving.check({name: values}, self._host, self._project)
