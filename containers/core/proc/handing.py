"""Between a starter and its supervisor (see core.proc.starting): having init made, handing the run over.

starter                                     supervisor
  ── the script, or the start itself ────▶  makes init, or a starter of its own
  ── the run, with its descriptors ──────▶  takes over
  ◀── serving, or why it does not ────────
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import marshal
import os
import socket
from dataclasses import dataclass
from typing import Final, Self

from ..errors import SetupFailed
from ..kernel.script import Memories, Script
from ..model.behaviour import Consoles
from ..sentences import say
from . import rights
from .spawn import Init

SERVING: Final = b"serving"
CARRY_OUT: Final = b"c"
PASS_ON: Final = b"p"
_AGAIN: Final = b"again"
_FDS_SPACE: Final = socket.CMSG_SPACE(253 * 4)
"""For what one message can carry (SCM_MAX_FD); used are nine, two of each console, and namespaces for hooks."""
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
    """What a supervisor needs to wait for the first that is asked of it, or happens.

    title: its command line. news: what worker_fd is told as soon as the run is served. listening_fd: its socket.
    shutdown_fd: a signalfd for SIGTERM. frozen_fds: cgroup.events files that have been read, see cgroups.frozen.
    silent: how many of the run's descriptors, its last ones, are not to be waited for.
    """

    title: bytes
    news: bytes
    worker_fd: int
    listening_fd: int
    shutdown_fd: int
    frozen_fds: tuple[int, ...]
    silent: int = 0

    def close(self) -> None:
        """Close what its maker has made for it: all but the worker's connection."""
        for fd in (self.listening_fd, self.shutdown_fd, *self.frozen_fds):
            if fd >= 0:
                os.close(fd)


