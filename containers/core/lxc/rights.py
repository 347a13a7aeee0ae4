"""LXC's security keys as a container's rights: capabilities, sysctls, resource limits, id maps. Pure."""

from __future__ import annotations

import re
import shlex
from typing import Any, Final

from ..errors import SpecError
from ..host import IDS_PER_CONTAINER
from ..model import capabilities
from ..model.hooks import POINTS, START, build_all
from ..model.idmap import IdMap
from ..model.security import APPARMOR_GENERATED, UNLIMITED, Security
from .draft import Draft, Told, left_out, taken, translated
from .reading import Entry

_IDMAP: Final = re.compile(r"([ugb]) ([0-9]{1,10}) ([0-9]{1,10}) ([0-9]{1,10})", re.ASCII)
_OFFSET: Final = re.compile(r"(-?[0-9]{1,15})(h|m|s|ms|us|ns)?", re.ASCII)
_UNITS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_USUAL_PROFILES: Final = ("common.seccomp",)
_MACHINES: Final = {
    **dict.fromkeys(("amd64", "x86_64", "linux64"), "x86_64"),
    **dict.fromkeys(("x86", "i386", "i486", "i586", "i686", "linux32"), "i686"),
    **dict.fromkeys(("arm64", "aarch64"), "aarch64"),
    **dict.fromkeys(("arm", "armv7", "armv7l", "armhf", "armel"), "armv7l"),
}
_NARROWER: Final = {"x86_64": "i686", "aarch64": "armv7l"}
_DEFAULT_PROFILES: Final = ("generated", "lxc-container-default", "lxc-container-default-cgns")


def capability(draft: Draft, entry: Entry) -> Told:
    """Say what becomes of lxc.cap.drop and lxc.cap.keep."""
    default = capabilities.default(privileged=draft.facts.privileged)
    names = [name.lower().removeprefix("cap_") for name in entry.value.split()]
    known = [name for name in names if name in capabilities.NAMES]
    if entry.key == "lxc.cap.keep":
        allowed = default | set(draft.facts.capabilities)
        kept = sorted({*draft.security.get("capabilities_keep", ()), *(set(known) & allowed)})
        draft.security["capabilities_keep"] = kept
        more = sorted(set(names) - allowed - {"none"})
        words = f"keeps {', '.join(kept) or 'none'}"
        return translated(words + (f"; not {', '.join(more)}, which the policy lets no container keep" if more else ""))
    dropped = [name for name in known if name in default]
    if not dropped:
        return taken("no container keeps them here")
    draft.security["capabilities_drop"] = sorted({*draft.security.get("capabilities_drop", ()), *dropped})
    return translated(f"drops {', '.join(dropped)}; the others no container keeps here")


def sysctl(draft: Draft, entry: Entry) -> Told:
    """Say what becomes of a ``lxc.sysctl.*``."""
    name = entry.key.removeprefix("lxc.sysctl.")
    if name.startswith("net.") and draft.only_none and draft.facts.host_network:
        return left_out("with the host's network it would be set for the host")
    return _put(draft, "sysctls", name, entry.value, "set when it starts")


def prlimit(draft: Draft, entry: Entry) -> Told:
    """Say what becomes of a ``lxc.prlimit.*``."""
    name = entry.key.removeprefix("lxc.prlimit.")
    soft, _colon, hard = entry.value.partition(":")
    bounds = {"soft": _bound(soft), "hard": _bound(hard or soft)}
    return _put(draft, "prlimits", name, bounds, "of init and all that is started inside")


def _bound(text: str) -> int | str:
    text = text.strip()
    return UNLIMITED if text in (UNLIMITED, "infinity") else int(text) if text.isdecimal() and text.isascii() else text


def _put(draft: Draft, field: str, name: str, value: object, words: str) -> Told:
    try:
        Security.from_dict({field: {name: value}}).check(privileged=draft.facts.privileged)
    except SpecError as error:
        return left_out(error.message.rstrip("."))
    draft.security.setdefault(field, {})[name] = value
    return taken(words)


def proc(draft: Draft, entry: Entry) -> Told:
    """Say what becomes of a ``lxc.proc.*``: oom_score_adj alone has a place here."""
    if entry.key != "lxc.proc.oom_score_adj":
        return left_out("of the files of init's directory in /proc only oom_score_adj can be set")
    try:
        number = int(entry.value)
        Security(oom_score_adj=number).check(privileged=draft.facts.privileged)
    except (SpecError, ValueError) as error:
        return left_out(
            (error.message if isinstance(error, SpecError) else f"{entry.value!r} is no number").rstrip(".")
        )
    draft.security["oom_score_adj"] = number
    return taken("how soon the kernel ends it where memory runs out")


def no_new_privs(draft: Draft, entry: Entry) -> Told:
    """Say what becomes of lxc.no_new_privs."""
    if entry.value != "1":
        return taken("as without it")
    draft.security["no_new_privs"] = True
    return taken("set-uid programs give nothing")


