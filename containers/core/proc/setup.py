"""The child's half of a start: from the clone to the exec of init, as a script (core.kernel.script).

    starter                                       child (root of its own namespaces)
      writes the id maps, makes the mounts
      ── mounts + [detached mounts] ───────────▶  becomes id 0, mounts root, /dev, /proc, /sys
      ◀── console + [pty master, slave, …] ──────  opens its consoles, pivot_root
      ── join + [tasks files] ─────────────────▶  joins the cgroups, makes a cgroup namespace
      waits for the network
      writes the run file                        looks up whom it runs as
      ── finish ───────────────────────────────▶  links up, drops rights
      ◀── end of file: the exec succeeded ───────  exec
      ◀── error {step, path, errno, message} ────  or, from anywhere above; a script says itself which call failed

Most starts are made of system calls only, and are carried out without an interpreter (core.kernel.runner). Where one
is needed, to look up a user, to run a hook inside, to be an application's small init, the child is a fork without
CPython's after-fork hooks: no threads, no imports, no locks, no logging.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import resource
import signal
import socket
import struct
import termios
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

from ..errors import SetupFailed
from ..kernel import mounts
from ..kernel.script import AT_FDCWD, Kept, Script, StepFailed
from ..kernel.syscalls import (
    CLONE_NEWCGROUP,
    CLOSE_RANGE_CLOEXEC,
    MNT_DETACH,
    PR_CAP_AMBIENT,
    PR_CAP_AMBIENT_CLEAR_ALL,
    PR_CAPBSET_DROP,
    PR_SET_DUMPABLE,
    PR_SET_NO_NEW_PRIVS,
    PR_SET_PDEATHSIG,
    SECCOMP_SET_MODE_FILTER,
    capability_sets,
    dispose_signals,
)
from ..model import passwd
from ..model.behaviour import Init
from ..model.hooks import MOUNTING, START, Call
from ..plans import mount_plan
from ..plans.mount_flags import MS_BIND, MS_NODEV, MS_NOSUID, MS_PRIVATE, MS_REC, MS_SHARED
from . import confining, hooking, program, rights
from .messages import encode, send

_IFF_UP: Final = 1
_SIOCGIFFLAGS: Final = 0x8913
_SIOCSIFFLAGS: Final = 0x8914
_TIOCSPTLCK: Final = 0x40045431
_IFREQ: Final = struct.Struct("=16sHxx20x")
_JOIN_SESSION_KEYRING: Final = 1
_SIG_SETMASK: Final = 2
_SIGSET_BYTES: Final = 8
_SIGACTION_BYTES: Final = 32
_LIMITS: Final = (
    (resource.RLIMIT_NOFILE, 1024, 524288),
    (resource.RLIMIT_MEMLOCK, 8 * 1024**2, 8 * 1024**2),
    (resource.RLIMIT_CORE, 0, 0),
    (resource.RLIMIT_MSGQUEUE, 819200, 819200),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildPlan:
    """What the child does, complete before the clone.

    mounts: how many it is handed. scratch: a host directory that the child mounts over. capabilities: the bounding set.
    last_capability: the highest that the kernel knows. links: NICs to bring up; None in the host's network. limits:
    instead of those that every container has. sysctls: of the network namespace. tasks: as in cgroups.places.Birth.
    """

    mounts: int
    before: tuple[mount_plan.Operation, ...]
    after: tuple[mount_plan.Operation, ...]
    scratch: str
    hostname: str
    links: tuple[str, ...] | None
    privileged: bool
    capabilities: int
    last_capability: int
    seccomp: tuple[bytes, ...]
    no_new_privs: bool
    limits: rights.Limits
    sysctls: tuple[tuple[str, str], ...]
    command: tuple[str, ...]
    environment: dict[str, str]
    init: Init
    ttys: int
    confinement: confining.Confinement
    name: str = ""
    hooks: tuple[Call, ...] = ()
    tells_root: bool = False
    tasks: tuple[str, ...] = ()


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


def compose(plan: ChildPlan, connection: socket.socket, others: Sequence[int]) -> Script:
    """Return what the child does. connection: its end. others: descriptors that it has and that are not for it.

    Raises StepFailed where this host lacks something, OSError (E2BIG).
    """
    script, connection_fd = Script(), connection.fileno()
    for fd in others:
        script.call("close", fd)
    mount_fds = script.receive(connection_fd, plan.mounts)
    _become_root(script, plan)
    slave_fd = _make_root(script, plan, connection_fd, mount_fds)
    if plan.tells_root:
        script.send(connection_fd, encode({"type": "rooted"}))
    _set_limits(script, {kind for kind, _, _ in plan.limits})
    _join(script, plan, connection_fd)
    if plan.hooks:
        # whoever runs before it may change what is looked at from here on
        script.receive(connection_fd)
    last = _Last(plan, connection)
    _make_ready(script, plan, last, slave_fd)
    if not plan.hooks:
        script.receive(connection_fd)
    _settle_in(script, plan)
    _confine(script, plan)
    if any(call.point == START for call in plan.hooks):
        script.act(lambda: _start_hooks(plan))
    if last.needed:
        script.step = "run the init command"
        script.act(last.begin)
    else:
        _begin(script, plan)
    return script


def run(script: Script, connection: socket.socket) -> NoReturn:
    """Be a fork that carries a script out: become the container's init, or report why not and leave with status 1."""
    try:
        script.carry_out()
    except EOFError:
        # the starter gave up, or died; or the supervisor did, before the parent-death signal was set
        pass
    except StepFailed as failed:
        _report(connection, failed.step, failed.error)
    except OSError as error:
        _report(connection, "set up the container", error)
    except BaseException as error:  # noqa: BLE001 - the child's last frame: everything must reach the starter
        _report(connection, "set up the container", OSError(0, repr(error)))
    os._exit(1)


