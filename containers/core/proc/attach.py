"""Starts a process inside a running container: for terminals and for exec.

    supervisor                                                         the process
      clone ──────────────────────────────────────────────────────────▶ is born in its cgroup2 directory and in init's
                                                                       PID namespace, joins the cgroups of v1
                                                                       limits, not dumpable, setns(pidfd)
                                                                       container's root, passwd, (pty)
      ◀── tty + [pty master] ──────────────────────────────────────────drops rights, filter, ids
      ◀── end of file: exec succeeded, or error {step, errno, …} ──────exec

A privileged container could trace a process that is in its PID namespace before it is in all the others; so there, and
where the kernel does not let the process be born, a helper goes before it::

    supervisor                     helper                              the process
      clone ─────────────────────▶ is born in its cgroup2 directory, joins those of v1
                                   limits, not dumpable, setns(pidfd)
                                   fork ─────────────────────────────▶ container's root, passwd, (pty)
      ◀── pid ──────────────────── leaves                              drops rights, filter, ids
      ◀── tty + [pty master] ──────────────────────────────────────────
      ◀── end of file: exec succeeded, or error {step, errno, …} ──────exec

The supervisor is a child subreaper, so that the process is its own child once the helper has left; it is known by
pidfd from then on. Namespaces are entered through init's pidfd: nothing of the container's /proc is believed
(CVE-2015-1334), no descriptor but 0, 1 and 2 goes along (CVE-2016-8649, CVE-2024-21626). The supervisor never waits:
a container that is frozen meanwhile holds up the helper, and a deadline ends it.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from ..cgroups.places import write_file
from ..kernel.syscalls import CLONE_NEWPID, PR_SET_CHILD_SUBREAPER, clone3, prctl, setns
from . import entering, messages
from .inside import Request, Target
from .loop import Loop

SETUP_SEC: Final = 60.0
"""How long entering a container may take: many that enter it at once wait for each other, as on any busy host."""
_STRAY_SEC: Final = (0.5, 3.0, 15.0)
_children: set[int] = set()
"""Pids of helpers and of what they started, which somebody here will reap."""


@dataclass(slots=True)
class Started:
    """A process inside. Owns pidfd and master_fd (-1 without a terminal). command: what it was, for people."""

    pid: int
    pidfd: int
    master_fd: int
    command: tuple[str, ...]

    def reap(self) -> int:
        """Return the exit code (0 to 255, 128 + signal) of the process, which has ended; frees pidfd."""
        _children.discard(self.pid)
        return reap(self.pidfd)

    def signal(self, number: int) -> None:
        """Send a signal, if the process is still there."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why nothing was started. exit_code: 126 or 127 where it was the command's own fault, else None."""

    code: str
    message: str
    field: str | None = None
    exit_code: int | None = None


def become_reaper() -> None:
    """Make this process the parent of what it starts inside containers."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)


def reap(pidfd: int) -> int:
    """Wait for an ended child by its pidfd, and close it; returns 0 to 255, or 128 + signal."""
    try:
        result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    except ChildProcessError:
        # somebody else took it: no reason for a supervisor, and its container, to end
        return 255
    finally:
        os.close(pidfd)
    if result is None:
        return 255
    return result.si_status if result.si_code == os.CLD_EXITED else 128 + result.si_status


def _begin(target: Target, request: Request, connection: socket.socket) -> tuple[int, int, bool]:
    """Make the process, or its helper; return its pid, a pidfd, the caller's, and whether it is one. Raises OSError."""
    place = request.cgroup or target.place()
    try:
        tree_fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with contextlib.nullcontext() if target.privileged else _children_in(target.init_pidfd):
                # where it is born it need not be moved to, which may wait 10 ms and more (see cgroups.places.Birth)
                pid, pidfd = clone3(0, exit_signal=signal.SIGCHLD, cgroup_fd=tree_fd)
                if pid == 0:
                    entering.run(target, request, connection, None, helper=target.privileged)
        finally:
            os.close(tree_fd)
    except OSError:
        # what is in the way is the helper's to tell
        pid = os.fork()
        if pid == 0:
            entering.run(target, request, connection, place, helper=True)
        return pid, os.pidfd_open(pid), True
    return pid, pidfd, target.privileged


@contextlib.contextmanager
def _children_in(init_pidfd: int) -> Iterator[None]:
    """Have this process's next children be born in the PID namespace of another (pid_namespaces(7))."""
    own_fd = os.pidfd_open(os.getpid())
    try:
        setns(init_pidfd, CLONE_NEWPID)
        try:
            yield
        finally:
            setns(own_fd, CLONE_NEWPID)
    finally:
        os.close(own_fd)