def clock(draft: Draft, entry: Entry) -> Told:
    """Say what becomes of a ``lxc.time.offset.*``."""
    name = {"lxc.time.offset.boot": "boottime", "lxc.time.offset.monotonic": "monotonic"}.get(entry.key)
    match = _OFFSET.fullmatch(entry.value.strip())
    if name is None or match is None:
        return left_out(f"{entry.value!r} is no offset of a clock")
    seconds = round(int(match[1]) * _UNITS[match[2] or "s"], 9)
    return _put(draft, "clock_offsets", name, seconds, "from its first process on")


def keyring(_draft: Draft, entry: Entry) -> Told:
    """Say what becomes of lxc.keyring.session."""
    if entry.value == "0":
        return left_out("every container begins with an empty session keyring of its own here")
    return taken("an empty session keyring, as every container has here")


def seccomp(draft: Draft, entry: Entry) -> Told:
    """Say what becomes of lxc.seccomp.profile: one that the policy gives, where it says the same."""
    if not entry.value or entry.value.rpartition("/")[2] in _USUAL_PROFILES:
        return translated("Boxroom's own list of system calls that are allowed")
    name = draft.facts.profiles.get(entry.value)
    if name is None:
        return left_out(
            f"no system call profile of the host's policy says the same: put {entry.value} into seccomp/NAME in the "
            "state directory, and give it under [seccomp.NAME]; Boxroom's own list holds all the same"
        )
    draft.security["seccomp"] = name
    return translated(f"the system call profile {name}")


def architecture(draft: Draft, entry: Entry) -> Told:
    """Say what becomes of lxc.arch: the host's own, or its 32-bit one."""
    machine = draft.facts.machine
    if _MACHINES.get(entry.value) == machine:
        return taken("the host's")
    if _MACHINES.get(entry.value) == _NARROWER.get(machine):
        draft.security["personality"] = "linux32"
        return translated("security.personality = linux32")
    return left_out(f"a container sees the host's architecture, {machine}; its programs may run all the same")


_LXCFS: Final = frozenset({"/usr/share/lxcfs/lxc.mount.hook", "/usr/share/lxcfs/lxc.reboot.hook"})
"""What lxcfs(1) gives to LXC's common.conf.d."""


def hook(draft: Draft, entry: Entry) -> Told:
    """Say what becomes of a ``lxc.hook.*``: a program of the policy's that is the same; at start one inside."""
    point = entry.key.removeprefix("lxc.hook.")
    if point == "version":
        return translated("hooks have the variables of version 1, and the arguments of version 0")
    try:
        command = shlex.split(entry.value)
    except ValueError:
        command = []
    if point not in POINTS:
        return left_out(f"there is no point {point} here")
    if not command:
        return left_out("its quotation marks do not match")
    if point == START:
        one: dict[str, Any] = {"point": point, "command": command}
    else:
        name = draft.facts.hooks.get(command[0])
        if name is None and command[0] in _LXCFS:
            return translated("no hook is needed: lxcfs is used wherever the host has it")
        if name is None or len(command) > 1:
            return left_out(
                f"no hook of the host's policy is the same program: put {command[0]} into hooks/NAME in the state "
                f"directory, and give it under [hooks.NAME]"
            )
        one = {"point": point, "hook": name}
    hooks = [*draft.values.get("hooks", []), one]
    try:
        build_all(hooks)
    except SpecError as error:
        return left_out(error.message.rstrip("."))
    draft.values["hooks"] = hooks
    return translated(f"run inside at {point}" if point == START else f"the hook {one['hook']} at {point}")


def apparmor(draft: Draft, entry: Entry) -> Told:
    """Say what becomes of a ``lxc.apparmor.*``."""
    names = draft.facts.apparmor
    if entry.key == "lxc.apparmor.profile" and names is not None and entry.value in (APPARMOR_GENERATED, *names):
        draft.security["apparmor"] = entry.value
        return taken("entered when it starts")
    if entry.key == "lxc.apparmor.profile" and entry.value in ("unconfined", "unchanged"):
        return taken("no profile, as without it")
    if entry.key == "lxc.apparmor.allow_nesting" and entry.value == "1":
        return left_out("nesting is a right of its own here: switch it on afterwards if containers run inside this one")
    if entry.key == "lxc.apparmor.profile" and entry.value in _DEFAULT_PROFILES:
        return translated("what that profile denies is denied here by seccomp, masks and dropped rights")
    return left_out("what holds a container here is not chosen by its configuration")


def idmap(draft: Draft, entry: Entry) -> Told:
    """Say what becomes of lxc.idmap: owners on disk are shifted back by it, and the container gets its own ids."""
    match = _IDMAP.fullmatch(" ".join(entry.value.split()))
    if match is None:
        return left_out("this is no id map")
    inside, outside, size = (int(part) for part in match.groups()[1:])
    size_here = min(size, IDS_PER_CONTAINER - inside)
    if size_here < 1:
        return left_out(f"containers have the ids 0 to {IDS_PER_CONTAINER - 1} here")
    try:
        one = IdMap(inside, outside, size_here)
    except ValueError:
        return left_out("these are no ids")
    draft.idmap += [(kind, one) for kind in ("ug" if match[1] == "b" else match[1])]
    more = f"; of its ids those above {IDS_PER_CONTAINER - 1} become nobody's" if size_here < size else ""
    return translated(f"owners on disk are shifted back to 0 and up; the container gets ids of its own{more}")