def _report(connection: socket.socket, step: str, error: OSError) -> None:
    path = error.filename if isinstance(error.filename, str) else None
    message = {
        "type": "error",
        "step": step,
        "path": path,
        "errno": error.errno,
        "message": error.strerror or str(error),
    }
    with contextlib.suppress(OSError):
        send(connection, message)


def _become_root(script: Script, plan: ChildPlan) -> None:
    script.step = "become the container's root"
    script.call("setgroups", 0, 0)
    script.call("setresgid", 0, 0, 0)
    script.call("setresuid", 0, 0, 0)
    script.call("prctl", PR_SET_DUMPABLE, 0)
    # set after the ids: a change of credentials clears it (prctl(2))
    script.call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL)
    script.call("setsid")
    script.call("umask", 0)
    script.step = "give it what confines it"
    # a host without key rings has none to inherit
    script.call("keyctl", _JOIN_SESSION_KEYRING, 0, tolerated=(errno.ENOSYS,))
    if plan.confinement.persona is not None:
        script.call("personality", plan.confinement.persona)


def _pause(script: Script, plan: ChildPlan, connection_fd: int, point: str) -> None:
    """Wait while the starter runs the hooks of a point, where there are any."""
    if point in MOUNTING and any(call.point == point for call in plan.hooks):
        script.send(connection_fd, encode({"type": "hook", "point": point}))
        script.receive(connection_fd)


def _make_root(script: Script, plan: ChildPlan, connection_fd: int, mount_fds: Sequence[int]) -> Kept:
    """Mount everything, open the consoles and enter the new root; return the slave of /dev/console."""
    script.step = "make a private mount tree"
    root, here, tmpfs, scratch = (script.text(text) for text in ("/", ".", "tmpfs", plan.scratch))
    script.call("mount", 0, root, 0, MS_REC | MS_PRIVATE, 0, path="/")
    options = script.text("mode=700,size=1m")
    script.call("mount", tmpfs, scratch, tmpfs, MS_NOSUID | MS_NODEV, options, path=plan.scratch)
    script.call("chdir", scratch, path=plan.scratch)
    _pause(script, plan, connection_fd, "pre-mount")
    mounts.add(script, plan.before, mount_fds)
    _pause(script, plan, connection_fd, "mount")
    _pause(script, plan, connection_fd, "autodev")
    script.step = "open the consoles"
    slave_fd = _consoles(script, connection_fd, plan.ttys)
    script.step = "set the host name"
    name = os.fsencode(plan.hostname)
    script.call("sethostname", script.data(name), len(name))
    script.step = "change the root directory"
    script.call("pivot_root", here, here, path=".")
    script.call("umount2", here, MNT_DETACH, path=".")
    script.call("chdir", root, path="/")
    return slave_fd


