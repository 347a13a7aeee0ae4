"""The security settings as the texts that people read and write in forms, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from django.utils.translation import gettext as _

from ..core.errors import SpecError
from ..core.model.security import Security

PREFIX: Final = "security_"
"""Of the fields of forms: security_nesting and so on."""
CHECKS: Final = ("nesting", "no_new_privs", "keyctl")

Setting = Callable[..., dict[str, Any]]


def changes(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a form's fields change, as `update` takes it; raises SpecError naming the field.

    A check box brings NAME_there with it. Nothing in a text field is the default.
    """
    found: dict[str, Any] = {}
    for name in CHECKS:
        if f"{PREFIX}{name}_there" in data:
            found[name] = bool(data.get(f"{PREFIX}{name}"))
    parsers: dict[str, Callable[[str], Any]] = {
        "capabilities_drop": lambda text: text.replace(",", " ").split(),
        "capabilities_keep": lambda text: text.replace(",", " ").split() or None,
        "sysctls": lambda text: _pairs(text, "sysctls"),
        "prlimits": lambda text: {name: _prlimit(value) for name, value in _pairs(text, "prlimits").items()},
        "oom_score_adj": _score,
        "seccomp": str.strip,
        "clock_offsets": lambda text: {name: _seconds(value) for name, value in _pairs(text, "clock_offsets").items()},
        "personality": str.strip,
        "apparmor": str.strip,
        "ids": _ids,
    }
    for name, parse in parsers.items():
        if f"{PREFIX}{name}" in data:
            found[name] = parse(str(data[f"{PREFIX}{name}"]))
    return found


def _pairs(text: str, field: str) -> dict[str, str]:
    pairs = {}
    for line in text.splitlines():
        if line.strip():
            name, equals, value = line.partition("=")
            if not equals:
                raise SpecError(_("Write one NAME=value on each line."), field=f"security.{field}")
            pairs[name.strip()] = value.strip()
    return pairs


def _bound(text: str) -> int | str:
    return int(text) if text.isascii() and text.isdigit() else text


_Text = tuple[str, str, Any, Any, str, str]
"""name, label, shown, raw, kind, help."""


def _prlimit(text: str) -> Any:
    soft, colon, hard = (part.strip() for part in text.partition(":"))
    return {"soft": _bound(soft), "hard": _bound(hard)} if colon else _bound(soft)


def _seconds(text: str) -> float:
    try:
        return float(text.replace(",", "."))
    except ValueError:
        raise SpecError(_("Give seconds, such as 3600 or -0.5."), field="security.clock_offsets") from None


def _ids(text: str) -> int | None:
    if not text.strip():
        return None
    try:
        return int(text)
    except ValueError:
        raise SpecError(_("Give a number."), field="security.ids") from None


def _score(text: str) -> int | None:
    if not text.strip():
        return None
    try:
        return int(text)
    except ValueError:
        raise SpecError(_("Give a number."), field="security.oom_score_adj") from None


def rows(security: Security, setting: Setting, yes: Callable[[bool], str]) -> list[dict[str, Any]]:
    """Return the rows of the settings page. setting: makes one of name, label, shown, raw, kind, help."""
    start = _("Takes effect at the next start.")
    flags = (
        (
            "nesting",
            _("Nesting"),
            security.nesting,
            _("Containers inside this container work. Only where the host's policy allows it."),
        ),
        (
            "no_new_privs",
            _("No new rights"),
            security.no_new_privs,
            _("Set-uid programs such as sudo and su give no rights."),
        ),
        (
            "keyctl",
            _("Key rings"),
            security.keyctl,
            _("Programs may use the kernel's key rings. Only where the host's policy allows it."),
        ),
    )
    return [
        *(
            setting(f"{PREFIX}{name}", label, yes(on), on, "check", f"{help_text} {start}")
            for name, label, on, help_text in flags
        ),
        *(
            setting(f"{PREFIX}{name}", label, shown, raw, kind, f"{help_text} {start}")
            for name, label, shown, raw, kind, help_text in (*_of_processes(security), *_of_the_host(security))
        ),
    ]


def _of_processes(security: Security) -> tuple[_Text, ...]:
    """Return what a process in the container may do."""
    drop = " ".join(security.capabilities_drop)
    keep = security.capabilities_keep
    kept = " ".join(keep or ())
    sysctls = "\n".join(f"{name}={value}" for name, value in sorted(security.sysctls.items()))
    limits = "\n".join(f"{name}={one.soft}:{one.hard}" for name, one in sorted(security.prlimits.items()))
    score = security.oom_score_adj
    return (
        (
            "capabilities_drop",
            _("Capabilities taken away"),
            drop or "–",
            drop,
            "text",
            _("Such as net_raw sys_chroot."),
        ),
        (
            "capabilities_keep",
            _("Capabilities kept"),
            (kept or _("none")) if keep is not None else _("the usual ones"),
            kept,
            "text",
            _("These and no others; empty for the usual ones. More than those only where the host's policy allows it."),
        ),
        (
            "sysctls",
            _("Kernel parameters"),
            sysctls or "–",
            sysctls,
            "lines",
            _("One NAME=value on each line, of net.*, kernel.shm*, msg*, sem, domainname, fs.mqueue.*."),
        ),
        (
            "prlimits",
            _("Limits of each process"),
            limits or "–",
            limits,
            "lines",
            _("One NAME=soft:hard on each line, such as nofile=1024:4096 or core=unlimited."),
        ),
        (
            "oom_score_adj",
            _("Ended first when memory is short"),
            score,
            score,
            "text",
            _("0 to 1000; the higher, the sooner."),
        ),
    )


def _of_the_host(security: Security) -> tuple[_Text, ...]:
    """Return what a container has of the host's, and how the host looks from inside."""
    offsets = "\n".join(f"{name}={value:g}" for name, value in sorted(security.clock_offsets.items()))
    return (
        (
            "seccomp",
            _("System call profile"),
            security.seccomp or _("the usual one"),
            security.seccomp,
            "text",
            _("The name of one that the host's policy gives; empty for the usual one alone."),
        ),
        (
            "clock_offsets",
            _("Clock offsets"),
            offsets or "–",
            offsets,
            "lines",
            _("One NAME=seconds on each line: boottime and monotonic, such as boottime=3600."),
        ),
        (
            "personality",
            _("Personality"),
            security.personality or _("the host's"),
            security.personality,
            "text",
            _("linux32 makes programs see a 32-bit machine; empty for the host's."),
        ),
        (
            "apparmor",
            _("AppArmor profile"),
            security.apparmor or _("none"),
            security.apparmor,
            "text",
            _("generated, or one that the host's policy names; empty for none. The host must have AppArmor."),
        ),
        (
            "ids",
            _("Users and groups"),
            security.ids,
            security.ids,
            "text",
            _("A multiple of 65536; more than that are for containers inside this one, where the policy allows it."),
        ),
    )
