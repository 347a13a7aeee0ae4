"""The keys of LXC's configuration: today's names for those before LXC 2.1, and which of them are lists. Pure.

Source: lxc.container.conf(5).
"""

from __future__ import annotations

from typing import Final

RENAMED: Final = {
    "lxc.aa_allow_incomplete": "lxc.apparmor.allow_incomplete",
    "lxc.aa_profile": "lxc.apparmor.profile",
    "lxc.console": "lxc.console.path",
    "lxc.devttydir": "lxc.tty.dir",
    "lxc.haltsignal": "lxc.signal.halt",
    "lxc.id_map": "lxc.idmap",
    "lxc.init_cmd": "lxc.init.cmd",
    "lxc.init_gid": "lxc.init.gid",
    "lxc.init_uid": "lxc.init.uid",
    "lxc.logfile": "lxc.log.file",
    "lxc.loglevel": "lxc.log.level",
    "lxc.mount": "lxc.mount.fstab",
    "lxc.pts": "lxc.pty.max",
    "lxc.rebootsignal": "lxc.signal.reboot",
    "lxc.rootfs": "lxc.rootfs.path",
    "lxc.se_context": "lxc.selinux.context",
    "lxc.seccomp": "lxc.seccomp.profile",
    "lxc.stopsignal": "lxc.signal.stop",
    "lxc.syslog": "lxc.log.syslog",
    "lxc.tty": "lxc.tty.max",
    "lxc.utsname": "lxc.uts.name",
}
_RENAMED_NETWORK: Final = {"ipv4": "ipv4.address", "ipv6": "ipv6.address"}

_LISTS: Final = frozenset(
    {
        "lxc.apparmor.raw",
        "lxc.cap.drop",
        "lxc.cap.keep",
        "lxc.cgroup.devices.allow",
        "lxc.cgroup.devices.deny",
        "lxc.cgroup2.devices.allow",
        "lxc.cgroup2.devices.deny",
        "lxc.cgroup2.io.max",
        "lxc.environment",
        "lxc.environment.hooks",
        "lxc.environment.runtime",
        "lxc.group",
        "lxc.idmap",
        "lxc.mount.auto",
        "lxc.mount.entry",
    }
)
_LIST_PREFIXES: Final = ("lxc.hook.", "lxc.cgroup.blkio.throttle.")
_LISTS_OF_NETWORK: Final = frozenset(
    {"ipv4.address", "ipv6.address", "veth.ipv4.route", "veth.ipv6.route", "veth.vlan.tagged.id"}
)
_SCALAR_HOOKS: Final = frozenset({"lxc.hook.version"})


def modern(key: str) -> str:
    """Return today's name of a key; lxc.network is left to the reader, which counts its interfaces."""
    if key.startswith("lxc.limit."):
        return f"lxc.prlimit.{key.removeprefix('lxc.limit.')}"
    return RENAMED.get(key, key)


def modern_network(rest: str) -> str:
    """Return today's name of what follows ``lxc.network.`` (and its index)."""
    return _RENAMED_NETWORK.get(rest, rest)


def is_list(key: str) -> bool:
    """Tell whether a repeated key adds to what was said before, rather than replacing it. key: today's name."""
    if key.startswith("lxc.net."):
        return key.split(".", 3)[-1] in _LISTS_OF_NETWORK
    return key in _LISTS or (key.startswith(_LIST_PREFIXES) and key not in _SCALAR_HOOKS)
