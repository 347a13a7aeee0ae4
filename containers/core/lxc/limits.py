"""LXC's cgroup keys as limits: memory, CPU, processes, I/O, devices. Pure.

Source: kernel Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/.
"""

from __future__ import annotations

import re
from typing import Any, Final

from ..errors import PolicyDenied, SpecError
from ..model.limit_files import HUGE, IO_WEIGHTS, PERIOD_USEC, RATES, THROTTLES, weight_of
from ..model.spec import Limits
from ..plans.devices import DEFAULT_RULES, DeviceRule
from ..rules import policy
from ..units import format_bytes
from .draft import Draft, Told, left_out, taken, translated
from .reading import Entry

_SIZE: Final = re.compile(r"([0-9]{1,19})([KMGTP]?)", re.ASCII | re.IGNORECASE)
_DEVICE: Final = re.compile(r"([bc]) ([0-9]{1,6}|\*):([0-9]{1,7}|\*) ([rwm]{1,3})", re.ASCII)
_NONE: Final = ("max", "-1", "infinity")
_PLACEMENT: Final = ("dir", "relative")
_HERE: Final = "on the device that holds Boxroom's state"


def translate(draft: Draft, entry: Entry) -> Told:
    """Say what becomes of a ``lxc.cgroup.*`` or ``lxc.cgroup2.*``."""
    file = entry.key.split(".", 2)[2]
    value = entry.value
    if file.partition(".")[0] in _PLACEMENT:
        return left_out("Boxroom has a place of its own for each container's control groups")
    if file in ("devices.allow", "devices.deny"):
        return _device(draft, file, value)
    try:
        if file in ("memory.max", "memory.limit_in_bytes"):
            return _limit(draft, "memory_bytes", None if value in _NONE else _size(value))
        if file == "pids.max":
            return _limit(draft, "pids", None if value in _NONE else _size(value))
        if file in ("cpu.max", "cpu.cfs_quota_us", "cpu.cfs_period_us"):
            return _cpus(draft, file, value)
        if file in THROTTLES:
            return _limit(draft, THROTTLES[file], _size(value.split()[-1]), where=_HERE)
        if file == "io.max":
            return _io(draft, value)
        if file in ("memory.swap.max", "memory.memsw.limit_in_bytes"):
            return _swap(draft, file, value)
        if file in ("cpu.weight", "cpu.shares"):
            weight = max(1, _size(value)) if file == "cpu.weight" else weight_of(_size(value))
            return _limit(draft, "cpu_weight", weight)
        if file == "cpuset.cpus":
            return _limit(draft, "cpuset", value)
        if file in IO_WEIGHTS:
            return _limit(draft, "io_weight", _size(value.split()[-1]))
        if match := HUGE.fullmatch(file):
            return _huge(draft, match[1], value)
    except ValueError:
        return left_out(f"{value!r} is no value of {file}")
    return _file(draft, entry, file)


def _huge(draft: Draft, size: str, value: str) -> Told:
    """Limit huge pages of one size."""
    if value in _NONE:
        return taken("no limit, as without it")
    draft.limits["hugepages"] = {**draft.limits.get("hugepages", {}), size: _size(value)}
    return translated(f"limits.hugepages: {size} = {format_bytes(_size(value))}")


def _file(draft: Draft, entry: Entry, file: str) -> Told:
    """Take a file as it is, where the policy lets it be written. Of another cgroup version LXC ignores it."""
    value, version = entry.value, 2 if entry.key.startswith("lxc.cgroup2.") else 1
    if draft.facts.cgroup_version not in (None, version):
        return left_out(f"a file of cgroup v{version}, which is not the version of this host")
    files: dict[str, str] = draft.values.get("limits", {}).get("cgroup", {})
    try:
        limits = Limits(cgroup={**files, file: value})
        limits.check_types()
        policy.check_cgroup(policy.Containers(cgroup_files=draft.facts.cgroup_files), limits)
    except (SpecError, PolicyDenied) as error:
        return left_out(error.message.rstrip("."))
    draft.limits["cgroup"] = {**files, file: value}
    return taken(f"written to {file} when it starts")


def _check(draft: Draft, values: dict[str, Any]) -> None:
    limits, facts = Limits(**values), draft.facts
    limits.check_types()
    limits.check(
        host_memory_bytes=facts.memory_bytes, host_cpus=facts.cpus, host_pids=facts.pids, host_online=facts.online
    )


