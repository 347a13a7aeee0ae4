"""The settings of init, boot and consoles as the texts that people read and write in forms, and back."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from typing import Any, Final

from django.utils.translation import gettext as _

from ..core.errors import SpecError
from ..core.model.behaviour import TTYS_MAX, Boot, Consoles, Init
from ..core.units import format_bytes
from ..models import Container

GROUPS: Final = ("init", "boot", "console")
CHECKS: Final = ("init__application", "init__wait_for_all", "console__exclusive")
"""Names of form fields: the group, two underscores, the setting."""

Setting = Callable[..., dict[str, Any]]
Yes = Callable[[bool], str]


def changes(data: Mapping[str, Any], size: Callable[..., int | None]) -> dict[str, dict[str, Any]]:
    """Return what a form's fields change, by group, as `update` takes it; raises SpecError naming the field.

    A check box brings NAME_there with it. Nothing in a text field is the default. size: reads "64 KiB".
    """
    found: dict[str, dict[str, Any]] = {group: {} for group in GROUPS}
    for name in CHECKS:
        if f"{name}_there" in data:
            group, _sep, field = name.partition("__")
            wanted: Any = bool(data.get(name))
            if field == "application":
                field, wanted = "kind", "application" if wanted else "system"
            found[group][field] = wanted
    parsers: dict[str, Callable[[str, str], Any]] = {
        "init__arguments": _arguments,
        "init__user": _text,
        "init__cwd": _text,
        "init__reboot_signal": _text,
        "boot__groups": lambda text, _field: text.replace(",", " ").split(),
        "boot__order": _number,
        "boot__delay_sec": _number,
        "console__ttys": _number,
        "console__buffer_bytes": lambda text, field: size(text, "KiB", field=field),
        "console__log_bytes": lambda text, field: size(text, "KiB", field=field),
        "console__rotations": _number,
    }
    for name, parse in parsers.items():
        if name in data:
            group, _sep, field = name.partition("__")
            found[group][field] = parse(str(data[name]), f"{group}.{field}")
    return {group: values for group, values in found.items() if values}


def field_of(where: str) -> str:
    """Return the form's field for an error's, such as "init.user"; nothing where it is none of these."""
    group, _dot, field = where.partition(".")
    if group not in GROUPS:
        return ""
    return f"{group}__{'application' if field == 'kind' else field}"


def _text(text: str, _field: str) -> str | None:
    return text.strip() or None


def _number(text: str, field: str) -> int | None:
    if not text.strip():
        return None
    try:
        return int(text)
    except ValueError:
        raise SpecError(_("Give a number."), field=field) from None


def _arguments(text: str, field: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        raise SpecError(_("A quotation mark is not closed."), field=field) from None


def start_rows(container: Container, setting: Setting) -> list[dict[str, Any]]:
    """Return the rows about when it starts among the others."""
    boot = Boot.from_dict(container.boot)
    groups = " ".join(boot.groups)
    order = _("Lower ones first, equal ones together; they are stopped the other way round.")
    wait = _("Before the next order begins.")
    return [
        setting("boot__order", _("Order of starting"), boot.order, boot.order or "", "number", order),
        setting(
            "boot__delay_sec",
            _("Seconds to wait after its start"),
            boot.delay_sec,
            boot.delay_sec or "",
            "number",
            wait,
        ),
        setting("boot__groups", _("Groups"), groups or "–", groups, "text", _("Separate by spaces.")),
    ]


def init_rows(container: Container, setting: Setting, yes: Yes) -> list[dict[str, Any]]:
    """Return the rows about how the first process runs."""
    init = Init.from_dict(container.init)
    arguments = shlex.join(init.arguments)
    app = _("A small init runs the command, and the container ends with it. Takes effect at the next start.")
    user = _("A name or uid, also with a colon and a group. Takes effect at the next start.")
    return [
        setting(
            "init__application",
            _("One application instead of a system"),
            yes(init.application),
            init.application,
            "check",
            app,
        ),
        setting(
            "init__arguments",
            _("Arguments of the init command"),
            arguments or "–",
            arguments,
            "text",
            _("Takes effect at the next start."),
        ),
        setting("init__user", _("Runs as"), init.user or "root", init.user, "text", user),
        setting(
            "init__cwd",
            _("Working directory"),
            init.cwd,
            "" if init.cwd == "/" else init.cwd,
            "text",
            _("Takes effect at the next start."),
        ),
        setting(
            "init__wait_for_all",
            _("An application ends with its last process"),
            yes(init.wait_for_all),
            init.wait_for_all,
            "check",
        ),
        setting(
            "init__reboot_signal",
            _("Signal for a clean restart"),
            init.reboot_signal or _("the image's own"),
            init.reboot_signal or "",
            "text",
            _("Such as SIGINT or SIGRTMIN+5."),
        ),
    ]


def console_rows(container: Container, setting: Setting, yes: Yes) -> list[dict[str, Any]]:
    """Return the rows about the consoles."""
    console, later = Consoles.from_dict(container.console), _("Takes effect at the next start.")
    ttys = _("0 to %(most)s: /dev/tty1 and so on, where systems offer a login.") % {"most": TTYS_MAX}
    kept, log = format_bytes(console.buffer_bytes), format_bytes(console.log_bytes) if console.log_bytes else _("none")
    one = _("Others may look on.")
    return [
        setting(
            "console__ttys",
            _("Terminals beside the console"),
            console.ttys,
            console.ttys or "",
            "number",
            f"{ttys} {later}",
        ),
        setting(
            "console__exclusive",
            _("One client at a time may type at a console"),
            yes(console.exclusive),
            console.exclusive,
            "check",
            one,
        ),
        setting("console__buffer_bytes", _("Kept of each console"), kept, kept, "text", later),
        setting(
            "console__log_bytes", _("Size of the console's log"), log, log if console.log_bytes else "0", "text", later
        ),
        setting(
            "console__rotations", _("Older logs that are kept"), console.rotations, console.rotations, "number", later
        ),
    ]