def _consoles(script: Script, connection_fd: int, ttys: int) -> Kept:
    """Make /dev/console and the ttys; sends their masters and slaves, returns the slave of the console.

    They are ptys of the container's own devpts, whose numbers begin at 0; the starter looks whether they do.
    """
    header, places = script.letter(encode({"type": "console"}), 2 * (1 + ttys))
    window, unlocked = script.data(struct.pack("=HHHH", 24, 80, 0, 0)), script.room(4)
    flags = os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC
    for number in range(1 + ttys):
        target = f"dev/tty{number}" if number else "dev/console"
        if number:
            mounts.make_file(script, target, 0o600)
        master_fd, slave_fd = places[2 * number : 2 * number + 2]
        slave = f"dev/pts/{number}"
        script.call("openat", AT_FDCWD, script.text("dev/pts/ptmx"), flags, 0, path="dev/pts/ptmx", kept=master_fd)
        script.call("ioctl", Kept(master_fd), _TIOCSPTLCK, unlocked)
        script.call("openat", AT_FDCWD, script.text(slave), flags, 0, path=slave, kept=slave_fd)
        script.call("ioctl", Kept(slave_fd), termios.TIOCSWINSZ, window)
        script.call("fchmod", Kept(slave_fd), 0o620)
        script.call("mount", script.text(slave), script.text(target), 0, MS_BIND, 0, path=target)
    script.call("sendmsg", connection_fd, header, 0)
    for fd in (places[0], *places[2:]):
        script.call("close", Kept(fd))
    return Kept(places[1])


def _set_limits(script: Script, others: set[int]) -> None:
    """Set the limits that every container has, but for others, which are set last."""
    script.step = "set the resource limits"
    for limit, soft, hard in _LIMITS:
        if limit not in others:
            most = resource.getrlimit(limit)[1]
            most = hard if most == resource.RLIM_INFINITY else min(hard, most)
            _set_limit(script, limit, min(soft, most), most)


def _set_limit(script: Script, kind: int, soft: int, hard: int) -> None:
    # RLIM_INFINITY is -1 in Python
    bounds = struct.pack("=QQ", *(bound & 0xFFFFFFFFFFFFFFFF for bound in (soft, hard)))
    script.call("prlimit64", 0, kind, script.data(bounds), 0)


def _join(script: Script, plan: ChildPlan, connection_fd: int) -> None:
    """Join the cgroups, and do what waits for that."""
    script.step = "join the cgroups"
    for path, fd in zip(plan.tasks, script.receive(connection_fd, len(plan.tasks)), strict=True):
        script.call("write", Kept(fd), script.text("0"), 1, path=path)
        script.call("close", Kept(fd))
    script.step = "make a cgroup namespace"
    script.call("unshare", CLONE_NEWCGROUP)
    mounts.add(script, plan.after)


def _make_ready(script: Script, plan: ChildPlan, last: _Last, slave_fd: Kept) -> None:
    """Do all that needs no link and is no right yet: the starter writes the run file meanwhile."""
    script.step = "set its clocks"
    if plan.confinement.offsets:
        script.act(lambda: confining.set_clocks(plan.confinement))
    script.step = "share the mount tree"
    # systemd inside expects a shared tree, and does not make one itself in a container
    script.call("mount", 0, script.text("/"), 0, MS_REC | MS_SHARED, 0, path="/")
    script.step = "set the standard streams"
    for fd in (0, 1, 2):
        script.call("dup3", slave_fd, fd, 0)
    script.call("close_range", 3, 0xFFFFFFFF, CLOSE_RANGE_CLOEXEC)
    if last.needed:
        script.act(last.look_up)


