"""The last steps before a container's command: whom it runs as, where, and for applications the small init before it.

    system        the child itself becomes the user and executes init_command, which is process 1
    application   the child stays process 1: it forks, and the fork executes init_command

The small init hands every signal on to the command and reaps what is left to it. It ends when the command has: what
else runs is asked by SIGTERM and killed a second later; with wait_for_all it ends with the last process instead. Its
exit code is the command's, 128 + signal where that was killed. It holds no capability but CAP_KILL, cannot be traced
from inside, and has nothing open but the console. Nothing here returns to the supervisor's code.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import socket
import stat
import termios
import time
from collections.abc import Callable
from typing import Final, NoReturn

from ..kernel.script import StepFailed
from ..kernel.syscalls import close_range, overwrite_cmdline, set_capabilities, set_process_name
from ..model import passwd
from ..model.behaviour import Init
from ..model.capabilities import NAMES
from . import stdio

GRACE_SEC: Final = 1.0
"""How long processes that outlive an application's command have to end."""
_KILL: Final = 1 << NAMES.index("kill")
_FOR_IDS: Final = sum(1 << NAMES.index(name) for name in ("setgid", "setuid"))
_NEVER_BLOCKED: Final = (signal.SIGKILL, signal.SIGSTOP)


def read_file(path: str) -> bytes:
    """Return the beginning of a regular file, nothing where it is none: no FIFO, no device, no waiting."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return b""
        data = b""
        while len(data) < passwd.FILE_MAX_BYTES and (more := os.read(fd, 65536)):
            data += more
    except OSError:
        return b""
    finally:
        os.close(fd)
    return data


def needs_interpreter(init: Init) -> bool:
    """Tell whether somebody is looked up, or an application looked after; a system's root needs neither."""
    return init.application or bool(init.user) or init.groups is not None


def look_up(init: Init) -> passwd.Account | None:
    """Return whom the command runs as; None for a system's root, who needs no looking up. Raises StepFailed.

    The container's root directory is this process's, and nobody runs inside yet.
    """
    if not needs_interpreter(init):
        return None
    try:
        account = passwd.resolve(init.user or None, read_file("/etc/passwd"), read_file("/etc/group"))
    except passwd.UnknownUser as error:
        raise StepFailed("look up the user", OSError(errno.ENOENT, str(error), "/etc/passwd")) from None
    if init.groups is None:
        return account
    return passwd.Account(account.uid, account.gid, init.groups, account.name, account.home, account.shell)


def prepare(init: Init, account: passwd.Account | None, terminal_fd: int) -> None:
    """Give the user the console, which its command may want to open again, and an application its directory.

    Raises StepFailed. The caller is the container's root.
    """
    if account is not None and account.uid != 0:
        _step("give the console to the user", lambda: os.fchown(terminal_fd, account.uid, -1))
    if init.application and init.cwd != "/":
        os.umask(0o022)
        _step("make the working directory", lambda: os.makedirs(init.cwd, exist_ok=True))


def environment(account: passwd.Account | None, given: dict[str, str]) -> dict[str, str]:
    """Return the command's environment: what was given, and the user's home."""
    return given if account is None else {"HOME": account.home, **given}


def begin(
    init: Init,
    account: passwd.Account | None,
    held: int,
    connection: socket.socket,
    execute: Callable[[], NoReturn],
    failed: Callable[[StepFailed], None],
    pipes: tuple[int, ...] = (),
) -> NoReturn:
    """Become the container's first process. Raises StepFailed where no process was forked yet.

    held: the capabilities that its root may hold, as a bit mask. execute: runs the command, or raises StepFailed.
    failed: tells the supervisor, from a fork that could not. connection: closed before the command runs. pipes: an
    application's standard streams in the place of the console, which is then no terminal of its.
    """

    def run() -> NoReturn:
        _take_ids(account, held)
        _step("enter the working directory", lambda: os.chdir(init.cwd), init.cwd)
        execute()

    if not init.application:
        run()
    signals = {int(number) for number in signal.valid_signals()} - set(_NEVER_BLOCKED)
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    if not pipes:
        with contextlib.suppress(OSError):
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    ready_fd, settled_fd = os.pipe2(os.O_CLOEXEC)
    pid = _fork()
    if pid == 0:
        try:
            os.close(settled_fd)
            os.read(ready_fd, 1)  # ends when process 1 is all that it will be: the command may look at it
            _take_terminal()
            _step("set the standard streams", lambda: stdio.put_on(pipes))
            run()
        except StepFailed as error:
            failed(error)
        os._exit(1)
    try:
        # nothing of this process's is anybody's business inside, nor can it do anything but its work
        connection.close()
        set_capabilities(held & _KILL, inheritable=0)
        set_process_name("init")
        overwrite_cmdline(b"init")
        close_range(1)
    except OSError:
        os.kill(pid, signal.SIGKILL)
    code = look_after(pid, signals, wait_for_all=init.wait_for_all)
    with contextlib.suppress(OSError):
        # given up while it is nobody's, for the kernel would throw away what stands in it unread
        fcntl.ioctl(0, termios.TIOCNOTTY)
    os._exit(code)