def _limit(draft: Draft, name: str, value: float | str | None, *, where: str = "", beside: int | None = None) -> Told:
    """Set a limit where it is one that this host can hold. beside: the memory limit that one of swap needs."""
    if value is None:
        return taken("no limit, as without it")
    try:
        _check(draft, {name: value, **({"memory_bytes": beside} if beside else {})})
    except SpecError as error:
        return left_out(f"{error.message.rstrip('.')}; there is no such limit now")
    draft.limits[name] = value
    shown = value if isinstance(value, str) else format_bytes(value) if "bytes" in name else f"{value:g}"
    return translated(f"limits.{name} = {shown}" + (f", {where}" if where else ""))


def _size(text: str) -> int:
    """Return a number with K, M, G, T or P behind it; raises ValueError."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(text)
    return int(match[1]) << (10 * " KMGTP".index(match[2].upper() or " "))


def _cpus(draft: Draft, file: str, value: str) -> Told:
    """Set the CPUs from a quota and its period, which v1 has in two files."""
    if file == "cpu.max":
        found, period = [*value.split(), str(PERIOD_USEC)][:2]
    else:
        quota = draft.config.get("lxc.cgroup.cpu.cfs_quota_us") or draft.config.get("lxc.cgroup2.cpu.cfs_quota_us")
        period = draft.config.get("lxc.cgroup.cpu.cfs_period_us") or str(PERIOD_USEC)
        if quota is None:
            return taken("no limit, for there is no quota")
        found = quota
    if found in _NONE:
        return taken("no limit, as without it")
    if not _size(period):
        raise ValueError(value)
    return _limit(draft, "cpus", round(_size(found) / _size(period), 4))


def _swap(draft: Draft, file: str, value: str) -> Told:
    """Set swap, which is beside memory here, and is none where memory is limited and swap is not."""
    memory = None
    for entry in draft.config.entries:
        if entry.key.endswith((".memory.max", ".memory.limit_in_bytes")) and _SIZE.fullmatch(entry.value):
            try:
                _check(draft, {"memory_bytes": _size(entry.value)})
            except SpecError:
                continue
            memory = _size(entry.value)
    if memory is None:
        return left_out("swap is limited together with memory, which is not limited")
    if value in _NONE:
        return left_out("a container whose memory is limited has the swap that it is given here; give it some")
    size = _size(value) if file == "memory.swap.max" else max(0, _size(value) - memory)
    return _limit(draft, "swap_bytes", size, beside=memory)


def _io(draft: Draft, value: str) -> Told:
    """Set bytes and operations per second from a line of io.max."""
    words: list[str] = []
    rest: list[str] = []
    for part in value.split()[1:]:
        name, _equals, number = part.partition("=")
        if number == "max":
            continue
        told = _limit(draft, RATES[name], _size(number), where=_HERE) if name in RATES else left_out(name)
        (words if told.fate == "translated" else rest).append(told.words)
    without = f"without {', '.join(rest)}" if rest else ""
    if words:
        return translated("; ".join([*words, *filter(None, [without])]))
    return left_out(f"there is no limit like this here: {', '.join(rest)}") if rest else taken("no limit")


def _device(draft: Draft, file: str, value: str) -> Told:
    if file == "devices.deny":
        if value == "a":
            return taken("everything is denied here first, too")
        return left_out("which devices there are is Boxroom's own list, and no other")
    match = _DEVICE.fullmatch(value)
    if match is None:
        return left_out(f"{value!r} is no device")
    major, minor = (None if part == "*" else int(part) for part in match.group(2, 3))
    asked = DeviceRule(match[1], major, minor, match[4])  # type: ignore[arg-type]
    if any(_covers(rule, asked) for rule in DEFAULT_RULES):
        return taken("every container may use it here")
    if name := draft.facts.nodes.get(f"{match[1]} {match[2]}:{match[3]}"):
        return draft.give_device(name)
    return left_out("no device of the host's policy is this one; name it there, under [devices], to give it")


def _covers(rule: DeviceRule, asked: DeviceRule) -> bool:
    return (
        rule.type == asked.type
        and rule.major in (None, asked.major)
        and rule.minor in (None, asked.minor)
        and set(asked.access) <= set(rule.access)
    )