def _settle_in(script: Script, plan: ChildPlan) -> None:
    """Do what waits for the links."""
    for name, value in plan.sysctls:
        script.step = f"set the sysctl {name}"
        _write(script, f"/proc/sys/{name.replace('.', '/')}", f"{value}\n")
    if plan.links is None:
        return
    script.step = "bring the links up"
    socket_fd = script.room(4)
    script.call("socket", socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, 0, kept=socket_fd)
    for link in ("lo", *plan.links):
        script.step = f"bring the link {link} up"
        request = script.data(_IFREQ.pack(link.encode(), 0))
        script.call("ioctl", Kept(socket_fd), _SIOCGIFFLAGS, request)
        script.set_bits(request + 16, _IFF_UP)
        script.call("ioctl", Kept(socket_fd), _SIOCSIFFLAGS, request)
    script.call("close", Kept(socket_fd))


def _write(script: Script, path: str, value: str) -> None:
    """Write a file in one write(2)."""
    file_fd, text = script.room(4), os.fsencode(value)
    flags = os.O_WRONLY | os.O_CLOEXEC
    script.call("openat", AT_FDCWD, script.text(path), flags, 0, path=path, kept=file_fd)
    script.call("write", Kept(file_fd), script.data(text), len(text), path=path)
    script.call("close", Kept(file_fd))


def _confine(script: Script, plan: ChildPlan) -> None:
    """Drop the rights that its programs are not to have."""
    script.step = "set the AppArmor profile"
    try:
        label = confining.label_of(plan.confinement)
    except OSError as error:
        raise StepFailed("set the AppArmor profile", error) from error
    if label is not None:
        _write(script, *label)
    script.step = "set the system call filter"
    if plan.no_new_privs:
        script.call("prctl", PR_SET_NO_NEW_PRIVS, 1)
    # while there is CAP_SYS_ADMIN, without which only no_new_privs would allow it; it allows all that follows
    for one in plan.seccomp:
        filter_program = script.data(struct.pack("=H6xQ", len(one) // 8, script.data(one)))
        script.call("seccomp", SECCOMP_SET_MODE_FILTER, 0, filter_program)
    script.step = "drop capabilities"
    for number in range(plan.last_capability + 1):
        if not plan.capabilities >> number & 1:
            script.call("prctl", PR_CAPBSET_DROP, number)
    script.call("prctl", PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    script.step = "set the resource limits"
    for kind, soft, hard in plan.limits:
        _set_limit(script, kind, soft, hard)


def _start_hooks(plan: ChildPlan) -> None:
    try:
        hooking.run_inside(plan.hooks, plan.name, plan.environment)
    except SetupFailed as failed:
        step, _colon, text = failed.message.partition(": ")
        raise StepFailed(step, OSError(0, text or failed.message, failed.details["path"])) from None


def _held(plan: ChildPlan) -> int:
    """Return which capabilities its root holds: in a user namespace of its own all that the kernel knows."""
    has = inherited().permitted if plan.privileged else (1 << plan.last_capability + 1) - 1
    return plan.capabilities & has


def _begin(script: Script, plan: ChildPlan) -> None:
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
    _execute(script, plan.command, plan.environment)


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


class _Last:
    """The last steps before a command that needs an interpreter: who it runs as is looked up, or it is an application.

    In the child.
    """

    def __init__(self, plan: ChildPlan, connection: socket.socket) -> None:
        self._plan = plan
        self._connection = connection
        self._account: passwd.Account | None = None
        self.needed = program.needs_interpreter(plan.init)
        self._held, self._ignored = (_held(plan), _ignored()) if self.needed else (0, [])

    def look_up(self) -> None:
        """Find out whom the command runs as, and give that one the console."""
        self._account = program.look_up(self._plan.init)
        program.prepare(self._plan.init, self._account, 0)

    def begin(self) -> NoReturn:
        """Become the container's first process."""
        plan, account = self._plan, self._account
        program.begin(
            plan.init,
            account,
            self._held,
            self._connection,
            lambda: self._exec(program.environment(account, plan.environment)),
            lambda failed: _report(self._connection, failed.step, failed.error),
        )

    def _exec(self, environment: dict[str, str]) -> NoReturn:
        dispose_signals(default=self._ignored)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.umask(0o022)
        try:
            program.run_command(self._plan.command, environment)
        except OSError as error:
            raise StepFailed("run the init command", error) from error