def look_after(pid: int, signals: set[int], *, wait_for_all: bool) -> int:
    """Be process 1 with one child; returns its exit code. signals: all that can be blocked, and are."""
    code: int | None = None
    deadline: float | None = None
    while True:
        left = _reap(pid)
        code = left.get(pid, code)
        if code is not None:
            if left.get(0) or (deadline is not None and time.monotonic() >= deadline):
                # where somebody is left, the kernel kills all with process 1
                return code
            if deadline is None and not wait_for_all:
                deadline = time.monotonic() + GRACE_SEC
                _send(-1, signal.SIGTERM)
                continue
        wait_sec = None if deadline is None else max(0.0, deadline - time.monotonic())
        found = signal.sigtimedwait(signals, wait_sec) if wait_sec is not None else signal.sigwaitinfo(signals)
        if found is not None and found.si_signo != signal.SIGCHLD:
            _send(pid if code is None else -1, found.si_signo)


def _reap(main: int) -> dict[int, int]:
    """Reap everything that has ended; returns main's exit code under its pid, and 1 under 0 where nobody is left."""
    found: dict[int, int] = {}
    try:
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return found
            if pid == main:
                code = os.waitstatus_to_exitcode(status)
                found[main] = code if code >= 0 else 128 - code
    except ChildProcessError:
        found[0] = 1
    return found


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(OSError):
        os.kill(pid, number)


def _fork() -> int:
    try:
        return os.fork()
    except OSError as error:
        raise StepFailed("make the command's process", error) from error


def _take_terminal() -> None:
    """Be the console's foreground, so that ^C and job control work there.

    The session is process 1's: the end of one that was the command's own would hang the console up, with all that
    others have written there and nobody has read (tty_io.c, disassociate_ctty).
    """
    os.setpgid(0, 0)
    with contextlib.suppress(OSError):
        os.tcsetpgrp(0, os.getpid())


def _take_ids(account: passwd.Account | None, held: int) -> None:
    if account is None:
        _step("drop capabilities", lambda: set_capabilities(held, inheritable=0))
        return

    def become() -> None:
        set_capabilities(held | _FOR_IDS, inheritable=0)
        os.setgroups(account.groups)
        os.setresgid(account.gid, account.gid, account.gid)
        os.setresuid(account.uid, account.uid, account.uid)
        set_capabilities(held if account.uid == 0 else 0, inheritable=0)

    _step("become the user", become)


def _step(name: str, act: Callable[[], object], path: str | None = None) -> None:
    try:
        act()
    except OSError as error:
        if path is not None:
            error.filename = path
        raise StepFailed(name, error) from error


def places(program: str, environment: dict[str, str]) -> list[str]:
    """Return where a program is looked for, in order: in the environment's PATH where it is only a name."""
    if "/" in program:
        return [program]
    return [os.path.join(place or ".", program) for place in environment.get("PATH", "/usr/bin:/bin").split(":")]


def run_command(command: tuple[str, ...], environment: dict[str, str], *, program: str = "") -> NoReturn:
    """Execute a command, looked up in the environment's PATH where it is only a name. Raises OSError naming it.

    As shells have it: a directory where it is not there, or may not be executed, is passed over. program: what is
    executed, where that is not the command's first word.
    """
    program = program or command[0]
    problem = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    found: OSError = problem
    for path in places(program, environment):
        try:
            os.execve(path, command, environment)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            found = error
            if error.errno != errno.EACCES:
                break
    found.filename = program
    raise found
