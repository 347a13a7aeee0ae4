"""The child's half of a start: from the clone to the exec of init. Nothing here returns to the starter's code.

    starter                                       child (root of its own namespaces)
      writes the id maps, makes the mounts
      ── mounts + [detached mounts] ───────────▶  becomes id 0, mounts root, /dev, /proc, /sys
      ◀── console + [pty master, slave, …] ──────  opens its consoles, pivot_root
      ── join + [tasks files] ─────────────────▶  joins the cgroups, makes a cgroup namespace
      waits for the network
      writes the run file                        looks up whom it runs as
      ── finish ───────────────────────────────▶  links up, drops rights
      ◀── end of file: the exec succeeded ───────  exec
      ◀── error {step, path, errno, message} ────  or, from anywhere above

The child is a clone without CPython's after-fork hooks: no threads, no imports, no locks, no logging.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import json
import os
import resource
import signal
import socket
import struct
import termios
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from ..errors import SetupFailed
from ..kernel.mounts import StepFailed, execute
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
    close_range,
    dispose_signals,
    load_seccomp,
    mount,
    pivot_root,
    populate,
    prctl,
    sethostname,
    umount,
    unshare,
)
from ..model import passwd
from ..model.behaviour import Init
from ..model.hooks import Call
from ..plans import mount_plan
from ..plans.mount_flags import MS_BIND, MS_NODEV, MS_NOSUID, MS_PRIVATE, MS_REC, MS_SHARED
from . import confining, hooking, program, rights

MESSAGE_BYTES: Final = 64 * 1024
MOUNTS_MAX: Final = 250
"""SCM_RIGHTS carries at most 253 descriptors (SCM_MAX_FD)."""
OBSERVED: Final = "observed"
"""The point at which a child waits that core.proc.pages learns from; no hook's."""

