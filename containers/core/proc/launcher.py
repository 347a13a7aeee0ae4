"""The launcher: a warm, single-threaded interpreter that forks one supervisor per start.

``python -I -S launcher.py STATE_DIR [ROOM]``, as root; ROOM is start_plan.TITLE_ROOM. One forked child waits in
accept(2) on the launcher's socket: whoever asks for a start finds a process that is ready, and the launcher forks the
next one meanwhile. It reaps the supervisors that it forked; after its own death they run on, and a new launcher starts
beside them.

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
import struct
import sys
import time
import types
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
from containers.core.kernel.syscalls import (  # noqa: E402
    PR_SET_CHILD_SUBREAPER,
    PR_SET_PDEATHSIG,
    argument_area,
    dispose_signals,
    populate,
    prctl,
)
from containers.core.proc import (  # noqa: E402
    pages,
    rehearsing,
    seccomp_files,
    serving,
    setup,
    spawn,
    starting,
    supervisor,
)

BACKLOG: Final = 128
DESCRIPTORS: Final = 1024
DISMISS_SEC: Final = 5.0
_IGNORED: Final = (int(signal.SIGTERM), int(signal.SIGINT), int(signal.SIGHUP))
_DEFAULT: Final = (int(signal.SIGCHLD),)
TAKEN: Final = 255
"""What a spare writes when it has work: no signal has this number."""
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


def peer_is_root(connection: socket.socket) -> bool:
    """Tell whether root is at the other end."""
    size = struct.calcsize("3i")
    _pid, uid, _gid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return bool(uid == 0)


class Launcher:
    """Keeps one child waiting in accept(2), ready to be a supervisor, and forks the next as soon as it has work."""

    def __init__(self, host: Host, listener: socket.socket) -> None:
        self.host = host
        self.listener = listener
        self.cgroups: Cgroups | CoreError | OSError = OSError()
        self.settled = False
        self._settle()
        self.sample = rehearsing.sample(host)
        # looked up once for all that are forked
        serving.web_ids()
        spawn.last_capability()
        boot_id()
        argument_area()
        runner.available()
        self.pages = pages.Pages()
        self.spare_pid = 0
        self.stopping = False
        # a byte for every child that has been given work, and one for every signal
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
        # the spare ends when its accept(2) fails; one that has taken work meanwhile is not the spare any more
        self.listener.shutdown(socket.SHUT_RDWR)
        deadline = time.monotonic() + DISMISS_SEC
        while self.spare_pid and (left := deadline - time.monotonic()) > 0:
            poll.poll(left * 1000)
            self._woken()

    def _tend(self, poll: select.poll) -> None:
        """Have a spare at any time, until this process is to stop.

        It is one function that calls no others of ours, because what this process writes between two forks is what the
        supervisor that was forked first has to itself from then on.
        """
        launcher_pid, wake_fd, taken = os.getpid(), self._wake_read_fd, TAKEN
        wait, read, reap, fork = poll.poll, os.read, os.waitpid, os.fork
        spare_pid = 0
        while not self.stopping:
            if not spare_pid:
                if not self.settled:
                    self._settle()
                spare_pid = fork()
                if not spare_pid:
                    self._be_spare(launcher_pid)
                self.spare_pid = spare_pid
            wait()
            try:
                if taken in read(wake_fd, 4096):
                    spare_pid = 0
            except BlockingIOError:
                pass
            try:
                while pid := reap(-1, os.WNOHANG)[0]:
                    if pid == spare_pid:
                        spare_pid = 0
            except ChildProcessError:
                pass
        self.spare_pid = spare_pid

    def _settle(self) -> None:
        try:
            self.cgroups = starting.settle(self.host)
            self.settled = True
        except (CoreError, OSError) as error:
            self.cgroups = error

    def _stop(self, _number: int, _frame: object) -> None:
        self.stopping = True

    def _woken(self) -> None:
        with contextlib.suppress(BlockingIOError):
            if TAKEN in os.read(self._wake_read_fd, 4096):
                self.spare_pid = 0
        with contextlib.suppress(ChildProcessError):
            while pid := os.waitpid(-1, os.WNOHANG)[0]:
                if pid == self.spare_pid:
                    self.spare_pid = 0

    def _be_spare(self, launcher_pid: int) -> NoReturn:
        status = 0
        try:
            self._wait_for_work(launcher_pid)
        except BaseException:  # noqa: BLE001 - the fork's last frame
            sys.excepthook(*sys.exc_info())
            status = 1
        os._exit(status)

    def _wait_for_work(self, launcher_pid: int) -> None:
        """Be the spare: wait until a child of one's own has started a container, and be its supervisor."""
        signal.set_wakeup_fd(-1)
        dispose_signals(ignored=_IGNORED, default=_DEFAULT)
        # without a launcher there must be no spare: the next launcher has its own socket and its own spare
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != launcher_pid:
            return
        os.setsid()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        spare_pid = os.getpid()
        starter_pid = os.fork()
        if starter_pid == 0:
            ours.close()
            status = 0
            try:
                self._start(spare_pid, theirs)
            except BaseException:  # noqa: BLE001 - the fork's last frame
                sys.excepthook(*sys.exc_info())
                status = 1
            os._exit(status)
        _keep_only(ours)
        self.pages.close()
        if ours.recv(1) and not isinstance(self.cgroups, Exception):
            # it has work: from here on neither of both depends on the launcher
            prctl(PR_SET_PDEATHSIG, 0)
            supervisor.main(self.host, self.cgroups, ours, starter_pid)
        else:
            os.waitpid(starter_pid, 0)

    def _start(self, spare_pid: int, keeper: socket.socket) -> None:
        """Be the spare's child: accept one connection of root's, and start what it asks for."""
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != spare_pid:
            return
        # it is short-lived: looking for garbage would only touch memory
        gc.disable()
        self._warm_up()
        try:
            connection, _ = self.listener.accept()
        except OSError:
            # the launcher ends
            return
        # from here on it does not end with the supervisor, but takes back what it has done
        prctl(PR_SET_PDEATHSIG, 0)
        keeper.send(b".")
        os.write(self._wake_write_fd, bytes((TAKEN,)))
        _keep_only(connection, keeper)
        if peer_is_root(connection):
            starting.main(connection, self.cgroups, keeper, self.pages)

    def _warm_up(self) -> None:
        """Have the memory that a start will write to: what is touched first after a fork costs microseconds a page."""
        ranges = self.pages.ranges()
        self.pages.keep_from_children()
        setup.inherited()
        if ranges:
            with contextlib.suppress(OSError):
                populate(ranges)
                return
        if not isinstance(self.cgroups, Exception):
            with contextlib.suppress(CoreError, OSError):
                rehearsing.rehearse(self.cgroups, self.sample)


def _keep_only(*sockets: socket.socket) -> None:
    """Close every descriptor but the first three and these."""
    first = 3
    for fd in sorted(one.fileno() for one in sockets):
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
