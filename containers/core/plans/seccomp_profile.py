"""System call profiles that a host's administrator writes: LXC's version 2, and the JSON of OCI runtimes. Pure.

Sources: lxc.container.conf(5), "SECCOMP CONFIGURATION"; opencontainers/runtime-spec, config-linux.md, "Seccomp";
seccomp_rule_add(3).
"""

from __future__ import annotations

import errno
import json
import re
from dataclasses import dataclass
from typing import Any, Final

from ..errors import SpecError
from ..sentences import say

ALLOW: Final = 0x7FFF0000
KILL: Final = 0x80000000
LOG: Final = 0x7FFC0000
TRAP: Final = 0x00030000
TRACE_SKIPS: Final = 0x00050000
"""SECCOMP_RET_*, include/uapi/linux/seccomp.h; the last one carries an errno."""
ARCHITECTURES: Final = ("x86_64", "i386", "arm64", "arm")
"""What a rule may be for. x32 is not among them: whatever a profile says, it answers ENOSYS."""
_OPERATORS: Final = {"NE": 1, "LT": 2, "LE": 3, "EQ": 4, "GE": 5, "GT": 6, "MASKED_EQ": 7}
_SIGNS: Final = {"!=": 1, "<": 2, "<=": 3, "==": 4, ">=": 5, ">": 6, "&=": 7}
_SECTIONS: Final = {
    "all": ARCHITECTURES,
    "x86_64": ("x86_64",),
    "x86": ("i386",),
    "i386": ("i386",),
    "i686": ("i386",),
    "arm64": ("arm64",),
    "aarch64": ("arm64",),
    "arm": ("arm",),
}
_OTHERS: Final = frozenset(
    "x32 mips mips64 mips64n32 mipsel mipsel64 mipsel64n32 ppc ppc64 ppc64le s390x riscv64".split()
)
_OCI: Final = {"X86_64": "x86_64", "X86": "i386", "AARCH64": "arm64", "ARM": "arm"}
_NAME: Final = re.compile(r"[a-z_][a-z0-9_]{0,63}", re.ASCII)
_MAX_RULES: Final = 4096
_MNT_FORCE: Final = 1
_EPERM: Final = TRACE_SKIPS | errno.EPERM


