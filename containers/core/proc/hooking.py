"""Runs a container's hooks: those of the host as children of its starter or supervisor, that of the container inside.

A hook has a cgroup of its own, so that it can be ended with all that it started, when its time is up or when it has
ended: it leaves no process behind. At the points between, when the container's file systems are being mounted, it is
the container's root and nobody else, for it works in directories that the container has filled; its program comes along
in memory then, as that root cannot read the host's.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final, NoReturn, Protocol

from ..cgroups.base import Cgroups
from ..cgroups.places import write_file
from ..errors import CoreError, SetupFailed
from ..hoststore.rootfiles import open_own
from ..kernel import disk_mount
from ..kernel.syscalls import CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWUTS, close_range, setns
from ..model.hooks import ENDING, MOUNTING, OUTPUT_BYTES, START, Call, environment
from ..plans.start_plan import PATH, StartPlan
from ..sentences import say

_INSIDE: Final = CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC
_READ_BYTES: Final = 65536
_EMPTYING_SEC: Final = 10.0
_NOT_RUN: Final = 127


class Inside(Protocol):
    """What is needed of a child whose namespaces are entered."""

    pid: int
    pidfd: int
    netns_fd: int
    namespaces: dict[str, int]


class Hooks:
    """The hooks of one container, as its starter and its supervisor run them."""

    def __init__(self, plan: StartPlan, cgroups: Cgroups) -> None:
        self._plan = plan
        self._calls = plan.extras.hooks
        self._group = cgroups.hook_dir(plan.spec.id)

    def kept_namespaces(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return which of a container's namespaces its hooks of the end are shown, beside the network's.

        Those that it has from its first moment on, and those that it has for sure when its command runs.
        """
        if not any(call.point == "stop" for call in self._calls):
            return (), ()
        spec = self._plan.spec
        first = ("ipc", "mnt", "pid", "uts", *(() if self._plan.id_base is None else ("user",)))
        return first, ("cgroup", *(("time",) if spec.security.clock_offsets else ()))

    def run(self, point: str, child: Inside | None = None, **more: object) -> None:
        """Run what belongs to a point, in order; raises SetupFailed (step, path) with the end of what it said."""
        for call in self._calls:
            if call.point == point:
                self._run(call, child, more)

    def patience_sec(self) -> float:
        """Return how long the hooks inside the container may take."""
        return float(sum(call.timeout_sec for call in self._calls if call.point == START))

    def end(self, child: Inside | None, point: str, target: str) -> bool:
        """Run the hooks of an ending, all of them; returns whether all succeeded. What fails is told in the log."""
        good = True
        for call in self._calls:
            if call.point != point:
                continue
            more: dict[str, object] = {"TARGET": target}
            if child is not None:
                more |= {f"{kind.upper()}_NS": f"/proc/{os.getpid()}/fd/{fd}" for kind, fd in _namespaces(child)}
            try:
                self._run(call, child, more)
            except CoreError as error:
                good = False
                print(f"{self._plan.spec.id}: {error.message}", file=sys.stderr, flush=True)  # noqa: T201 - the log
        return good

    def _run(self, call: Call, child: Inside | None, more: dict[str, object]) -> None:
        inside = child is not None and call.point in MOUNTING
        with self._own_files(inside=inside) as own:
            self._run_with(call, child, own, more, inside=inside)

    @contextlib.contextmanager
    def _own_files(self, *, inside: bool) -> Iterator[str]:
        """Yield where the container's own layer is for programs of the host."""
        if inside or not self._plan.disk:
            yield self._plan.upper
            return
        with disk_mount.at(self._plan.disk) as top:
            yield str(top / disk_mount.TREE)

    def _run_with(self, call: Call, child: Inside | None, own: str, more: dict[str, object], *, inside: bool) -> None:
        plan = self._plan
        host, spec = plan.host, plan.spec
        values = environment(
            call.point,
            spec.name,
            CONFIG_FILE=host.spec_path(spec.id),
            ROOTFS_PATH=own,
            ROOTFS_MOUNT=host.run_dir / "root" if inside else None,
            CONSOLE_LOGPATH=host.container_dir(spec.id) / "console.log",
            PID=child.pid if child is not None and call.point not in ENDING else None,
            **more,
        )
        values |= {"PATH": PATH, "BOXROOM_ID": spec.id, "BOXROOM_PROJECT": spec.project}
        place = host.hooks_dir / call.hook
        program_fd = open_own(host.hooks_dir, call.hook, step=call.step, executable=True)
        try:
            if inside:
                program_fd = _in_memory(program_fd)
            begin = _enter(child, privileged=plan.id_base is None) if inside and child is not None else None
            path = f"/proc/self/fd/{program_fd}" if inside else str(place)
            arguments = (path, spec.name, "lxc", call.point)
            status, output = _watched(self._group, arguments, values, call.timeout_sec, program_fd, begin)
        except OSError as error:
            raise SetupFailed.from_oserror(call.step, error) from error
        finally:
            os.close(program_fd)
        raise_for(call, status, output, str(place))


def _namespaces(child: Inside) -> list[tuple[str, int]]:
    """Return what is kept of a container that has ended, by the kernel's names: for setns(2), as lxc.hook.stop has."""
    return [*((("net", child.netns_fd),) if child.netns_fd >= 0 else ()), *child.namespaces.items()]


def raise_for(call: Call, status: int | None, output: bytes, path: str | None) -> None:
    """Raise SetupFailed where a hook did not end with 0. status: a wait status, None where its time was up."""
    if status == 0:
        return
    code = None if status is None else os.waitstatus_to_exitcode(status)
    if code is None:
        what = say("it took longer than %(seconds)s s", seconds=call.timeout_sec)
    elif code < 0:
        what = say("signal %(number)s", number=-code)
    else:
        what = say("exit status %(code)s", code=code)
    told = say("%(step)s: %(what)s", step=call.step, what=what)
    if output := output[-OUTPUT_BYTES:].strip():
        told = say("%(step)s: %(what)s: %(said)s", step=call.step, what=what, said=output.decode(errors="replace"))
    raise SetupFailed(told, step=call.step, path=path)


