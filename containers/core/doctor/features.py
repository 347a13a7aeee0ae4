"""What lxc-checkconfig asks the kernel's configuration for, and what else containers may use: tried, not looked up."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from ..lifecycle import labels
from ..lifecycle.granting import found_lxcfs
from ..plans import lxcfs
from .check import Check, Level

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_KERNEL: Final = "Use a distribution's kernel."
_DIAGNOSIS: Final = "ss and the like show sockets by it, inside too."

PROBES: Final[dict[str, tuple[Level, str, str, str]]] = {
    "namespace-time": (
        "info",
        "time namespaces",
        "Containers can have clocks of their own.",
        "Use Linux 5.6 or later.",
    ),
    "link-macvlan": (
        "info",
        "macvlan links",
        "Containers can sit on a network card of the host's.",
        "modprobe macvlan",
    ),
    "link-ipvlan": ("info", "ipvlan links", "Containers can share a card and its MAC.", "modprobe ipvlan"),
    "link-vlan": ("info", "VLAN links", "Containers can be in a VLAN.", "modprobe 8021q"),
    "devpts": ("required", "terminals of a container's own", "A container's terminals are not the host's.", _KERNEL),
    "mqueue": ("required", "message queues of a container's own", "Systems mount /dev/mqueue.", _KERNEL),
    "fuse": (
        "info",
        "file systems in user space",
        "The device fuse is given to containers on request.",
        "modprobe fuse",
    ),
    "keyrings": ("recommended", "session keyrings", "No container finds keys of the host's.", _KERNEL),
    "inet-diag": ("info", "lists of TCP sockets", _DIAGNOSIS, "modprobe tcp_diag"),
    "unix-diag": ("info", "lists of Unix sockets", _DIAGNOSIS, "modprobe unix_diag"),
    "packet-diag": ("info", "lists of packet sockets", _DIAGNOSIS, "modprobe af_packet_diag"),
    "netlink-diag": ("info", "lists of netlink sockets", _DIAGNOSIS, "modprobe netlink_diag"),
    "file-handles": ("info", "file handles", "systemd and NFS servers use them.", _KERNEL),
    "file-capabilities": (
        "recommended",
        "file capabilities on the state directory's file system",
        "ping and the like have rights by them.",
        "Put the state directory on ext4, xfs or btrfs.",
    ),
    "event-files": ("required", "event, signal and inotify descriptors", "Every init waits by them.", _KERNEL),
    "device-programs": (
        "info",
        "BPF programs that rule over devices",
        "On cgroup v2 containers are kept from devices by them; v1 has files for it.",
        "Use a kernel with CONFIG_CGROUP_BPF.",
    ),
    "openat2": (
        "required",
        "paths that cannot lead out",
        "No link in a container leads the host astray.",
        "Use Linux 5.6.",
    ),
    "disk-limits": (
        "recommended",
        "files with file systems of their own",
        "A container is held to a size, whatever it writes.",
        "apt install e2fsprogs; modprobe -a loop ext4",
    ),
    "disk-growth": (
        "info",
        "growing of such a file that is in use",
        "A disk limit is raised without stopping the container.",
        "Give Boxroom's root CAP_SYS_RESOURCE.",
    ),
    "ia32": ("info", "programs of 32 bits", "Containers of 32 bits run.", "Boot with ia32_emulation=1."),
}


def seen() -> tuple[Check, ...]:
    """Return what can only be seen, and not tried."""
    return _apparmor(), _selinux(), _lxcfs(), _scheduler()


def _apparmor() -> Check:
    there = labels.present()
    parser = shutil.which("apparmor_parser", path=_PATH)
    what = "AppArmor is on." if there else "This kernel has no AppArmor, or it is off."
    if there and parser is None:
        what = "AppArmor is on, and apparmor_parser is not installed."
    return Check(
        id="apparmor",
        ok=there and parser is not None,
        level="info",
        what=what,
        why="A second wall around containers that ask for it.",
        mend="apt install apparmor; boot with lsm=…,apparmor",
    )


def _selinux() -> Check:
    there = os.path.exists("/sys/fs/selinux/enforce")
    return Check(
        id="selinux",
        ok=not there,
        level="info",
        what="SELinux is on: containers run in the panel's own label." if there else "SELinux is off.",
        why="Boxroom sets no labels.",
        mend="Keep the panel in a domain that may run containers.",
    )


def _lxcfs() -> Check:
    mounted = found_lxcfs(lxcfs.DEFAULT_PLACE)
    installed = shutil.which("lxcfs", path=_PATH)
    what = "lxcfs is mounted." if mounted else "lxcfs is not mounted." if installed else "lxcfs is not installed."
    return Check(
        id="lxcfs",
        ok=bool(mounted),
        level="info",
        what=what,
        why="With it free, uptime and nproc inside tell of the container, not of the host.",
        mend="systemctl start lxcfs" if installed else "apt install lxcfs",
    )


def _scheduler() -> Check:
    names = []
    for path in sorted(Path("/sys/block").glob("*/queue/scheduler")):
        try:
            names.append(path.read_text())
        except OSError:
            continue
    weighted = any("[bfq]" in text for text in names)
    return Check(
        id="io-weight",
        ok=weighted,
        level="info",
        what="A disk of this host's shares itself out by weight."
        if weighted
        else "No disk shares itself out by weight.",
        why="Disk weights of containers have an effect only then.",
        mend="echo bfq >/sys/block/DISK/queue/scheduler",
    )
