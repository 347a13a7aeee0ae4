"""What the kernel, the disks and the installed programs can do: it changes seldom, and trying it takes a while."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ..cgroups import detect
from ..errors import CoreError
from ..sentences import say
from ..units import format_bytes
from . import features
from .check import Check, Level, number, works

KERNEL_MIN: Final = (5, 19)
"""Overlay over idmapped layers; cgroup.kill came with 5.14, userxattr with 5.11."""
SPACE_MIN_BYTES: Final = 2 * 1024**3
INODES_MIN: Final = 100_000
INOTIFY_INSTANCES_MIN: Final = 512
PROBE_SEC: Final = 120


_PROBES: Final[dict[str, tuple[Level, str, str, str]]] = {
    **{
        f"namespace-{kind}": (
            "required",
            f"{kind} namespaces",
            why,
            "Use a kernel with namespaces (CONFIG_NAMESPACES).",
        )
        for kind, why in {
            "cgroup": "A container sees only its own control groups.",
            "ipc": "Containers do not share memory segments and semaphores.",
            "mount": "A container has file systems of its own.",
            "network": "A container has network links and addresses of its own.",
            "pid": "A container sees only its own processes.",
            "uts": "A container has a hostname of its own.",
        }.items()
    },
    "namespace-user": (
        "required",
        "user namespaces",
        "Root inside a container is nobody outside.",
        "sysctl -w user.max_user_namespaces=15000",
    ),
    "id-map": (
        "required",
        "id maps of 65536 ids",
        "Each container has users of its own.",
        "sysctl -w user.max_user_namespaces=15000",
    ),
    "idmapped-mount": (
        "required",
        "idmapped mounts on the state directory's file system",
        "Images are shared between containers without copying.",
        "Put the state directory on ext4, xfs, btrfs or tmpfs (Linux 6.3).",
    ),
    "overlay": (
        "required",
        "overlay mounts over idmapped layers in a user namespace on the state directory's file system",
        "A container's own layer lies above its image.",
        "modprobe overlay; use Linux 5.19 or later; or put the state directory on ext4, xfs or btrfs (user xattrs).",
    ),
    "links": ("required", "veth pairs and bridges", "Containers are connected by them.", "modprobe veth bridge"),
    "nftables": (
        "required",
        "nftables with NAT and bridge rules",
        "No container's link comes up without its filter.",
        "apt install nftables; modprobe -a nf_tables nft_masq nft_fib_inet nf_conntrack_bridge",
    ),
    "seccomp": (
        "required",
        "seccomp filters",
        "Containers cannot use dangerous system calls.",
        "apt install libseccomp2",
    ),
    "pidfd": (
        "required",
        "pidfds",
        "A process is never confused with one that took its number.",
        "Use Linux 5.4 or later.",
    ),
}

_PROGRAMS: Final[tuple[tuple[str, str, Level, str, str], ...]] = (
    ("dnsmasq", "dnsmasq", "required", "Containers get addresses and names from it.", "apt install dnsmasq-base"),
    (
        "redis",
        "redis-server",
        "required",
        "Wakes the worker, tells open pages of changes.",
        "apt install redis-server",
    ),
    ("debootstrap", "debootstrap", "recommended", "Makes Debian images.", "apt install debootstrap"),
    ("xz", "xz", "recommended", "Unpacks images that are packed by xz.", "apt install xz-utils"),
    ("zstd", "zstd", "recommended", "Unpacks images that are packed by zstd.", "apt install zstd"),
    ("sqfs2tar", "sqfs2tar", "recommended", "Reads images that are squashfs.", "apt install squashfs-tools-ng"),
    ("gpgv", "gpgv", "recommended", "Checks the signatures of image servers' lists.", "apt install gpgv"),
)


def checks(place: Path) -> list[Check]:
    """Look at everything; place: a directory on the state directory's file system."""
    found = [_root(), _kernel(), *_probes(place), *features.seen(), *_cgroups()]
    found += [_program(*entry) for entry in _PROGRAMS]
    found += [_busybox(), *_space(place), *_limits(), _pressure(), _swap(), _btrfs()]
    return found


def _root() -> Check:
    return Check(
        id="root",
        ok=os.geteuid() == 0,
        level="required",
        what="Runs as root." if os.geteuid() == 0 else "Does not run as root.",
        why="Making namespaces, mounts and links needs it; the web process gives it up.",
        mend="sudo python3 manage.py …",
    )


