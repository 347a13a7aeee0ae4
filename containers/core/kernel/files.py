"""Files and directories that survive a power cut, and the removal of trees that somebody else filled.

Whatever becomes visible does so by one rename after it is complete and on disk. Trees that a container wrote are
hostile: they are entered by directory descriptors only, symbolic links are never followed, mounts never crossed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import itertools
import json
import os
import re
import secrets
import stat
import struct
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from ..errors import InUse, SetupFailed, StorageFull
from ..sentences import say

NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_TEMPORARY: Final = re.compile(r"\..+\.[0-9a-f]{8}")
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_GETFLAGS: Final = 0x80086601
_SETFLAGS: Final = 0x40086602
_NOCOW: Final = 0x00800000
"""FS_NOCOW_FL."""
_UNREMOVABLE: Final = 0x10 | 0x20
"""FS_IMMUTABLE_FL and FS_APPEND_FL of linux/fs.h: with either, not even root may remove the file."""


def sync_dir(path: str | os.PathLike[str]) -> None:
    """Bring a directory's entries to the disk."""
    _sync(path, os.O_DIRECTORY)


def sync_all(*paths: str | os.PathLike[str]) -> None:
    """Bring files' contents and directories' entries to the disk, all at once: a journal commits once for all of them.

    All are opened first, without following a link, so where one is not there nothing is brought there. Raises that
    OSError, or the first of those that could not be brought, when all have been tried.
    """
    with contextlib.ExitStack() as held:
        fds = []
        for path in paths:
            fds.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW))
            held.callback(os.close, fds[-1])
        sync_fds(fds)


def sync_fds(fds: Sequence[int]) -> None:
    """Do what sync_all() does, of open files and directories.

    Their data is begun to be written first (Source: mm/fadvise.c), which settles where it is to lie: else each fsync
    would find something new to commit. Borrows fds. Raises the first OSError, when all have been tried.
    """
    for fd in fds:
        with contextlib.suppress(OSError):
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    failed = None
    for fd in fds:
        try:
            os.fsync(fd)
        except OSError as error:
            failed = failed or error
    if failed is not None:
        raise failed


def _sync(path: str | os.PathLike[str], flags: int = os.O_NOFOLLOW) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write(path: Path, data: bytes, *, mode: int = 0o600, sync: bool = True) -> None:
    """Replace a file's whole content: readers see the old or the new, also after a power cut (with sync).

    sync False leaves it to the caller to bring file and directory to the disk before anything refers to them.
    Raises StorageFull where there is no room, otherwise OSError; the old content is untouched then.
    """
    try:
        temporary, file_fd = _temporary(path, mode)
    except OSError as error:
        raise translated(error, "write", path) from error
    try:
        os.fchmod(file_fd, mode)  # whatever the umask is
        view = memoryview(data)
        while view:
            view = view[os.write(file_fd, view) :]
        if sync:
            os.fsync(file_fd)
        os.rename(temporary, path)
    except OSError as error:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise translated(error, "write", path) from error
    finally:
        os.close(file_fd)
    if sync:
        sync_dir(path.parent)


