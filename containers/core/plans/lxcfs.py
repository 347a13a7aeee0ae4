"""lxcfs: a file system of the host's that tells each container its own memory, CPUs and time since its start. Pure.

Source: lxcfs(1), and the files that it offers below its mount point.
"""

from __future__ import annotations

from typing import Final

DEFAULT_PLACE: Final = "/var/lib/lxcfs"
FILES: Final = ("cpuinfo", "diskstats", "loadavg", "meminfo", "slabinfo", "stat", "swaps", "uptime")
"""Of /proc; which of them there are depends on lxcfs's version and options."""
CPUS: Final = "sys/devices/system/cpu"


def targets() -> tuple[str, ...]:
    """Return what is put over in a container, relative to its root, and to lxcfs's mount point alike."""
    return (*(f"proc/{name}" for name in FILES), CPUS)
