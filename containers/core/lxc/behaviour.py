"""lxc.init.*, lxc.start.*, lxc.group, lxc.tty.max, lxc.console.*: how it begins, when, and what its consoles keep."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from ..errors import SpecError
from ..kernel import halt
from ..model import behaviour
from .draft import Draft, Told, left_out, taken, translated
from .reading import Entry

_UNITS: Final = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
_AUTO_BYTES: Final = 128 * 1024
_KINDS: Final[dict[str, type[behaviour.Init] | type[behaviour.Boot] | type[behaviour.Consoles]]] = {
    "init": behaviour.Init,
    "boot": behaviour.Boot,
    "console": behaviour.Consoles,
}


def _set(draft: Draft, group: str, field: str, value: Any, words: str, *, same: bool = True) -> Told:
    """Put a setting into the draft, if it is one that there can be."""
    values = {**draft.values.get(group, {}), field: value}
    try:
        _KINDS[group].from_dict(values).check()
    except SpecError as error:
        return left_out(error.message.rstrip("."))
    draft.values[group] = values
    return (taken if same else translated)(words)


def _number(group: str, field: str, words: str) -> Callable[[Draft, Entry], Told]:
    def function(draft: Draft, entry: Entry) -> Told:
        try:
            value = int(entry.value)
        except ValueError:
            return left_out("this is a number")
        return _set(draft, group, field, value, words)

    return function


order = _number("boot", "order", "lower ones start first, as there")
delay = _number("boot", "delay_sec", "before the next order begins")
ttys = _number("console", "ttys", "so many terminals beside the console")


def group(draft: Draft, entry: Entry) -> Told:
    """Take a group's name, with those before it."""
    names = [*draft.values.get("boot", {}).get("groups", ()), *(name.strip() for name in entry.value.split(","))]
    return _set(draft, "boot", "groups", list(dict.fromkeys(names)), "by which some can be started together")


def cwd(draft: Draft, entry: Entry) -> Told:
    """Take init's directory."""
    return _set(draft, "init", "cwd", entry.value, "the directory that init begins in")


def uid(draft: Draft, entry: Entry) -> Told:
    """Take init's user, beside a group that was named before."""
    if not entry.value.isdigit():
        return left_out("this is a number")
    _uid, colon, gid = draft.values.get("init", {}).get("user", "").partition(":")
    return _set(draft, "init", "user", f"{entry.value}{colon}{gid}", "init.user: whom init runs as", same=False)


def gid(draft: Draft, entry: Entry) -> Told:
    """Take init's group, beside a user that was named before."""
    if not entry.value.isdigit():
        return left_out("this is a number")
    user = draft.values.get("init", {}).get("user", "").partition(":")[0] or "0"
    return _set(draft, "init", "user", f"{user}:{entry.value}", "init.user: whom init runs as", same=False)


def groups(draft: Draft, entry: Entry) -> Told:
    """Take init's supplementary groups."""
    words = [word.strip() for word in entry.value.split(",") if word.strip()]
    if not all(word.isdigit() for word in words):
        return left_out("these are numbers")
    return _set(draft, "init", "groups", [int(word) for word in words], "init's supplementary groups")


def reboot_signal(draft: Draft, entry: Entry) -> Told:
    """Take the signal that asks for a restart from inside."""
    name = entry.value.upper()
    name = name if name.isdigit() or name.startswith("SIG") else f"SIG{name}"
    try:
        halt.parse(name)
    except ValueError:
        return left_out("there is no such signal")
    return _set(draft, "init", "reboot_signal", name, "the signal that asks its init to boot again")


def console(draft: Draft, entry: Entry) -> Told:
    """Translate sizes and rotation of the console's ring and log."""
    key = entry.key.removeprefix("lxc.console.")
    if key == "rotate":
        if entry.value not in ("0", "1"):
            return left_out("this is 0 or 1")
        return _set(draft, "console", "rotations", int(entry.value), "so many older logs are kept", same=False)
    if key in ("buffer.size", "size"):
        size = _size(entry.value)
        if size is None:
            return left_out("this is a size")
        field = "buffer_bytes" if key == "buffer.size" else "log_bytes"
        if size == 0:
            return left_out("the console's last output is always kept, in memory and in a file, of a bounded size")
        return _set(draft, "console", field, size, "of the console's output so much is kept", same=False)
    if key == "logfile":
        return translated("the console's log lies with the container; the log page and the API show it")
    return left_out("the console is a terminal of the container's own")


def _size(text: str) -> int | None:
    if text == "auto":
        return _AUTO_BYTES
    found = re.fullmatch(r"([0-9]{1,12})\s*([kmg]?)(?:i?b)?", text.lower())
    return int(found[1]) * _UNITS[found[2]] if found else None
