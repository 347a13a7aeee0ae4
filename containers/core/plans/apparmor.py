"""The AppArmor profiles that Boxroom makes for containers on hosts that have AppArmor: one per kind of container. Pure.

A second wall behind the user namespace and the system call filter: what belongs to the host's kernel alone is refused
whoever asks, and no process outside can be signalled or traced. Source: apparmor.d(5), AppArmor 3.
"""

from __future__ import annotations

from typing import Final

_REFUSED: Final = (
    "/proc/sysrq-trigger rwklx",
    "/proc/kcore rwklx",
    "/proc/kmem rwklx",
    "/proc/mem rwklx",
    "/proc/acpi/** rwklx",
    "/proc/sys/kernel/{core_pattern,modprobe,hotplug,poweroff_cmd,usermodehelper/**} wklx",
    "/proc/sys/{fs/binfmt_misc,vm,dev,debug}/** wklx",
    "/sys/firmware/** rwklx",
    "/sys/kernel/{debug,security,tracing}/** rwklx",
    "/sys/fs/{pstore,bpf,selinux}/** wklx",
    "/sys/{module,power,bus,class,devices}/**/{bind,unbind,reset,remove,rescan,uevent} wklx",
)
_MOUNTS_REFUSED: Final = ("debugfs", "securityfs", "tracefs", "pstore", "efivarfs", "configfs", "binfmt_misc")
_CAPABILITIES_REFUSED: Final = ("mac_admin", "mac_override", "sys_module", "sys_rawio")


def name_of(instance: str, *, nesting: bool) -> str:
    """Return the name of an instance's profile."""
    return f"boxroom-{instance}-{'nesting' if nesting else 'default'}"


def profile(name: str, *, nesting: bool) -> str:
    """Return a profile's text, as apparmor_parser reads it. nesting: it may load and enter profiles of its own."""
    lines = [
        f'profile "{name}" flags=(attach_disconnected,mediate_deleted) {{',
        "  network,",
        "  capability,",
        "  file,",
        "  mount,",
        "  remount,",
        "  umount,",
        "  pivot_root,",
        "  dbus,",
        "  unix,",
        f'  signal peer="{name}",',
        f'  signal peer="{name}//&*",',
        "  signal (receive),",
        f'  ptrace peer="{name}",',
        f'  ptrace peer="{name}//&*",',
        "  ptrace (readby, tracedby),",
    ]
    lines += [f"  deny {rule}," for rule in _REFUSED]
    lines += [f"  deny mount fstype={kind}," for kind in _MOUNTS_REFUSED]
    if nesting:
        lines += [f"  change_profile -> {pattern}," for pattern in ('":boxroom-*:**"', '"**"')]
    else:
        lines += [f"  deny capability {name}," for name in _CAPABILITIES_REFUSED]
    return "\n".join([*lines, "}", ""])
