"""Which capabilities a container's processes may ever hold. Source: include/uapi/linux/capability.h."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

NAMES: Final = (
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
)
"""By number; a newer kernel's further capabilities are dropped with the rest."""

_DROPPED: Final = frozenset(
    {
        "audit_control",
        "audit_read",
        "block_suspend",
        "bpf",
        "checkpoint_restore",
        "mac_admin",
        "mac_override",
        "perfmon",
        "sys_module",
        "sys_pacct",
        # without it systemd does not try to mount debugfs, and nobody reaches I/O ports
        "sys_rawio",
        "sys_time",
        "syslog",
        "wake_alarm",
    }
)
_DROPPED_PRIVILEGED: Final = _DROPPED | {"dac_read_search", "linux_immutable", "sys_resource"}
"""open_by_handle_at needs dac_read_search: with it a privileged container reads any file of the host (Shocker)."""


def default(*, privileged: bool) -> frozenset[str]:
    """Return the names of what is kept unless a container says otherwise.

    Unprivileged containers keep what a system needs, over things of their own user namespace only.
    """
    return frozenset(NAMES) - (_DROPPED_PRIVILEGED if privileged else _DROPPED)


def names_kept(*, privileged: bool, keep: Collection[str] | None = None, drop: Collection[str] = ()) -> frozenset[str]:
    """Return the names of what is kept. keep: instead of the default, where it is not None. drop: out of either."""
    return (default(privileged=privileged) if keep is None else frozenset(keep)) - frozenset(drop)


def kept(*, privileged: bool, keep: Collection[str] | None = None, drop: Collection[str] = ()) -> int:
    """Return the bounding set as a bit mask; keep, drop as in names_kept."""
    names = names_kept(privileged=privileged, keep=keep, drop=drop)
    return sum(1 << number for number, name in enumerate(NAMES) if name in names)
