"""What is entered, and what is to run there (see core.proc.attach)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from . import confining, rights

ATTACHED: Final = ".attached"
"""The cgroup, in the container's own tree, of what is started from outside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A running container, as those see it who enter it.

    init_pidfd: borrowed; stays open as long as the target is used. privileged: shares the host's user namespace.
    attach_procs: cgroup.procs files to join, in order; the last one, of the cgroup2 tree, where place() is not to be
    had. own_tree: where the container's cgroup namespace begins. frozen: tells whether the container is frozen
    now. seccomp: as syscalls.load_seccomp takes it. capabilities: the bounding set as a bit mask.
    last_capability: the highest that the kernel knows. environment: of everything started inside.
    limits: what init was given instead of every container's. confinement: as init's.
    """

    init_pid: int
    init_pidfd: int
    privileged: bool
    attach_procs: tuple[str, ...]
    own_tree: Path
    frozen: Callable[[], bool]
    seccomp: bytes
    capabilities: int
    last_capability: int
    environment: dict[str, str]
    no_new_privs: bool = False
    limits: rights.Limits = ()
    oom_score_adj: int = 0
    confinement: confining.Confinement = field(default_factory=confining.Confinement)

    def place(self) -> Path:
        """Return the cgroup2 directory of what is started from outside; made where it is not there.

        It lies in the container's own tree, so that the init there may take processes over into scopes and sessions of
        its own: nobody moves a process across the root of a cgroup namespace. It is root's, and no more the container's
        than one beside that tree, which serves where the container put something of its own in this place, or made a
        threaded cgroup next to it: a process can then come into nothing else that is in its tree.
        """
        inside = self.own_tree / ATTACHED
        try:
            with contextlib.suppress(FileExistsError):
                inside.mkdir(mode=0o755)
            if os.stat(inside).st_uid == 0 and (inside / "cgroup.type").read_text() == "domain\n":
                return inside
        except OSError:
            pass
        return Path(self.attach_procs[-1]).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to start.

    command: None means the user's login shell. user: name, uid, "uid:gid" or None for root. cwd: absolute, or None
    for the user's home. size: (columns, rows) of a new terminal, or None for stdio: descriptors for 0, 1 and 2, which
    stay the caller's. cgroup: a directory below the target's place() to be in, instead of that itself.
    """

    command: tuple[str, ...] | None
    user: str | None = None
    cwd: str | None = None
    environment: dict[str, str] = field(default_factory=dict)
    size: tuple[int, int] | None = None
    stdio: tuple[int, int, int] | None = None
    cgroup: Path | None = None