_IFF_UP: Final = 1
_SIOCGIFFLAGS: Final = 0x8913
_SIOCSIFFLAGS: Final = 0x8914
_TIOCGPTN: Final = 0x80045430
_TIOCSPTLCK: Final = 0x40045431
_LIMITS: Final = (
    (resource.RLIMIT_NOFILE, 1024, 524288),
    (resource.RLIMIT_MEMLOCK, 8 * 1024**2, 8 * 1024**2),
    (resource.RLIMIT_CORE, 0, 0),
    (resource.RLIMIT_MSGQUEUE, 819200, 819200),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildPlan:
    """What the child does, complete before the clone. scratch: a host directory that the child mounts over.

    capabilities: the bounding set. last_capability: the highest that the kernel knows. links: NICs to bring up; None
    in the host's network. limits: instead of those that every container has. sysctls: of the network namespace. tasks:
    as in cgroups.places.Birth. ranges: the memory that it will write to, see core.proc.pages. observed: whether it is
    looked at for that, which it waits for.
    """

    before: tuple[mount_plan.Operation, ...]
    after: tuple[mount_plan.Operation, ...]
    scratch: str
    hostname: str
    links: tuple[str, ...] | None
    privileged: bool
    capabilities: int
    last_capability: int
    seccomp: bytes
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
    ranges: bytes = b""
    observed: bool = False


def send(connection: socket.socket, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
    """Send one JSON message with descriptors, which stay the sender's."""
    socket.send_fds(connection, [json.dumps(message).encode()], fds)


def receive(connection: socket.socket, *, fds_max: int = 0) -> tuple[dict[str, Any] | None, list[int]]:
    """Return the next message and its descriptors (the caller's, close-on-exec); None at end of file."""
    data, fds, _, _ = socket.recv_fds(connection, MESSAGE_BYTES, fds_max, socket.MSG_CMSG_CLOEXEC)
    return (json.loads(data) if data else None), fds


def run(plan: ChildPlan, connection: socket.socket, others: Callable[[], None]) -> NoReturn:
    """Become the container's init, or report why not and leave with status 1. others: closes what is not for it."""
    try:
        # before anything else, while the starter writes the id maps: after a clone each page costs its first use
        taken = False
        if plan.ranges:
            with contextlib.suppress(OSError):
                populate(plan.ranges)
                taken = True
        others()
        if not (taken or plan.observed):
            _limber_up(plan)
        _become(plan, connection)
    except StepFailed as failed:
        _report(connection, failed.step, failed.error)
    except OSError as error:
        _report(connection, "set up the container", error)
    except BaseException as error:  # noqa: BLE001 - the child's last frame: everything must reach the starter
        _report(connection, "set up the container", OSError(0, repr(error)))
    os._exit(1)


class _Step:
    """Names what is being done in errors that come out of the block."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise StepFailed(self.name, error)


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


def _expect(connection: socket.socket, kind: str, *, fds_max: int = 0) -> list[int]:
    message, fds = receive(connection, fds_max=fds_max)
    if message is None or message["type"] != kind:
        # the starter gave up, or died; or the supervisor did, before the parent-death signal was set
        os._exit(1)
    return fds


def _pause(plan: ChildPlan, connection: socket.socket, point: str) -> None:
    """Wait while the starter runs the hooks of a point, where there are any."""
    if point in hooking.points_between(plan.hooks):
        _wait_at(connection, point)


def _wait_at(connection: socket.socket, point: str) -> None:
    send(connection, {"type": "hook", "point": point})
    _expect(connection, "go")


def _start_hooks(plan: ChildPlan) -> None:
    try:
        hooking.run_inside(plan.hooks, plan.name, plan.environment)
    except SetupFailed as failed:
        step, _colon, text = failed.message.partition(": ")
        raise StepFailed(step, OSError(0, text or failed.message, failed.details["path"])) from None


def _limber_up(plan: ChildPlan) -> None:
    """Use what will be used, where it is not known. Nothing has an effect: paths are empty, what is read is its own."""
    attempts: tuple[mount_plan.Operation, ...] = (
        mount_plan.Directory("/"),
        mount_plan.Mount("", ""),
        mount_plan.Bind("", "", optional=True),
        mount_plan.EmptyFile(""),
        mount_plan.Link("", ""),
    )
    for attempt in attempts:
        with contextlib.suppress(StepFailed):
            execute((attempt,))
    json.loads(json.dumps({"type": "mounts"}))
    os.fsencode(plan.scratch)
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    resource.getrlimit(resource.RLIMIT_CORE)


def _become(plan: ChildPlan, connection: socket.socket) -> NoReturn:
    mount_fds = _expect(connection, "mounts", fds_max=MOUNTS_MAX)
    with _Step("become the container's root"):
        os.setgroups([])
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        prctl(PR_SET_DUMPABLE, 0)
        # set after the ids: a change of credentials clears it (prctl(2))
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        os.setsid()
        os.umask(0)
    with _Step("give it what confines it"):
        confining.confine(plan.confinement)
    slave_fd = _make_root(plan, connection, mount_fds)
    if plan.tells_root:
        send(connection, {"type": "rooted"})
    _set_limits(kind for kind, _, _ in plan.limits)
    _join(plan, connection)
    if plan.hooks:
        # whoever runs before it may change what is looked at from here on
        _expect(connection, "finish")
    account, status = _make_ready(plan, slave_fd)
    if not plan.hooks:
        _expect(connection, "finish")
    _settle_in(plan)
    held = plan.capabilities & status["CapPrm"]
    with _Step("set the AppArmor profile"):
        confining.label(plan.confinement)
    if plan.observed:
        # the last that is sure to be allowed
        _wait_at(connection, OBSERVED)
    with _Step("set the system call filter"):
        if plan.no_new_privs:
            prctl(PR_SET_NO_NEW_PRIVS, 1)
        # while there is CAP_SYS_ADMIN, without which only no_new_privs would allow it; it allows all that follows
        load_seccomp(plan.seccomp)
    _drop_rights(plan)
    with _Step("set the resource limits"):
        rights.set_limits(plan.limits)
    environment = program.environment(account, plan.environment)
    _start_hooks(plan)
    program.begin(
        plan.init,
        account,
        held,
        connection,
        lambda: _exec(plan, environment, status["SigIgn"]),
        lambda failed: _report(connection, failed.step, failed.error),
    )


def _make_root(plan: ChildPlan, connection: socket.socket, mount_fds: list[int]) -> int:
    """Mount everything, open the consoles and enter the new root; return the slave of /dev/console."""
    with _Step("make a private mount tree"):
        mount(None, "/", None, MS_REC | MS_PRIVATE)
        mount("tmpfs", plan.scratch, "tmpfs", MS_NOSUID | MS_NODEV, "mode=700,size=1m")
        os.chdir(plan.scratch)
    _pause(plan, connection, "pre-mount")
    execute(plan.before, mount_fds)
    _pause(plan, connection, "mount")
    _pause(plan, connection, "autodev")
    with _Step("open the consoles"):
        slave_fd = _consoles(connection, plan.ttys)
    with _Step("set the host name"):
        sethostname(plan.hostname)
    with _Step("change the root directory"):
        pivot_root(".", ".")
        umount(".", MNT_DETACH)
        os.chdir("/")
    return slave_fd


def _join(plan: ChildPlan, connection: socket.socket) -> None:
    """Join the cgroups, and do what waits for that."""
    for path, fd in zip(plan.tasks, _expect(connection, "join", fds_max=len(plan.tasks)), strict=True):
        with _Step("join the cgroups"):
            try:
                os.write(fd, b"0")
            except OSError as error:
                error.filename = path
                raise
            finally:
                os.close(fd)
    with _Step("make a cgroup namespace"):
        unshare(CLONE_NEWCGROUP)
    execute(plan.after)


def _make_ready(plan: ChildPlan, slave_fd: int) -> tuple[passwd.Account | None, dict[str, int]]:
    """Do all that needs no link and is no right yet: the starter writes the run file meanwhile.

    Returns whom the command runs as, and what _status() says.
    """
    with _Step("set its clocks"):
        confining.set_clocks(plan.confinement)
    with _Step("share the mount tree"):
        # systemd inside expects a shared tree, and does not make one itself in a container
        mount(None, "/", None, MS_REC | MS_SHARED)
    account = program.look_up(plan.init)
    program.prepare(plan.init, account, slave_fd)
    with _Step("set the standard streams"):
        for fd in (0, 1, 2):
            os.dup2(slave_fd, fd)
        close_range(3, CLOSE_RANGE_CLOEXEC)
    return account, _status()


def _settle_in(plan: ChildPlan) -> None:
    """Do what waits for the links."""
    for name, value in plan.sysctls:
        with _Step(f"set the sysctl {name}"):
            rights.write_sysctls([(name, value)])
    for link in () if plan.links is None else ("lo", *plan.links):
        with _Step(f"bring the link {link} up"):
            _link_up(link)


def _consoles(connection: socket.socket, ttys: int) -> int:
    """Make /dev/console and the ttys; sends their masters and slaves, returns another slave of the console's."""
    pairs = [_pty("dev/console")]
    for number in range(1, ttys + 1):
        path = f"dev/tty{number}"
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        pairs.append(_pty(path))
    send(connection, {"type": "console"}, tuple(fd for pair in pairs for fd in pair))
    for master_fd, _ in pairs:
        os.close(master_fd)
    for _, slave_fd in pairs[1:]:
        os.close(slave_fd)
    return pairs[0][1]


def _pty(path: str) -> tuple[int, int]:
    """Make a pty of the container's own devpts, bound over a file; returns master and slave."""
    master_fd = os.open("dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    fcntl.ioctl(master_fd, _TIOCSPTLCK, struct.pack("i", 0))
    number = array.array("i", [-1])
    fcntl.ioctl(master_fd, _TIOCGPTN, number)
    slave = f"dev/pts/{number[0]}"
    slave_fd = os.open(slave, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    fcntl.ioctl(slave_fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    os.fchmod(slave_fd, 0o620)
    mount(slave, path, None, MS_BIND)
    return master_fd, slave_fd


def _link_up(name: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        request = struct.pack("16sH14x", name.encode(), 0)
        flags = struct.unpack("16sH14x", fcntl.ioctl(sock, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sH14x", name.encode(), flags | _IFF_UP))


def _set_limits(others: Iterable[int]) -> None:
    """Set the limits that every container has, but for others, which are set last."""
    skipped = frozenset(others)
    with _Step("set the resource limits"):
        for limit, soft, hard in _LIMITS:
            if limit in skipped:
                continue
            most = resource.getrlimit(limit)[1]
            most = hard if most == resource.RLIM_INFINITY else min(hard, most)
            resource.setrlimit(limit, (min(soft, most), most))


def _drop_rights(plan: ChildPlan) -> None:
    with _Step("drop capabilities"):
        for number in range(plan.last_capability + 1):
            if not plan.capabilities >> number & 1:
                prctl(PR_CAPBSET_DROP, number)
        prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)


def _status() -> dict[str, int]:
    """Return what this process holds, for a host may lack a capability itself, and the signals that it ignores."""
    with open("/proc/self/status", "rb") as file:
        lines = dict(line.split(b":", 1) for line in file.read().splitlines())
    return {name: int(lines[name.encode()], 16) for name in ("CapPrm", "SigIgn")}


def _exec(plan: ChildPlan, environment: dict[str, str], ignored: int) -> NoReturn:
    # what Python ignores (SIGPIPE, SIGXFSZ), or the launcher, would stay ignored after exec; handlers do not stay
    dispose_signals(default=[number for number in range(1, signal.NSIG) if ignored >> number - 1 & 1])
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.umask(0o022)
    with _Step("run the init command"):
        program.run_command(plan.command, environment)
    raise AssertionError("execve returned")
