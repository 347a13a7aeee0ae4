"""The launcher: a warm, single-threaded interpreter that forks one supervisor per start.

``python -I -S launcher.py STATE_DIR``, as root. It accepts on the instance's launcher socket and forks at once: a
supervisor that hangs or fails harms nobody else. It reaps the supervisors that it forked; after its own death they
run on, and a new launcher starts beside them.

A supervisor and its child enter file systems that others wrote: everything is imported beforehand, and then the
import system is emptied, so that nothing can be loaded from there (CVE-2019-14271 in Python's form).
"""

from __future__ import annotations

import codecs
import contextlib
import gc
import os
import select
import signal
import socket
import struct
import sys
import traceback
from typing import Final, NoReturn

if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))))

from containers.core.host import Host
from containers.core.proc import seccomp_files, supervisor
from containers.core.syscalls import PR_SET_CHILD_SUBREAPER, prctl

BACKLOG: Final = 128
ENCODINGS: Final = ("ascii", "idna", "latin-1", "utf-8", "utf-16", "utf-32")
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
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if os.waitpid(pid, 0)[1]:
        raise RuntimeError("the system call filters could not be made")


def prepare() -> None:
    """Make this process fit to be forked from: no imports to come, no inherited rights or descriptors."""
    for name in ENCODINGS:
        codecs.lookup(name)
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
    os.closerange(3, 1024)
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


def supervise(connection: socket.socket) -> NoReturn:
    """Be a supervisor, in the fork."""
    status = 0
    try:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        fd = connection.fileno()
        os.closerange(3, fd)
        os.closerange(fd + 1, 65536)
        supervisor.main(connection)
    except BaseException:  # noqa: BLE001 - the fork's last frame
        traceback.print_exc()
        status = 1
    os._exit(status)


def serve(listener: socket.socket) -> None:
    """Fork a supervisor for every connection of root's, and reap those that end, until SIGTERM or SIGINT."""
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    wake_read_fd, wake_write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    poll.register(wake_read_fd, select.POLLIN)
    signal.set_wakeup_fd(wake_write_fd, warn_on_full_buffer=False)
    stopping = False

    def stop(_number: int, _frame: object) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    while not stopping:
        for fd, _ in poll.poll():
            if fd == wake_read_fd:
                with contextlib.suppress(BlockingIOError):
                    os.read(wake_read_fd, 4096)
                reap()
            elif fd == listener.fileno():
                accept(listener)


def accept(listener: socket.socket) -> None:
    """Fork a supervisor for the next connection."""
    try:
        connection, _ = listener.accept()
    except OSError:
        # the peer went away, or descriptors are short for the moment: the next start tries again
        return
    with connection:
        if not peer_is_root(connection):
            return
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            supervise(connection)


def reap() -> None:
    """Take the exit statuses of the supervisors that have ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


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
        serve(listener)
    finally:
        listener.close()


if __name__ == "__main__":
    main(sys.argv[1])