class Launch:
    """One start on its way; calls done exactly once, from the loop, unless cancel() came first."""

    def __init__(self, loop: Loop, target: Target, request: Request, done: Callable[[Started | Failure], None]) -> None:
        """Make the process. Raises OSError where the host has no process or descriptor left."""
        self._loop = loop
        self._done = done
        self._pid = 0
        self._pidfd = -1
        self._master_fd = -1
        self._command: tuple[str, ...] = request.command or ()
        self._failure: Failure | None = None
        self._helper_fd = -1
        self._connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            pid, pidfd, is_helper = _begin(target, request, theirs)
        except OSError:
            self._connection.close()
            raise
        finally:
            theirs.close()
        self._helper = pid if is_helper else 0
        if is_helper:
            self._helper_fd = pidfd
        else:
            self._pid, self._pidfd = pid, pidfd
        self._target = target
        _children.add(pid)
        os.set_blocking(self._connection.fileno(), False)
        loop.watch(self._connection.fileno(), read=self._read)
        self._timer = loop.later(SETUP_SEC, self._late)

    def cancel(self) -> None:
        """Give up; what was started is killed and reaped."""
        self._done = lambda _: None
        self._fail(Failure("cancelled", "Nobody waits for it any more."))

    def _late(self) -> None:
        self._fail(Failure("timed-out", f"Entering the container took longer than {SETUP_SEC:.0f} s."))

    def _fail(self, failure: Failure) -> None:
        self._failure = failure
        self._kill()
        if self._connection.fileno() >= 0:
            self._hear_no_more()

    def _kill(self) -> None:
        for fd in (self._helper_fd, self._pidfd):
            if fd >= 0:
                with contextlib.suppress(OSError):
                    signal.pidfd_send_signal(fd, signal.SIGKILL)

    def _read(self) -> None:
        try:
            message, fds = messages.receive(self._connection, fds_max=1)
        except BlockingIOError:
            return
        except OSError:
            message, fds = None, []
        if message is None:
            self._hear_no_more()
        elif message["type"] == "pid":
            self._pid = message["pid"]
            # it cannot be reaped by anybody else, so that the number is still its own
            self._pidfd = os.pidfd_open(self._pid)
            _children.add(self._pid)
        elif message["type"] == "ready":
            self._command = tuple(message["command"])
            if fds:
                self._master_fd = fds[0]
        else:
            self._failure = _failure(message)

    def _hear_no_more(self) -> None:
        """Everything was told. The process becomes our child when the helper has ended, and not before that."""
        self._loop.forget(self._connection.fileno())
        self._connection.close()
        if self._helper_fd >= 0:
            self._loop.watch(self._helper_fd, read=self._helper_ended)
        else:
            self._settle()

    def _helper_ended(self) -> None:
        self._loop.forget(self._helper_fd)
        _children.discard(self._helper)
        reap(self._helper_fd)
        self._helper_fd = -1
        self._settle()

    def _settle(self) -> None:
        self._timer.cancel()
        if self._failure is None and (self._pidfd < 0 or not self._command):
            self._failure = Failure("setup-failed", "The container ended, or its memory did, while it was entered.")
        if self._failure is None:
            self._done(Started(self._pid, self._pidfd, self._master_fd, self._command))
            return
        if self._failure.code == "setup-failed" and _ended(self._target.init_pidfd):
            self._failure = Failure("invalid-transition", "The container ended while it was entered.")
        self._kill()
        if self._pidfd >= 0:
            self._reap_later(self._pid, self._pidfd)
        else:
            for delay_sec in _STRAY_SEC:
                self._loop.later(delay_sec, self._reap_stray)
        if self._master_fd >= 0:
            os.close(self._master_fd)
        self._done(self._failure)

    def _reap_later(self, pid: int, pidfd: int) -> None:
        def ended() -> None:
            self._loop.forget(pidfd)
            _children.discard(pid)
            reap(pidfd)

        self._loop.watch(pidfd, read=ended)

    def _reap_stray(self) -> None:
        """Reap what a killed helper had forked without telling: as a zombie it would hold the container's end up."""
        with contextlib.suppress(ChildProcessError):
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if found is not None and found.si_pid not in (*_children, self._target.init_pid):
                os.waitpid(found.si_pid, os.WNOHANG)


def _ended(pidfd: int) -> bool:
    """Whether the process has ended; so it has, too, where its owner has closed the descriptor since."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def _failure(message: dict[str, Any]) -> Failure:
    text = message["message"]
    match message["step"]:
        case "user":
            return Failure("invalid-value", text, "user")
        case "cwd":
            return Failure("invalid-value", f"The working directory cannot be entered: {text}.", "cwd")
        case "exec":
            return Failure("invalid-value", text, "command", exit_code=message["exit_code"])
        case "terminal":
            return Failure("setup-failed", f"The container gives no terminal: {text}.")
        case step:
            return Failure("setup-failed", f"The container could not be entered ({step}): {text}.")


class CommandGroup:
    """A cgroup of its own for what one exec starts, below the attach cgroup, so that all of it can be killed."""

    def __init__(self, target: Target, name: str) -> None:
        """Make the cgroup; raises OSError."""
        place = target.place()
        self.path = place / name
        self._home = f"{place}/cgroup.procs"
        self.path.mkdir()

    def kill(self) -> None:
        """Kill everything in it."""
        with contextlib.suppress(OSError):
            write_file(f"{self.path}/cgroup.kill", "1")

    def dissolve(self) -> bool:
        """Move what still runs to the attach cgroup and remove this one; returns whether it is gone."""
        with contextlib.suppress(OSError):
            moved: set[str] = set()
            # read anew for each: init may be taking one over into a scope of its own, and is not to lose it again
            while left := set((self.path / "cgroup.procs").read_text().split()) - moved:
                moved.add(pid := left.pop())
                with contextlib.suppress(OSError):
                    write_file(self._home, pid)
        try:
            self.path.rmdir()
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True
