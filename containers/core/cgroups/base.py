"""What both cgroup versions share: making a container's cgroups with its limits, and removing them.

Layout, below the root of a hierarchy::

    boxroom-INSTANCE/
        supervisors          every supervisor of the instance
        c-ID/                limits; owned by root
            ns/              the container's cgroup namespace begins here; owned by its root
                .attached/   commands and terminals started from outside; root's. Made when the first one is started
            attach/          these, where the container took that place for itself
        u-...                what reads an archive (cages.py)

On v1 c-ID stands in every hierarchy, and the cgroup2 hierarchy, which holds no controllers there, has the same layout.
What is done with the processes in there is in tree.py.
"""

from __future__ import annotations

import contextlib
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Final

from ..errors import AlreadyExists, NotFound, SetupFailed, SpecError, TimedOut
from ..model.spec import Limits
from ..plans.cgroup_files import TREE_BOUNDS
from ..plans.devices import DeviceRule
from ..plans.samples import StatPaths
from ..sentences import say
from . import events
from .places import Birth, Joined, delegate, read_file, remove_tree, write_file
from .tree import CONTAINER_PREFIX, Tree, does_not_run

CAGE_PREFIX: Final = "u-"
SUPERVISORS: Final = "supervisors"
REMOVE_TIMEOUT_SEC: Final = 30.0


