"""Hearing of a freeze and of its end from the kernel, whoever asked for them, without looking again and again."""

from __future__ import annotations

import os
import select
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from ..plans.cgroup_files import parse_keyed

_EVENTS_BYTES: Final = 4096


class FrozenWatch:
    """Becomes readable when one of some cgroups may have been frozen or thawed. Owns its descriptors; close() it.

    The kernel tells of a change of cgroup.events by POLLPRI, which the file then shows until it is read. A file whose
    cgroup was removed shows it for ever: close this before the cgroups go.
    Source: kernel Documentation/admin-guide/cgroup-v2.rst, cgroup.events.
    """

    def __init__(self, cgroups: Iterable[Path]) -> None:
        """Begin to watch, as if none were frozen; raises OSError where one is not there."""
        # an epoll in the owner's own: what it polls for has only "readable" and "writable"
        self._epoll = select.epoll()
        self._fds: list[int] = []
        self._told = False
        try:
            for path in cgroups:
                fd = os.open(path / "cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
                self._fds.append(fd)
                self._epoll.register(fd, select.EPOLLPRI)
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._epoll.fileno()

    def changed(self) -> bool | None:
        """Return whether one is frozen now, where that is not what was told last; None: it is.

        Quiet until the next change. Raises OSError where a cgroup is gone.
        """
        # all are read, also after the first that is frozen: that is what makes them quiet
        texts = [os.pread(fd, _EVENTS_BYTES, 0).decode() for fd in self._fds]
        frozen = any(parse_keyed(text).get("frozen") == 1 for text in texts)
        if frozen == self._told:
            return None
        self._told = frozen
        return frozen

    def close(self) -> None:
        """Stop watching; the second call does nothing."""
        self._epoll.close()
        while self._fds:
            os.close(self._fds.pop())
