"""What a process takes upon itself before it runs a container's programs, beside capabilities and the call filter.

Init does it after a clone, what is started later on its way in. Sources: session-keyring(7), time_namespaces(7),
personality(2), kernel Documentation/admin-guide/LSM/apparmor.rst.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import Final

from ..cgroups.places import write_file
from ..kernel.syscalls import CLONE_NEWTIME, PR_SET_DUMPABLE, new_session_keyring, personality, prctl, setns, unshare
from ..model.security import Security

_PERSONAS: Final = {"linux32": 0x0008}
"""PER_LINUX32, include/uapi/linux/personality.h."""
_LABEL_FILES: Final = ("/proc/self/attr/apparmor/exec", "/proc/self/attr/exec")
_NANO: Final = 10**9


@dataclass(frozen=True, slots=True)
class Confinement:
    """What one container's processes are confined by. offsets: for timens_offsets. apparmor: a profile's name."""

    offsets: str = ""
    persona: int | None = None
    apparmor: str = ""


def of(security: Security, apparmor: str) -> Confinement:
    """Return what a container's settings come to. apparmor: the profile that is loaded for it, "" for none."""
    lines = []
    for clock, seconds in sorted(security.clock_offsets.items()):
        whole, nano = divmod(round(seconds * _NANO), _NANO)
        lines.append(f"{clock} {whole} {nano}\n")
    return Confinement("".join(lines), _PERSONAS.get(security.personality), apparmor)


def set_clocks(confinement: Confinement) -> None:
    """Make a time namespace with the container's offsets, and enter it; /proc is the container's own. Raises OSError.

    Its own root may write them, while nobody is in it, and only to a process of its own that can be looked at.
    """
    if not confinement.offsets:
        return
    unshare(CLONE_NEWTIME)
    prctl(PR_SET_DUMPABLE, 1)
    try:
        write_file("/proc/self/timens_offsets", confinement.offsets)
        clock_fd = os.open("/proc/self/ns/time_for_children", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        prctl(PR_SET_DUMPABLE, 0)
    try:
        setns(clock_fd, CLONE_NEWTIME)
    finally:
        os.close(clock_fd)


def confine(confinement: Confinement) -> None:
    """Take on everything that has no need of /proc. A host without key rings has none to inherit. Raises OSError."""
    try:
        new_session_keyring()
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
    if confinement.persona is not None:
        personality(confinement.persona)


def label(confinement: Confinement) -> None:
    """Have the next exec of this process enter the container's AppArmor profile. Raises OSError naming the file."""
    label = label_of(confinement)
    if label is not None:
        write_file(*label)


def label_of(confinement: Confinement) -> tuple[str, str] | None:
    """Return which file a process writes for that, and what; None where there is no profile. Raises OSError."""
    if not confinement.apparmor:
        return None
    for path in _LABEL_FILES:
        if os.path.exists(path):
            return path, f"exec {confinement.apparmor}"
    raise OSError(errno.ENOENT, "this kernel has no AppArmor", _LABEL_FILES[0])