def _kernel() -> Check:
    release = platform.release()
    numbers = release.partition("-")[0].split(".")
    version = tuple(int(number) for number in numbers[:2] if number.isdigit())
    return Check(
        id="kernel",
        ok=version >= KERNEL_MIN,
        level="recommended",  # what is required of it is tried below, whatever its number
        what=f"Linux {release}.",
        why="Image layers are shared between id ranges since Linux 5.19.",
        mend="Install a newer kernel (Debian 12 has 6.1).",
    )


def _probes(place: Path) -> Iterator[Check]:
    script = Path(__file__).parents[1] / "proc/probe.py"
    command = [os.path.realpath(sys.executable), "-I", "-S", str(script), str(place)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_SEC, check=False)
        results: dict[str, str | None] = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        yield untried(say("it was not done after %(seconds)s s", seconds=PROBE_SEC))
    except OSError as error:
        yield untried(error.strerror or str(error))
    except ValueError:
        last = done.stderr.strip().rpartition("\n")[2]
        yield untried(last or say("the probe ended with status %(status)s", status=done.returncode))
    else:
        for name, (level, subject, why, mend) in {**_PROBES, **features.PROBES}.items():
            problem = results.get(name, "was not tried")
            yield Check(id=name, ok=problem is None, level=level, what=works(subject, problem), why=why, mend=mend)


def untried(words: str) -> Check:
    """Return the one check that stands for all of them: none is known to fail, and no mend of theirs would help."""
    return Check(
        id="probe",
        ok=False,
        level="required",
        what=say("What this kernel can do could not be tried: %(words)s.", words=words),
        why="It is tried, not looked up, before containers are started.",
        mend="Try it again when less runs beside it: sudo python3 manage.py doctor",
    )


def _cgroups() -> Iterator[Check]:
    why = "Limits and accounts of memory, CPU and processes."
    try:
        version = detect.open_named("boxroom-probe", Path("/")).version
    except CoreError as error:
        mend = "mount -t cgroup2 none /sys/fs/cgroup"
        yield Check(id="cgroups", ok=False, level="required", what=error.message, why=why, mend=mend)
        return
    words = "cgroup version 2" if version == 2 else "cgroup version 1, with a cgroup2 tree beside it (hybrid)"
    yield Check(id="cgroups", ok=True, level="required", what=f"This host has {words}.", why=why)
    present = _controllers(version)
    for name, level, purpose in (
        ("memory", "required", "memory limits and graphs"),
        ("pids", "required", "limits of processes"),
        ("cpu", "required", "CPU limits"),
        ("io" if version == 2 else "blkio", "recommended", "disk graphs and limits"),
        ("cpuset", "info", "pinning to CPUs"),
        ("hugetlb", "info", "limits of huge pages"),
        # v2 has neither: programs rule over devices, and freezing is every group's own
        *((("devices", "recommended", "device rules"), ("freezer", "info", "freezing inside")) if version == 1 else ()),
    ):
        ok = name in present
        yield Check(
            id=f"controller-{name}",
            ok=ok,
            level=level,
            what=f"The {name} controller is {'there' if ok else 'missing'}.",
            why=f"For {purpose}.",
            mend="" if ok else f"Boot with cgroup_enable={name}, and without cgroup_disable={name}.",
        )


def _controllers(version: int) -> set[str]:
    mounts = detect.parse_mounts(Path("/proc/self/mountinfo").read_text(errors="surrogateescape"))
    if version == 2 and mounts.v2 is not None:
        return set((mounts.v2 / "cgroup.controllers").read_text().split())
    return {name for names in mounts.v1.values() for name in names}


