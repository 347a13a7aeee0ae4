"""Makes a container's first process, with its namespaces: by a script, in another's memory or this one's, or by a fork.

The child is cloned by a process whose effective ids are the container's own base for that moment: the kernel charges
namespaces, inotify watches and the like to the creator of the user namespace in every ancestor, and so each container
has counters of its own. Source: kernel Documentation/admin-guide/sysctl/user.rst.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from typing import Protocol

from ..errors import SetupFailed
from ..kernel import runner
from ..kernel.script import Kept, Script, StepFailed
from ..kernel.syscalls import (
    CLONE_ARGUMENT_CGROUP,
    CLONE_ARGUMENTS_BYTES,
    CLONE_CLEAR_SIGHAND,
    CLONE_INTO_CGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    CLONE_PARENT,
    CLONE_VM,
    clone3,
    clone_arguments,
    set_thread_effective_ids,
)
from ..plans.start_plan import HANDSHAKE_SEC
from . import setup
from .child_plan import ChildPlan
from .messages import MESSAGE_BYTES
from .spawn import Child

_NAMESPACES = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC


class Mother(Protocol):
    """Another process, which makes the child by a script, and has it as its own. far_fd: this connection, in there."""

    far_fd: int

    def script(self) -> Script:
        """Return an empty script, in memory of both."""

    def carry_out(self, fds: tuple[int, ...]) -> None:
        """Have it carry that script out, up to where it stops; it receives the descriptors first. Raises OSError."""


def clone(plan: ChildPlan, id_base: int | None, tree: str, *, mother: Mother | None, own_memory: bool) -> Child:
    """Make the child, which waits for its mounts. id_base: None for a privileged container. tree: its cgroup2 place.

    mother: who makes it; None for this process, and then it is its parent's child. own_memory: whether it must have its
    own from the beginning, which costs a fork; others have where they can their maker's until their exec. The maker
    must be single-threaded root, the caller owns the result.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    tree_fd = -1
    try:
        tree_fd = os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        if mother is not None:
            script, pid = _by_another(mother, plan, id_base, theirs, tree_fd)
        elif own_memory or setup.needs_interpreter(plan) or not runner.available():
            script, pid = _by_fork(plan, id_base, ours, theirs, tree_fd)
        else:
            script, pid = _by_script(plan, id_base, ours, theirs, tree_fd)
        return Child(pid=pid, pidfd=os.pidfd_open(pid), connection=ours, script=script)
    except StepFailed as failed:
        _part(ours, theirs)
        raise SetupFailed.from_oserror(failed.step, failed.error) from failed
    except OSError as error:
        _part(ours, theirs)
        raise SetupFailed.from_oserror("make the namespaces", error) from error
    finally:
        theirs.close()
        if tree_fd >= 0:
            os.close(tree_fd)


def _part(ours: socket.socket, theirs: socket.socket) -> None:
    """Wait for the end of a child that nobody can name, where its maker has ended: so long its script is to stay."""
    theirs.close()
    with ours, contextlib.suppress(OSError):
        ours.settimeout(HANDSHAKE_SEC)
        ours.shutdown(socket.SHUT_WR)
        while ours.recv(MESSAGE_BYTES):
            pass


def _by_another(
    mother: Mother, plan: ChildPlan, id_base: int | None, theirs: socket.socket, tree_fd: int
) -> tuple[Script, int]:
    script, far_fd = mother.script(), mother.far_fd
    connection, tree = (Kept(place) for place in script.receive(far_fd, 2))
    pid_at, forked = _beget(script, _flags(plan, id_base), id_base, tree)
    script.call("close", connection)
    script.call("close", tree)
    script.stop(forked, far_fd, b".")
    # as long as the child had the maker's connection, nobody would see the maker's end
    setup.compose(script, plan, connection, (far_fd, tree))
    mother.carry_out((theirs.fileno(), tree_fd))
    return script, _checked(script.value(pid_at))


def _by_script(
    plan: ChildPlan, id_base: int | None, ours: socket.socket, theirs: socket.socket, tree_fd: int
) -> tuple[Script, int]:
    script = Script()
    pid_at, forked = _beget(script, _flags(plan, id_base) | CLONE_PARENT, id_base, tree_fd)
    script.stop(forked)
    setup.compose(script, plan, theirs.fileno(), (ours.fileno(), tree_fd))
    runner.run(script.first)
    return script, _checked(script.value(pid_at))


def _by_fork(
    plan: ChildPlan, id_base: int | None, ours: socket.socket, theirs: socket.socket, tree_fd: int
) -> tuple[Script, int]:
    script = Script()
    setup.compose(script, plan, theirs.fileno(), (ours.fileno(), tree_fd), theirs)
    with _effective_ids(id_base):
        pid, pidfd = clone3(_flags(plan, id_base) | CLONE_PARENT, exit_signal=0, cgroup_fd=tree_fd)
        if pid == 0:
            setup.run(script, theirs)
    os.close(pidfd)
    return script, pid


def _flags(plan: ChildPlan, id_base: int | None) -> int:
    flags = _NAMESPACES if id_base is None else _NAMESPACES | CLONE_NEWUSER
    return flags if plan.links is not None else flags & ~CLONE_NEWNET


def _beget(script: Script, flags: int, id_base: int | None, tree_fd: int | Kept) -> tuple[int, int]:
    """Add the making of a process; returns where its pid will stand, or an error, and the call's index."""
    script.step = "make the namespaces"
    if id_base is not None:
        # the order keeps the right to do the second while the first is done; files stay root's to open
        script.call("setresgid", -1, id_base, 0)
        script.call("setresuid", -1, id_base, 0)
        script.call("setfsuid", 0)
    # one that is killed before its exec can be waited for like any other; a child of the maker's parent has its signal
    exit_signal = 0 if flags & CLONE_PARENT else signal.SIGCHLD
    flags |= CLONE_VM | CLONE_CLEAR_SIGHAND | CLONE_INTO_CGROUP
    arguments = script.data(clone_arguments(flags, exit_signal=exit_signal))
    script.set_bits(arguments + CLONE_ARGUMENT_CGROUP, tree_fd)
    pid_at, forked = script.room(4), len(script)
    script.call("clone3", arguments, CLONE_ARGUMENTS_BYTES, kept=pid_at, tolerated=None)
    if id_base is not None:
        script.call("setresuid", -1, 0, 0)
        script.call("setresgid", -1, 0, 0)
    return pid_at, forked


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result


@contextlib.contextmanager
def _effective_ids(id_base: int | None) -> Iterator[None]:
    if id_base is None:
        yield
        return
    set_thread_effective_ids(id_base, id_base)
    try:
        yield
    finally:
        set_thread_effective_ids(0, 0)