@dataclass(frozen=True, slots=True)
class Rule:
    """What one call gets. comparisons: (argument, operator of seccomp.h, value, second value), all of which hold."""

    architectures: tuple[str, ...]
    name: str
    action: int
    comparisons: tuple[tuple[int, int, int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Profile:
    """A filter. default: what calls without a rule get. Actions are SECCOMP_RET_*."""

    default: int
    rules: tuple[Rule, ...]


def parse(text: str) -> Profile:
    """Return a profile in either format; raises SpecError (field ``security.seccomp``) naming the line or the key."""
    profile = _oci(text) if text.lstrip().startswith("{") else _lxc(text)
    if len(profile.rules) > _MAX_RULES:
        raise _bad(f"it has more than {_MAX_RULES} rules")
    return profile


def _bad(what: str) -> SpecError:
    return SpecError(say("The system call profile cannot be used: %(error)s.", error=what), field="security.seccomp")


# -- LXC ------------------------------------------------------------------------------------------------------------


def _lxc(text: str) -> Profile:
    lines = [(number, line.split("#")[0].strip()) for number, line in enumerate(text.splitlines(), 1)]
    lines = [(number, line) for number, line in lines if line]
    if not lines or lines[0][1] != "2":
        raise _bad("line 1 is not 2, the version of the format that is understood")
    if len(lines) < 2:
        raise _bad("neither allowlist nor denylist is on its second line")
    kind, *action = lines[1][1].split()
    if kind not in ("allowlist", "whitelist", "denylist", "blacklist"):
        raise _bad("neither allowlist nor denylist is on its second line")
    allows = kind in ("allowlist", "whitelist")
    default, rest = _action(action, KILL if allows else ALLOW, lines[1][0])
    if rest:
        raise _bad(f"line {lines[1][0]}: {' '.join(rest)!r} is no action")
    section: tuple[str, ...] = ARCHITECTURES
    rules: list[Rule] = []
    for number, line in lines[2:]:
        if line.startswith("["):
            name = line.strip("[]").lower()
            if name not in _SECTIONS and name not in _OTHERS:
                raise _bad(f"line {number}: there is no architecture {name!r}")
            section = _SECTIONS.get(name, ())
        elif section:
            rules.append(_lxc_rule(line, section, ALLOW if allows else KILL, number))
    return Profile(default, tuple(rules))


def _lxc_rule(line: str, section: tuple[str, ...], action: int, number: int) -> Rule:
    name, *words = re.sub(r"\s*,\s*", ",", line).split()
    if name == "reject_force_umount":
        return Rule(section, "umount2", TRACE_SKIPS | errno.EACCES, ((1, 7, _MNT_FORCE, _MNT_FORCE),))
    if not _NAME.fullmatch(name):
        raise _bad(f"line {number}: {name!r} is no system call")
    action, rest = _action(words, action, number)
    return Rule(section, name, action, tuple(_lxc_comparison(word, number) for word in rest))


def _action(words: list[str], default: int, number: int) -> tuple[int, list[str]]:
    """Return the action that words begin with, and the others."""
    simple = {"kill": KILL, "trap": TRAP, "allow": ALLOW, "log": LOG}
    if not words or words[0].startswith("["):
        return default, words
    if words[0] in simple:
        return simple[words[0]], words[1:]
    if words[0] == "errno" and len(words) > 1 and words[1].isdecimal() and int(words[1]) < 4096:
        return TRACE_SKIPS | int(words[1]), words[2:]
    if words[0] == "notify":
        raise _bad(f"line {number}: nobody here answers notifications")
    raise _bad(f"line {number}: {' '.join(words)!r} is no action")


def _lxc_comparison(word: str, number: int) -> tuple[int, int, int, int]:
    parts = word.strip("[]").split(",")
    try:
        index, value, operator = int(parts[0]), int(parts[1], 0), parts[2]
        mask = int(parts[3], 0) if len(parts) > 3 else None
        sign = _SIGNS.get(operator) or _OPERATORS[operator.removeprefix("SCMP_CMP_")]
    except (ValueError, IndexError, KeyError):
        raise _bad(f"line {number}: {word!r} is not [index,value,operator] or [index,value,operator,mask]") from None
    if not word.startswith("[") or not word.endswith("]") or not 0 <= index <= 5 or len(parts) > 4:
        raise _bad(f"line {number}: {word!r} is no comparison of an argument")
    if sign == 7:
        return _fits((index, sign, value if mask is None else mask, value), f"line {number}")
    return _fits((index, sign, value, 0), f"line {number}")


def _fits(comparison: tuple[int, int, int, int], where: str) -> tuple[int, int, int, int]:
    if not all(0 <= value < 2**64 for value in comparison[2:]):
        raise _bad(f"{where}: an argument has 64 bits")
    return comparison


# -- OCI ------------------------------------------------------------------------------------------------------------


def _oci(text: str) -> Profile:
    try:
        values = json.loads(text)
    except ValueError as error:
        raise _bad(f"it is no JSON ({error})") from None
    # a profile by itself, or a runtime's whole configuration
    values = values.get("linux", {}).get("seccomp", values) if isinstance(values, dict) else values
    _keys(values, {"defaultAction", "defaultErrnoRet", "architectures", "syscalls"}, "the profile")
    default = _oci_action(values.get("defaultAction"), values.get("defaultErrnoRet"), "defaultAction")
    named = values.get("architectures") or [f"SCMP_ARCH_{name}" for name in _OCI]
    if not isinstance(named, list):
        raise _bad("architectures is no list")
    section = tuple(_OCI[name] for name in (str(one).removeprefix("SCMP_ARCH_") for one in named) if name in _OCI)
    rules: list[Rule] = []
    for number, entry in enumerate(_list(values.get("syscalls"), "syscalls")):
        where = f"syscalls[{number}]"
        _keys(entry, {"names", "action", "errnoRet", "args", "comment"}, where)
        action = _oci_action(entry.get("action"), entry.get("errnoRet"), where)
        comparisons = tuple(_oci_comparison(one, where) for one in _list(entry.get("args"), where))
        for name in _list(entry.get("names"), where):
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                raise _bad(f"{where}: {name!r} is no system call")
            rules.append(Rule(section, name, action, comparisons))
    return Profile(default, tuple(rules))


def _list(value: Any, where: str) -> list[Any]:
    if value is not None and not isinstance(value, list):
        raise _bad(f"{where} holds no list where one belongs")
    return value or []


def _keys(value: Any, known: set[str], where: str) -> None:
    """Refuse what would otherwise be passed over: Docker's includes and excludes, flags, listeners."""
    if not isinstance(value, dict):
        raise _bad(f"{where} is no object")
    if unknown := sorted(set(value) - known):
        raise _bad(f"{where} has {', '.join(unknown)}, which is not understood here")


def _oci_action(name: Any, number: Any, where: str) -> int:
    simple = {"ALLOW": ALLOW, "KILL": KILL, "KILL_PROCESS": KILL, "KILL_THREAD": KILL, "TRAP": TRAP, "LOG": LOG}
    short = str(name).removeprefix("SCMP_ACT_")
    if short == "ERRNO":
        if number is None:
            return _EPERM
        if isinstance(number, int) and not isinstance(number, bool) and 0 <= number < 4096:
            return TRACE_SKIPS | number
    elif short in simple:
        return simple[short]
    raise _bad(f"{where}: {name!r} is no action that is understood here")


def _oci_comparison(value: Any, where: str) -> tuple[int, int, int, int]:
    _keys(value, {"index", "value", "valueTwo", "op"}, where)
    numbers = [value.get("index"), value.get("value"), value.get("valueTwo", 0)]
    operator = _OPERATORS.get(str(value.get("op")).removeprefix("SCMP_CMP_"))
    if operator is None or not all(isinstance(one, int) and not isinstance(one, bool) for one in numbers):
        raise _bad(f"{where}: {value!r} is no comparison of an argument")
    if not 0 <= numbers[0] <= 5:
        raise _bad(f"{where}: a call has arguments 0 to 5")
    return _fits((numbers[0], operator, numbers[1], numbers[2]), where)
