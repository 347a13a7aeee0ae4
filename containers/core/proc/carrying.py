"""Carries shared directories and device nodes into a container, and out again: a supervisor's short-lived process.

    the host's namespaces      opens the sources by descriptor, detached copies of them, restricted and idmapped
    a mount namespace of its   lays the copies there; enters the container's user namespace and takes another mount
    own                        namespace: the kernel locks what a mount crosses into a lesser one with, so that root
                               inside cannot make a read-only share writable, or take nodev off
    the container's            opens each target beneath the root, makes it where it is missing, attaches by descriptor

From the middle part on it is the container's root and nobody else: what the container's files make it do, the
container could do itself (docs/security.md). Ids are those of the layers: what is root's on the host is the
container's root's inside, and so on to 65535.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from ..kernel import mount_api
from ..kernel.script import StepFailed
from ..kernel.syscalls import (
    CLONE_NEWNS,
    CLONE_NEWUSER,
    MNT_DETACH,
    PR_SET_DUMPABLE,
    PR_SET_PDEATHSIG,
    close_range,
    mount,
    prctl,
    setns,
    umount,
    unshare,
)
from ..model.attachments import Bind, Node
from ..plans.mount_flags import MS_NOSUID, MS_PRIVATE, MS_REC
from ..sentences import say
from . import messages

_IN_ROOT: Final = mount_api.RESOLVE_IN_ROOT | mount_api.RESOLVE_NO_MAGICLINKS
_NO_LINKS: Final = mount_api.RESOLVE_NO_SYMLINKS | mount_api.RESOLVE_NO_MAGICLINKS
_OTHERS_MAY_ENTER: Final = 0o001
_GROUP_MAY_ENTER: Final = 0o010
_READ_BYTES: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Held:
    """Something that was attached. mount_id: as in the container's mountinfo; it stays while the mount is there."""

    what: Bind | Node
    mount_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """What to do. init_pid, init_pidfd: of the container, the caller's child. id_base: None for a privileged one.

    scratch: a directory of the host's, which is mounted over in a namespace of the errand's own.
    """

    init_pid: int
    init_pidfd: int
    id_base: int | None
    scratch: str
    take: tuple[Held, ...] = ()
    bring: tuple[Bind | Node, ...] = ()


@dataclass(slots=True)
class _Load:
    """One thing on its way in. fd: the detached mount, -1 where an optional source is missing."""

    what: Bind | Node
    fd: int
    directory: bool


def run(errand: Errand, connection: socket.socket) -> NoReturn:
    """Do an errand in a forked process, tell what came of it, and leave.

    Tells {"type": "attached", "number": index in errand.bring, "mount_id"} of each thing right before it is; at the end
    {"type": "carried", "taken": [mount ids], "held": [mount id or null for a missing optional source]}, or
    {"type": "error", "step", "path", "errno", "message", "taken"}; what was brought is taken back before an error.
    """
    taken: list[int] = []
    try:
        held = _carry(errand, connection, taken)
        message: dict[str, Any] = {"type": "carried", "taken": taken, "held": held}
    except StepFailed as failed:
        message = _failure(failed.step, failed.error, taken)
    except OSError as error:
        message = _failure("prepare the mounts", error, taken)
    except BaseException as error:  # noqa: BLE001 - the child's last frame: everything must reach the supervisor
        message = _failure("prepare the mounts", OSError(0, repr(error)), taken)
    with contextlib.suppress(OSError):
        messages.send(connection, message)
    os._exit(0)


def taking(held: Held) -> str:
    """Return what is being done where something is taken away, for people."""
    return say("take %(target)s away", target=held.what.target)


def _failure(step: str, error: OSError, taken: list[int]) -> dict[str, Any]:
    path = error.filename if isinstance(error.filename, str) else None
    text = error.strerror or str(error)
    return {"type": "error", "step": step, "path": path, "errno": error.errno, "message": text, "taken": taken}


