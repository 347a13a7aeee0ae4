"""The launcher: a warm, single-threaded interpreter that forks starters, and one supervisor per start.

``python -I -S launcher.py STATE_DIR [ROOM]``, as root; ROOM is start_plan.TITLE_ROOM. Two starters or more wait in
accept(2) on the launcher's socket, each with a process that is ready to be a supervisor (core.proc.standing): whoever
asks for a start finds both, and the launcher forks the next meanwhile. It reaps them; after its own death supervisors
run on, and a new launcher starts beside them.

A supervisor and its child enter file systems that others wrote: everything is imported beforehand, and then the
import system is emptied, so that nothing can be loaded from there (CVE-2019-14271 in Python's form).
"""

from __future__ import annotations

import codecs
import contextlib
import gc
import importlib
import os
import select
import signal
import socket
import sys
import time
import types
from collections.abc import Callable
from typing import Any, Final, NoReturn


class _PutOff(types.ModuleType):
    """A module that is loaded when something of it is asked for, which may be never."""

    def __getattr__(self, name: str) -> Any:
        del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))))
    # dataclasses asks it about classes without a docstring; with what it brings along it is a seventh of the memory
    sys.modules["inspect"] = _PutOff("inspect")

from containers.core.cgroups import Cgroups  # noqa: E402
from containers.core.errors import CoreError  # noqa: E402
from containers.core.host import Host  # noqa: E402
from containers.core.kernel import runner  # noqa: E402
from containers.core.kernel.pids import boot_id  # noqa: E402
from containers.core.kernel.script import Places  # noqa: E402
from containers.core.kernel.syscalls import (  # noqa: E402
    PR_SET_CHILD_SUBREAPER,
    PR_SET_PDEATHSIG,
    argument_area,
    dispose_signals,
    prctl,
)
from containers.core.plans.start_plan import StartPlan  # noqa: E402
from containers.core.proc import (  # noqa: E402
    child_plan,
    handing,
    rehearsing,
    seccomp_files,
    serving,
    standing,
    starting,
    supervisor,
)

BACKLOG: Final = 128
DESCRIPTORS: Final = 1024
DISMISS_SEC: Final = 5.0
_IGNORED: Final = (int(signal.SIGTERM), int(signal.SIGINT), int(signal.SIGHUP))
_DEFAULT: Final = (int(signal.SIGCHLD),)
FIRST: Final = 2
"""How many starters there are at least."""
AT_REST: Final = 3
"""How many stay when there is no more work: so many have a part in starts that follow each other."""
ENCODINGS: Final = ("ascii", "latin-1", "utf-8")
"""Looked up beforehand: an encoding is a module that is imported at its first use."""


