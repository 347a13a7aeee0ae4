"""What a test must not leave behind: looked for in the kernel, after every fixture has been torn down."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

from containers.core.cgroups import Cgroups, detect
from containers.core.host import Host
from containers.core.hoststore import claims
from tests import ports

from .patience import patient

SETTLE_SEC = 60.0
"""A killed process, or the last descriptor of a namespace, may take a moment to go; on a busy machine a long one."""


def leftovers(instance: str, state_dir: Path, id_block: int | None) -> list[str]:
    """Return every kernel object of an instance that is there now, in words. id_block: its first host id."""
    return [
        *_processes(instance, id_block),
        *_mounts(instance, state_dir),
        *_loops(state_dir),
        *_cgroups(f"boxroom-{instance}", "/c-*"),
        *_links(instance),
    ]


def _processes(instance: str, id_block: int | None, state_dir: Path | None = None) -> list[str]:
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            uid = os.stat(f"/proc/{pid}").st_uid
            in_block = id_block is not None and id_block <= uid < id_block + claims.ID_BLOCK_SIZE
            launcher = state_dir is not None and "launcher.py" in command and str(state_dir) in command
            # one that has ended, and that nobody of ours is to reap, has no words any more: it waits for pid 1
            ended = not command and _ended(pid)
            if f"supervisor {instance} " in command or (in_block and not ended) or launcher:
                found.append(f"process {pid} uid {uid}: {command}")
    return found


def _ended(pid: str) -> bool:
    return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0] in ("Z", "X")


def _mounts(instance: str, state_dir: Path) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [f"mount {line}" for line in lines if str(state_dir) in line or f"/run/boxroom/{instance}" in line]


def _loops(state_dir: Path) -> list[str]:
    found = []
    for name in os.listdir("/sys/block"):
        with contextlib.suppress(FileNotFoundError):
            behind = Path(f"/sys/block/{name}/loop/backing_file").read_text().strip()
            if behind.startswith(f"{state_dir}/"):
                found.append(f"loop device {name} of {behind}")
    return found


def _cgroups(name: str, pattern: str = "") -> list[str]:
    mounts = detect.parse_mounts(Path("/proc/self/mountinfo").read_text())
    roots = [*mounts.v1, *([mounts.v2] if mounts.v2 else [])]
    return [f"cgroup {path}" for root in roots for path in root.glob(f"{name}{pattern}")]


def _links(instance: str) -> list[str]:
    ours = (f"vb{instance}", f"boxbr{instance}")
    return [f"link {name}" for name in os.listdir("/sys/class/net") if name.startswith(ours)]


def open_files() -> dict[str, str]:
    """Return this process's descriptors: number → what it is."""
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found[fd] = os.readlink(f"/proc/self/fd/{fd}")
    return found


def children() -> set[int]:
    """Return the pids of this process's children, zombies too."""
    found: set[int] = set()
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found.update(map(int, Path(f"/proc/self/task/{thread}/children").read_text().split()))
    return found


@dataclass
class Watch:
    """What was there before a test, and the instances that its fixtures made: what is more afterwards is a leak."""

    files: dict[str, str] = field(default_factory=open_files)
    children: set[int] = field(default_factory=children)
    hosts: list[Host] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    blocks: dict[str, int | None] = field(default_factory=dict)

    def take(self, made: object) -> None:
        """Remember what a fixture has made, if it is an instance or its cgroups."""
        if isinstance(made, Host):
            self.hosts.append(made)
        elif isinstance(made, Cgroups):
            self.groups.append(made.name)

    def note_claims(self) -> None:
        """Remember the id blocks of the instances while they still claim them."""
        known = claims.claims()
        self.blocks = {
            host.instance: known[host.instance].id_block_base for host in self.hosts if host.instance in known
        }

    def leaks(self) -> list[str]:
        """Return what has been left, in words; waits a moment for what is on its way out."""
        deadline = time.monotonic() + patient(SETTLE_SEC)
        while (found := self._look()) and time.monotonic() < deadline:
            time.sleep(0.02)
        return found

    def _look(self) -> list[str]:
        known = self.files.keys() | ports.held()
        found = [f"descriptor {fd}: {what}" for fd, what in open_files().items()
                 if fd not in known and "/proc/" not in what]  # fmt: skip
        found += [f"child {pid}" for pid in children() - self.children]
        for host in self.hosts:
            found += _processes(host.instance, self.blocks.get(host.instance), host.state_dir)
            found += [*_mounts(host.instance, host.state_dir), *_links(host.instance), *_loops(host.state_dir)]
            found += _cgroups(host.cgroup_name)
            found += [f"directory {path}" for path in (host.state_dir, host.run_dir)
                      if path.exists() and "/pytest-" not in str(path)]  # fmt: skip
            found += [f"claim of {name}" for name in claims.claims() if name == host.instance]
        for name in self.groups:
            found += _cgroups(name)
        return found