def _carry(errand: Errand, connection: socket.socket, taken: list[int]) -> list[int | None]:
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    first_fd, last_fd = sorted((connection.fileno(), errand.init_pidfd))
    os.closerange(3, first_fd)
    os.closerange(first_fd + 1, last_fd)
    close_range(last_fd + 1)
    prctl(PR_SET_DUMPABLE, 0)
    proc = f"/proc/{errand.init_pid}"
    mounts_fd = os.open(f"{proc}/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
    # the host's /proc: the container may have made up its own
    fds_fd = os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    inside_fd = os.open(f"{proc}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    user_fd = None if errand.id_base is None else os.open(f"{proc}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    # after opening: what was opened is the container's, and not another's that has its pid by now
    signal.pidfd_send_signal(errand.init_pidfd, 0)
    outside = os.stat("/")
    loads = [_open(what, user_fd) for what in errand.bring]
    _lay(loads, errand, user_fd)
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    setns(inside_fd, CLONE_NEWNS)
    inside = os.stat("/")
    if (inside.st_dev, inside.st_ino) == (outside.st_dev, outside.st_ino):
        raise OSError(errno.EXDEV, "the container has no root of its own")
    for held in errand.take:
        with _Step(taking(held)):
            _take(held, mounts_fd)
        taken.append(held.mount_id)
    return _attach_all(loads, connection, fds_fd)


class _Step:
    """Names what is being done in errors that come out of the block. path: for those that name none themselves."""

    def __init__(self, name: str, path: str | None = None) -> None:
        self.name = name
        self.path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            if self.path is not None:
                error.filename = self.path
            raise StepFailed(self.name, error)


# -- on the host ----------------------------------------------------------------------------------------------------


def _open(what: Bind | Node, user_fd: int | None) -> _Load:
    """Open a source; what a device is comes later, when there is a place for its node."""
    if isinstance(what, Node):
        with _Step(what.step, what.path):
            info = os.stat(what.path, follow_symlinks=False)
            if not (stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode)):
                raise OSError(errno.ENODEV, "not a device node")
        return _Load(what, -1, directory=False)
    try:
        with _Step(what.step, what.source):
            return _open_share(what, user_fd)
    except StepFailed as failed:
        if what.optional and failed.error.errno == errno.ENOENT:
            return _Load(what, -1, directory=False)
        raise


def _open_share(bind: Bind, user_fd: int | None) -> _Load:
    place_fd = mount_api.open_path(None, bind.path, _NO_LINKS)
    if not bind.read_only:
        _refuse_open_to_all(bind.path, place_fd)
    if bind.subpath:
        beneath = _NO_LINKS | mount_api.RESOLVE_BENEATH | (0 if bind.submounts else mount_api.RESOLVE_NO_XDEV)
        place_fd = mount_api.open_path(place_fd, bind.subpath, beneath)
    mode = os.fstat(place_fd).st_mode
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        raise OSError(errno.ENODEV, "neither a directory nor a file")
    # its other mounts only where it receives: a copy without them cannot show what lies beneath a locked one
    fd = mount_api.copy_mount(place_fd, recursive=bind.receives)
    try:
        mount_api.restrict(fd, read_only=bind.read_only, receives=bind.receives, userns_fd=user_fd)
    except OSError as error:
        if error.errno != errno.EINVAL or user_fd is None:
            raise
        raise OSError(errno.EINVAL, "its file system knows no id maps, which an unprivileged container needs") from None
    return _Load(bind, fd, directory=stat.S_ISDIR(mode))


def _refuse_open_to_all(path: str, place_fd: int) -> None:
    """Raise OSError where users of the host can reach what root inside writes: set-uid programs of the host's root.

    The share lies on a file system without set-uid, or some directory on the way to it is closed to everybody else.
    """
    if os.fstatvfs(place_fd).f_flag & os.ST_NOSUID:
        return
    while path != "/":
        info = os.stat(path, follow_symlinks=False)
        group = info.st_mode & _GROUP_MAY_ENTER and info.st_gid != 0
        if info.st_uid == 0 and not group and not info.st_mode & _OTHERS_MAY_ENTER:
            return
        path = os.path.dirname(path)
    raise OSError(
        errno.EPERM,
        "users of the host can reach it, and with it set-uid programs of a container: close it or a directory above "
        "it to others (chmod 700), mount it nosuid, or share it read-only",
    )


# -- in a namespace between ------------------------------------------------------------------------------------------


def _lay(loads: Sequence[_Load], errand: Errand, user_fd: int | None) -> None:
    """Make the nodes, and have everything cross into a mount namespace of the container's user namespace."""
    host_infos = {id(load): os.stat(load.what.path) for load in loads if isinstance(load.what, Node)}
    unshare(CLONE_NEWNS)
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    mount("tmpfs", errand.scratch, "tmpfs", MS_NOSUID, "mode=755,size=1m")
    os.chdir(errand.scratch)
    for number, load in enumerate(loads):
        place = f"m{number}"
        if isinstance(load.what, Node):
            with _Step(load.what.step, load.what.path):
                _make_node(place, load.what, host_infos[id(load)], errand.id_base or 0)
                load.fd = _copy(place, recursive=False)
                mount_api.restrict(load.fd, read_only=False, receives=False, userns_fd=None, nodev=False)
        if load.fd >= 0:
            if load.directory:
                os.mkdir(place)
            elif not isinstance(load.what, Node):
                os.mknod(place)
            mount_api.attach(load.fd, _place(place))
    if user_fd is not None:
        os.setgroups([])
        setns(user_fd, CLONE_NEWUSER)
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        unshare(CLONE_NEWNS)
    for number, load in enumerate(loads):
        if load.fd >= 0:
            load.fd = _copy(f"m{number}", recursive=isinstance(load.what, Bind) and load.what.receives)


def _place(path: str) -> int:
    return os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)