class Cgroups(Tree, ABC):
    """One instance's cgroups, in every hierarchy that this version has."""

    version: int

    def __init__(self, name: str, tree_root: Path, state_dir: Path) -> None:
        super().__init__(tree_root / name)
        self.name = name
        self.state_dir = state_dir
        self._prepared = False

    @abstractmethod
    def instance_dirs(self) -> tuple[Path, ...]:
        """Return the instance's directory in every hierarchy, the cgroup2 tree last."""

    @abstractmethod
    def controller_dir(self, controller: str) -> Path:
        """Return the instance's directory in the hierarchy of a controller that every host has: memory, pids, cpu."""

    @abstractmethod
    def _prepare(self) -> None:
        """Make the instance's directories so that containers' may be made in them."""

    @abstractmethod
    def _make_birthplace(self, container_id: str, limits: Limits, owner_uid: int) -> None:
        """Make a container's directories in the cgroup2 tree, with what limits there are in that."""

    @abstractmethod
    def _make_others(self, container_id: str, limits: Limits, *, privileged: bool) -> None:
        """Make a container's other directories, set limits and device rules."""

    @abstractmethod
    def birth(self, container_id: str, *, privileged: bool) -> Birth:
        """Return how the container's first process comes to where it belongs."""

    @abstractmethod
    def apply(self, container_id: str, limits: Limits) -> None:
        """Put limits in force, all or none.

        Raises InUse (field limits.memory_bytes) where the kernel cannot reclaim down to the memory limit, NotFound
        where the container has no cgroup, HostUnsupported for an I/O limit without a disk to throttle.
        """

    @abstractmethod
    def allow_devices(self, container_id: str, rules: Iterable[DeviceRule]) -> None:
        """Let a container use these devices beside those that every one has, and no others. Raises OSError."""

    @abstractmethod
    def joined(self, container_id: str) -> Joined:
        """Return where the container's processes go; its cgroups must be there."""

    @abstractmethod
    def stat_paths(self, container_id: str) -> StatPaths:
        """Return the files that tell what a container uses."""

    @abstractmethod
    def oom_kills(self, container_id: str) -> int:
        """Return how many processes of the container the kernel killed for want of memory; 0 when it is gone."""

    @abstractmethod
    def places(self, container_id: str, controller: str) -> tuple[Path, ...]:
        """Return the container's own directories that may have a controller's files, in the order to look."""

    def prepare(self) -> None:
        """Make the instance's own directories; the first create() does it too."""
        if not self._prepared:
            self._prepare()
            self._prepared = True

    def create(self, container_id: str, *, limits: Limits, owner_uid: int, privileged: bool) -> Joined:
        """Make a container's cgroups with its limits in force, and nothing in them.

        owner_uid: the host's id of the container's root, who gets the delegated files of ns. What an earlier run
        left empty is removed first. Raises AlreadyExists while processes are in there, SetupFailed with the path.
        """
        self.begin(container_id, limits=limits, owner_uid=owner_uid)
        try:
            self.complete(container_id, limits=limits, privileged=privileged)
        except BaseException:
            with contextlib.suppress(TimedOut):
                self.remove(container_id)
            raise
        return self.joined(container_id)

    def begin(self, container_id: str, *, limits: Limits, owner_uid: int) -> None:
        """Do the first part of create(): make where the container's first process is born, and raise what it does."""
        try:
            self.prepare()
            if any((base / f"{CONTAINER_PREFIX}{container_id}").exists() for base in self.instance_dirs()):
                if self.populated(container_id):
                    raise AlreadyExists(
                        say("Processes of container %(container_id)s are still there.", container_id=container_id)
                    )
                self.remove(container_id)
            try:
                self._make_birthplace(container_id, limits, owner_uid)
            except BaseException:
                with contextlib.suppress(TimedOut):
                    self.remove(container_id)
                raise
        except OSError as error:
            raise SetupFailed.from_oserror("cgroups", error) from error

    def complete(self, container_id: str, *, limits: Limits, privileged: bool) -> None:
        """Do the rest of create(): all limits are in force. Raises SetupFailed; what is there is the caller's then."""
        try:
            self._make_others(container_id, limits, privileged=privileged)
        except OSError as error:
            raise SetupFailed.from_oserror("cgroups", error) from error

    def supervisor_procs(self) -> tuple[str, ...]:
        """Return the files that put the launcher or a supervisor beside, not into, the panel's own cgroup."""
        self.prepare()
        return (str(self.tree / SUPERVISORS / "cgroup.procs"),)

    def hook_dir(self, container_id: str) -> Path:
        """Return the cgroup2 directory for a program of the host's that is run for a container."""
        return self.tree / SUPERVISORS / f"h-{container_id}"

    def supervisor_pids(self) -> list[int]:
        """Return the processes that are beside the panel's: the launcher's, supervisors and their starters."""
        try:
            return [int(line) for line in (self.tree / SUPERVISORS / "cgroup.procs").read_text().split()]
        except FileNotFoundError:
            return []

    def end_hook(self, container_id: str) -> None:
        """Kill what is left of a hook whose starter was killed, and remove its directory; without one, do nothing."""
        group = self.hook_dir(container_id)
        with contextlib.suppress(FileNotFoundError):
            write_file(f"{group}/cgroup.kill", "1")
            remove_tree(group, time.monotonic() + REMOVE_TIMEOUT_SEC)

    def ids(self) -> set[str]:
        """Return the ids of every container of the instance that has a cgroup in any hierarchy."""
        found: set[str] = set()
        for base in self.instance_dirs():
            with contextlib.suppress(FileNotFoundError), os.scandir(base) as entries:
                found.update(
                    entry.name.removeprefix(CONTAINER_PREFIX)
                    for entry in entries
                    if entry.name.startswith(CONTAINER_PREFIX) and entry.is_dir(follow_symlinks=False)
                )
        return found

    def orphans(self, known_ids: Collection[str]) -> tuple[str, ...]:
        """Return the ids of containers that have a cgroup and are not among known_ids; remove() takes them."""
        return tuple(sorted(self.ids() - set(known_ids)))

    def lift_pids(self, container_id: str, room: int) -> None:
        """Let a container have `room` more processes than its limit, until apply() puts the limit in force again."""
        path = os.path.join(os.path.dirname(self.stat_paths(container_id).pids), "pids.max")
        with contextlib.suppress(NotFound), self._while_there(container_id):
            limit = read_file(path).strip()
            if limit != "max":
                write_file(path, str(int(limit) + room))

    def clean(self, container_id: str, *, owner_uid: int) -> None:
        """Remove what the container made below its own root, and keep its limits: for the next boot inside.

        Every process must be gone. Raises TimedOut while one is not.
        """
        path = self.container_tree(container_id)
        deadline = time.monotonic() + REMOVE_TIMEOUT_SEC
        for child in ("ns", "attach"):
            remove_tree(path / child, deadline)
        self._make_tree_leaves(path, owner_uid)

    def remove(self, container_id: str) -> None:
        """Remove the container's cgroups and what it made in them, never another's.

        A dying process holds its cgroup for some milliseconds: EBUSY is retried. Raises TimedOut when processes stay.
        Removing what is gone succeeds.
        """
        deadline = time.monotonic() + REMOVE_TIMEOUT_SEC
        for base in reversed(self.instance_dirs()):
            remove_tree(base / f"{CONTAINER_PREFIX}{container_id}", deadline)

    def remove_instance(self, *, wait_sec: float = 0.0) -> None:
        """Remove the instance's own directories where no container, supervisor or cage with a process is left in them.

        wait_sec: how long supervisors that have told of their end may take to be gone.
        """
        events.wait(self.tree / SUPERVISORS, "populated", 0, wait_sec)
        for base in self.instance_dirs():
            for path in (base / SUPERVISORS, *base.glob(f"{CAGE_PREFIX}*"), base):
                with contextlib.suppress(OSError):
                    path.rmdir()
        self._prepared = False

    def _make_tree(self, container_id: str) -> Path:
        """Make the container's part of the cgroup2 hierarchy."""
        path = self.container_tree(container_id)
        path.mkdir(mode=0o755)
        for file, value in TREE_BOUNDS.items():
            write_file(f"{path}/{file}", value)
        return path

    def _make_tree_leaves(self, path: Path, owner_uid: int) -> None:
        for child in ("ns", "attach"):
            (path / child).mkdir(mode=0o755)
        delegate(path / "ns", owner_uid)

    @contextlib.contextmanager
    def _while_there(self, container_id: str) -> Iterator[None]:
        """Raise NotFound where something fails because the container has ended, and its cgroups go or are gone."""
        try:
            yield
        except (OSError, SpecError) as error:
            if all((base / f"{CONTAINER_PREFIX}{container_id}").exists() for base in self.instance_dirs()):
                raise
            raise does_not_run(container_id) from error