class Keeper:
    """The supervisor to be, as its starter sees it: the starter's parent. pid: its own."""

    def __init__(self, connection: socket.socket, pid: int) -> None:
        self._connection = connection
        self.pid = pid
        self.mother: Spare | None = None

    def hand_over(self, run: Run, post: Post | None) -> None:
        """Hand the run over, and wait until it is served. Raises SetupFailed where it is not, OSError.

        post: None for a supervisor that has its post already.
        """
        child = run.child
        message = {
            "pid": child.pid,
            "consoles": dataclasses.asdict(run.consoles),
            "placed": list(run.placed.items()),
            "namespaces": list(child.namespaces),
            **{name: getattr(run, name) for name in _TOLD},
        }
        data: bytes = _AGAIN
        more: tuple[int, ...] = ()
        if post is not None:
            data = bytes((len(post.frozen_fds), len(child.namespaces))) + post.title + b"\0" + post.news
            more = (post.worker_fd, post.listening_fd, post.shutdown_fd, *post.frozen_fds)
        memory_fd = os.memfd_create("run", os.MFD_CLOEXEC)
        try:
            # a plan, with its environment, may be larger than a message can be
            os.write(memory_fd, marshal.dumps(message))
            fds = (*more, memory_fd, run.filter_fd, child.pidfd, child.netns_fd)
            pairs = (fd for pair in child.consoles for fd in pair)
            socket.send_fds(self._connection, [data], (*fds, *pairs, *child.namespaces.values()))
        finally:
            os.close(memory_fd)
        answer = self._connection.recv(_WORDS_BYTES)
        if answer != SERVING:
            words = answer.decode(errors="replace") or "it ended"
            told = say("The supervisor does not serve: %(why)s.", why=words)
            raise SetupFailed(told, step="hand over to the supervisor")

    def regain(self) -> None:
        """Give it back what it had as long as init shared its memory."""

    def give_up(self, words: str) -> None:
        """Tell why there is no run."""
        with contextlib.suppress(OSError):
            self._connection.send(words.encode(errors="replace")[: _WORDS_BYTES // 2])


class Spare(Keeper):
    """One that is not the starter's parent, and makes the container's init itself, as a script says.

    far_fd: the number of the connection in there. place: memory of both for the script, and its address; memories:
    of scripts that stood there. oom_score_adj: its own.
    """

    def __init__(
        self,
        connection: socket.socket,
        pid: int,
        far_fd: int,
        place: tuple[memoryview, int],
        memories: Memories,
        oom_score_adj: int,
    ) -> None:
        super().__init__(connection, pid)
        self.far_fd = far_fd
        self._place = place
        self._memories = memories
        self._oom_score_adj = oom_score_adj
        self.mother = self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def ended(self) -> bool:
        """Tell whether it has ended before it had work."""
        try:
            return not self._connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except ConnectionError:
            return True

    def script(self) -> Script:
        """Return an empty script, in the memory of both."""
        return Script(self._place, self._memories)

    def carry_out(self, fds: tuple[int, ...]) -> None:
        """Have it carry the script out that is in its memory, and receives the descriptors. Raises OSError."""
        socket.send_fds(self._connection, [CARRY_OUT], fds)
        if not self._connection.recv(1):
            raise OSError(errno.ECHILD, "the supervisor ended")

    def regain(self) -> None:
        """Give it back its own oom_score_adj, which what shares its memory has in common with it."""
        # lowering it needs CAP_SYS_RESOURCE, which some hosts withhold; it ends where somebody kills it, which is told
        with contextlib.suppress(PermissionError, FileNotFoundError):
            rights.set_oom_score(self.pid, self._oom_score_adj)

    def pass_on(self, worker_fd: int, plan_fd: int) -> None:
        """Have a child of its own do the start, which needs an interpreter, or more than a script. Raises OSError."""
        socket.send_fds(self._connection, [PASS_ON], (worker_fd, plan_fd))


def receive(connection: socket.socket) -> tuple[bytes, list[int]]:
    """Return what a starter hands over; without descriptors it is why there is no run. Raises OSError."""
    data, ancillary, _, _ = connection.recvmsg(_WORDS_BYTES, _FDS_SPACE, socket.MSG_CMSG_CLOEXEC)
    return data, memoryview(ancillary[0][2]).cast("i").tolist() if ancillary else []


def unpack_post(data: bytes, fds: list[int]) -> tuple[Post, list[int]]:
    """Return the post out of what receive() returned, and the run's descriptors."""
    count = 3 + data[0]
    title, _, news = data[2:].partition(b"\0")
    worker_fd, listening_fd, shutdown_fd = fds[:3]
    post = Post(
        title=title,
        news=news,
        worker_fd=worker_fd,
        listening_fd=listening_fd,
        shutdown_fd=shutdown_fd,
        frozen_fds=tuple(fds[3:count]),
        silent=data[1],
    )
    return post, fds[count:]


def spoken_by(fds: list[int], silent: int) -> list[int]:
    """Return those of a run's descriptors that become readable: init's pidfd, and the masters of its consoles.

    silent: as in Post.
    """
    return [fds[2], *fds[4 : len(fds) - silent : 2]]


def unpack(fds: list[int]) -> Run:
    """Return the run out of its descriptors, which it owns."""
    memory_fd, filter_fd, pidfd, netns_fd, *others = fds
    message = marshal.loads(os.pread(memory_fd, os.fstat(memory_fd).st_size, 0))
    os.close(memory_fd)
    kinds = message["namespaces"]
    ptys = others[: len(others) - len(kinds)]
    pairs = tuple(zip(ptys[::2], ptys[1::2], strict=True))
    kept = dict(zip(kinds, others[len(ptys) :], strict=True))
    return Run(
        child=Init(pid=message["pid"], pidfd=pidfd, netns_fd=netns_fd, consoles=pairs, namespaces=kept),
        filter_fd=filter_fd,
        placed=dict(message["placed"]),
        consoles=Consoles(**message["consoles"]),
        **{name: message[name] for name in _TOLD},
    )
