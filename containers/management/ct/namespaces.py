"""Single namespaces of a container, for host root's own programs: `attach -s NETWORK -- ip address`.

What runs keeps the rights, the cgroup and, unless its mounts are entered, the files of the host. The container's own
programs never run so: its mounts are entered only together with its user namespace, where root is nobody outside.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator, Mapping
from typing import Any, Final, NoReturn

from django.conf import settings

from containers.core.host import Host
from containers.core.kernel.syscalls import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    setns,
)
from containers.core.proc.records import RunFile
from containers.models import Container

from .base import Failed

FLAGS: Final = {
    "CGROUP": CLONE_NEWCGROUP,
    "IPC": CLONE_NEWIPC,
    "MOUNT": CLONE_NEWNS,
    "NETWORK": CLONE_NEWNET,
    "PID": CLONE_NEWPID,
    "USER": CLONE_NEWUSER,
    "UTSNAME": CLONE_NEWUTS,
}
"""By LXC's words."""


def parse(text: str) -> int:
    """Return the flags of "NETWORK|PID"; raises Failed."""
    flags = 0
    for word in text.replace(",", "|").split("|"):
        if word.strip().upper() not in FLAGS:
            raise Failed(f"There is no kind of namespace {word!r}: use {', '.join(FLAGS)}.")
        flags |= FLAGS[word.strip().upper()]
    return flags


def run(row: Container, flags: int, command: list[str], environment: dict[str, str]) -> int:
    """Run a command in some namespaces of a running container; returns its exit code, 128 + signal. Raises Failed."""
    run_file = RunFile.read(Host.open(settings.STATE_DIR).run_path(row.pk))
    pidfd = run_file.init.open() if run_file else None
    if pidfd is None:
        raise Failed(f"{row.name} is not running.")
    if flags & CLONE_NEWNS and not flags & CLONE_NEWUSER and not row.privileged:
        raise Failed("MOUNT goes with USER only: the container's programs would run with the host's rights.")
    if row.privileged:
        flags &= ~CLONE_NEWUSER
    try:
        with _keys_left_alone() as before:
            pid = os.fork()
            if pid == 0:
                _enter(pidfd, flags, command, environment, before)
            return _code(os.waitpid(pid, 0)[1])
    finally:
        os.close(pidfd)


@contextlib.contextmanager
def _keys_left_alone() -> Iterator[dict[int, Any]]:
    """Wait as system(3) does: ^C and ^\\ are for the program, which may do with them what it likes.

    From before it is forked on: it may run, and be sent one, before who waits for it does. Yields what was before.
    """
    before: dict[int, Any] = {key: signal.signal(key, signal.SIG_IGN) for key in (signal.SIGINT, signal.SIGQUIT)}
    try:
        yield before
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _enter(
    pidfd: int, flags: int, command: list[str], environment: dict[str, str], before: Mapping[int, Any]
) -> NoReturn:
    """Be the process that enters; a process of its own lives in a pid namespace that was entered.

    before: how the signals that are ignored here were handled; the program ignores those that were ignored then.
    """
    status = 126
    try:
        setns(pidfd, flags)
        pid = os.fork()
        if pid:
            os._exit(_code(os.waitpid(pid, 0)[1]))
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if handler == signal.SIG_IGN else signal.SIG_DFL)
        # Python ignores it, and what is run would inherit that
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        if flags & CLONE_NEWUSER:
            os.setgroups([])
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
        if flags & CLONE_NEWNS:
            os.chdir("/")
        # what was opened for the panel is not this program's
        os.closerange(3, 4096)
        os.execvpe(command[0], command, environment)
    except FileNotFoundError:
        status = 127
        os.write(2, f"{command[0]}: there is no such program\n".encode())
    except BaseException as error:  # noqa: BLE001  the fork's last frame
        os.write(2, f"{command[0]}: {error}\n".encode())
    os._exit(status)


def _code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code
