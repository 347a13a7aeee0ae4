"""Backups in a directory of this host.

A directory that the policy names may be written by others: files are opened below it without following links, and
whatever is read from one is hostile. A backup has its name when it is whole, by one rename; until then it is
``.NAME.INSTANCE.part``, locked by whoever writes it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..errors import NotFound, SetupFailed
from ..failpoints import failpoint
from ..host import Host
from ..kernel import files
from ..sentences import say
from . import form
from .place import File, checked
from .writing import Sink

LOCAL: Final = "local"
"""The place in the state directory."""
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NEW: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PART: Final = ".part"


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory of this host."""

    host: Host
    name: str
    path: Path

    @contextlib.contextmanager
    def writing(self, file: str, *, about_bytes: int = 0) -> Iterator[Sink]:
        """Yield what takes a new backup's bytes; it is there, whole, at the end, and not at all where that fails."""
        part = f".{checked(file)}.{self.host.instance}{_PART}"
        with self._opened() as directory_fd:
            fd = self._new(directory_fd, part)
            try:
                yield lambda data: _write(fd, data, self.path / file)
                os.fsync(fd)
                failpoint(self.host.state_dir, "export.written")
                os.rename(part, file, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)
                os.fsync(directory_fd)
            except OSError as error:
                raise files.translated(error, "write-backup", self.path / file) from error
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(part, dir_fd=directory_fd)
                os.close(fd)
        failpoint(self.host.state_dir, "export.placed")

    def _new(self, directory_fd: int, part: str) -> int:
        try:
            fd = os.open(part, _NEW, 0o600, dir_fd=directory_fd)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise files.translated(error, "write-backup", self.path / part) from error
        return fd

    @contextlib.contextmanager
    def reading(self, file: str) -> Iterator[int]:
        """Yield a descriptor of a backup's bytes; raises NotFound."""
        with self._opened() as directory_fd:
            try:
                fd = os.open(checked(file), _READ, dir_fd=directory_fd)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO):
                    raise NotFound(say("There is no %(file)s in %(place)s.", file=file, place=self.name)) from None
                raise SetupFailed.from_oserror("read-backup", error) from error
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise NotFound(say("There is no %(file)s in %(place)s.", file=file, place=self.name))
            yield fd
        finally:
            os.close(fd)

    def size_bytes(self, file: str) -> int:
        """Return how long a backup is; raises NotFound."""
        with self.reading(file) as fd:
            return os.fstat(fd).st_size

    def remove(self, file: str) -> None:
        """Remove a backup; one that is gone is fine."""
        with self._opened() as directory_fd:
            try:
                os.unlink(checked(file), dir_fd=directory_fd)
                os.fsync(directory_fd)
            except FileNotFoundError:
                return
            except OSError as error:
                raise SetupFailed.from_oserror("remove-backup", error) from error

    def listed(self) -> list[File]:
        """Return the backups that lie there, by name."""
        found = []
        with self._opened() as directory_fd:
            for name in sorted(filter(form.is_file_name, os.listdir(directory_fd))):
                with contextlib.suppress(FileNotFoundError):
                    about = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
                    if stat.S_ISREG(about.st_mode):
                        found.append(File(name=name, size_bytes=about.st_size, modified_at=about.st_mtime))
        return found

    def abandoned(self) -> list[str]:
        """Return what killed writers of this instance left, by name."""
        end = f".{self.host.instance}{_PART}"
        found = []
        with self._opened() as directory_fd:
            for name in sorted(os.listdir(directory_fd)):
                if name.startswith(".") and name.endswith(end) and _unlocked(directory_fd, name):
                    found.append(name)
        return found

    def sweep(self) -> list[str]:
        """Remove what killed writers of this instance left; return its names."""
        found = self.abandoned()
        with self._opened() as directory_fd:
            for name in found:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=directory_fd)
        return found

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        if self.name == LOCAL:
            self.path.mkdir(mode=0o700, exist_ok=True)
        try:
            held = files.opened(self.path)
            directory_fd = held.__enter__()
        except OSError as error:
            raise SetupFailed.from_oserror("open-backups", error) from error
        try:
            yield directory_fd
        finally:
            held.__exit__(None, None, None)


def _write(fd: int, data: bytes, path: Path) -> None:
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(fd, view) :]
    except OSError as error:
        raise files.translated(error, "write-backup", path) from error


def _unlocked(directory_fd: int, name: str) -> bool:
    try:
        fd = os.open(name, _READ, dir_fd=directory_fd)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True