def _temporary(path: Path, mode: int) -> tuple[Path, int]:
    """Make the file that will be renamed to path, held by flock while its writer lives; the caller owns the fd."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        file_fd = os.open(temporary, flags, mode)
        fcntl.flock(file_fd, fcntl.LOCK_EX)
        if os.fstat(file_fd).st_nlink:
            return temporary, file_fd
        os.close(file_fd)  # a sweeper was between the two calls and took it for abandoned


def remove_abandoned(directory: Path) -> list[Path]:
    """Remove what interrupted writes left in a directory, and return it."""
    removed = []
    for path in half_written(directory):
        path.unlink(missing_ok=True)
        removed.append(path)
    return removed


def half_written(directory: Path) -> Iterator[Path]:
    """Yield the temporary files in a directory whose writer is gone; each is held (flock) while the caller has it."""
    for name in sorted(os.listdir(directory)):
        if not _TEMPORARY.fullmatch(name):
            continue
        with contextlib.suppress(FileNotFoundError, BlockingIOError):
            with open(directory / name, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield directory / name


def write_json(path: Path, value: Any, *, sync: bool = True) -> None:
    """Replace a file by the JSON text of value; as write()."""
    write(path, (json.dumps(value, sort_keys=True, indent=1) + "\n").encode(), sync=sync)


def read_json(path: Path) -> Any:
    """Return the JSON value of a file; raises FileNotFoundError, or SetupFailed where it is no JSON."""
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise SetupFailed(
            say("%(path)s is damaged: %(error)s", path=path.name, error=error), step="read", path=str(path)
        ) from error


def translated(error: OSError, step: str, path: str | os.PathLike[str]) -> Exception:
    """Return StorageFull with the path where the file system is full or over quota, else the error itself."""
    if error.errno not in NO_SPACE:
        return error
    return full(step, path, error.errno)


def full(step: str, path: str | os.PathLike[str], number: int | None = errno.ENOSPC) -> StorageFull:
    """Return the error that says where the room ran out."""
    return StorageFull(
        say(
            "%(step)s failed: no space left for %(path)s. Free some, or remove snapshots and images.",
            step=step,
            path=os.fspath(path),
        ),
        step=step,
        path=os.fspath(path),
        errno=number,
    )


def disk_bytes(path: str | os.PathLike[str]) -> int:
    """Return what a tree takes on disk, hard links counted once, without leaving its file system.

    Done by du: its walk holds trees of any depth, which a recursion in Python does not.
    """
    done = subprocess.run(
        ["/usr/bin/du", "-sx", "-B1", "--", os.fspath(path)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"},
        check=False,
    )
    try:
        return int(done.stdout.split(b"\t")[0])
    except ValueError:
        reason = done.stderr.decode(errors="replace").strip()
        raise SetupFailed(
            say("The size of %(path)s is unknown: %(reason)s", path=path, reason=reason),
            step="measure",
            path=os.fspath(path),
        ) from None


def sync_tree(path: Path) -> None:
    """Bring the whole file system that holds path to the disk (syncfs): cheaper than a walk that syncs each file."""
    subprocess.run(["/usr/bin/sync", "-f", "--", path], check=True, stdin=subprocess.DEVNULL, timeout=600)


def remove_tree(path: Path) -> None:
    """Remove a file or a directory with everything in it; nothing there is fine.

    path's parent must be a directory of the store on the same file system that only root may enter: directories are
    first moved up into it, one by one, so that no tree is too deep. A crash on the way leaves only such entries, so the
    parent has to be one that is swept (trash). Clears the immutable flag. Raises InUse where a mount lies below.
    """
    parent_fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)  # a layer in a pool is a link to it
    try:
        _remove_all(parent_fd, [path.name], path)
    finally:
        os.close(parent_fd)


def _remove_all(parent_fd: int, waiting: list[str], path: Path) -> None:
    """Remove parent_fd's entries. What is in a subvolume of btrfs cannot be moved out of it: it is moved to its top."""
    while waiting:
        name = waiting.pop()
        try:
            _remove_flat(parent_fd, name, waiting)
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno == errno.EXDEV and _is_subvolume(parent_fd, name):
                with opened(name, dir_fd=parent_fd) as top_fd:
                    _remove_all(top_fd, os.listdir(top_fd), path)
                waiting.append(name)
            elif error.errno in (errno.EBUSY, errno.EXDEV):
                raise InUse(
                    say("Something is mounted below %(path)s; unmount it first.", path=path), users=[str(path)]
                ) from error
            else:
                raise


def _is_subvolume(parent_fd: int, name: str) -> bool:
    with opened(name, dir_fd=parent_fd) as directory_fd:
        return one_mount(parent_fd, directory_fd) and os.fstat(parent_fd).st_dev != os.fstat(directory_fd).st_dev