def _in_memory(program_fd: int) -> int:
    """Return a descriptor of a copy of a program, instead of the one given, which is closed."""
    try:
        memory_fd = os.memfd_create("hook", os.MFD_CLOEXEC)
        while data := os.read(program_fd, _READ_BYTES):
            while data:
                data = data[os.write(memory_fd, data) :]
        return memory_fd
    finally:
        os.close(program_fd)


def _enter(child: Inside, *, privileged: bool) -> Callable[[], None]:
    def enter() -> None:
        if not privileged:
            os.setgroups([])
        setns(child.pidfd, _INSIDE | (0 if privileged else CLONE_NEWUSER))
        if not privileged:
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)

    return enter


def _watched(
    group: Path,
    arguments: tuple[str, ...],
    values: dict[str, str],
    timeout_sec: float,
    program_fd: int,
    begin: Callable[[], None] | None,
) -> tuple[int | None, bytes]:
    """Run a program in a cgroup; returns its wait status, None where its time was up, and the end of what it said."""
    group.mkdir(mode=0o755, exist_ok=True)
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _become(group, arguments, values, write_fd, program_fd, begin)
    os.close(write_fd)
    pidfd = os.pidfd_open(pid)
    try:
        output, ended = hear(read_fd, pidfd, timeout_sec)
    finally:
        _end_group(group, pidfd)
        status = os.waitpid(pid, 0)[1]
        os.close(pidfd)
        os.close(read_fd)
        _remove(group)
    return (status if ended else None), output


def _become(
    group: Path,
    arguments: tuple[str, ...],
    values: dict[str, str],
    write_fd: int,
    program_fd: int,
    begin: Callable[[], None] | None,
) -> NoReturn:
    """Be the hook."""
    try:
        write_file(f"{group}/cgroup.procs", "0")
        os.setsid()
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        for number in (signal.SIGPIPE, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        null_fd = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        os.dup2(null_fd, 0)
        os.dup2(write_fd, 1)
        os.dup2(write_fd, 2)
        if begin is not None:
            begin()
        os.chdir("/")
        # a script's interpreter opens it by its number
        kept_fd = os.dup2(program_fd, 3, inheritable=begin is not None) if program_fd != 3 else 3
        os.set_inheritable(kept_fd, begin is not None)
        close_range(4)
        path = "/proc/self/fd/3" if begin is not None else arguments[0]
        os.execve(path, (path, *arguments[1:]), values)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.write(2, f"{error.strerror} ({error.filename or arguments[0]})\n".encode())
    finally:
        os._exit(_NOT_RUN)


def hear(read_fd: int, pidfd: int, timeout_sec: float) -> tuple[bytes, bool]:
    """Return the end of what a process says until it ends, and whether it has ended in time."""
    deadline = time.monotonic() + timeout_sec
    output = b""
    os.set_blocking(read_fd, False)
    poll = select.poll()
    poll.register(read_fd, select.POLLIN)
    poll.register(pidfd, select.POLLIN)
    while True:
        ready = dict(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))
        if read_fd in ready:
            data = _more(read_fd)
            if not data and pidfd not in ready:
                poll.unregister(read_fd)  # it closed its output, and goes on
            output = (output + data)[-OUTPUT_BYTES:]
        if pidfd in ready:
            while data := _more(read_fd):
                output = (output + data)[-OUTPUT_BYTES:]
            return output, True
        if not ready and time.monotonic() >= deadline:
            return output, False


def _more(fd: int) -> bytes:
    try:
        return os.read(fd, _READ_BYTES)
    except BlockingIOError:
        return b""


def _end_group(group: Path, pidfd: int) -> None:
    """Kill whatever is in the cgroup: a hook whose time is up, and what one that has ended left behind."""
    with contextlib.suppress(OSError):
        write_file(f"{group}/cgroup.kill", "1")
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)


def _remove(group: Path) -> None:
    deadline = time.monotonic() + _EMPTYING_SEC
    while True:
        try:
            group.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() >= deadline:
                return  # the next hook of this container uses it again, and its end tries once more
            time.sleep(0.002)
        else:
            return


# -- in the container -------------------------------------------------------------------------------------------------


def run_inside(calls: Iterable[Call], name: str, values: dict[str, str]) -> None:
    """Run the hooks of "start" as the container's root, right before its command. Raises SetupFailed.

    The caller is about to be init: where it ends, everything in the container ends.
    """
    for call in calls:
        if call.point != START:
            continue
        read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
        pid = os.fork()
        if pid == 0:
            _be_inside(call, {**values, **environment(call.point, name)}, write_fd)
        os.close(write_fd)
        pidfd = os.pidfd_open(pid)
        try:
            output, ended = hear(read_fd, pidfd, call.timeout_sec)
            if not ended:
                os.kill(pid, signal.SIGKILL)
            status = os.waitpid(pid, 0)[1]
        finally:
            os.close(pidfd)
            os.close(read_fd)
        raise_for(call, status if ended else None, output, call.command[0])


def _be_inside(call: Call, values: dict[str, str], write_fd: int) -> NoReturn:
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        os.dup2(write_fd, 1)
        os.dup2(write_fd, 2)
        os.umask(0o022)
        os.execve(call.command[0], call.command, values)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.write(2, f"{error.strerror}\n".encode())
    finally:
        os._exit(_NOT_RUN)
