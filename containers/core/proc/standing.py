"""A starter that stays (see core.proc.starting): it does one start after the other, each for another supervisor.

    launcher               starter                              spare: a supervisor to be
    forks both
      ── spare ─────────▶  waits in accept
                           a worker's plan
      ◀── "taken" ───────
    or another starter     cgroups, script ─────────────────▶   makes init, as the script says
    where none waits       … the start …
                           the run ─────────────────────────▶   is its supervisor
      ◀── "idle" ────────
    forks the next spare, or has it leave

An interpreter that has just been forked copies each page that it writes to; one that stays has them, and everything
it looks up is at hand. The container's init is a child of its supervisor's all the same, and shares that one's memory
until its exec (core.kernel.runner). What a script cannot say, or what should not be in a process that stays, is the
work of a child of the supervisor's: its init is the supervisor's as well, by CLONE_PARENT (clone(2)).
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
from typing import Final

from ..cgroups.base import Cgroups
from ..errors import CoreError
from ..kernel import runner
from ..kernel.script import Memories, Places
from ..kernel.syscalls import PR_SET_PDEATHSIG, prctl
from ..plans.start_plan import StartPlan
from . import program, rights, starting
from .handing import Spare

TAKEN: Final = 128
"""What a starter writes when it has work, with its number added: no signal has such a number."""
IDLE: Final = 192
"""What it writes when it has none any more, and wants the next spare."""
WANTING: Final = 224
"""What it writes when it has work, and a spare that somebody has ended."""
MOST: Final = 16
"""How many there are at most. Their numbers begin at 0."""
SPARE: Final = struct.Struct("=ii")
"""What comes with a spare's connection: its pid, and the connection's number in there."""
LEAVE: Final = b"leave"
_TEXT_MAX_BYTES: Final = 64 * 1024
_STARTS_MAX: Final = 1000
"""After so many another takes its place: nothing that an interpreter gathers stays for ever."""


class Standing:
    """One that stays. number, places: where its scripts are."""

    def __init__(
        self,
        cgroups: Cgroups | CoreError | OSError,
        listener: socket.socket,
        launcher: socket.socket,
        wake_fd: int,
        number: int,
        places: Places,
    ) -> None:
        self._cgroups = cgroups
        self._listener = listener
        self._launcher = launcher
        self._wake_fd = wake_fd
        self._number = number
        self._place = places.view(number)
        self._memories: Memories = {}
        with open("/proc/self/oom_score_adj", encoding="ascii") as file:
            self._oom_score_adj = int(file.read())

    def run(self, launcher_pid: int) -> None:
        """Start what workers ask for; returns when there is no launcher any more, or it says so."""
        for _ in range(_STARTS_MAX):
            spare = self._next_spare()
            # while it has no work it ends with the launcher: the next one has its own socket, and its own starters
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if spare is None or os.getppid() != launcher_pid:
                return
            try:
                worker, _ = self._listener.accept()
            except OSError:
                # the launcher ends
                return
            # from here on it does not, but finishes what it has begun, or takes it back
            prctl(PR_SET_PDEATHSIG, 0)
            if spare.ended() and (spare := self._instead_of(spare)) is None:
                return
            self._tell(TAKEN)
            with worker, spare:
                if peer_is_root(worker):
                    self._start(worker, spare)
            if isinstance(self._cgroups, Exception):
                # another may find that it can
                return
            self._tell(IDLE)

    def _tell(self, what: int) -> None:
        # a launcher that has ended meanwhile is missed where its next spare is
        with contextlib.suppress(BrokenPipeError):
            os.write(self._wake_fd, bytes((what + self._number,)))

    def _next_spare(self) -> Spare | None:
        data, fds, _, _ = socket.recv_fds(self._launcher, SPARE.size, 1, socket.MSG_CMSG_CLOEXEC)
        if not fds:
            return None
        pid, far_fd = SPARE.unpack(data)
        connection = socket.socket(fileno=fds[0])
        return Spare(connection, pid, far_fd, self._place, self._memories, self._oom_score_adj)

    def _instead_of(self, spare: Spare) -> Spare | None:
        """Return another spare, for work that is there, than one that somebody has killed."""
        with spare:
            self._tell(WANTING)
            return self._next_spare()

    def _start(self, worker: socket.socket, spare: Spare) -> None:
        plan_fd = starting.receive(worker)
        if plan_fd is None:
            return
        try:
            text = starting.read(plan_fd)
            plan = StartPlan.from_json(text)
            if suits(plan, text) or isinstance(self._cgroups, Exception):
                starting.serve(worker, plan, text, self._cgroups, spare)
            else:
                spare.pass_on(worker.fileno(), plan_fd)
        finally:
            os.close(plan_fd)


def suits(plan: StartPlan, text: str) -> bool:
    """Tell whether a start is a matter of a script, and of nothing that a child of the starter's would have to do."""
    security = plan.spec.security
    return (
        len(text) <= _TEXT_MAX_BYTES
        and runner.available()
        and starting.roomy(plan)
        and not (plan.extras.hooks or plan.attachments or security.clock_offsets)
        and not rights.of_kernel(security.sysctls)
        and not program.needs_interpreter(plan.spec.init)
    )


def peer_is_root(connection: socket.socket) -> bool:
    """Tell whether root is at the other end."""
    size = struct.calcsize("3i")
    _pid, uid, _gid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return bool(uid == 0)
