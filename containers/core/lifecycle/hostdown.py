"""Halting every container because the host goes down: in the opposite order of their starting, in a given time."""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import signal
import time
from collections.abc import Iterator

from ..errors import CoreError
from ..host import Host
from ..hoststore import store
from ..proc.records import RunFile


def halt_all(host: Host, *, timeout_sec: float) -> Iterator[str]:
    """Halt what runs, the highest order of starting first; yields a line for each order.

    Each supervisor asks its init, waits, ends what is left by force, and records that the host went down. Equal orders
    are halted together, and the next waits for them. When timeout_sec is over, all that is left is asked at once, and
    nobody is waited for.
    """
    deadline = time.monotonic() + timeout_sec
    running = sorted(_running(host), key=lambda found: -found[0])
    for _order, group in itertools.groupby(running, key=lambda found: found[0]):
        runs = [run for _, run in group]
        left = _halt_together(runs, deadline)
        names = ", ".join(sorted(run.name for run in runs))
        yield f"Halted: {names}" if not left else f"Halted: {names}; not in time: {', '.join(sorted(left))}"


def _running(host: Host) -> list[tuple[int, RunFile]]:
    """Return (order, run file) of every container with a supervisor; an unreadable spec counts as order 0."""
    found = []
    for path in host.supervisor_dir().glob("*.json"):
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            run = RunFile.read(path)
            if run is None:
                continue
            order = 0
            with contextlib.suppress(CoreError):
                order = store.load(host, run.id).boot.order
            found.append((order, run))
    return found


def _halt_together(runs: list[RunFile], deadline: float) -> list[str]:
    """Ask the supervisors, and return the names of those that did not end in time."""
    waiting: dict[int, str] = {}
    poll = select.poll()
    try:
        for run in runs:
            pidfd = run.supervisor.open()
            if pidfd is None:
                continue
            waiting[pidfd] = run.name
            poll.register(pidfd, select.POLLIN)
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGTERM)
        # who has ended in time has done so however late it is seen
        while waiting and (ended := poll.poll(max(0.0, deadline - time.monotonic()) * 1000)):
            for pidfd, _event in ended:
                poll.unregister(pidfd)
                os.close(pidfd)
                del waiting[pidfd]
        return list(waiting.values())
    finally:
        for pidfd in waiting:
            os.close(pidfd)
