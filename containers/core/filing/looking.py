"""What is in a container's tree: a directory, page by page, one entry, a text, a file's bytes, an archive."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Callable, Sequence
from typing import Any, Final

from ..filenames import shown, written
from ..kernel import mount_api
from ..model import passwd
from ..reading import verbs
from ..reading.merged import kind_of
from .places import IN_ROOT, Place, Refused, directory, open_there, place

NAMES_MAX: Final = 1_000_000
"""More names are not looked at; whoever asks is told."""
TEXT_MAX_BYTES: Final = 1 << 20
ETAG_MAX_BYTES: Final = 16 << 20
"""Of larger files nobody is told whether they have changed."""
SORTS: Final = ("name", "size", "modified")
_CHUNK_BYTES: Final = 1 << 18

Begin = Callable[[dict[str, Any]], None]


class Names:
    """Users and groups by the container's own files, which are data and nothing else."""

    def __init__(self, root_fd: int) -> None:
        self._files = {name: _bounded(root_fd, f"/etc/{name}") for name in ("passwd", "group")}
        self._known = {name: passwd.names(data) for name, data in self._files.items()}

    def user(self, uid: int) -> str | None:
        """Return a user's name."""
        return self._known["passwd"].get(uid)

    def group(self, gid: int) -> str | None:
        """Return a group's name."""
        return self._known["group"].get(gid)

    def number(self, text: str, file: str) -> int:
        """Return the id that a name or a number means; file: passwd or group. Raises Refused."""
        if text.isascii() and text.isdigit() and len(text) <= 10:
            return int(text)
        found = [number for number, name in self._known[file].items() if name == text]
        if not found:
            what = "The container has no such user." if file == "passwd" else "The container has no such group."
            raise Refused("invalid-value", what)
        return found[0]


def _bounded(root_fd: int, path: str) -> bytes:
    with contextlib.suppress(OSError, Refused), place(root_fd, path, follow=True) as found:
        fd = open_there(found.parent_fd, found.name)
        try:
            return os.read(fd, passwd.FILE_MAX_BYTES)
        finally:
            os.close(fd)
    return b""


def told(
    root_fd: int, names: Names, path: str, name: str, status: os.stat_result, target: str | None
) -> dict[str, Any]:
    """Return an entry as it is told. path: of the directory that it is in, as asked."""
    mode, where = status.st_mode, f"{path.rstrip('/')}/{name}"
    return {
        "name": shown(name),
        "path": written(where),
        "kind": kind_of(status),
        "size_bytes": status.st_size if stat.S_ISREG(mode) else None,
        "mode": f"{stat.S_IMODE(mode):04o}",
        "uid": status.st_uid,
        "gid": status.st_gid,
        "user": names.user(status.st_uid),
        "group": names.group(status.st_gid),
        "modified_at": status.st_mtime,
        "links": status.st_nlink,
        "target": None if target is None else shown(target),
        "leads_to": None if target is None else _leads_to(root_fd, where),
    }


def _leads_to(root_fd: int, path: str) -> str | None:
    """Return the kind of what a link leads to inside; None for nothing."""
    try:
        fd = mount_api.open_path(root_fd, path.lstrip("/"), IN_ROOT)
    except OSError:
        return None
    try:
        return kind_of(os.fstat(fd))
    finally:
        os.close(fd)


def entry(root_fd: int, path: str) -> dict[str, Any]:
    """Return one entry as a listing tells it; of the root, too."""
    names = Names(root_fd)
    if path == "/":
        return {**told(root_fd, names, "/", "", os.fstat(root_fd), None), "name": "/", "path": "/"}
    with place(root_fd, path, follow=False) as found:
        status, above = found.present, path.rpartition("/")[0]
        return told(root_fd, names, above, found.name, status, _target(found.parent_fd, found.name, status))


def _target(parent_fd: int, name: str, status: os.stat_result) -> str | None:
    if not stat.S_ISLNK(status.st_mode):
        return None
    with contextlib.suppress(OSError):
        return os.readlink(name, dir_fd=parent_fd)
    return ""


