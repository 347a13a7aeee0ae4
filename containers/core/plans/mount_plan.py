"""Every mount of a container, as data. Pure: nothing here touches the kernel; core.kernel.mounts executes it.

The child runs the first list in its own user and mount namespaces, with the working directory in an empty scratch
tmpfs, and the second after it has joined its cgroups::

    scratch/                tmpfs, over the instance's run directory in the child's mount namespace only
        l0 .. lN            the read-only layers: detached, idmapped mounts that the supervisor handed over
        own                 the container's own directory: upper/ and work/
        empty               an empty read-only tmpfs, which masks directories
        net                 /proc/sys/net, kept aside while /proc/sys becomes read-only
        root                the overlay; from "enter root" on, targets are relative to it

Targets are relative and at most the first component comes from the image; that one must be a real directory
(CVE-2019-19921, CVE-2026-41579: an image may hold /proc or /dev as a link). Below /dev, /proc and /sys everything is
ours. Nobody runs inside yet, so there is no race with a hostile process.

The masks keep programs from what is none of their business. Root inside may unmount them; in an unprivileged container
the kernel guards what lies beneath by itself.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Final

from .lxcfs import targets as lxcfs_targets
from .mount_flags import MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY, MS_RELATIME

DEVICES: Final = (
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
)
"""Device nodes of every container: name, major, minor. Bound from the host's /dev after a check of the numbers."""