def _program(name: str, program: str, level: Level, why: str, mend: str) -> Check:
    found = shutil.which(program, path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    what = f"{program} is {'installed' if found else 'not installed'}."
    return Check(id=name, ok=bool(found), level=level, what=what, why=why, mend=mend)


def _busybox() -> Check:
    found = shutil.which("busybox", path="/usr/sbin:/usr/bin:/sbin:/bin")
    ok = bool(found) and not _needs_interpreter(Path(found or ""))
    state = "a static busybox is installed" if ok else "busybox needs shared libraries" if found else "no busybox"
    return Check(
        id="busybox",
        ok=ok,
        level="required",
        what=f"{state[0].upper()}{state[1:]}.",
        why="The image busybox is made of it, without any network.",
        mend="apt install busybox-static",
    )


def _needs_interpreter(path: Path) -> bool:
    """Whether a 64-bit ELF file names a dynamic loader (a program header of type PT_INTERP). Source: elf(5)."""
    with path.open("rb") as file:
        header = file.read(64)
        if header[:5] != b"\x7fELF\x02":
            return False
        start, size, count = (
            int.from_bytes(header[at : at + width], "little") for at, width in ((32, 8), (54, 2), (56, 2))
        )
        file.seek(start)
        table = file.read(size * count)
    return any(int.from_bytes(table[at : at + 4], "little") == 3 for at in range(0, len(table), size))


def _space(place: Path) -> Iterator[Check]:
    state = os.statvfs(place)
    free = state.f_bavail * state.f_frsize
    yield Check(
        id="disk-space",
        ok=free >= SPACE_MIN_BYTES,
        level="recommended",
        what=say("%(size)s are free for the state directory.", size=format_bytes(free)),
        why="A Debian image takes about 400 MiB, each container what it changes.",
        mend="Free some, or choose another place with --state-dir.",
    )
    # f_files is 0 where the file system makes inodes as it needs them (btrfs)
    ok = not state.f_files or state.f_favail >= INODES_MIN
    yield Check(
        id="disk-inodes",
        ok=ok,
        level="recommended",
        what=say("%(n)s inodes are free.", n=state.f_favail)
        if state.f_files
        else "The file system makes inodes as needed.",
        why="Every file of every image takes one.",
        mend="Choose a file system with more inodes.",
    )


def _btrfs() -> Check:
    release = platform.release()
    there = "\tbtrfs\n" in Path("/proc/filesystems").read_text() or any(
        Path(f"/lib/modules/{release}/kernel/fs/btrfs").glob("btrfs.ko*")
    )
    return Check(
        id="btrfs",
        ok=there,
        level="info",
        what="The kernel has btrfs." if there else "No btrfs: the kernel has not got it.",
        why="Storage pools on it copy what a running container wrote at once, however much it is.",
        mend="" if there else "Use a kernel with btrfs, or pools with the driver overlay.",
    )


def _limits() -> Iterator[Check]:
    for name, least, why in (
        ("fs/inotify/max_user_instances", INOTIFY_INSTANCES_MIN, "systemd and its services in containers watch files."),
        ("fs/inotify/max_user_watches", 65536, "Services in containers watch files."),
        ("kernel/keys/maxkeys", 2000, "systemd makes a session keyring for each service."),
        ("user/max_user_namespaces", 2000, "Every container has a user namespace."),
    ):
        value = number(Path("/proc/sys") / name)
        dotted = name.replace("/", ".")
        yield Check(
            id=name.rpartition("/")[2].replace("_", "-"),
            ok=value is not None and value >= least,
            level="recommended",
            what=say("%(name)s is %(value)s.", name=dotted, value=value)
            if value is not None
            else say("There is no %(name)s.", name=dotted),
            why=say("%(why)s At least %(least)s lets many containers run.", why=why, least=least),
            mend=f"sysctl -w {dotted}={least * 4}",
        )


def _pressure() -> Check:
    try:
        ok = bool(Path("/proc/pressure/cpu").read_text())
    except OSError:
        ok = False
    return Check(
        id="psi",
        ok=ok,
        level="info",
        what=f"Pressure stall information is {'there' if ok else 'missing'}.",
        why="Shows what a slow container waits for.",
        mend="Boot with psi=1.",
    )


def _swap() -> Check:
    mounts = detect.parse_mounts(Path("/proc/self/mountinfo").read_text(errors="surrogateescape"))
    on_v1 = [point for point, names in mounts.v1.items() if "memory" in names]
    if on_v1:
        ok = (on_v1[0] / "memory.memsw.usage_in_bytes").exists()
    else:
        # the file is in every group but the root one
        groups = mounts.v2.iterdir() if mounts.v2 else iter(())
        ok = any((group / "memory.swap.max").exists() for group in groups)
    return Check(
        id="swap-accounting",
        ok=ok,
        level="info",
        what=f"Swap is {'' if ok else 'not '}counted for each container.",
        why="Without it a memory limit does not hold back swap.",
        mend="Boot with swapaccount=1.",
    )