def listing(root_fd: int, path: str, *, offset: int, limit: int, sort: str, descending: bool, match: str) -> Any:
    """Return a page of a directory: {"items", "total", "complete", "directory"}. match: what names have in them.

    Directories come first. sort: one of SORTS. complete: whether all names were looked at.
    """
    with directory(root_fd, path) as fd:
        found, complete = _names(fd, match.casefold())
        found.sort(key=lambda one: (one[0].casefold(), one[0]), reverse=descending and sort == "name")
        if sort != "name":
            known = {name: _look(fd, name) for name, _is_directory in found}
            found = [one for one in found if known[one[0]] is not None]
            key = "st_size" if sort == "size" else "st_mtime_ns"
            found.sort(key=lambda one: getattr(known[one[0]], key), reverse=descending)
        found.sort(key=lambda one: not one[1])
        names, items = Names(root_fd), []
        for name, _is_directory in found[offset : offset + limit]:
            status = _look(fd, name)
            if status is not None:
                items.append(told(root_fd, names, path, name, status, _target(fd, name, status)))
        above, _slash, last = path.rpartition("/")
        here = {**told(root_fd, names, above, last, os.fstat(fd), None), "path": written(path)}
        return {"items": items, "total": len(found), "complete": complete, "directory": here}


def _names(fd: int, match: str) -> tuple[list[tuple[str, bool]], bool]:
    found: list[tuple[str, bool]] = []
    with os.scandir(fd) as entries:
        for number, one in enumerate(entries):
            if number >= NAMES_MAX:
                return found, False
            if not match or match in shown(one.name).casefold():
                found.append((one.name, one.is_dir(follow_symlinks=False)))
    return found, True


def _look(fd: int, name: str) -> os.stat_result | None:
    with contextlib.suppress(OSError):
        return os.stat(name, dir_fd=fd, follow_symlinks=False)
    return None


def text(root_fd: int, path: str) -> dict[str, Any]:
    """Return a text file: {"text", "etag", "line_ends", "reason"}; without text the reason: binary, too-large, no-file.

    line_ends: lf or crlf. A file that has both, or lone carriage returns, is binary: no editor would give it back.
    """
    nothing = {"text": None, "etag": None, "line_ends": None}
    with place(root_fd, path, follow=True) as found:
        if not stat.S_ISREG(found.present.st_mode):
            return {**nothing, "reason": "no-file"}
        fd = open_there(found.parent_fd, found.name)
    try:
        if os.fstat(fd).st_size > TEXT_MAX_BYTES:
            return {**nothing, "reason": "too-large"}
        data = _whole(fd, TEXT_MAX_BYTES + 1)
    finally:
        os.close(fd)
    if len(data) > TEXT_MAX_BYTES:
        return {**nothing, "reason": "too-large"}
    crlf = data.count(b"\r\n")
    try:
        content = data.decode()
    except UnicodeDecodeError:
        return {**nothing, "reason": "binary"}
    if "\0" in content or data.count(b"\r") != crlf or (crlf and crlf != data.count(b"\n")):
        return {**nothing, "reason": "binary"}
    ends = "crlf" if crlf else "lf"
    return {"text": content.replace("\r\n", "\n"), "etag": etag_of(data), "line_ends": ends, "reason": None}


def _whole(fd: int, most: int) -> bytes:
    parts = []
    while most and (part := os.read(fd, min(most, _CHUNK_BYTES))):
        parts.append(part)
        most -= len(part)
    return b"".join(parts)


def etag_of(data: bytes) -> str:
    """Return what tells a content from any other."""
    return hashlib.sha256(data).hexdigest()[:32]


def etag(found: Place) -> str:
    """Return the etag of a regular file as it is now, "" where there is none, or where it is too large."""
    try:
        fd = open_there(found.parent_fd, found.name)
    except (OSError, Refused):
        return ""
    try:
        data = _whole(fd, ETAG_MAX_BYTES + 1)
    finally:
        os.close(fd)
    return etag_of(data) if len(data) <= ETAG_MAX_BYTES else ""


def content(root_fd: int, path: str, begin: Begin, write: verbs.Write) -> None:
    """Write a regular file's bytes; begin is told its size and name first."""
    with place(root_fd, path, follow=True) as found:
        _ = found.present
        fd = open_there(found.parent_fd, found.name)
        name = path.rpartition("/")[2]
    try:
        size = os.fstat(fd).st_size
        begin({"size_bytes": size, "name": shown(name)})
        verbs.copy(fd, size, write)
    finally:
        os.close(fd)


def archive(root_fd: int, path: str, only: Sequence[str], begin: Begin, write: verbs.Write) -> None:
    """Write a file or a directory with all in it as a tar archive; other file systems below it are left out.

    only: what to take of a directory, by name; all of it where there is none.
    """
    if path == "/":
        verbs.archive([root_fd], "/", begin, write, only=only, one_file_system=True)
        return
    with place(root_fd, path, follow=True) as found:
        _ = found.present
        verbs.archive([found.parent_fd], found.name, begin, write, only=only, one_file_system=True)