DEVICE_LINKS: Final = (
    ("fd", "/proc/self/fd"),
    ("ptmx", "pts/ptmx"),
    ("stderr", "/proc/self/fd/2"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
)

MASKED_FILES: Final = (
    "proc/kcore",
    "proc/keys",
    "proc/key-users",
    "proc/latency_stats",
    "proc/sched_debug",
    "proc/timer_list",
    "proc/timer_stats",
    "proc/interrupts",
)
MASKED_DIRECTORIES: Final = (
    "proc/acpi",
    "proc/asound",
    "proc/scsi",
    "sys/devices/virtual/powercap",
    "sys/firmware",
    # systemd would try to mount these and fail: debugfs, tracefs, configfs, fusectl and securityfs refuse user
    # namespaces. What is mounted already is left alone, so that the system comes up as "running".
    "sys/fs/fuse/connections",
    "sys/kernel/config",
    "sys/kernel/debug",
    "sys/kernel/security",
    "sys/kernel/tracing",
)
READ_ONLY: Final = ("proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger")
PTYS_MAX: Final = 256

_API: Final = MS_NOSUID | MS_NODEV | MS_NOEXEC


@dataclass(frozen=True, slots=True)
class Attach:
    """Attach the detached mount that was handed over at this place."""

    index: int
    target: str

    def describe(self) -> str:
        """Return one line for people."""
        return f"attach layer mount {self.index} at {self.target}"


@dataclass(frozen=True, slots=True)
class Bind:
    """Bind one path over another, both relative. optional: skip it where either is absent."""

    source: str
    target: str
    read_only: bool = False
    optional: bool = False

    def describe(self) -> str:
        """Return one line for people."""
        return f"bind {self.source} to {self.target}{' read-only' if self.read_only else ''}"


@dataclass(frozen=True, slots=True)
class BindDevice:
    """Bind a device node of the host, after checking that it is the character device expected."""

    source: str
    target: str
    major: int
    minor: int

    def describe(self) -> str:
        """Return one line for people."""
        return f"bind device {self.source} ({self.major}:{self.minor}) to {self.target}"


@dataclass(frozen=True, slots=True)
class Directory:
    """Make a directory, or accept the one that is there; a link or a file there is an error."""

    target: str
    mode: int = 0o755

    def describe(self) -> str:
        """Return one line for people."""
        return f"make directory {self.target}"


@dataclass(frozen=True, slots=True)
class EmptyFile:
    """Make an empty file as a mount point."""

    target: str

    def describe(self) -> str:
        """Return one line for people."""
        return f"make mount point {self.target}"


@dataclass(frozen=True, slots=True)
class Link:
    """Make a symbolic link."""

    target: str
    to: str

    def describe(self) -> str:
        """Return one line for people."""
        return f"link {self.target} to {self.to}"


@dataclass(frozen=True, slots=True)
class Mount:
    """Mount a new file system."""

    fstype: str
    target: str
    flags: int = 0
    data: str | None = None

    def describe(self) -> str:
        """Return one line for people."""
        return f"mount {self.fstype} on {self.target}{f' ({self.data})' if self.data else ''}"


@dataclass(frozen=True, slots=True)
class Enter:
    """Make a directory the working directory, to which the following targets are relative."""

    target: str

    def describe(self) -> str:
        """Return one line for people."""
        return f"enter {self.target}"


Operation = Attach | Bind | BindDevice | Directory | EmptyFile | Enter | Link | Mount


@functools.lru_cache(maxsize=64)
def before_network(
    *, layers: int, upper: str, work: str, nesting: bool = False, own_network: bool = True, lxcfs: str = ""
) -> tuple[Operation, ...]:
    """Return what is mounted while the cgroups and the network are still being made.

    layers: how many detached mounts stand at indices 0.. (top first); the container's own directory follows them.
    upper, work: relative to that directory. own_network: whether the user namespace owns the network namespace, without
    which the kernel lets it mount no sysfs of its own (lxc#2463). lxcfs: where it is mounted on the host, if it is.
    """
    return (
        *_root(layers, upper, work),
        Enter("root"),
        *_dev(),
        *_proc(nesting=nesting),
        Directory("sys"),
        *((Mount("sysfs", "sys", _API | MS_RDONLY),) if own_network else _bare_sys()),
        *_masks(),
        *(Bind(f"{lxcfs}/{path}", path, optional=True) for path in (lxcfs_targets() if lxcfs else ())),
    )


def _bare_sys() -> tuple[Operation, ...]:
    """Return a /sys with nothing of the host's in it but the place for the cgroups."""
    return (
        Mount("tmpfs", "sys", _API, "size=64k,nr_inodes=16,mode=555"),
        Directory("sys/fs"),
        Directory("sys/fs/cgroup"),
        Directory("sys/kernel"),
    )


@functools.cache
def after_cgroups() -> tuple[Operation, ...]:
    """Return what needs the cgroup namespace."""
    return (Mount("cgroup2", "sys/fs/cgroup", _API | MS_RELATIME),)


def _root(layers: int, upper: str, work: str) -> tuple[Operation, ...]:
    lower = ":".join(f"l{index}" for index in range(layers))
    names = [*(f"l{index}" for index in range(layers)), "own"]
    return (
        *(step for index, name in enumerate(names) for step in (Directory(name), Attach(index, name))),
        Directory("empty"),
        Mount("tmpfs", "empty", _API | MS_RDONLY, "size=4k,nr_inodes=2,mode=555"),
        Directory("root"),
        Mount(
            "overlay",
            "root",
            MS_RELATIME,
            f"lowerdir={lower},upperdir=own/{upper},workdir=own/{work},userxattr",
        ),
    )


def _dev() -> tuple[Operation, ...]:
    return (
        Directory("dev"),
        Mount("tmpfs", "dev", MS_NOSUID, "mode=755,size=1m,nr_inodes=4096"),
        *(
            step
            for name, major, minor in DEVICES
            for step in (EmptyFile(f"dev/{name}"), BindDevice(f"/dev/{name}", f"dev/{name}", major, minor))
        ),
        Directory("dev/pts"),
        Mount("devpts", "dev/pts", MS_NOSUID | MS_NOEXEC, f"newinstance,ptmxmode=0666,mode=0620,gid=5,max={PTYS_MAX}"),
        Directory("dev/shm", 0o1777),
        Mount("tmpfs", "dev/shm", MS_NOSUID | MS_NODEV, "mode=1777"),
        Directory("dev/mqueue"),
        Mount("mqueue", "dev/mqueue", _API),
        Directory("dev/hugepages"),
        # like the masks of /sys: hugetlbfs refuses user namespaces, and systemd would report a failed unit
        Bind("../empty", "dev/hugepages"),
        EmptyFile("dev/console"),
        *(Link(f"dev/{name}", to) for name, to in DEVICE_LINKS),
    )


def _proc(*, nesting: bool) -> tuple[Operation, ...]:
    full: tuple[Operation, ...] = ()
    if nesting:
        # the kernel lets an inner user namespace mount proc and sysfs only where an unmasked one is in sight
        full = (
            Directory("dev/.lxc", 0o700),
            Directory("dev/.lxc/proc"),
            Mount("proc", "dev/.lxc/proc", _API),
            Directory("dev/.lxc/sys"),
            Mount("sysfs", "dev/.lxc/sys", _API),
        )
    return (
        Directory("proc"),
        Mount("proc", "proc", _API),
        Directory("../net"),
        Bind("proc/sys/net", "../net"),
        *full,
    )


def _masks() -> tuple[Operation, ...]:
    return (
        *(Bind(path, path, read_only=True, optional=True) for path in READ_ONLY),
        # a copy from before: /proc/sys/net belongs to the container's own network namespace and stays writable
        Bind("../net", "proc/sys/net"),
        *(Bind("dev/null", path, optional=True) for path in MASKED_FILES),
        *(Bind("../empty", path, optional=True) for path in MASKED_DIRECTORIES),
    )
