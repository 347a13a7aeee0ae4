"""How much of the host a container may use, and the checks of it. Pure."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Any, Final

from ..errors import SpecError
from ..sentences import say
from ..units import format_bytes
from . import cpulist

MEMORY_MIN_BYTES: Final = 4 * 1024**2
CPUS_MIN: Final = 0.01
PIDS_MIN: Final = 8
DISK_MIN_BYTES: Final = 16 * 1024**2
"""Less has no room for a file system's journal."""
DISK_MAX_BYTES: Final = 2**44
"""What ext4 holds with blocks of 4 KiB, whatever its features."""
DISK_INODES_MIN: Final = 64
DISK_INODE_BYTES: Final = 4096
"""Of a disk, for each of its inodes at least: they take room themselves."""
IO_MIN_BYTES_PER_SEC: Final = 64 * 1024
CPU_WEIGHT_MAX: Final = 10_000
IO_MIN_OPS_PER_SEC: Final = 10
IO_WEIGHT_MAX: Final = 1000
"""As BFQ has it; io.cost knows more."""
_ENTRIES_MAX: Final = 64
_VALUE_MAX: Final = 1024
_PAGE_SIZE: Final = re.compile(r"[1-9][0-9]{0,3}[KMG]B", re.ASCII)
_FILE: Final = re.compile(r"[a-z][a-z0-9_]{1,30}(?:\.[A-Za-z0-9_]{1,62}){1,4}", re.ASCII)
_OURS: Final = {
    "memory.max": "memory_bytes",
    "memory.limit_in_bytes": "memory_bytes",
    "memory.swap.max": "swap_bytes",
    "memory.memsw.limit_in_bytes": "swap_bytes",
    "cpu.max": "cpus",
    "cpu.cfs_quota_us": "cpus",
    "cpu.cfs_period_us": "cpus",
    "cpu.weight": "cpu_weight",
    "cpu.weight.nice": "cpu_weight",
    "cpu.shares": "cpu_weight",
    "cpuset.cpus": "cpuset",
    "pids.max": "pids",
    "io.weight": "io_weight",
    "io.bfq.weight": "io_weight",
    "blkio.weight": "io_weight",
    "blkio.bfq.weight": "io_weight",
}
"""What is written here for a limit, and would undo it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Ceilings of one container; None means none.

    memory_bytes: memory without swap. cpus: cores as a decimal (0.5 = half a core). pids: processes and threads.
    disk_bytes: what it writes, with what the file system needs for it; disk_inodes: how many files and directories of
    its own, beside disk_bytes, which it needs; None: one for 16 KiB. io_*: per second, on the device that holds the
    state directory; io_weight: 1..1000, the share of a disk that is busy, 100 without one.
    swap_bytes: beside memory_bytes, which it needs; None with a memory limit is no swap. cpu_weight: 1..10000, the
    share of CPUs that are short; every container has 100. cpuset: the CPUs to run on, as core.model.cpulist reads them.
    hugepages: bytes by a page's size, as the kernel writes it ("2MB"). cgroup: files of the container's own cgroup, by
    their names on this host, and what is written to them.
    """

    memory_bytes: int | None = None
    cpus: float | None = None
    pids: int | None = None
    disk_bytes: int | None = None
    disk_inodes: int | None = None
    io_read_bytes_per_sec: int | None = None
    io_write_bytes_per_sec: int | None = None
    swap_bytes: int | None = None
    cpu_weight: int | None = None
    cpuset: str | None = None
    io_read_ops_per_sec: int | None = None
    io_write_ops_per_sec: int | None = None
    io_weight: int | None = None
    hugepages: dict[str, int] | None = None
    cgroup: dict[str, str] | None = None

    def check(self, *, host_memory_bytes: int, host_cpus: int, host_pids: int, host_online: str | None = None) -> None:
        """Raise SpecError (field ``limits.NAME``) where a value is outside what is sensible or what the host has.

        host_online: the list of the host's CPUs that are online; None where it is not known.
        """
        ranges: tuple[tuple[str, float | None, float, float], ...] = (
            ("memory_bytes", self.memory_bytes, MEMORY_MIN_BYTES, host_memory_bytes),
            ("cpus", self.cpus, CPUS_MIN, host_cpus),
            ("pids", self.pids, PIDS_MIN, host_pids),
            ("disk_bytes", self.disk_bytes, DISK_MIN_BYTES, DISK_MAX_BYTES),
            ("disk_inodes", self.disk_inodes, DISK_INODES_MIN, (self.disk_bytes or 0) // DISK_INODE_BYTES or 2**32),
            ("io_read_bytes_per_sec", self.io_read_bytes_per_sec, IO_MIN_BYTES_PER_SEC, 2**50),
            ("io_write_bytes_per_sec", self.io_write_bytes_per_sec, IO_MIN_BYTES_PER_SEC, 2**50),
            ("swap_bytes", self.swap_bytes, 0, 2**50),
            ("cpu_weight", self.cpu_weight, 1, CPU_WEIGHT_MAX),
            ("io_read_ops_per_sec", self.io_read_ops_per_sec, IO_MIN_OPS_PER_SEC, 2**40),
            ("io_write_ops_per_sec", self.io_write_ops_per_sec, IO_MIN_OPS_PER_SEC, 2**40),
            ("io_weight", self.io_weight, 1, IO_WEIGHT_MAX),
        )
        for name, value, least, most in ranges:
            # written so that NaN, which compares false with everything, is refused too
            if value is not None and not least <= value <= most:
                shown = format_bytes if "bytes" in name else str
                raise SpecError(
                    say(
                        "%(name)s must be between %(least)s and %(most)s.",
                        name=name,
                        least=shown(least),
                        most=shown(most),
                    ),
                    field=f"limits.{name}",
                )
        if self.disk_inodes is not None and self.disk_bytes is None:
            raise SpecError(
                "Files are limited together with the disk: give a disk limit too.", field="limits.disk_inodes"
            )
        if self.swap_bytes is not None and self.memory_bytes is None:
            raise SpecError("Swap is limited together with memory: give a memory limit too.", field="limits.swap_bytes")
        if missing := self._cpus() - (self._cpus() if host_online is None else cpulist.parse(host_online)):
            names = cpulist.write(missing)
            raise SpecError(
                say("This host has no CPU %(names)s online; it has %(online)s.", names=names, online=host_online),
                field="limits.cpuset",
            )

    def _cpus(self) -> frozenset[int]:
        """Return the CPUs of cpuset; raises SpecError for what is no list, or an empty one."""
        try:
            cpus = frozenset() if self.cpuset is None else cpulist.parse(self.cpuset)
        except (ValueError, AttributeError):
            raise SpecError("Give CPUs as in 0-3,8.", field="limits.cpuset") from None
        if self.cpuset is not None and not cpus:
            raise SpecError("Name a CPU at least.", field="limits.cpuset")
        return cpus

    def check_types(self) -> None:
        """Raise SpecError (field ``limits.NAME``) for what no cgroup file takes: no number, none above 0, no CPUs."""
        for entry in dataclasses.fields(self):
            value = getattr(self, entry.name)
            if value is None or entry.name in ("cpuset", "hugepages", "cgroup"):
                continue
            kinds = (int, float) if entry.name == "cpus" else (int,)
            least = 0 if entry.name == "swap_bytes" else 1e-9
            if not isinstance(value, kinds) or isinstance(value, bool) or not value >= least:
                raise SpecError(
                    say("%(name)s must be a number above 0.", name=entry.name), field=f"limits.{entry.name}"
                )
        self._cpus()
        for size, value in _entries(self.hugepages, "hugepages"):
            number = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 2**50
            if not _PAGE_SIZE.fullmatch(size) or not number:
                raise SpecError("Give bytes for a size of pages, such as 2MB or 1GB.", field="limits.hugepages")
        for file, text in _entries(self.cgroup, "cgroup"):
            check_raw(file, text)

    @property
    def throttled(self) -> str | None:
        """The field of the first limit that a disk is held to, None without one."""
        for name in ("read_bytes", "write_bytes", "read_ops", "write_ops"):
            if getattr(self, f"io_{name}_per_sec"):
                return f"limits.io_{name}_per_sec"
        return None


def _entries(values: Any, name: str) -> list[tuple[str, Any]]:
    if values is None:
        return []
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values) or len(values) > _ENTRIES_MAX:
        raise SpecError(
            say("Give names with their values, at most %(most)s.", most=_ENTRIES_MAX), field=f"limits.{name}"
        )
    return list(values.items())


def check_file(name: str, *, field: str = "file") -> str:
    """Return name if it is one of a controller's files, such as memory.max; raises SpecError.

    What it lets through is no path, and begins with the name of a controller or with ``cgroup``.
    """
    if not _FILE.fullmatch(name):
        raise SpecError("Name a cgroup file, such as memory.max.", field=field)
    return name


def check_raw(file: str, value: Any) -> None:
    """Raise SpecError (field ``limits.cgroup.FILE``) for a file that is not anybody's to write, and for no text."""
    field = f"limits.cgroup.{file}"
    check_file(file, field=field)
    if file in _OURS:
        raise SpecError(
            say("There is a setting of its own for %(file)s: use limits.%(what)s.", file=file, what=_OURS[file]),
            field=field,
        )
    if file.startswith(("cgroup.", "devices.")) or file.endswith(".force_empty") or file == "freezer.state":
        raise SpecError(say("%(file)s is Boxroom's own to write.", file=file), field=field)
    if not isinstance(value, str) or not 0 < len(value) <= _VALUE_MAX or not value.isascii() or not value.isprintable():
        raise SpecError(say("%(file)s needs a value, on one line.", file=file), field=field)
