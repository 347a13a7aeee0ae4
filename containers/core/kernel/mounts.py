"""Makes calls of mount plans, for the child's own mount namespace. What each operation means: core.plans.mount_plan."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from typing import Final

from ..plans import mount_plan as plan
from ..plans.mount_flags import MS_BIND, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY, MS_REMOUNT
from .script import AT_FDCWD, Kept, Script, StepFailed
from .syscalls import MOVE_MOUNT_F_EMPTY_PATH

_MAKE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LOOK: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ_ONLY: Final = MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC


def add(script: Script, operations: tuple[plan.Operation, ...], mount_fds: Sequence[int] = ()) -> None:
    """Add the calls of operations to a script, in order. mount_fds: where the detached mounts' numbers will stand.

    There is no undo: the mount namespace dies with the child. Raises StepFailed where this host has no such device.
    """
    for operation in operations:
        if isinstance(operation, plan.BindDevice):
            _check_device(operation)

    def add_all() -> None:
        for operation in operations:
            script.step = operation.describe
            _add(script, operation, mount_fds)

    script.same((operations, mount_fds), add_all)


def _add(script: Script, operation: plan.Operation, mount_fds: Sequence[int]) -> None:
    match operation:
        case plan.Mount(fstype, target, flags, data):
            kind = script.text(fstype)
            script.call("mount", kind, script.text(target), kind, flags, script.text(data), path=target)
        case plan.Bind():
            _bind(script, operation)
        case plan.Directory(target, mode):
            _directory(script, target, mode)
        case plan.BindDevice(source, target):
            script.call("mount", script.text(source), script.text(target), 0, MS_BIND, 0, path=target)
        case plan.EmptyFile(target):
            make_file(script, target, 0o644)
        case plan.Attach(index, target):
            flags = MOVE_MOUNT_F_EMPTY_PATH
            script.call(
                "move_mount", Kept(mount_fds[index]), script.text(""), AT_FDCWD, script.text(target), flags, path=target
            )
        case plan.Enter(target):
            script.call("chdir", script.text(target), path=target)
        case plan.Link(target, to):
            script.call("symlinkat", script.text(to), AT_FDCWD, script.text(target), path=target)


def make_file(script: Script, target: str, mode: int) -> None:
    """Add the making of an empty file, which must not be there."""
    file_fd = script.room(4)
    script.call("openat", AT_FDCWD, script.text(target), _MAKE, mode, path=target, kept=file_fd)
    script.call("close", Kept(file_fd))


def _bind(script: Script, bind: plan.Bind) -> None:
    source, target = script.text(bind.source), script.text(bind.target)
    # ENOTCONN: of a file system in user space whose program has ended
    absent = (errno.ENOENT, errno.ENOTCONN) if bind.optional else ()
    after = 1 if bind.read_only else 0
    script.call("mount", source, target, 0, MS_BIND, 0, path=bind.target, tolerated=absent, skip_tolerated=after)
    if bind.read_only:
        # all flags that the source has must be repeated: dropping a locked one is refused in a user namespace
        script.call("mount", 0, target, 0, _READ_ONLY, 0, path=bind.target)


def _directory(script: Script, target: str, mode: int) -> None:
    path, place_fd = script.text(target), script.room(4)
    script.call("mkdirat", AT_FDCWD, path, mode, path=target, tolerated=(errno.EEXIST,), skip=2)
    note = "the image has something else than a directory here"
    script.call("openat", AT_FDCWD, path, _LOOK, 0, path=target, kept=place_fd, note=note)
    script.call("close", Kept(place_fd))


def _check_device(operation: plan.BindDevice) -> None:
    """Look at a device of the host, which the child will have in its copy of the mount tree."""
    source, major, minor = operation.source, operation.major, operation.minor
    try:
        info = os.stat(source, follow_symlinks=False)
        if not stat.S_ISCHR(info.st_mode) or info.st_rdev != os.makedev(major, minor):
            raise OSError(errno.ENODEV, f"not the character device {major}:{minor}", source)
    except OSError as error:
        raise StepFailed(operation.describe(), error) from error
