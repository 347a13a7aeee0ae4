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

from ..errors import SetupFailed
from ..model.behaviour import Consoles
from .spawn import Init

SERVING: Final = b"serving"
_AGAIN: Final = b"again"
_FDS_SPACE: Final = socket.CMSG_SPACE(253 * 4)
"""For what one message can carry (SCM_MAX_FD); used are nine, and two of each console."""
_WORDS_BYTES: Final = 16384
_TOLD: Final = ("id", "name", "started_at", "released", "oom_kills", "held", "plan", "links")


@dataclass(slots=True, kw_only=True)
class Run:
    """One run of a container, from its exec on, as its supervisor keeps it.

    filter_fd: a file, the system call filter of all that runs inside; owned. released: monotonic time of the exec.
    placed: NIC → link inside. held: what is attached, as (number among the plan's attachments, mount id). plan: JSON
    text of the StartPlan. links: those on the host that may go as soon as init has ended for good.
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
    links: tuple[str, ...]


@dataclass(slots=True, kw_only=True)
class Post:
    """What a supervisor needs to wait for the first that is asked of it, or happens. All descriptors are borrowed.

    title: its command line. news: what worker_fd is told as soon as the run is served. listening_fd: its socket.
    shutdown_fd: a signalfd for SIGTERM. frozen_fds: cgroup.events files that have been read, see cgroups.frozen.
    """

    title: bytes
    news: bytes
    worker_fd: int
    listening_fd: int
    shutdown_fd: int
    frozen_fds: tuple[int, ...]


class Keeper:
    """The supervisor to be, as its starter sees it. pid: its own."""

    def __init__(self, connection: socket.socket, pid: int) -> None:
        self._connection = connection
        self.pid = pid

    def hand_over(self, run: Run, post: Post | None) -> None:
        """Hand the run over, and wait until it is served. Raises SetupFailed where it is not, OSError.

        post: None for a supervisor that has its post already.
        """
        child = run.child
        message = {
            "pid": child.pid,
            "consoles": dataclasses.asdict(run.consoles),
            "placed": list(run.placed.items()),
            **{name: getattr(run, name) for name in _TOLD},
        }
        data: bytes = _AGAIN
        more: tuple[int, ...] = ()
        if post is not None:
            data = bytes((len(post.frozen_fds),)) + post.title + b"\0" + post.news
            more = (post.worker_fd, post.listening_fd, post.shutdown_fd, *post.frozen_fds)
        memory_fd = os.memfd_create("run", os.MFD_CLOEXEC)
        try:
            # a plan, with its environment, may be larger than a message can be
            os.write(memory_fd, marshal.dumps(message))
            fds = (*more, memory_fd, run.filter_fd, child.pidfd, child.netns_fd)
            socket.send_fds(self._connection, [data], (*fds, *(fd for pair in child.consoles for fd in pair)))
        finally:
            os.close(memory_fd)
        answer = self._connection.recv(_WORDS_BYTES)
        if answer != SERVING:
            words = answer.decode(errors="replace") or "it ended"
            raise SetupFailed(f"The supervisor does not serve: {words}.", step="hand over to the supervisor")

    def give_up(self, words: str) -> None:
        """Tell why there is no run."""
        with contextlib.suppress(OSError):
            self._connection.send(words.encode(errors="replace")[: _WORDS_BYTES // 2])


def receive(connection: socket.socket) -> tuple[bytes, list[int]]:
    """Return what a starter hands over; without descriptors it is why there is no run. Raises OSError."""
    data, ancillary, _, _ = connection.recvmsg(_WORDS_BYTES, _FDS_SPACE, socket.MSG_CMSG_CLOEXEC)
    return data, memoryview(ancillary[0][2]).cast("i").tolist() if ancillary else []


def unpack_post(data: bytes, fds: list[int]) -> tuple[Post, list[int]]:
    """Return the post out of what receive() returned, and the run's descriptors."""
    count = 3 + data[0]
    title, _, news = data[1:].partition(b"\0")
    worker_fd, listening_fd, shutdown_fd = fds[:3]
    post = Post(
        title=title,
        news=news,
        worker_fd=worker_fd,
        listening_fd=listening_fd,
        shutdown_fd=shutdown_fd,
        frozen_fds=tuple(fds[3:count]),
    )
    return post, fds[count:]


def spoken_by(fds: list[int]) -> list[int]:
    """Return those of a run's descriptors that become readable: init's pidfd, and the masters of its consoles."""
    return [fds[2], *fds[4::2]]


def unpack(fds: list[int]) -> Run:
    """Return the run out of its descriptors, which it owns."""
    memory_fd, filter_fd, pidfd, netns_fd, *others = fds
    message = marshal.loads(os.pread(memory_fd, os.fstat(memory_fd).st_size, 0))
    os.close(memory_fd)
    pairs = tuple(zip(others[::2], others[1::2], strict=True))
    return Run(
        child=Init(pid=message["pid"], pidfd=pidfd, netns_fd=netns_fd, consoles=pairs),
        filter_fd=filter_fd,
        placed=dict(message["placed"]),
        consoles=Consoles(**message["consoles"]),
        **{name: message[name] for name in _TOLD},
    )
