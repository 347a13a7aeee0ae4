"""Files of a snapshot put back where they were: each in place by one rename, what is alike already left as it is.

What is copied has a name beside its place until then, the same in every directory: who is killed in the midst leaves
one such entry, and the next who puts something back there takes it away first.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Sequence
from typing import Any, Final

from ..kernel import mount_api
from .changing import remove_there
from .copying import DEPTH_MAX, Copier, attributes, dress
from .places import Place, Refused, directory, open_there, place
from .writing import TEMPORARY

BESIDE: Final = f"{TEMPORARY}put-back"
_TOLD_MAX: Final = 20
_CHUNK_BYTES: Final = 1 << 20


class PutBack:
    """Puts files of one tree into another, where they have the same paths.

    exact: what is in a directory and was not then is removed. tell: as Copier's.
    """

    def __init__(self, *, exact: bool, tell: Callable[[int, int], None] | None = None) -> None:
        self._exact = exact
        self._copier = Copier(-1, -1, tell)
        self.replaced = self.removed = self.same = 0

    def run(self, point_fd: int, root_fd: int, paths: Sequence[str]) -> dict[str, Any]:
        """Put these paths back. Raises Refused, OSError; what was put back until then stays."""
        try:
            for path in paths:
                if path == "/":
                    raise Refused("invalid-value", "To take all of it back, restore the snapshot.")
                with place(point_fd, path, follow=False) as old:
                    _ = old.present
                    self._parents(point_fd, root_fd, path.rpartition("/")[0])
                    with directory(root_fd, path.rpartition("/")[0] or "/") as parent_fd:
                        _forget(parent_fd, BESIDE)
                        self._entry(old.parent_fd, parent_fd, old.name, 0)
                        os.fsync(parent_fd)
        finally:
            self._copier.close()
        return {
            "put_back": self.replaced,
            "removed": self.removed,
            "same": self.same,
            "size_bytes": self._copier.bytes,
            "skipped": self._copier.skipped[:_TOLD_MAX],
            "left_out": len(self._copier.skipped),
        }

    def _parents(self, point_fd: int, root_fd: int, path: str) -> None:
        """Make the directories that lead to something and are not there any more, as they were."""
        parts = path.strip("/").split("/") if path.strip("/") else []
        for count in range(1, len(parts) + 1):
            here = "/" + "/".join(parts[:count])
            with place(root_fd, here, follow=False) as found:
                if found.status is not None:
                    continue
                with directory(point_fd, here) as old_fd:
                    os.mkdir(found.name, 0o700, dir_fd=found.parent_fd)
                    new_fd = open_there(found.parent_fd, found.name, directory=True)
                    try:
                        dress(old_fd, new_fd, os.fstat(old_fd))
                    finally:
                        os.close(new_fd)

    def _entry(self, old_fd: int, new_fd: int, name: str, depth: int) -> None:
        was = os.stat(name, dir_fd=old_fd, follow_symlinks=False)
        now = Place(new_fd, name).status
        if depth > DEPTH_MAX:
            raise Refused("invalid-value", "The directories are nested too deeply.")
        if now is not None and stat.S_ISDIR(was.st_mode) and stat.S_ISDIR(now.st_mode):
            self._merge(old_fd, new_fd, name, depth)
            return
        if now is not None and was.st_nlink == 1 and _same(old_fd, new_fd, name, was, now):
            self.same += 1
            return
        try:
            if not self._copier.between(old_fd, name, new_fd, BESIDE, depth):
                return
            self._in_place(new_fd, name, now)
        except BaseException:
            _forget(new_fd, BESIDE)
            raise
        self.replaced += 1

    def _in_place(self, fd: int, name: str, now: os.stat_result | None) -> None:
        """Give what was copied its name; a directory that is in its way goes, with all in it."""
        made = os.stat(BESIDE, dir_fd=fd, follow_symlinks=False)
        if now is not None and (stat.S_ISDIR(now.st_mode) or stat.S_ISDIR(made.st_mode)):
            try:
                mount_api.exchange(fd, BESIDE, name)
            except OSError as error:
                if error.errno != errno.EXDEV:  # a directory of a layer below, which overlay does not move
                    raise
                self._remove(fd, name)
            else:
                self._remove(fd, BESIDE)
                return
        os.rename(BESIDE, name, src_dir_fd=fd, dst_dir_fd=fd)

    def _merge(self, old_fd: int, new_fd: int, name: str, depth: int) -> None:
        with contextlib.ExitStack() as undo:
            from_fd = open_there(old_fd, name, directory=True)
            undo.callback(os.close, from_fd)
            to_fd = open_there(new_fd, name, directory=True)
            undo.callback(os.close, to_fd)
            status = os.fstat(from_fd)
            _forget(to_fd, BESIDE)
            wanted = set(os.listdir(from_fd)) - {BESIDE}
            for child in sorted(wanted):
                self._entry(from_fd, to_fd, child, depth + 1)
            if self._exact:
                for child in set(os.listdir(to_fd)) - wanted:
                    self._remove(to_fd, child)
            dress(from_fd, to_fd, status)

    def _remove(self, fd: int, name: str) -> None:
        remove_there(fd, name, recursive=True)
        self.removed += 1


def _forget(fd: int, name: str) -> None:
    with contextlib.suppress(OSError, Refused):
        remove_there(fd, name, recursive=True)


def _same(old_fd: int, new_fd: int, name: str, was: os.stat_result, now: os.stat_result) -> bool:
    """Tell whether two entries that are no directories are alike in all that is put back."""
    told = [(one.st_mode, one.st_uid, one.st_gid, one.st_mtime_ns, one.st_nlink) for one in (was, now)]
    if told[0] != told[1]:
        return False
    if stat.S_ISLNK(was.st_mode):
        return os.readlink(name, dir_fd=old_fd) == os.readlink(name, dir_fd=new_fd)
    if not stat.S_ISREG(was.st_mode):
        return was.st_rdev == now.st_rdev
    if was.st_size != now.st_size:
        return False
    with contextlib.ExitStack() as undo:
        fds = []
        for parent_fd in (old_fd, new_fd):
            fds.append(open_there(parent_fd, name))
            undo.callback(os.close, fds[-1])
        if attributes(fds[0]) != attributes(fds[1]):
            return False
        while True:
            one, other = (os.read(fd, _CHUNK_BYTES) for fd in fds)
            if one != other:
                return False
            if not one:
                return True
