"""What a container's first process does last before its exec: it takes on what confines it, and drops its rights.

For a script, but for those whose command needs an interpreter: core.proc.program.
"""

from __future__ import annotations

import errno
import functools
import os
import signal
import socket
import struct
from dataclasses import dataclass
from typing import Final, NoReturn

from ..kernel.script import AT_FDCWD, Kept, Script, StepFailed
from ..kernel.syscalls import (
    PR_CAP_AMBIENT,
    PR_CAP_AMBIENT_CLEAR_ALL,
    PR_CAPBSET_DROP,
    PR_SET_NO_NEW_PRIVS,
    SECCOMP_SET_MODE_FILTER,
    capability_sets,
    dispose_signals,
)
from ..model import passwd
from . import confining, messages, program, stdio
from .child_plan import ChildPlan

_SIG_SETMASK: Final = 2
_SIGSET_BYTES: Final = 8
_SIGACTION_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Inherited:
    """What a child has from its starter. permitted: capabilities; ignored: signals; as bit masks, as in proc(5)."""

    permitted: int
    ignored: int


@functools.cache
def inherited() -> Inherited:
    """Return what this process hands down; a host may lack a capability itself."""
    with open("/proc/self/status", "rb") as file:
        lines = dict(line.split(b":", 1) for line in file.read().splitlines())
    return Inherited(*(int(lines[name], 16) for name in (b"CapPrm", b"SigIgn")))


def write(script: Script, path: str, value: str) -> None:
    """Write a file in one write(2)."""
    file_fd, text = script.room(4), os.fsencode(value)
    flags = os.O_WRONLY | os.O_CLOEXEC
    script.call("openat", AT_FDCWD, script.text(path), flags, 0, path=path, kept=file_fd)
    script.call("write", Kept(file_fd), script.data(text), len(text), path=path)
    script.call("close", Kept(file_fd))


def set_limit(script: Script, kind: int, soft: int, hard: int) -> None:
    """Add the setting of a limit of the process; as setrlimit(2) has it."""
    # RLIM_INFINITY is -1 in Python
    bounds = struct.pack("=QQ", *(bound & 0xFFFFFFFFFFFFFFFF for bound in (soft, hard)))
    script.call("prlimit64", 0, kind, script.data(bounds), 0)


def filter_calls(script: Script, plan: ChildPlan) -> None:
    """Set the system call filter: from here on it is in force for the child itself."""
    script.step = "set the system call filter"
    if plan.no_new_privs:
        script.call("prctl", PR_SET_NO_NEW_PRIVS, 1)
    # while there is CAP_SYS_ADMIN, without which only no_new_privs would allow it; it allows all that follows
    for one in plan.seccomp:
        filter_program = script.data(struct.pack("=H6xQ", len(one) // 8, script.data(one)))
        script.call("seccomp", SECCOMP_SET_MODE_FILTER, 0, filter_program)


def confine(script: Script, plan: ChildPlan) -> None:
    """Drop the rights that its programs are not to have."""
    script.step = "set the AppArmor profile"
    try:
        label = confining.label_of(plan.confinement)
    except OSError as error:
        raise StepFailed("set the AppArmor profile", error) from error
    if label is not None:
        write(script, *label)
    if not plan.own_list:
        filter_calls(script, plan)
    script.step = "drop capabilities"
    script.same((plan.capabilities, plan.last_capability), lambda: _drop(script, plan))
    script.step = "set the resource limits"
    for kind, soft, hard in plan.limits:
        set_limit(script, kind, soft, hard)


def _drop(script: Script, plan: ChildPlan) -> None:
    for number in range(plan.last_capability + 1):
        if not plan.capabilities >> number & 1:
            script.call("prctl", PR_CAPBSET_DROP, number)
    script.call("prctl", PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)


def _held(plan: ChildPlan) -> int:
    """Return which capabilities its root holds: in a user namespace of its own all that the kernel knows."""
    has = inherited().permitted if plan.privileged else (1 << plan.last_capability + 1) - 1
    return plan.capabilities & has


def begin(script: Script, plan: ChildPlan) -> None:
    """Execute the init command as process 1, as root. See core.proc.program for all others."""
    script.step = "drop capabilities"
    header, sets = capability_sets(_held(plan))
    script.call("capset", script.data(header), script.data(sets))
    script.step = "enter the working directory"
    script.call("chdir", script.text(plan.init.cwd), path=plan.init.cwd)
    script.step = "run the init command"
    # what Python ignores (SIGPIPE, SIGXFSZ), or the launcher, would stay ignored after exec; handlers do not stay
    default = script.room(_SIGACTION_BYTES)
    for number in _ignored():
        script.call("rt_sigaction", number, default, 0, _SIGSET_BYTES)
    script.call("rt_sigprocmask", _SIG_SETMASK, script.room(_SIGSET_BYTES), 0, _SIGSET_BYTES)
    script.call("umask", 0o022)
    try:
        _execute(script, plan.command, plan.environment)
    except OSError as error:
        # what is too much for a script is too much for the kernel, and told in the same way
        error.filename = plan.command[0]
        raise


def _ignored() -> list[int]:
    return [number for number in range(1, signal.NSIG) if inherited().ignored >> number - 1 & 1]


def _execute(script: Script, command: tuple[str, ...], environment: dict[str, str]) -> None:
    arguments = script.texts(command)
    variables = script.texts([f"{name}={value}" for name, value in environment.items()])
    places = program.places(command[0], environment)
    if places == [command[0]]:
        script.call("execve", script.text(command[0]), arguments, variables, path=command[0])
        return
    results = [script.room(4) for _ in places]
    passed_over = (errno.ENOENT, errno.ENOTDIR, errno.EACCES)
    for path, result in zip(places, results, strict=True):
        script.call("execve", script.text(path), arguments, variables, path=path, kept=result, tolerated=passed_over)

    def nowhere() -> OSError:
        refused = any(script.value(result) == -errno.EACCES for result in results)
        number = errno.EACCES if refused else errno.ENOENT
        return OSError(number, os.strerror(number), command[0])

    script.call("execve", script.text(""), arguments, variables)
    script.explain(nowhere)


class Last:
    """The last steps before a command that needs an interpreter: who it runs as is looked up, or it is an application.

    In the child.
    """

    def __init__(self, plan: ChildPlan, connection: socket.socket) -> None:
        self._plan = plan
        self._connection = connection
        self._account: passwd.Account | None = None
        self._pipes: tuple[int, ...] = ()
        self._held, self._ignored = _held(plan), _ignored()

    def look_up(self) -> None:
        """Find out whom the command runs as, and give that one the console, or streams of its own."""
        self._account = program.look_up(self._plan.init)
        program.prepare(self._plan.init, self._account, 0)
        if self._plan.stdio:
            try:
                pipes = stdio.make(self._account.uid if self._account is not None else 0)
                stdio.tell(self._connection, pipes)
            except OSError as error:
                raise StepFailed("set the standard streams", error) from error
            self._pipes = pipes.near

    def begin(self) -> NoReturn:
        """Become the container's first process."""
        plan, account = self._plan, self._account
        program.begin(
            plan.init,
            account,
            self._held,
            self._connection,
            lambda: self._exec(program.environment(account, plan.environment)),
            lambda failed: messages.report(self._connection, failed.step, failed.error),
            self._pipes,
        )

    def _exec(self, environment: dict[str, str]) -> NoReturn:
        dispose_signals(default=self._ignored)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.umask(0o022)
        try:
            program.run_command(self._plan.command, environment)
        except OSError as error:
            raise StepFailed("run the init command", error) from error
