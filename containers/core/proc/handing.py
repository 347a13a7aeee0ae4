"""Between a starter and its supervisor (see core.proc.starting): handing the run over.

starter                                     supervisor
  ── the run, with its descriptors ──────▶  takes over
  ◀── serving, or why it does not ────────
"""

from __future__ import annotations

import contextlib
import dataclasses
import marshal
import os
import socket
from dataclasses import dataclass
from typing import Final

from ..behaviour import Consoles
from ..errors import SetupFailed
from .spawn import Init

SERVING: Final = b"serving"
_WORDS: Final = b"!"
_FDS_MAX: Final = 253
"""What one message can carry (SCM_MAX_FD); used are five, and two of each console."""
_WORDS_BYTES: Final = 16384
_TOLD: Final = ("id", "name", "started_at", "released", "oom_kills", "held", "plan", "news")


@dataclass(slots=True, kw_only=True)
class Run:
    """One run of a container, from its exec on, as its supervisor keeps it.

    filter_fd: a file, the system call filter of all that runs inside; owned. released: monotonic time of the exec.
    placed: NIC → link inside. held: what is attached, as (number among the plan's attachments, mount id). plan: JSON
    text of the StartPlan. news: what worker_fd, owned, is told as soon as the run is served; -1 where nobody waits.
    """

    id: str
    name: str
    child: Init
    filter_fd: int
    started_at: str
    released: float
    oom_kills: int
    placed: dict[int, int]
    held: list[tuple[int, int]]
    consoles: Consoles
    plan: str
    news: bytes = b""
    worker_fd: int = -1

    def tell(self) -> None:
        """Tell the worker, if there is one; one that has gone meanwhile finds the container running."""
        if self.worker_fd < 0:
            return
        try:
            os.write(self.worker_fd, self.news)
        except OSError:
            pass
        finally:
            os.close(self.worker_fd)
            self.worker_fd = -1


class Keeper:
    """The supervisor to be, as its starter sees it. pid: its own."""

    def __init__(self, connection: socket.socket, pid: int) -> None:
        self._connection = connection
        self.pid = pid

    def hand_over(self, run: Run) -> None:
        """Hand the run over, and wait until it is served. Raises SetupFailed where it is not, OSError."""
        child = run.child
        message = {
            "pid": child.pid,
            "consoles": dataclasses.asdict(run.consoles),
            "placed": list(run.placed.items()),
            **{name: getattr(run, name) for name in _TOLD},
        }
        worker = () if run.worker_fd < 0 else (run.worker_fd,)
        pairs = (fd for pair in child.consoles for fd in pair)
        memory_fd = os.memfd_create("run", os.MFD_CLOEXEC)
        try:
            # a plan, with its environment, may be larger than a message can be
            os.write(memory_fd, marshal.dumps(message))
            fds = (memory_fd, run.filter_fd, child.pidfd, child.netns_fd, *pairs, *worker)
            socket.send_fds(self._connection, [b"w" if worker else b"-"], fds)
        finally:
            os.close(memory_fd)
        answer = self._connection.recv(_WORDS_BYTES)
        if answer != SERVING:
            words = answer.decode(errors="replace") or "it ended"
            raise SetupFailed(f"The supervisor does not serve: {words}.", step="hand over to the supervisor")

    def give_up(self, words: str) -> None:
        """Tell why there is no run."""
        with contextlib.suppress(OSError):
            self._connection.send(_WORDS + words.encode(errors="replace")[: _WORDS_BYTES // 2])


def receive(connection: socket.socket) -> Run | str:
    """Return the run that a starter hands over, or why there is none; empty where it has ended. Raises OSError."""
    data, fds, _, _ = socket.recv_fds(connection, _WORDS_BYTES, _FDS_MAX, socket.MSG_CMSG_CLOEXEC)
    return _run(data, fds) if fds else data.removeprefix(_WORDS).decode(errors="replace")


def _run(kind: bytes, fds: list[int]) -> Run:
    memory_fd, filter_fd, pidfd, netns_fd, *others = fds
    worker_fd = others.pop() if kind == b"w" else -1
    message = marshal.loads(os.pread(memory_fd, os.fstat(memory_fd).st_size, 0))
    os.close(memory_fd)
    pairs = tuple(zip(others[::2], others[1::2], strict=True))
    return Run(
        child=Init(pid=message["pid"], pidfd=pidfd, netns_fd=netns_fd, consoles=pairs),
        filter_fd=filter_fd,
        placed=dict(message["placed"]),
        consoles=Consoles(**message["consoles"]),
        worker_fd=worker_fd,
        **{name: message[name] for name in _TOLD},
    )
