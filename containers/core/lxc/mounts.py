"""LXC's mounts: what every container has here anyway, and what needs its administrator. Pure."""

from __future__ import annotations

from typing import Final

from .draft import Draft, Told, left_out, taken, translated
from .reading import Entry

_MADE_HERE: Final = (
    "dev",
    "dev/hugepages",
    "dev/mqueue",
    "dev/pts",
    "dev/shm",
    "proc",
    "sys",
    "sys/fs/cgroup",
)
_MASKED: Final = (
    "sys/fs/fuse/connections",
    "sys/kernel/debug",
    "sys/kernel/security",
    "sys/fs/pstore",
    "sys/kernel/tracing",
)
_AUTO: Final = {
    "proc": "Boxroom mounts /proc, with what must not be written read-only or masked",
    "sys": "Boxroom mounts /sys, with what must not be written read-only or masked",
    "cgroup": "the container's init mounts its own control groups, or finds them mounted",
    "cgroup2": "the container's init mounts its own control groups, or finds them mounted",
}


def auto(_draft: Draft, entry: Entry) -> Told:
    """Say what becomes of lxc.mount.auto."""
    words = []
    for token in entry.value.split():
        name = token.partition(":")[0]
        if name not in _AUTO:
            return left_out(f"Boxroom has no {token}")
        words.append(_AUTO[name])
    return translated("; ".join(dict.fromkeys(words)))


def entry(_draft: Draft, entry: Entry) -> Told:
    """Say what becomes of lxc.mount.entry: a line as in fstab(5), its target below the container's root."""
    parts = entry.value.split()
    if len(parts) < 3:
        return left_out("this is no line of fstab")
    target = unescaped(parts[1]).strip("/")
    if target in _MADE_HERE:
        return taken(f"Boxroom mounts /{target} in every container")
    if target in _MASKED:
        return left_out(f"/{target} is hidden from containers here")
    if not unescaped(parts[0]).startswith("/"):
        return left_out(f"Boxroom mounts no {parts[2]} for a container; put it into its own /etc/fstab")
    return left_out("directories of the host are shared by its administrator only; see docs/lxc.md")


def unescaped(text: str) -> str:
    r"""Return a field of fstab without its octal escapes: \\040 for a blank. Source: getmntent(3)."""
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, char)
    return text
