"""The way into a container, in the helper and in the process itself (see core.proc.attach). Nothing here returns.

From setns on the files belong to somebody hostile, so that importing must not be possible any more (CVE-2019-14271),
and what is opened is checked by descriptor. The order is that of docs/security.md.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import signal
import socket
import stat
import struct
import sys
import termios
from pathlib import Path
from typing import Any, Final, NoReturn

from ..cgroups.places import read_file as cgroup_text
from ..cgroups.places import write_file
from ..kernel.syscalls import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWTIME,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    CLOSE_RANGE_CLOEXEC,
    PR_CAP_AMBIENT,
    PR_CAP_AMBIENT_CLEAR_ALL,
    PR_CAPBSET_DROP,
    PR_SET_DUMPABLE,
    PR_SET_NO_NEW_PRIVS,
    close_range,
    dispose_signals,
    load_seccomp,
    prctl,
    set_capabilities,
    setns,
    unblock_signals,
)
from ..model import passwd
from ..model.capabilities import NAMES
from . import confining, messages, rights
from .inside import Request, Target
from .program import read_file, run_command

_NAMESPACES: Final = CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWCGROUP
_PTMX: Final = os.makedev(5, 2)
_PTS_MAJORS: Final = range(136, 144)
"""UNIX98 pty slaves, kernel Documentation/admin-guide/devices.txt."""
_TIOCGPTPEER: Final = 0x5441
_TIOCSPTLCK: Final = 0x40045431
_IUTF8: Final = 0o40000
_TTY_GID: Final = 5
_NEEDED: Final = sum(1 << NAMES.index(name) for name in ("setgid", "setuid", "sys_admin"))
"""Capabilities for the filter and the ids, given up right after where a container does not keep them."""
_LIMITS: Final = tuple(
    value for name, value in sorted(vars(resource).items()) if name.startswith("RLIMIT_") and isinstance(value, int)
)


class _Failed(Exception):
    def __init__(self, step: str, message: str, exit_code: int | None = None) -> None:
        self.report: dict[str, Any] = {"type": "error", "step": step, "message": message, "exit_code": exit_code}


def run(target: Target, request: Request, connection: socket.socket, place: Path | None, *, helper: bool) -> NoReturn:
    """Be the process; leaves with status 1 where something fails, having told the supervisor.

    place: the cgroup2 directory to join; None for one that was born there. helper: be the helper first, for a process
    that was not born in the container's PID namespace.
    """
    try:
        _enter(target, request, connection, place, helper=helper)
    except _Failed as failed:
        _tell(connection, failed.report)
    except OSError as error:
        full = error.errno == errno.EAGAIN  # of what is done here only a fork ends so: pids.max, or RLIMIT_NPROC
        words = "it runs as many processes as it may" if full else error.strerror or str(error)
        _tell(connection, _Failed("set up", words).report)
    except BaseException as error:  # noqa: BLE001 - the child's last frame: everything must reach the supervisor
        _tell(connection, _Failed("set up", repr(error)).report)
    os._exit(1)


def _tell(connection: socket.socket, message: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):
        messages.send(connection, message)


def _step(step: str, error: OSError) -> _Failed:
    return _Failed(step, error.strerror or str(error))


def _enter(
    target: Target, request: Request, connection: socket.socket, place: Path | None, *, helper: bool
) -> NoReturn:
    unblock_signals()
    os.setsid()
    stdio = _keep_only(target, request, connection)
    # from here on the cgroup's limits hold, also for what follows
    for path in target.attach_procs[:-1]:
        # of v1: this thread, which is the only one, moves itself without waiting for anybody
        write_file(f"{os.path.dirname(path)}/tasks", "0")
    if place is not None:
        write_file(f"{place}/cgroup.procs", "0")
    if not helper and _too_many(target):
        # who joins a cgroup of v1 is counted there, and only a fork is refused
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    with contextlib.suppress(OSError):
        write_file("/proc/self/oom_score_adj", str(target.oom_score_adj))
    with contextlib.suppress(OSError):
        # init's limits are taken over inside, where nobody may raise them
        rights.make_room(0, target.limits)
    # in a user namespace that it enters, a process holds everything; read from the host's /proc otherwise
    held = target.capabilities & (_permitted() if target.privileged else -1)
    # while /proc is the host's (CVE-2015-1334), and on the host's account: the container's key quota may be used up
    confining.label(target.confinement)
    confining.confine(target.confinement)
    prctl(PR_SET_DUMPABLE, 0)
    sys.meta_path.clear()
    sys.path.clear()
    sys.path_hooks.clear()
    try:
        more = (0 if target.privileged else CLONE_NEWUSER) | (CLONE_NEWTIME if target.confinement.offsets else 0)
        setns(target.init_pidfd, _NAMESPACES | more | (CLONE_NEWPID if helper else 0))
    except OSError as error:
        raise _step("enter the namespaces", error) from None
    if helper and (pid := os.fork()):
        messages.send(connection, {"type": "pid", "pid": pid})
        os._exit(0)
    _become(target, request, connection, stdio, held)


def _too_many(target: Target) -> bool:
    """Whether more run in the container than may, with this process, in the one hierarchy of v1 that tells."""
    for path in target.attach_procs[:-1]:
        place = os.path.dirname(path)
        if os.access(f"{place}/pids.max", os.R_OK):
            limit = cgroup_text(f"{place}/pids.max").strip()
            return limit != "max" and int(cgroup_text(f"{place}/pids.current")) > int(limit)
    return False


def _keep_only(target: Target, request: Request, connection: socket.socket) -> tuple[int, int, int] | None:
    """Close every descriptor but those still needed; returns the streams at their new numbers."""
    kept = {connection.fileno(), target.init_pidfd, *(request.stdio or ())}
    previous = 2
    for fd in sorted(kept):
        if fd > previous:
            os.closerange(previous + 1, fd)
            previous = fd
    close_range(previous + 1)
    null_fd = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for fd in (0, 1, 2):
        os.dup2(null_fd, fd)
    os.close(null_fd)
    return request.stdio


def _take_limits() -> None:
    """Take over init's resource limits.

    From inside: reading another process's limits needs CAP_SYS_RESOURCE in its user namespace, which hosts may withhold
    from their own root. A hard limit that init has raised since cannot be followed.
    """
    for limit in _LIMITS:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(limit, resource.prlimit(1, limit))


def _become(
    target: Target, request: Request, connection: socket.socket, stdio: tuple[int, int, int] | None, held: int
) -> NoReturn:
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    prctl(PR_SET_DUMPABLE, 0)
    _take_limits()
    os.chdir("/")
    if os.getsid(0) != os.getpid():
        os.setsid()  # of a helper's child
    try:
        account = passwd.resolve(request.user, read_file("/etc/passwd"), read_file("/etc/group"))
    except passwd.UnknownUser as error:
        raise _Failed("user", str(error)) from None
    command = request.command or (f"-{os.path.basename(account.shell)}",)
    program = command[0] if request.command else account.shell
    fds: tuple[int, ...] = ()
    if request.size is not None:
        try:
            fds, stdio = _terminal(request.size, account)
        except OSError as error:
            raise _step("terminal", error) from None
    messages.send(connection, {"type": "ready", "command": request.command or (account.shell,)}, fds)
    assert stdio is not None
    for number, fd in enumerate(stdio):
        os.dup2(fd, number)
    environment = _environment(target, request, account)
    close_range(3, CLOSE_RANGE_CLOEXEC)
    _drop_rights(target, account, held)
    _change_directory(request.cwd, account.home)
    _exec(program, command, environment)


def _terminal(size: tuple[int, int], account: passwd.Account) -> tuple[tuple[int], tuple[int, int, int]]:
    """Make a pty of the container's devpts and take it as controlling terminal; returns master and streams.

    The slave is had from the master, never by path (CVE-2025-52565).
    """
    master_fd = os.open("/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    found = os.fstat(master_fd)
    if not stat.S_ISCHR(found.st_mode) or found.st_rdev != _PTMX:
        raise OSError(errno.ENODEV, "/dev/pts/ptmx is not a pty multiplexer")
    fcntl.ioctl(master_fd, _TIOCSPTLCK, struct.pack("i", 0))
    slave_fd = fcntl.ioctl(master_fd, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    if os.major(os.fstat(slave_fd).st_rdev) not in _PTS_MAJORS:
        raise OSError(errno.ENODEV, "the terminal's other side is not a pty")
    columns, rows = size
    fcntl.ioctl(slave_fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    settings = termios.tcgetattr(slave_fd)
    settings[0] |= _IUTF8
    termios.tcsetattr(slave_fd, termios.TCSANOW, settings)
    with contextlib.suppress(OSError):
        os.fchown(slave_fd, account.uid, _TTY_GID)
    os.fchmod(slave_fd, 0o620)
    fcntl.ioctl(slave_fd, termios.TIOCSCTTY, 0)
    return (master_fd,), (slave_fd, slave_fd, slave_fd)


def _environment(target: Target, request: Request, account: passwd.Account) -> dict[str, str]:
    found = {**target.environment, "HOME": account.home, "SHELL": account.shell}
    if account.name:
        found |= {"USER": account.name, "LOGNAME": account.name}
    return found | request.environment


def _drop_rights(target: Target, account: passwd.Account, held: int) -> None:
    """Bounding set, filter, ids, capability sets: what is not kept, filter and ids may need; the filter allows both.

    held: the capabilities that a root inside may hold, as a bit mask.
    """
    for number in range(target.last_capability + 1):
        if not target.capabilities >> number & 1:
            prctl(PR_CAPBSET_DROP, number)
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    set_capabilities(held | _NEEDED, inheritable=0)
    if target.no_new_privs:
        prctl(PR_SET_NO_NEW_PRIVS, 1)
    load_seccomp(target.seccomp)
    try:
        os.setgroups(account.groups)
        os.setresgid(account.gid, account.gid, account.gid)
        os.setresuid(account.uid, account.uid, account.uid)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise _Failed("user", "The uid or gid is outside the container's range.") from None
    set_capabilities(held if account.uid == 0 else 0, inheritable=0)


def _permitted() -> int:
    """Return what this process holds; call it while /proc is the host's (CVE-2015-1334)."""
    with open("/proc/self/status", "rb") as file:
        for line in file:
            if line.startswith(b"CapPrm:"):
                return int(line.split()[1], 16)
    return 0


def _change_directory(cwd: str | None, home: str) -> None:
    """Go to cwd, or home; only a missing home is forgiven."""
    try:
        os.chdir(cwd or home)
    except OSError as error:
        if cwd is not None:
            raise _step("cwd", error) from None
        os.chdir("/")
    if not os.getcwd().startswith("/"):
        raise _Failed("cwd", "it is outside the container")


def _exec(program: str, command: tuple[str, ...], environment: dict[str, str]) -> NoReturn:
    # what Python ignores (SIGPIPE, SIGXFSZ) would stay ignored after exec
    dispose_signals(default=range(1, signal.NSIG))
    os.umask(0o022)
    try:
        run_command(command, environment, program=program)
    except OSError as error:
        exit_code = 127 if error.errno == errno.ENOENT else 126
        raise _Failed("exec", f"{program}: {error.strerror}", exit_code) from None
