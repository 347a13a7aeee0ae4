"""Changes of a container's tree that are not a file's content: make, rename, delete, mode and owner."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import Any, Final

from ..kernel import mount_api
from .copying import Copier
from .looking import Names, entry
from .places import Place, Refused, directory, open_there, own, pinned, place
from .writing import new_name

DIRECTORY_MODE: Final = 0o755
_DEEP: Final = 200
"""Deeper directories are moved up before they are removed, so that no nesting holds a descriptor for each level."""
CHANGED_MAX: Final = 1_000_000


def make(root_fd: int, path: str, mode: int | None) -> dict[str, Any]:
    """Make a directory, which is the owner's of the one that it is in. Raises Refused, OSError."""
    with place(root_fd, path, follow=False) as found:
        os.mkdir(found.name, 0o700, dir_fd=found.parent_fd)
        try:
            fd = open_there(found.parent_fd, found.name, directory=True)
            try:
                above = os.fstat(found.parent_fd)
                os.fchown(fd, above.st_uid, above.st_gid)
                os.fchmod(fd, (DIRECTORY_MODE if mode is None else mode) | above.st_mode & stat.S_ISGID)
            finally:
                os.close(fd)
        except OSError:
            with contextlib.suppress(OSError):
                os.rmdir(found.name, dir_fd=found.parent_fd)
            raise
    return {"entry": entry(root_fd, path)}


def rename(root_fd: int, path: str, to: str) -> dict[str, Any]:
    """Give something another name, or another place; nothing that is there is replaced. Raises Refused, OSError."""
    if to == path:
        return {"entry": entry(root_fd, path)}
    if to.startswith(f"{path}/"):
        raise Refused("invalid-value", "A directory cannot be moved into itself.")
    with place(root_fd, path, follow=False) as old, place(root_fd, to, follow=False) as new:
        _ = old.present
        try:
            mount_api.rename_to_free(old.parent_fd, old.name, new.parent_fd, new.name)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            _copy_away(old, new)
    return {"entry": entry(root_fd, to)}


def _copy_away(old: Place, new: Place) -> None:
    """Move what a rename cannot: a directory of an image's layer, or into another file system."""
    if new.status is not None:
        raise Refused("already-exists", "There is something of this name already.")
    temporary = new_name()
    try:
        Copier(old.parent_fd, new.parent_fd).copy(old.name, temporary)
        mount_api.rename_to_free(new.parent_fd, temporary, new.parent_fd, new.name)
    except BaseException:
        with contextlib.suppress(OSError, Refused):
            remove_there(new.parent_fd, temporary, recursive=True)
        raise
    remove_there(old.parent_fd, old.name, recursive=True)


def remove(root_fd: int, path: str, *, recursive: bool) -> dict[str, Any]:
    """Remove something; a directory with all in it only where recursive. Raises Refused, OSError."""
    with place(root_fd, path, follow=False) as found:
        _ = found.present
        remove_there(found.parent_fd, found.name, recursive=recursive)
    return {}


def remove_there(parent_fd: int, name: str, *, recursive: bool) -> None:
    """Remove a name of a directory, as remove does; other file systems in it are not entered."""
    status = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
    if not stat.S_ISDIR(status.st_mode):
        os.unlink(name, dir_fd=parent_fd)
        return
    if recursive:
        fd = open_there(parent_fd, name, directory=True)
        try:
            _empty(fd, fd, status.st_dev, 0)
        finally:
            os.close(fd)
    os.rmdir(name, dir_fd=parent_fd)


def _empty(fd: int, top_fd: int, device: int, depth: int) -> None:
    """Remove what is in a directory. What lies too deep is moved up to the top, which is emptied again."""
    again = True
    while again:
        again = False
        for name in os.listdir(fd):
            try:
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                if not stat.S_ISDIR(status.st_mode):
                    os.unlink(name, dir_fd=fd)
                    continue
                if status.st_dev != device:
                    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
                if depth >= _DEEP:
                    os.rename(name, new_name(), src_dir_fd=fd, dst_dir_fd=top_fd)
                    continue
                child_fd = open_there(fd, name, directory=True)
                try:
                    _empty(child_fd, top_fd, device, depth + 1)
                finally:
                    os.close(child_fd)
                os.rmdir(name, dir_fd=fd)
            except FileNotFoundError:
                continue  # somebody inside was faster
            again = depth == 0


def attributes(root_fd: int, path: str, asked: dict[str, Any]) -> dict[str, Any]:
    """Change mode and owner: {"mode": int or None, "user", "group": name, number or None, "recursive"}.

    Links are changed themselves, and have no mode. recursive: all in a directory too; the mode of what is no directory
    gets its right to execute only where the file has one. Returns {"entry", "changed": how many}.
    """
    names = Names(root_fd)
    uid = -1 if asked["user"] is None else names.number(asked["user"], "passwd")
    gid = -1 if asked["group"] is None else names.number(asked["group"], "group")
    change = _Change(uid, gid, asked["mode"])
    if path == "/":
        with directory(root_fd, "/") as fd:
            change.one(fd, ".", os.fstat(fd), below=False)
            if asked["recursive"]:
                change.inside(fd, 0)
    else:
        with place(root_fd, path, follow=False) as found:
            status = found.present
            change.one(found.parent_fd, found.name, status, below=False)
            if asked["recursive"] and stat.S_ISDIR(status.st_mode):
                fd = open_there(found.parent_fd, found.name, directory=True)
                try:
                    change.inside(fd, 0)
                finally:
                    os.close(fd)
    return {"entry": entry(root_fd, path), "changed": change.count}


class _Change:
    def __init__(self, uid: int, gid: int, mode: int | None) -> None:
        self._uid, self._gid, self._mode = uid, gid, mode
        self.count = 0

    def one(self, parent_fd: int, name: str, status: os.stat_result, *, below: bool) -> None:
        """Change one entry. below: reached by way of its directory, which was asked for."""
        is_link, is_directory = stat.S_ISLNK(status.st_mode), stat.S_ISDIR(status.st_mode)
        if is_link and self._mode is not None and not below:
            raise Refused("invalid-value", "A symbolic link has no mode of its own.")
        if (self._uid, self._gid) != (-1, -1):
            os.chown(name, self._uid, self._gid, dir_fd=parent_fd, follow_symlinks=False)
        if self._mode is not None and not is_link:
            mode = self._mode
            if below and not is_directory:
                mode &= 0o777 if status.st_mode & 0o111 else 0o666
            pin_fd = pinned(parent_fd, name)
            try:
                os.chmod(str(pin_fd), mode, dir_fd=own())
            finally:
                os.close(pin_fd)
        self.count += 1
        if self.count > CHANGED_MAX:
            raise Refused("invalid-value", "There is too much in this directory to be changed at once.")

    def inside(self, fd: int, depth: int) -> None:
        """Change all that is in a directory; other file systems in it are not entered."""
        if depth > _DEEP:
            raise Refused("invalid-value", "The directories are nested too deeply.")
        device = os.fstat(fd).st_dev
        for name in os.listdir(fd):
            try:
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode) and status.st_dev != device:
                    continue
                self.one(fd, name, status, below=True)
                if stat.S_ISDIR(status.st_mode):
                    child_fd = open_there(fd, name, directory=True)
                    try:
                        self.inside(child_fd, depth + 1)
                    finally:
                        os.close(child_fd)
            except FileNotFoundError:
                continue
