"""Executes mount plans, in the child's own mount namespace. What each operation means: core.plans.mount_plan."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Sequence

from ..plans import mount_plan as plan
from ..plans.mount_flags import MS_BIND, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY, MS_REMOUNT
from .syscalls import mount, move_mount


class StepFailed(Exception):
    """An operation failed; step describes it, error is what the kernel said."""

    def __init__(self, step: str, error: OSError) -> None:
        super().__init__(step, error)
        self.step = step
        self.error = error


def execute(operations: Iterable[plan.Operation], mount_fds: Sequence[int] = ()) -> None:
    """Run the operations in order; borrows the detached mounts in mount_fds. Raises StepFailed at the first failure.

    There is no undo: the mount namespace dies with the child.
    """
    for operation in operations:
        try:
            _run(operation, mount_fds)
        except OSError as error:
            raise StepFailed(operation.describe(), error) from error


def _run(operation: plan.Operation, mount_fds: Sequence[int]) -> None:
    match operation:
        case plan.Attach(index, target):
            move_mount(mount_fds[index], target)
        case plan.Bind():
            _bind(operation)
        case plan.BindDevice(source, target, major, minor):
            info = os.stat(source, follow_symlinks=False)
            if not stat.S_ISCHR(info.st_mode) or info.st_rdev != os.makedev(major, minor):
                raise OSError(19, f"not the character device {major}:{minor}", source)
            mount(source, target, None, MS_BIND)
        case plan.Directory(target, mode):
            _directory(target, mode)
        case plan.EmptyFile(target):
            os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644))
        case plan.Enter(target):
            os.chdir(target)
        case plan.Link(target, to):
            os.symlink(to, target)
        case plan.Mount(fstype, target, flags, data):
            mount(fstype, target, fstype, flags, data)


def _bind(operation: plan.Bind) -> None:
    try:
        mount(operation.source, operation.target, None, MS_BIND)
    except OSError as error:
        # ENOTCONN: of a file system in user space whose program has ended
        if not operation.optional or error.errno not in (errno.ENOENT, errno.ENOTCONN):
            raise
        return
    if operation.read_only:
        # all flags that the source has must be repeated: dropping a locked one is refused in a user namespace
        flags = MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC
        mount(None, operation.target, None, flags)


def _directory(target: str, mode: int) -> None:
    try:
        os.mkdir(target, mode)
    except FileExistsError:
        if not stat.S_ISDIR(os.stat(target, follow_symlinks=False).st_mode):
            raise NotADirectoryError(20, "the image has something else than a directory here", target) from None
