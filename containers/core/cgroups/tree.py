"""One instance's part of the cgroup2 hierarchy: which processes are a container's, freezing and killing them.

With either version this goes through cgroup2, which every kernel that Boxroom runs on has (5.14 for cgroup.kill): tasks
frozen by v1's freezer could not even be killed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from pathlib import Path
from typing import Final

from ..errors import NotFound, TimedOut
from ..sentences import say
from . import events
from .frozen import FrozenWatch
from .places import write_file

CONTAINER_PREFIX: Final = "c-"


class Tree:
    """The containers of one instance as the cgroup2 hierarchy has them. tree: the instance's directory there."""

    def __init__(self, tree: Path) -> None:
        self.tree = tree

    def container_tree(self, container_id: str) -> Path:
        """Return the container's directory in the cgroup2 hierarchy."""
        return self.tree / f"{CONTAINER_PREFIX}{container_id}"

    def namespace_dir(self, container_id: str) -> Path:
        """Return the directory that the container sees as the root of its cgroup2 tree."""
        return self.container_tree(container_id) / "ns"

    def running_ids(self) -> list[str]:
        """Return the ids of the containers in the cgroup2 tree: one cheap look, once a second."""
        try:
            names = os.listdir(self.tree)
        except FileNotFoundError:
            return []
        return [name.removeprefix(CONTAINER_PREFIX) for name in names if name.startswith(CONTAINER_PREFIX)]

    def freeze(self, container_id: str, timeout_sec: float) -> None:
        """Stop every process of the container and wait until all have stopped.

        Raises TimedOut, and lets them run on, where one does not stop in time (it waits in the kernel for a disk,
        say); NotFound where the container has no cgroup.
        """
        path = self.container_tree(container_id)
        self._request(container_id, "cgroup.freeze", "1")
        if not events.wait(path, "frozen", 1, timeout_sec):
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
            if not events.wait(path, "frozen", 0, deadline - time.monotonic()):
                raise TimedOut("The container could not be thawed in time.", step="thaw", path=str(path))

    def kill(self, container_id: str) -> None:
        """Send SIGKILL to every process of the container at once, frozen ones too; nothing can fork out of it.

        Returns before they are gone (see wait_empty). Of a container without a cgroup there is nothing to kill.
        """
        with contextlib.suppress(NotFound):
            self._request(container_id, "cgroup.kill", "1")

    def wait_empty(self, container_id: str, timeout_sec: float) -> bool:
        """Wait until no process is left in the container's cgroups; returns whether that is so."""
        return events.wait(self.container_tree(container_id), "populated", 0, timeout_sec)

    def frozen(self, container_id: str, *, inner: bool = True) -> bool:
        """Return whether the container's processes are frozen now (not merely asked to).

        inner: so it is, too, where somebody outside the panel froze its own root, and what was started from outside
        runs on.
        """
        return any(events.value(path, "frozen") == 1 for path in self._frozen_at(container_id, inner=inner))

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
        return events.value(self.container_tree(container_id), "populated") == 1

    def _request(self, container_id: str, file: str, value: str, *, at: Path | None = None) -> None:
        try:
            write_file(f"{at or self.container_tree(container_id)}/{file}", value)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENODEV):
                raise does_not_run(container_id) from error
            raise


def does_not_run(container_id: str) -> NotFound:
    """Return the error that says so: a container's cgroups are there as long as it runs."""
    return NotFound(say("Container %(container_id)s has no cgroup: it does not run.", container_id=container_id))