def one_mount(first_fd: int, second_fd: int) -> bool:
    """Tell whether two descriptors are of one mount; the subvolumes of one have devices of their own."""
    first, second = (
        Path(f"/proc/self/fdinfo/{fd}").read_text().partition("mnt_id:")[2] for fd in (first_fd, second_fd)
    )
    return first.split()[0] == second.split()[0]


def _remove_flat(parent_fd: int, name: str, waiting: list[str]) -> None:
    """Remove parent_fd's entry; its sub-directories become entries of parent_fd and are added to waiting."""
    if not stat.S_ISDIR(os.stat(name, dir_fd=parent_fd, follow_symlinks=False).st_mode):
        _insist(parent_fd, name, functools.partial(os.unlink, name, dir_fd=parent_fd))
        return
    with opened(name, dir_fd=parent_fd) as directory_fd:
        while True:
            with os.scandir(directory_fd) as entries:
                batch = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in itertools.islice(entries, 4096)]
            if not batch:
                break
            for child, is_directory in batch:
                if not is_directory:
                    _insist(directory_fd, child, functools.partial(os.unlink, child, dir_fd=directory_fd))
                    continue
                lifted = f"{secrets.token_hex(8)}.d"
                lift = functools.partial(os.rename, child, lifted, src_dir_fd=directory_fd, dst_dir_fd=parent_fd)
                _insist(directory_fd, child, lift)
                waiting.append(lifted)
    os.rmdir(name, dir_fd=parent_fd)


def _insist(directory_fd: int, name: str, act: Callable[[], object]) -> None:
    """Call act(); where the kernel refuses, clear the flags of the entry and its directory and call it once more."""
    try:
        act()
    except PermissionError:
        _clear_flags(directory_fd)
        status = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
        if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            entry_fd = os.open(name, flags, dir_fd=directory_fd)
            try:
                _clear_flags(entry_fd)
            finally:
                os.close(entry_fd)
        act()


def write_in_place(fd: int) -> None:
    """Have a new, empty file's blocks overwritten and not copied, where the file system (btrfs) would do that."""
    try:
        (flags,) = struct.unpack("i", fcntl.ioctl(fd, _GETFLAGS, struct.pack("i", 0)))
        fcntl.ioctl(fd, _SETFLAGS, struct.pack("i", flags | _NOCOW))
    except OSError as error:
        if error.errno not in (errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL):
            raise


def _clear_flags(fd: int) -> None:
    """Take the immutable and append-only flags away; file systems without flags are left alone."""
    try:
        (flags,) = struct.unpack("i", fcntl.ioctl(fd, _GETFLAGS, struct.pack("i", 0)))
        if flags & _UNREMOVABLE:
            fcntl.ioctl(fd, _SETFLAGS, struct.pack("i", flags & ~_UNREMOVABLE))
    except OSError as error:
        if error.errno not in (errno.ENOTTY, errno.EOPNOTSUPP):
            raise


@contextlib.contextmanager
def opened(path: str | os.PathLike[str], *, dir_fd: int | None = None) -> Iterator[int]:
    """Open a directory for the time being; its last name may not be a symbolic link."""
    directory_fd = os.open(path, _DIRECTORY, dir_fd=dir_fd)
    try:
        yield directory_fd
    finally:
        os.close(directory_fd)


@contextlib.contextmanager
def entered(top_fd: int, names: Iterable[str]) -> Iterator[int]:
    """Open a directory some levels below top_fd, one name at a time, never through a symbolic link."""
    here_fd = os.dup(top_fd)
    try:
        for name in names:
            next_fd = os.open(name, _DIRECTORY, dir_fd=here_fd)
            os.close(here_fd)
            here_fd = next_fd
        yield here_fd
    finally:
        os.close(here_fd)
