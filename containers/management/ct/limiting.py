"""Files of cgroups as limits, for `ct cgroup NAME FILE VALUE`: by the names of either version, whichever the host has.

Source: kernel Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from django.conf import settings

from containers.core.cgroups import blockdev
from containers.core.model.limit_files import HUGE, IO_WEIGHTS, PERIOD_USEC, RATES, THROTTLES, weight_of

from .base import Failed

Known = Mapping[str, Any]
"""A container's limits as they are."""

_NONE: Final = ("max", "-1", "")


def limit_of(file: str, value: str, known: Known) -> dict[str, Any]:
    """Return the limit that a value in a cgroup file is; raises Failed where it is none."""
    value = value.strip()
    if found := _FILES.get(file):
        return found(value, known)
    if match := HUGE.fullmatch(file):
        sizes = {size: most for size, most in (known.get("hugepages") or {}).items() if size != match[1]}
        return {"hugepages": {**sizes, **({} if value in _NONE else {match[1]: _number(value)})} or None}
    if file in THROTTLES:
        device, _space, most = value.partition(" ")
        return _rates(device, {THROTTLES[file]: "max" if most == "0" else most})
    return {"cgroup": {**(known.get("cgroup") or {}), file: value}}


def _plain(name: str) -> Callable[[str, Known], dict[str, Any]]:
    return lambda value, _known: {name: None if value in _NONE else _number(value)}


def _cpuset(value: str, _known: Known) -> dict[str, Any]:
    return {"cpuset": None if value in _NONE else value}


def _quota(value: str, _known: Known) -> dict[str, Any]:
    """Return what a quota, with or without its period, comes to."""
    quota, _space, period = value.partition(" ")
    if quota in _NONE:
        return {"cpus": None}
    usec = _number(period or str(PERIOD_USEC))
    if not usec:
        raise Failed("A period of 0 is none.")
    return {"cpus": _number(quota) / usec}


def _shares(value: str, _known: Known) -> dict[str, Any]:
    return {"cpu_weight": weight_of(_number(value))}


def _swap(value: str, known: Known) -> dict[str, Any]:
    limited = known.get("memory_bytes")
    if value not in _NONE:
        return {"swap_bytes": _number(value)}
    if limited is not None:
        raise Failed("A container whose memory is limited has the swap that it is given, and no more: give a number.")
    return {"swap_bytes": None}


def _memory_and_swap(value: str, known: Known) -> dict[str, Any]:
    """Return what v1's sum of memory and swap says of swap."""
    limited = known.get("memory_bytes")
    if value in _NONE:
        return _swap(value, known)
    if limited is None:
        raise Failed("Swap is limited together with memory: limit memory first, by memory.limit_in_bytes.")
    if _number(value) < limited:
        raise Failed(f"Memory and swap together are not less than memory alone, which may be {limited} bytes.")
    return {"swap_bytes": _number(value) - limited}


def _share_of_disks(value: str, _known: Known) -> dict[str, Any]:
    weight = value.removeprefix("default ")
    return {"io_weight": None if weight in _NONE else _number(weight)}


def _io(value: str, _known: Known) -> dict[str, Any]:
    device, _space, rest = value.partition(" ")
    words = dict(word.partition("=")[::2] for word in rest.split())
    if not words or not words.keys() <= RATES.keys():
        raise Failed(f"{value!r} is no line of io.max: MAJOR:MINOR and {', '.join(f'{name}=…' for name in RATES)}.")
    return _rates(device, {RATES[word]: most for word, most in words.items()})


def _rates(device: str, limits: Mapping[str, str]) -> dict[str, Any]:
    ours = blockdev.disk_of(settings.STATE_DIR)
    if device != ours:
        raise Failed(f"Speeds are limited on {ours or 'no disk'}, where the state directory lies, not on {device!r}.")
    return {name: None if most in _NONE else _number(most) for name, most in limits.items()}


def _number(text: str) -> int:
    units = {"K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}
    unit = units.get(text[-1:].upper(), 1)
    digits = text[:-1] if unit > 1 else text
    if not digits.isascii() or not digits.isdigit():
        raise Failed(f"{text!r} is no number.")
    return int(digits) * unit


_FILES: Final[dict[str, Callable[[str, Known], dict[str, Any]]]] = {
    "memory.max": _plain("memory_bytes"),
    "memory.limit_in_bytes": _plain("memory_bytes"),
    "memory.swap.max": _swap,
    "memory.memsw.limit_in_bytes": _memory_and_swap,
    "cpu.weight": _plain("cpu_weight"),
    "cpu.shares": _shares,
    "cpu.max": _quota,
    "cpu.cfs_quota_us": _quota,
    "cpuset.cpus": _cpuset,
    "pids.max": _plain("pids"),
    "io.max": _io,
    **dict.fromkeys(IO_WEIGHTS, _share_of_disks),
}
FILES: Final = (*_FILES, "blkio.throttle.*_device", "hugetlb.SIZE.max")
"""Those that are limits of the panel's, in whichever unit."""
