"""A file of a container's written anew: whole beside the old one, then in its place by one rename, or not at all.

Whoever is killed in the midst leaves the old file; what he wrote has no name until it is complete (O_TMPFILE), where
the file system knows that.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from typing import Any, Final

from ..kernel import mount_api
from . import looking
from .places import Place, Refused, open_there, own, place

TEMPORARY: Final = ".boxroom-"
FILE_MODE: Final = 0o644
_SET_IDS: Final = stat.S_ISUID | stat.S_ISGID
_NOT_KEPT: Final = ("security.", "trusted.", "user.overlay.")
"""What goes with a content that somebody looked at: file capabilities, signatures."""
_CHUNK_BYTES: Final = 1 << 18

Read = Callable[[int], bytes]
"""Returns the next bytes of what is sent, at most so many; none at its end."""


def write(root_fd: int, path: str, asked: dict[str, Any], go: Callable[[], None], read: Read) -> dict[str, Any]:
    """Write a file of asked["size"] bytes; return what it is then: {"entry", "etag"}. go: called when it may be sent.

    asked: etag: the content that is to be replaced, "" for whatever it is; replace: whether a file that is there may
    be; mode: of a new one, None for the usual. An old one keeps owner, mode (but for set-id bits), ACLs and user's
    attributes; a new one is its directory's owner's. Raises Refused (changed, already-exists, ...), OSError.
    """
    with place(root_fd, path, follow=True) as found:
        _check(found, asked)
        go()
        with _beside(found.parent_fd) as (fd, put):
            data = _copied(fd, asked["size"], read)
            _dress(fd, found, asked.get("mode"))
            os.fsync(fd)
            _check(found, asked)
            put(found.name, replace=found.status is not None)
        os.fsync(found.parent_fd)
        status, above = Place(found.parent_fd, found.name).present, path.rpartition("/")[0]
        entry = looking.told(root_fd, looking.Names(root_fd), above, path.rpartition("/")[2], status, None)
        return {"entry": entry, "etag": looking.etag_of(data) if data is not None else looking.etag(found)}


def _check(found: Place, asked: dict[str, Any]) -> None:
    """Raise Refused unless what is there, now, may be replaced."""
    found.status = found.look()
    if found.status is None:
        if asked["etag"]:
            raise Refused("changed", "The file is gone: it was removed or renamed meanwhile.")
        return
    if not stat.S_ISREG(found.status.st_mode):
        raise Refused("invalid-value", "This is not a regular file.")
    if asked["etag"]:
        if looking.etag(found) != asked["etag"]:
            raise Refused("changed", "The file has changed meanwhile.")
    elif not asked["replace"]:
        raise Refused("already-exists", "There is something of this name already.")


def _copied(fd: int, size: int, read: Read) -> bytes | None:
    """Write what is sent; return it where it is small enough to be told apart."""
    left, kept = size, []
    while left:
        data = read(min(left, _CHUNK_BYTES))
        if not data:
            raise Refused("invalid-value", "The file was not sent to its end. Nothing was changed.")
        if size <= looking.TEXT_MAX_BYTES:
            kept.append(data)
        left -= len(data)
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
    return b"".join(kept) if size <= looking.TEXT_MAX_BYTES else None


def _dress(fd: int, found: Place, mode: int | None) -> None:
    if found.status is None:
        above = os.fstat(found.parent_fd)
        os.fchown(fd, above.st_uid, above.st_gid)
        os.fchmod(fd, (FILE_MODE if mode is None else mode) & ~_SET_IDS)
        return
    os.fchown(fd, found.status.st_uid, found.status.st_gid)
    os.fchmod(fd, stat.S_IMODE(found.status.st_mode) & ~_SET_IDS)
    old_fd = open_there(found.parent_fd, found.name)
    try:
        for name in os.listxattr(old_fd):
            if not name.startswith(_NOT_KEPT):
                with contextlib.suppress(FileNotFoundError):
                    os.setxattr(fd, name, os.getxattr(old_fd, name))
    finally:
        os.close(old_fd)


class _Put:
    """Gives what was written its name."""

    def __init__(self, parent_fd: int, fd: int, temporary: str | None) -> None:
        self._parent_fd, self._fd, self.temporary = parent_fd, fd, temporary

    def __call__(self, name: str, *, replace: bool) -> None:
        """Put it in place; raises FileExistsError where there is something that is not to be replaced."""
        if not replace and self.temporary is None:
            self._link(name)
            return
        if self.temporary is None:
            temporary = new_name()
            self._link(temporary)
            self.temporary = temporary
        if replace:
            os.rename(self.temporary, name, src_dir_fd=self._parent_fd, dst_dir_fd=self._parent_fd)
        else:
            mount_api.rename_to_free(self._parent_fd, self.temporary, self._parent_fd, name)
        self.temporary = None

    def _link(self, name: str) -> None:
        os.link(str(self._fd), name, src_dir_fd=own(), dst_dir_fd=self._parent_fd, follow_symlinks=True)


@contextlib.contextmanager
def _beside(parent_fd: int) -> Iterator[tuple[int, _Put]]:
    """Yield a new file in the directory that has no name yet, or a temporary one; it is gone unless it is put."""
    temporary: str | None = None
    try:
        fd = os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=parent_fd)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
            raise
        temporary = new_name()
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(temporary, flags, 0o600, dir_fd=parent_fd)
    put = _Put(parent_fd, fd, temporary)
    try:
        yield fd, put
    finally:
        os.close(fd)
        if put.temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(put.temporary, dir_fd=parent_fd)


def new_name() -> str:
    """Return a name that nobody has, for a moment; hidden."""
    return f"{TEMPORARY}{secrets.token_hex(8)}"