def listen(host: Host) -> socket.socket:
    """Bind the launcher's socket, 0600, in the place of one that a dead launcher left."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    path = str(host.launcher_socket)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    previous = os.umask(0o177)
    try:
        listener.bind(path)
    finally:
        os.umask(previous)
    listener.listen(BACKLOG)
    return listener


def make_filters(host: Host) -> None:
    """Compile the system call filters in a child, whose memory goes with it. Raises RuntimeError."""
    pid = os.fork()
    if pid == 0:
        try:
            seccomp_files.make(host)
        except BaseException:  # noqa: BLE001 - the child's last frame
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    if os.waitpid(pid, 0)[1]:
        raise RuntimeError("the system call filters could not be made")


def prepare() -> None:
    """Make this process fit to be forked from: no imports to come, no inherited rights or descriptors."""
    for name in ENCODINGS:
        codecs.lookup(name)
    # what has been put off and not been needed will not be any more
    for name, module in [*sys.modules.items()]:
        if isinstance(module, _PutOff):
            del sys.modules[name]
            for user in sys.modules.values():
                if vars(user).get(name) is module:
                    setattr(user, name, None)
    sys.meta_path.clear()
    sys.path.clear()
    sys.path_hooks.clear()
    sys.path_importer_cache.clear()
    os.environ.clear()
    os.chdir("/")
    os.umask(0o022)
    os.setgroups([])
    # an init whose supervisor was killed is reaped here, whatever the host's own PID 1 does
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    os.closerange(3, DESCRIPTORS)
    null_fd = os.open("/dev/null", os.O_RDWR)
    os.dup2(null_fd, 0)
    os.close(null_fd)
    gc.collect()
    gc.freeze()


class _Starter:
    """A starter, as the launcher sees it."""

    __slots__ = ("control", "pid")

    def __init__(self, pid: int, control: socket.socket) -> None:
        self.pid = pid
        self.control = control


class Launcher:
    """Keeps starters waiting in accept(2), each with a child that is ready to be a supervisor."""

    def __init__(self, host: Host, listener: socket.socket) -> None:
        self.host = host
        self.listener = listener
        self.cgroups: Cgroups | CoreError | OSError = OSError()
        self.settled = False
        self._settle()
        self.sample = rehearsing.sample(host)
        # looked up once for all that are forked
        serving.web_ids()
        child_plan.last_capability()
        boot_id()
        argument_area()
        runner.available()
        self.places = Places(standing.MOST)
        self.starters: dict[int, _Starter] = {}
        self.at_rest: set[int] = set()
        self.last_number = -1
        self.stopping = False
        # a byte for everything that a starter tells, and one for every signal
        self._wake_read_fd, self._wake_write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT; the supervisors run on."""
        signal.set_wakeup_fd(self._wake_write_fd, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        poll = select.poll()
        poll.register(self._wake_read_fd, select.POLLIN)
        self._tend(poll)
        # a starter ends when its accept(2) fails, or, where it is at work, after that
        self.listener.shutdown(socket.SHUT_RDWR)
        for starter in self.starters.values():
            starter.control.close()
        deadline = time.monotonic() + DISMISS_SEC
        while self.at_rest and (left := deadline - time.monotonic()) > 0:
            poll.poll(left * 1000)
            with contextlib.suppress(BlockingIOError):
                for byte in os.read(self._wake_read_fd, 4096):
                    self.at_rest.discard(byte - standing.TAKEN)
            with contextlib.suppress(ChildProcessError):
                while pid := os.waitpid(-1, os.WNOHANG)[0]:
                    self._forget(pid)

    def _tend(self, poll: select.poll) -> None:
        """Have starters and their spares at any time, until this process is to stop.

        A start is one turn of a loop that calls no others of ours, because what this process writes between two forks
        is what the supervisor that was forked first has to itself from then on.
        """
        launcher_pid, wake_fd = os.getpid(), self._wake_read_fd
        taken, idle, in_want = standing.TAKEN, standing.IDLE, standing.WANTING
        wait, read, reap, fork, pair = poll.poll, os.read, os.waitpid, os.fork, socket.socketpair
        starters, at_rest = self.starters, self.at_rest
        wanting: list[int] = []
        while not self.stopping:
            while len(starters) < FIRST or (not (at_rest or wanting) and len(starters) < standing.MOST):
                wanting.append(self._make_starter(launcher_pid))
            for number in wanting:
                ours, theirs = pair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                pid = fork()
                if not pid:
                    self._be_spare(launcher_pid, ours, number)
                try:
                    about = standing.SPARE.pack(pid, ours.fileno())
                    socket.send_fds(starters[number].control, [about], [theirs.fileno()])
                    at_rest.add(number)
                except OSError:
                    # the starter has ended, and so does the spare
                    pass
                ours.close()
                theirs.close()
            wanting.clear()
            wait()
            try:
                for byte in read(wake_fd, 4096):
                    if byte >= in_want:
                        wanting.append(byte - in_want)
                    elif byte >= idle:
                        if len(at_rest) + len(wanting) < AT_REST:
                            wanting.append(byte - idle)
                        else:
                            self._dismiss(byte - idle)
                    elif byte >= taken:
                        at_rest.discard(byte - taken)
            except BlockingIOError:
                pass
            try:
                while pid := reap(-1, os.WNOHANG)[0]:
                    self._forget(pid)
            except ChildProcessError:
                pass
            wanting = [number for number in wanting if number in starters]

    def _make_starter(self, launcher_pid: int) -> int:
        """Fork a starter; returns its number."""
        if not self.settled:
            self._settle()
        # in turn: what one that was killed has begun may end a little later than it, and reads its script until then
        turn = (one % standing.MOST for one in range(self.last_number + 1, self.last_number + 1 + standing.MOST))
        number = self.last_number = next(one for one in turn if one not in self.starters)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid == 0:
            self._be_starter(launcher_pid, theirs, number)
        theirs.close()
        self.starters[number] = _Starter(pid, ours)
        return number

    def _dismiss(self, number: int) -> None:
        """Have a starter end that has done its work."""
        with contextlib.suppress(OSError, KeyError):
            self.starters[number].control.send(standing.LEAVE)

    def _forget(self, pid: int) -> None:
        """Forget a starter that has ended; one of its number may follow."""
        for number, starter in self.starters.items():
            if starter.pid == pid:
                starter.control.close()
                self.at_rest.discard(number)
                del self.starters[number]
                return

    def _settle(self) -> None:
        try:
            self.cgroups = starting.settle(self.host)
            self.settled = True
        except (CoreError, OSError) as error:
            self.cgroups = error

    def _stop(self, _number: int, _frame: object) -> None:
        self.stopping = True

    # -- forks --------------------------------------------------------------------------------------------------------

    def _be_starter(self, launcher_pid: int, control: socket.socket, number: int) -> NoReturn:
        def act() -> None:
            _part(self.listener.fileno(), control.fileno(), self._wake_write_fd)
            if not isinstance(self.cgroups, Exception):
                with contextlib.suppress(CoreError, OSError):
                    rehearsing.rehearse(self.cgroups, self.sample)
            one = standing.Standing(self.cgroups, self.listener, control, self._wake_write_fd, number, self.places)
            one.run(launcher_pid)

        _last(act)

    def _be_spare(self, launcher_pid: int, starter: socket.socket, number: int) -> NoReturn:
        def act() -> None:
            # without a launcher there must be no spare, as long as it has no work
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != launcher_pid:
                return
            _part(starter.fileno())
            work = starter.recv(1, socket.MSG_PEEK)
            if not work or isinstance(self.cgroups, Exception):
                return
            # from here on neither it nor its starter depends on the launcher
            prctl(PR_SET_PDEATHSIG, 0)
            if work == handing.CARRY_OUT:
                runner.run(self.places.first(number))
                supervisor.main(self.host, self.cgroups, starter, None, self.places)
            else:
                self._start_by_a_child(starter, self.cgroups)

        _last(act)

    def _start_by_a_child(self, starter: socket.socket, cgroups: Cgroups) -> None:
        """Have a child of this process's own, which is to be a supervisor, do the start that a starter passes on."""
        _, (worker_fd, plan_fd), _, _ = socket.recv_fds(starter, 1, 2, socket.MSG_CMSG_CLOEXEC)
        starter.close()
        # an application's first process is a fork that stays: it is not to have what others carry out
        self.places.close()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        keeper_pid, child_pid = os.getpid(), os.fork()
        if child_pid == 0:

            def act() -> None:
                ours.close()
                text = starting.read(plan_fd)
                with socket.socket(fileno=worker_fd) as worker:
                    plan = StartPlan.from_json(text)
                    starting.serve(worker, plan, text, cgroups, handing.Keeper(theirs, keeper_pid))

            _last(act)
        theirs.close()
        os.close(worker_fd)
        os.close(plan_fd)
        supervisor.main(self.host, cgroups, ours, child_pid, self.places)


def _last(act: Callable[[], None]) -> NoReturn:
    """Do something as all that a fork does."""
    status = 0
    try:
        act()
    except BaseException:  # noqa: BLE001 - the fork's last frame
        sys.excepthook(*sys.exc_info())
        status = 1
    os._exit(status)


def _part(*fds: int) -> None:
    """Have no more to do with the launcher, in a fork of it: its signals, its session, its descriptors but these."""
    signal.set_wakeup_fd(-1)
    dispose_signals(ignored=_IGNORED, default=_DEFAULT)
    os.setsid()
    first = 3
    for fd in sorted(fds):
        os.closerange(first, fd)
        first = fd + 1
    os.closerange(first, DESCRIPTORS)


def main(state_dir: str) -> None:
    """Run the launcher of an instance."""
    host = Host.open(state_dir)
    with contextlib.suppress(PermissionError):
        # a session of its own, so that Ctrl-C on the panel does not reach it; a group's leader has that already
        os.setsid()
    make_filters(host)
    prepare()
    listener = listen(host)
    try:
        Launcher(host, listener).run()
    finally:
        listener.close()


if __name__ == "__main__":
    main(sys.argv[1])