def _copy(path: str, *, recursive: bool) -> int:
    place_fd = _place(path)
    try:
        return mount_api.copy_mount(place_fd, recursive=recursive)
    finally:
        os.close(place_fd)


def _make_node(place: str, node: Node, info: os.stat_result, id_base: int) -> None:
    os.mknod(place, stat.S_IFMT(info.st_mode), info.st_rdev)
    os.chown(place, id_base + node.uid, id_base + node.gid)
    os.chmod(place, node.mode)


# -- in the container ------------------------------------------------------------------------------------------------


def _attach_all(loads: Sequence[_Load], connection: socket.socket, fds_fd: int) -> list[int | None]:
    root_fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    held: list[int | None] = []
    done: list[str] = []
    try:
        for index, load in enumerate(loads):
            if load.fd < 0:
                held.append(None)
                continue
            with _Step(load.what.step, load.what.target):
                place_fd = _target(root_fd, load)
                if stat.S_ISDIR(os.fstat(place_fd).st_mode) != load.directory:
                    number = errno.ENOTDIR if load.directory else errno.EISDIR
                    raise OSError(number, os.strerror(number))
                _refuse_ours(load.what, place_fd, fds_fd)
                held.append(mount_api.mount_id(load.fd))
                # before: it may be killed at any time, and the next target's file system may never answer
                messages.send(connection, {"type": "attached", "number": index, "mount_id": held[-1]})
                mount_api.attach(load.fd, place_fd)
            done.append(load.what.target)
    except StepFailed:
        for target in reversed(done):
            with contextlib.suppress(OSError):
                umount(target, MNT_DETACH | mount_api.UMOUNT_NOFOLLOW)
        raise
    return held


def _target(root_fd: int, load: _Load) -> int:
    """Open the target, making what is missing; links lead nowhere but to places below the container's root."""
    target = load.what.target.lstrip("/")
    create = isinstance(load.what, Node) or load.what.create
    try:
        return mount_api.open_path(root_fd, target, _IN_ROOT)
    except FileNotFoundError:
        if not create:
            raise
    parts = target.split("/")
    place_fd = root_fd
    for number, name in enumerate(parts, 1):
        path = "/".join(parts[:number])
        try:
            place_fd = mount_api.open_path(root_fd, path, _IN_ROOT)
            continue
        except FileNotFoundError:
            if number < len(parts) or load.directory:
                os.mkdir(name, 0o755, dir_fd=place_fd)
            else:
                os.mknod(name, 0o644, dir_fd=place_fd)
        place_fd = mount_api.open_path(root_fd, path, _IN_ROOT)
    return place_fd


def _refuse_ours(what: Bind | Node, place_fd: int, fds_fd: int) -> None:
    """Raise OSError where a link has led into /proc, /sys or, but for a node, /dev.

    What a start writes there, such as a label or a setting, would go somewhere else (CVE-2025-52881).
    """
    path = os.readlink(str(place_fd), dir_fd=fds_fd)
    tops = ("/proc", "/sys") if isinstance(what, Node) else ("/dev", "/proc", "/sys")
    ours = any(f"{path}/".startswith(f"{top}/") for top in tops)
    if ours or mount_api.file_system(place_fd) in mount_api.OF_THE_KERNEL:
        raise OSError(errno.EPERM, "nothing can be mounted over /dev, /proc and /sys")


def _take(held: Held, mounts_fd: int) -> None:
    """Detach a mount where the container has it now; one that it took away itself is fine."""
    found = _mounts(mounts_fd)
    if held.mount_id not in found:
        return
    _parent, place = found[held.mount_id]
    if any(parent == held.mount_id and other == place for parent, other in found.values()):
        raise OSError(errno.EBUSY, "the container has mounted something over it", held.what.target)
    umount(place, MNT_DETACH | mount_api.UMOUNT_NOFOLLOW)
    if held.mount_id in _mounts(mounts_fd):
        raise OSError(errno.EBUSY, "it could not be found where the container has it", held.what.target)
    if isinstance(held.what, Node):
        with contextlib.suppress(OSError):
            info = os.stat(place, follow_symlinks=False)
            if stat.S_ISREG(info.st_mode) and not info.st_size:
                os.unlink(place)


def _mounts(mounts_fd: int) -> dict[int, tuple[int, str]]:
    """Return the container's mounts now: id → (parent's id, place). mounts_fd: an open mountinfo, read anew."""
    os.lseek(mounts_fd, 0, os.SEEK_SET)
    data = b""
    while more := os.read(mounts_fd, _READ_BYTES):
        data += more
    found = {}
    for line in data.splitlines():
        fields = line.split(b" ", 5)
        # proc(5): space, tab, newline and backslash are written in octal
        place = fields[4].replace(b"\\040", b" ").replace(b"\\011", b"\t").replace(b"\\012", b"\n")
        found[int(fields[0])] = int(fields[1]), os.fsdecode(place.replace(b"\\134", b"\\"))
    return found
