"""LXC's mounts: what every container has here anyway, and what needs its administrator. Pure."""

from __future__ import annotations

import dataclasses
import posixpath
from typing import Any, Final

from ..errors import SpecError
from ..model.attachments import Mount, check_all
from ..rules.grants import given_to
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
_RECEIVING: Final = frozenset({"rbind", "slave", "rslave", "shared", "rshared"})
"""With these the host's other mounts in a directory are seen inside."""
_HERE: Final = frozenset(["", *"async auto bind defaults exec nodev nosuid optional private ro rprivate rw".split()])
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


def entry(draft: Draft, entry: Entry) -> Told:
    """Say what becomes of lxc.mount.entry: a line as in fstab(5), its target below the container's root.

    A directory of the host becomes the share of the policy's that it is, or lies in; a device node the policy's device.
    """
    parts = entry.value.split()
    if len(parts) < 3:
        return left_out("this is no line of fstab")
    target = _inside(draft, unescaped(parts[1]))
    if target in _MADE_HERE:
        return taken(f"Boxroom mounts /{target} in every container")
    if target in _MASKED:
        return left_out(f"/{target} is hidden from containers here")
    path, options = posixpath.normpath(unescaped(parts[0])), parts[3].split(",") if len(parts) > 3 else []
    if not {"bind", "rbind"} & set(options):
        return left_out(f"Boxroom mounts no {parts[2]} for a container; put it into its own /etc/fstab")
    if not path.startswith("/") or "relative" in options:
        return left_out("what lies in its own root file system is bound inside: put it into its own /etc/fstab")
    project = draft.facts.project
    if nodes := [name for name, device in draft.facts.devices.items() if device.path == path]:
        name = max(nodes, key=lambda one: given_to(draft.facts.devices[one].projects, project))
        return draft.give_device(name, "" if f"/{target}" == path else f"/{target}")
    shares = [(name, one) for name, one in draft.facts.shares.items() if f"{path}/".startswith(f"{one.path}/")]
    if not shares:
        return left_out(f"{path} is no share of the host's policy; name it there, under [shares], to give it")
    # of several that it lies in: one that may be had, the nearest, and of two names one that can be written as asked
    asked = "ro" in options
    name, share = max(
        shares, key=lambda one: (given_to(one[1].projects, project), len(one[1].path), one[1].read_only == asked)
    )
    return _share(draft, name, path.removeprefix(share.path).strip("/"), f"/{target}", options)


def _inside(draft: Draft, target: str) -> str:
    """Return a target relative to the root inside: an absolute one may begin with the root file system's own path."""
    root = (draft.config.get("lxc.rootfs.path") or "").rpartition(":")[2].rstrip("/")
    if root and target.startswith(f"{root}/"):
        target = target.removeprefix(root)
    return target.strip("/")


def _share(draft: Draft, name: str, subpath: str, target: str, options: list[str]) -> Told:
    share, project = draft.facts.shares[name], draft.facts.project
    if not given_to(share.projects, project):
        return left_out(f"the policy does not give the share {name} to project {project}")
    known: list[dict[str, Any]] = draft.values.get("mounts", [])
    receives = not _RECEIVING.isdisjoint(options) and share.submounts and not share.read_only and "ro" not in options
    mount = Mount(
        share=name,
        target=target,
        subpath=subpath,
        read_only="ro" in options,
        create=any(option.startswith("create=") for option in options),
        optional="optional" in options,
        propagation="slave" if receives else "private",
    )
    mounts = [*known, dataclasses.asdict(mount)]
    try:
        check_all([Mount(**one) for one in mounts], ())
    except SpecError as error:
        return left_out(error.message.rstrip("."))
    draft.values["mounts"] = mounts
    words = f"the share {name}" + (f", of it {subpath}" if subpath else "") + f", at {target}"
    if share.read_only and "ro" not in options:
        words += ", read-only as the policy has it"
    without = [one for one in options if not _as_here(one) and not (receives and one in _RECEIVING)]
    return translated(words + (f"; without {', '.join(without)}" if without else ""))


def _as_here(option: str) -> bool:
    """Tell whether an option of a bind says what is done, or what holds of every share here."""
    return option in _HERE or option.startswith(("create=", "idmap="))


def unescaped(text: str) -> str:
    r"""Return a field of fstab without its octal escapes: \\040 for a blank. Source: getmntent(3)."""
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, char)
    return text
