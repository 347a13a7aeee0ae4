"""What both cgroup versions share: the container's own cgroup2 tree, freezing, killing, removing.

Layout, below the root of a hierarchy::

    boxroom-INSTANCE/
        supervisors          every supervisor of the instance
        c-ID/                limits; owned by root
            ns/              the container's cgroup namespace begins here; owned by its root
                .attached/   commands and terminals started from outside; root's. Made when the first one is started
            attach/          these, where the container took that place for itself
        u-...                what reads an archive (cages.py)

On v1 c-ID stands in every hierarchy, and the cgroup2 hierarchy, which holds no controllers there, has the same layout.
Freezing, killing and "who is left" always go through cgroup2, which every kernel that Boxroom runs on has (5.14 for
cgroup.kill): tasks frozen by v1's freezer could not even be killed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Final

from ..errors import AlreadyExists, NotFound, SetupFailed, SpecError, TimedOut
from ..model.spec import Limits
from ..plans.cgroup_files import TREE_BOUNDS, parse_keyed
from ..plans.devices import DeviceRule
from ..plans.samples import StatPaths
from ..sentences import say
from .frozen import FrozenWatch
from .places import Birth, Joined, delegate, read_file, remove_tree, write_file

CONTAINER_PREFIX: Final = "c-"
CAGE_PREFIX: Final = "u-"
SUPERVISORS: Final = "supervisors"
REMOVE_TIMEOUT_SEC: Final = 30.0
_LOOKS_SEC: Final = (0.0001, 0.0002, 0.0004, *[0.001] * 12)
"""Between the first looks at cgroup.events: the kernel holds back a notice that would be the file's second in 10 ms
(kernel/cgroup/cgroup.c, CGROUP_FILE_NOTIFY_MIN_INTV), and a freeze takes less than one."""
_LOOK_AGAIN_SEC: Final = 0.5


class Cgroups(ABC):
    """One instance's cgroups. tree: the instance's directory in the cgroup2 hierarchy."""

    version: int

    def __init__(self, name: str, tree_root: Path, state_dir: Path) -> None:
        self.name = name
        self.state_dir = state_dir
        self.tree = tree_root / name
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

    def container_tree(self, container_id: str) -> Path:
        """Return the container's directory in the cgroup2 hierarchy."""
        return self.tree / f"{CONTAINER_PREFIX}{container_id}"

    def namespace_dir(self, container_id: str) -> Path:
        """Return the directory that the container sees as the root of its cgroup2 tree."""
        return self.container_tree(container_id) / "ns"

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

    def running_ids(self) -> list[str]:
        """Return the ids of the containers in the cgroup2 tree: one cheap look, once a second."""
        try:
            names = os.listdir(self.tree)
        except FileNotFoundError:
            return []
        return [name.removeprefix(CONTAINER_PREFIX) for name in names if name.startswith(CONTAINER_PREFIX)]

    def orphans(self, known_ids: Collection[str]) -> tuple[str, ...]:
        """Return the ids of containers that have a cgroup and are not among known_ids; remove() takes them."""
        return tuple(sorted(self.ids() - set(known_ids)))

    def freeze(self, container_id: str, timeout_sec: float) -> None:
        """Stop every process of the container and wait until all have stopped.

        Raises TimedOut, and lets them run on, where one does not stop in time (it waits in the kernel for a disk,
        say); NotFound where the container has no cgroup.
        """
        path = self.container_tree(container_id)
        self._request(container_id, "cgroup.freeze", "1")
        if not self._wait_event(path, "frozen", 1, timeout_sec):
            with contextlib.suppress(OSError):
                write_file(f"{path}/cgroup.freeze", "0")
            raise TimedOut(
                "Not every process could be frozen in time; the container runs on.", step="freeze", path=str(path)
            )

    def thaw(self, container_id: str, timeout_sec: float = 10.0, *, inner: bool = True) -> None:
        """Let the processes run on, and wait until they do. Raises NotFound, TimedOut.

        inner: what somebody outside the panel has frozen at the container's own root runs on, too.
        """
        deadline = time.monotonic() + timeout_sec
        for path in self._frozen_at(container_id, inner=inner):
            self._request(container_id, "cgroup.freeze", "0", at=path)
        for path in self._frozen_at(container_id, inner=inner):
            if not self._wait_event(path, "frozen", 0, deadline - time.monotonic()):
                raise TimedOut("The container could not be thawed in time.", step="thaw", path=str(path))

    def lift_pids(self, container_id: str, room: int) -> None:
        """Let a container have `room` more processes than its limit, until apply() puts the limit in force again."""
        path = os.path.join(os.path.dirname(self.stat_paths(container_id).pids), "pids.max")
        with contextlib.suppress(NotFound), self._while_there(container_id):
            limit = read_file(path).strip()
            if limit != "max":
                write_file(path, str(int(limit) + room))

    def kill(self, container_id: str) -> None:
        """Send SIGKILL to every process of the container at once, frozen ones too; nothing can fork out of it.

        Returns before they are gone (see wait_empty). Of a container without a cgroup there is nothing to kill.
        """
        with contextlib.suppress(NotFound):
            self._request(container_id, "cgroup.kill", "1")

    def wait_empty(self, container_id: str, timeout_sec: float) -> bool:
        """Wait until no process is left in the container's cgroups; returns whether that is so."""
        return self._wait_event(self.container_tree(container_id), "populated", 0, timeout_sec)

    def frozen(self, container_id: str, *, inner: bool = True) -> bool:
        """Return whether the container's processes are frozen now (not merely asked to).

        inner: so it is, too, where somebody outside the panel froze its own root, and what was started from outside
        runs on.
        """
        return any(self._event(path, "frozen") == 1 for path in self._frozen_at(container_id, inner=inner))

    def frozen_files(self, container_id: str) -> tuple[str, ...]:
        """Return the files that show POLLPRI when frozen() may have changed (see frozen.py)."""
        return tuple(f"{path}/cgroup.events" for path in self._frozen_at(container_id, inner=True))

    def watch_frozen(self, container_id: str) -> FrozenWatch:
        """Return what tells when frozen() changes (the caller's to close, before the cgroups go); raises OSError."""
        return FrozenWatch(self._frozen_at(container_id, inner=True))

    def _frozen_at(self, container_id: str, *, inner: bool) -> tuple[Path, ...]:
        whole = self.container_tree(container_id)
        return (whole, self.namespace_dir(container_id)) if inner else (whole,)

    def populated(self, container_id: str) -> bool:
        """Return whether any live process is in the container's cgroups."""
        return self._event(self.container_tree(container_id), "populated") == 1

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
        self._wait_event(self.tree / SUPERVISORS, "populated", 0, wait_sec)
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
            raise _does_not_run(container_id) from error

    def _request(self, container_id: str, file: str, value: str, *, at: Path | None = None) -> None:
        try:
            write_file(f"{at or self.container_tree(container_id)}/{file}", value)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENODEV):
                raise _does_not_run(container_id) from error
            raise

    @staticmethod
    def _event(path: Path, key: str) -> int:
        """Return a value of cgroup.events; a cgroup that is gone has 0 of everything."""
        try:
            # by hand: every container is asked again and again
            fd = os.open(f"{path}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
            try:
                return parse_keyed(os.read(fd, 4096).decode()).get(key, 0)
            finally:
                os.close(fd)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENODEV):
                return 0
            raise

    @staticmethod
    def _wait_event(path: Path, key: str, wanted: int, timeout_sec: float) -> bool:
        """Wait for a value in cgroup.events; a cgroup that is gone has 0 of everything."""
        deadline = time.monotonic() + timeout_sec
        try:
            fd = os.open(path / "cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return wanted == 0
        try:
            poll = select.poll()
            poll.register(fd, select.POLLPRI)
            waits = iter(_LOOKS_SEC)
            while True:
                # before the look: one that comes late sees what happened in time
                left = deadline - time.monotonic()
                try:
                    value = parse_keyed(os.pread(fd, 4096, 0).decode()).get(key, 0)
                except OSError as error:
                    if error.errno != errno.ENODEV:
                        raise
                    value = 0
                if value == wanted:
                    return True
                if left <= 0:
                    return False
                wait_sec = min(left, next(waits, _LOOK_AGAIN_SEC))
                if wait_sec < 0.001:
                    time.sleep(wait_sec)  # poll(2) counts in whole milliseconds
                else:
                    poll.poll(wait_sec * 1000)
        finally:
            os.close(fd)


def _does_not_run(container_id: str) -> NotFound:
    return NotFound(say("Container %(container_id)s has no cgroup: it does not run.", container_id=container_id))
