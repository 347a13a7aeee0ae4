"""The rows of a container's settings page, in groups: what is so, and what may be entered instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.utils.translation import gettext as _

from ..clients import history
from ..core.model.security import Security
from ..core.units import format_bytes
from ..models import Container
from . import behaviourtext, hooktext, limittext, securitytext
from .forms import LIMITS, RESTARTS, ranges
from .rows import Row

Setting = dict[str, Any]
"""name, label, shown (words), raw (what the field holds), kind (which field), help; for some limits kernel, differs."""


def groups(row: Row) -> list[tuple[str, list[Setting]]]:
    """Return the settings as groups of rows, each with its heading."""
    container = row.container
    return [
        (_("Limits"), _limits(container)),
        (_("About"), _about(container)),
        (_("Start and end"), [*_start_and_end(container), *behaviourtext.start_rows(container, _setting)]),
        (_("What runs"), [*_what_runs(container), *behaviourtext.init_rows(container, _setting, _yes)]),
        (_("Consoles"), behaviourtext.console_rows(container, _setting, _yes)),
        (_("Security"), securitytext.rows(Security.from_dict(container.security), _setting, _yes)),
    ]


def _setting(name: str, label: str, shown: Any, raw: Any, kind: str, help_text: str = "") -> Setting:
    return {"name": name, "label": label, "shown": shown, "raw": raw, "kind": kind, "help": help_text}


def _limits(container: Container) -> list[Setting]:
    limits = container.limits
    none, allowed, present = _("no limit"), ranges(container.host), history.present_limits(container)
    memory, cpus, pids = (limits.get(name) for name in ("memory_bytes", "cpus", "pids"))
    swap, weight, cpuset = (limits.get(name) for name in ("swap_bytes", "cpu_weight", "cpuset"))

    def limit(name: str, label: str, asked: Any, raw: Any, kind: str, words: Callable[[Any], str] = str) -> Setting:
        """Return a limit's row, with the kernel's present value beside the one that was asked for."""
        found = _setting(name, label, words(asked) if asked else none, raw, kind, allowed[name])
        if LIMITS[name] in present:
            now = present[LIMITS[name]]
            found |= {"kernel": none if now is None else words(now), "differs": _differ(asked, now)}
        return found

    no_swap = none if memory is None else _("none")
    swap_words = no_swap if swap is None else format_bytes(swap)
    return [
        limit("memory", _("Memory"), memory, _mebibytes(memory or None), "memory", format_bytes),
        _setting("swap", _("Swap"), swap_words, _mebibytes(swap), "memory", allowed["swap"]),
        limit("cpus", _("CPUs"), cpus, cpus or "", "number", lambda value: f"{value:g}"),
        _setting("cpu_weight", _("CPU weight"), weight or 100, weight or "", "number", allowed["cpu_weight"]),
        _setting("cpuset", _("Which CPUs"), cpuset or _("all"), cpuset or "", "text", allowed["cpuset"]),
        limit("pids", _("Processes"), pids, pids or "", "number"),
        *limittext.disk_rows(limits, container.host.facts, _setting, none),
        *limittext.rows(limits, _setting, none),
    ]


def _about(container: Container) -> list[Setting]:
    words, tags = container.description, container.tags
    return [
        _setting("description", _("Description"), words or "–", words, "text"),
        _setting("tags", _("Tags"), ", ".join(tags) or "–", " ".join(tags), "text", _("Separate by spaces.")),
    ]


def _start_and_end(container: Container) -> list[Setting]:
    restart = container.restart
    return [
        _setting("autostart", _("Start with the host"), _yes(container.autostart), container.autostart, "check"),
        _setting("restart", _("When it ends by itself"), dict(RESTARTS).get(restart, restart), restart, "restart"),
        _setting("ephemeral", _("Deleted when it stops"), _yes(container.ephemeral), container.ephemeral, "check"),
    ]


def _what_runs(container: Container) -> list[Setting]:
    own, command, signal = _("the image's own"), " ".join(container.init_command), container.halt_signal
    variables = "\n".join(f"{name}={value}" for name, value in container.environment.items())
    lines = _("One NAME=value on each line. Takes effect at the next start.")
    hooks = hooktext.written(container.hooks)
    return [
        _setting(
            "init_command", _("Init command"), command or own, command, "text", _("Takes effect at the next start.")
        ),
        _setting("environment", _("Environment"), variables or "–", variables, "lines", lines),
        _setting(
            "halt_signal",
            _("Signal for a clean stop"),
            signal or own,
            signal,
            "text",
            _("Such as SIGPWR or SIGRTMIN+3."),
        ),
        _setting(
            "hooks",
            _("Hooks"),
            hooks or "–",
            hooks,
            "lines",
            _(
                "One POINT NAME on each line, such as pre-start mount-nas, of programs that the host's policy names; "
                "start runs a program of the container's own. Takes effect at the next start."
            ),
        ),
    ]


def _mebibytes(count: int | None) -> str:
    return "" if count is None else f"{count / 1024**2:g}"


def _differ(asked: float | None, now: float | None) -> bool:
    """Return whether the kernel holds something else than was asked for; it rounds to pages and microseconds."""
    if not asked or now is None:
        return bool(asked) or now is not None
    return abs(asked - now) > 0.01 * asked


def _yes(value: bool) -> str:  # noqa: FBT001  a word for a yes or no
    return _("yes") if value else _("no")
