"""Copies of whole trees, exact in everything that a container can put into one, however deep it is.

cp does it, fast. It works with path names, though, which end at 4096 bytes, and a container can nest directories deeper
than that; and it cannot leave out of an ACL who has no id in an idmapped mount. Such a tree is copied by the walk
below, which goes down and up by directory descriptors alone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import select
import stat
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ..errors import Cancelled, SetupFailed, TimedOut
from ..sentences import say
from . import files, subvolumes
from .holes import data_ranges

_TOO_LONG: Final = "File name too long"
_NO_SUCH_ID: Final = re.compile("preserving permissions for .*: Invalid argument")
_ACLS: Final = ("system.posix_acl_access", "system.posix_acl_default")
_ACL_ENTRY: Final = struct.Struct("<HHI")
"""tag, permissions, id; behind a version of four bytes. Source: include/uapi/linux/posix_acl_xattr.h."""
_ACL_NAMED: Final = (2, 8)
_NO_ID: Final = 2**32 - 1
_LINKS: Final = ".links"
"""Next to the target while the walk runs: one name for each file that has several."""
_WORDS_BYTES: Final = 8192
_LOOK_EVERY_SEC: Final = 0.5
_CHUNK_BYTES: Final = 64 << 20
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def _never() -> bool:
    return False


def copy_tree(
    source: Path,
    target: Path,
    *,
    timeout_sec: float | None = None,
    cancelled: Callable[[], bool] = _never,
    link: bool = False,
) -> None:
    """Copy a tree that nobody is writing to target, or over what is there; not brought to the disk yet.

    Everything is kept: owners, modes, times, ACLs, extended attributes, hard links, holes, devices, sockets, FIFOs.
    target's parent is the caller's alone, and its remains are removed by the caller where this fails. cp dies with the
    calling thread. cancelled: asked every half second. link: files are the source's own, by hard links, where that can
    be done; directories are copied. Raises StorageFull, TimedOut after timeout_sec, Cancelled, or SetupFailed with cp's
    last words.
    """
    deadline = None if timeout_sec is None else time.monotonic() + timeout_sec
    if not subvolumes.nested(source) and _copied(source, target, deadline, cancelled, link=link):
        return
    try:
        _Walk(source, target, deadline, cancelled).run()
    except OSError as error:
        if error.errno in files.NO_SPACE:
            raise files.full("copy", target, error.errno) from error
        raise SetupFailed(
            say("Copying the root file system failed: %(why)s", why=error.strerror),
            step="copy",
            path=os.fspath(source),
            errno=error.errno,
        ) from error


def _copied(source: Path, target: Path, deadline: float | None, cancelled: Callable[[], bool], *, link: bool) -> bool:
    """Copy by cp; False where it cannot do all of it. Raises what copy_tree() raises.

    It stops at devices, so as not to follow mounts, and takes a subvolume of btrfs for one.
    """
    code, words = _cp(source, target, deadline, cancelled, link=link)
    if code and link:
        files.remove_tree(target)
        code, words = _cp(source, target, deadline, cancelled, link=False)
    if not code:
        return True
    if "No space left on device" in words or "Disk quota exceeded" in words:
        raise files.full("copy", target)
    if _TOO_LONG not in words and not _NO_SUCH_ID.search(words):
        raise SetupFailed(
            say("Copying the root file system failed: %(words)s", words=words), step="copy", path=os.fspath(source)
        )
    return False


def _cp(
    source: Path, target: Path, deadline: float | None, cancelled: Callable[[], bool], *, link: bool
) -> tuple[int, str]:
    """Run cp; return its exit status and last words. It is ended where it may not go on, or cannot do all of it."""
    tie = ["/usr/bin/setpriv", "--pdeathsig", "KILL", "--"]
    copy = ["/usr/bin/cp", "-a", "--reflink=auto", "--one-file-system", "-T", *(["-l"] if link else []), "--"]
    words = b""
    _go_on(deadline, cancelled)
    with subprocess.Popen(
        [*tie, *copy, os.fspath(source), os.fspath(target)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"},
    ) as process:
        assert process.stderr is not None
        try:
            while _TOO_LONG not in words.decode(errors="replace"):
                left = _LOOK_EVERY_SEC if deadline is None else min(_LOOK_EVERY_SEC, deadline - time.monotonic())
                if not select.select([process.stderr], [], [], max(0.0, left))[0]:
                    _go_on(deadline, cancelled)
                    continue
                data = os.read(process.stderr.fileno(), 65536)
                if not data:
                    return process.wait(), words.decode(errors="replace").strip()
                # a container's tree can make it say more than fits anywhere
                words = (words + data)[-_WORDS_BYTES:]
        finally:
            process.kill()
    return 1, words.decode(errors="replace").strip()


def _go_on(deadline: float | None, cancelled: Callable[[], bool]) -> None:
    if deadline is not None and time.monotonic() > deadline:
        raise TimedOut("The copy was not finished in time.", step="copy")
    if cancelled():
        raise Cancelled("The copy was cancelled.")


class _Walk:
    """One walk over a tree, of any depth: two directories are open at a time, and the way back up is ``..``."""

    def __init__(
        self, source: Path, target: Path, deadline: float | None, cancelled: Callable[[], bool] = _never
    ) -> None:
        self._source = source
        self._target = target
        self._deadline = deadline
        self._cancelled = cancelled
        self._linked: set[str] = set()
        self._links_fd = -1

    def run(self) -> None:
        """Copy everything; what an earlier attempt left at the target is replaced."""
        links = self._target.parent / _LINKS
        links.mkdir(mode=0o700)
        self._target.mkdir(mode=0o700, exist_ok=True)
        with contextlib.ExitStack() as undo:
            undo.callback(files.remove_tree, links)
            self._links_fd = undo.enter_context(files.opened(links))
            self._descend()

    def _descend(self) -> None:
        here = [os.open(self._source, _DIRECTORY), os.open(self._target, _DIRECTORY)]
        try:
            waiting = [self._entries(*here)]
            while True:
                if waiting[-1]:
                    name = waiting[-1].pop()
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(name, 0o700, dir_fd=here[1])
                    self._go(here, name)
                    waiting.append(self._entries(*here))
                    continue
                _dress(here[0], here[1], os.fstat(here[0]))
                waiting.pop()
                if not waiting:
                    return
                self._go(here, "..")
        finally:
            for fd in here:
                os.close(fd)

    @staticmethod
    def _go(here: list[int], name: str) -> None:
        for side, fd in enumerate(here):
            here[side] = os.open(name, _DIRECTORY, dir_fd=fd)
            os.close(fd)

    def _entries(self, source_fd: int, target_fd: int) -> list[str]:
        """Copy what is no directory; return the names of those that are."""
        device = os.fstat(source_fd).st_dev
        directories = []
        for name in os.listdir(source_fd):
            self._in_time()
            status = os.stat(name, dir_fd=source_fd, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                if status.st_dev == device or _is_subvolume(source_fd, name):
                    directories.append(name)
                continue
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=target_fd)
            if status.st_nlink == 1:
                self._one(source_fd, name, target_fd, name, status)
                continue
            known = f"{status.st_dev}.{status.st_ino}"
            if known not in self._linked:
                self._one(source_fd, name, self._links_fd, known, status)
                self._linked.add(known)
            os.link(known, name, src_dir_fd=self._links_fd, dst_dir_fd=target_fd, follow_symlinks=False)
        return directories

    def _one(self, source_fd: int, name: str, target_fd: int, new_name: str, status: os.stat_result) -> None:
        """Copy one file, link, device, socket or FIFO."""
        if stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(name, dir_fd=source_fd), new_name, dir_fd=target_fd)
        elif stat.S_ISREG(status.st_mode):
            self._file(source_fd, name, target_fd, new_name, status)
            return
        else:
            os.mknod(new_name, status.st_mode, status.st_rdev, dir_fd=target_fd)
        os.chown(new_name, status.st_uid, status.st_gid, dir_fd=target_fd, follow_symlinks=False)
        if not stat.S_ISLNK(status.st_mode):
            os.chmod(new_name, stat.S_IMODE(status.st_mode), dir_fd=target_fd)
        times = (status.st_atime_ns, status.st_mtime_ns)
        os.utime(new_name, ns=times, dir_fd=target_fd, follow_symlinks=False)

    def _file(self, source_fd: int, name: str, target_fd: int, new_name: str, status: os.stat_result) -> None:
        """Copy a regular file: its data, not its holes; shared where the file system can."""
        read = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        write = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with contextlib.ExitStack() as undo:
            from_fd = os.open(name, read, dir_fd=source_fd)
            undo.callback(os.close, from_fd)
            to_fd = os.open(new_name, write, 0o600, dir_fd=target_fd)
            undo.callback(os.close, to_fd)
            os.ftruncate(to_fd, status.st_size)
            for begin, end in data_ranges(from_fd, status.st_size):
                at = begin
                while at < end:
                    self._in_time()
                    copied = os.copy_file_range(from_fd, to_fd, min(_CHUNK_BYTES, end - at), at, at)
                    if not copied:
                        raise OSError(errno.EIO, "the file became shorter")
                    at += copied
            _dress(from_fd, to_fd, status)

    def _in_time(self) -> None:
        _go_on(self._deadline, self._cancelled)


def _is_subvolume(directory_fd: int, name: str) -> bool:
    """Tell of a directory on another device than its parent's whether it is a part of the same file system."""
    with files.opened(name, dir_fd=directory_fd) as below_fd:
        return files.one_mount(directory_fd, below_fd)


def _dress(source_fd: int, target_fd: int, status: os.stat_result) -> None:
    """Give a file or directory the owner, mode, extended attributes (ACLs too) and times of another."""
    os.fchown(target_fd, status.st_uid, status.st_gid)
    os.fchmod(target_fd, stat.S_IMODE(status.st_mode))
    for name in os.listxattr(source_fd):
        try:
            value = os.getxattr(source_fd, name)
        except OSError as error:
            if error.errno == errno.EOVERFLOW:  # a capability of another user namespace: it gives nothing in this one
                continue
            raise
        os.setxattr(target_fd, name, without_strangers(value) if name in _ACLS else value)
    os.utime(target_fd, ns=(status.st_atime_ns, status.st_mtime_ns))


def without_strangers(acl: bytes) -> bytes:
    """Return an ACL, as an extended attribute, without the entries of users and groups that have no id here."""
    head, entries = acl[:4], _ACL_ENTRY.iter_unpack(acl[4:])
    return head + b"".join(
        _ACL_ENTRY.pack(*entry) for entry in entries if entry[0] not in _ACL_NAMED or entry[2] != _NO_ID
    )
