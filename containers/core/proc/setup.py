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

import errno
import os
import resource
import signal
import socket
import struct
import termios
from collections.abc import Sequence
from typing import Final, NoReturn

from ..errors import SetupFailed
from ..kernel import mounts
from ..kernel.script import AT_FDCWD, Kept, Script, StepFailed
from ..kernel.syscalls import (
    CLONE_NEWCGROUP,
    CLOSE_RANGE_CLOEXEC,
    MNT_DETACH,
    PR_SET_DUMPABLE,
    PR_SET_PDEATHSIG,
)
from ..model.hooks import MOUNTING, START
from ..plans.mount_flags import MS_BIND, MS_NODEV, MS_NOSUID, MS_PRIVATE, MS_REC, MS_SHARED
from ..sentences import say
from . import confining, hooking, last_steps, messages, program
from .child_plan import ChildPlan
from .messages import encode

_IFF_UP: Final = 1
_SIOCGIFFLAGS: Final = 0x8913
_SIOCSIFFLAGS: Final = 0x8914
_TIOCSPTLCK: Final = 0x40045431
_IFREQ: Final = struct.Struct("=16sHxx20x")
_JOIN_SESSION_KEYRING: Final = 1
_LIMITS: Final = (
    (resource.RLIMIT_NOFILE, 1024, 524288),
    (resource.RLIMIT_MEMLOCK, 8 * 1024**2, 8 * 1024**2),
    (resource.RLIMIT_CORE, 0, 0),
    (resource.RLIMIT_MSGQUEUE, 819200, 819200),
)


def needs_interpreter(plan: ChildPlan) -> bool:
    """Tell whether something of it cannot be said in system calls beforehand."""
    hooks = any(call.point == START for call in plan.hooks)
    return hooks or bool(plan.confinement.offsets) or program.needs_interpreter(plan.init)


def compose(
    script: Script,
    plan: ChildPlan,
    connection_fd: int | Kept,
    others: Sequence[int | Kept],
    connection: socket.socket | None = None,
) -> None:
    """Add to a script what the child does. others: descriptors that it has and that are not for it.

    connection: its end, for a plan that needs an interpreter. Raises StepFailed where this host lacks something, or
    something is too large (E2BIG).
    """
    try:
        _add_all(script, plan, connection_fd, others, connection)
    except OSError as error:
        raise StepFailed(script.step if isinstance(script.step, str) else script.step(), error) from error


def _add_all(
    script: Script,
    plan: ChildPlan,
    connection_fd: int | Kept,
    others: Sequence[int | Kept],
    connection: socket.socket | None,
) -> None:
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
    last = (
        last_steps.Last(plan, connection) if connection is not None and program.needs_interpreter(plan.init) else None
    )
    _make_ready(script, plan, last, slave_fd)
    if not plan.hooks:
        script.receive(connection_fd)
    _settle_in(script, plan)
    last_steps.confine(script, plan)
    if any(call.point == START for call in plan.hooks):
        script.act(lambda: _start_hooks(plan))
    if last is not None:
        script.step = "run the init command"
        script.act(last.begin)
    else:
        last_steps.begin(script, plan)


def run(script: Script, connection: socket.socket) -> NoReturn:
    """Be a fork that carries a script out: become the container's init, or report why not and leave with status 1."""
    try:
        script.carry_out()
    except EOFError:
        # the starter gave up, or died; or the supervisor did, before the parent-death signal was set
        pass
    except StepFailed as failed:
        messages.report(connection, failed.step, failed.error)
    except OSError as error:
        messages.report(connection, "set up the container", error)
    except BaseException as error:  # noqa: BLE001 - the child's last frame: everything must reach the starter
        messages.report(connection, "set up the container", OSError(0, repr(error)))
    os._exit(1)


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


def _pause(script: Script, plan: ChildPlan, connection_fd: int | Kept, point: str) -> None:
    """Wait while the starter runs the hooks of a point, where there are any."""
    if point in MOUNTING and any(call.point == point for call in plan.hooks):
        script.send(connection_fd, encode({"type": "hook", "point": point}))
        script.receive(connection_fd)


def _make_root(script: Script, plan: ChildPlan, connection_fd: int | Kept, mount_fds: Sequence[int]) -> Kept:
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


def _consoles(script: Script, connection_fd: int | Kept, ttys: int) -> Kept:
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
            last_steps.set_limit(script, limit, min(soft, most), most)


def _join(script: Script, plan: ChildPlan, connection_fd: int | Kept) -> None:
    """Join the cgroups, and do what waits for that."""
    script.step = "join the cgroups"
    for path, fd in zip(plan.tasks, script.receive(connection_fd, len(plan.tasks)), strict=True):
        script.call("write", Kept(fd), script.text("0"), 1, path=path)
        script.call("close", Kept(fd))
    script.step = "make a cgroup namespace"
    script.call("unshare", CLONE_NEWCGROUP)
    mounts.add(script, plan.after)


def _make_ready(script: Script, plan: ChildPlan, last: last_steps.Last | None, slave_fd: Kept) -> None:
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
    if last is not None:
        script.act(last.look_up)
    # of all that is left these take longest, half a millisecond, in which the links are made
    if _has_early_loopback(plan):
        _bring_up(script, "lo")
    if plan.own_list:
        last_steps.filter_calls(script, plan)


def _has_early_loopback(plan: ChildPlan) -> bool:
    """Tell whether lo is not to wait for anything that is said of all links."""
    return plan.links is not None and not plan.sysctls


def _settle_in(script: Script, plan: ChildPlan) -> None:
    """Do what waits for the links."""
    for name, value in plan.sysctls:
        script.step = say("set the sysctl %(name)s", name=name)
        last_steps.write(script, f"/proc/sys/{name.replace('.', '/')}", f"{value}\n")
    if plan.links is not None:
        _bring_up(script, *(() if _has_early_loopback(plan) else ("lo",)), *plan.links)


def _bring_up(script: Script, *links: str) -> None:
    script.step = "bring the links up"
    socket_fd = script.room(4)
    script.call("socket", socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, 0, kept=socket_fd)
    for link in links:
        script.step = say("bring the link %(name)s up", name=link)
        request = script.data(_IFREQ.pack(link.encode(), 0))
        script.call("ioctl", Kept(socket_fd), _SIOCGIFFLAGS, request)
        script.set_bits(request + 16, _IFF_UP)
        script.call("ioctl", Kept(socket_fd), _SIOCSIFFLAGS, request)
    script.call("close", Kept(socket_fd))


def _start_hooks(plan: ChildPlan) -> None:
    try:
        hooking.run_inside(plan.hooks, plan.name, plan.environment)
    except SetupFailed as failed:
        step, _colon, text = failed.message.partition(": ")
        raise StepFailed(step, OSError(0, text or failed.message, failed.details["path"])) from None
