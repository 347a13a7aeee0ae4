"""Files that somebody gave, made root's own: copied and hashed once, before anything looks into them.

The web process owns uploads and may change them at any time; a directory of the host may be written by others. What is
read afterwards is the copy, whose digest is known.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import hmac
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from ..archives.unpacking import BadArchive
from ..errors import PolicyDenied, SpecError
from ..host import Host
from ..kernel import files
from ..rules import policy_file
from ..sentences import say
from ..units import format_bytes
from .base import Order
from .layered import SPARE_BYTES

_CHUNK_BYTES: Final = 4 << 20
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_UPLOAD: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)


def take(
    order: Order, source: dict[str, Any], name: str, target: Path, tell: Callable[[float], None]
) -> tuple[int, str]:
    """Copy what source[name] names (an upload's id, or a path below source["directory"]) to target, a new file.

    Returns its size and its sha256, hexadecimal. tell: which part is copied, 0 to 1. Raises SpecError (field
    ``source.NAME``) where it is not there, PolicyDenied, BadArchive for a wrong ``source["sha256"]``, StorageFull,
    Cancelled.
    """
    field = f"source.{name}"
    opened = _upload if source["type"] == "upload" else _served
    with opened(order.host, source, name, field) as file_fd:
        if not stat.S_ISREG(os.fstat(file_fd).st_mode):
            raise SpecError("This is not a file.", field=field)
        size = os.fstat(file_fd).st_size
        require_room(target.parent, size)
        digest = _copy(order, file_fd, size, target, tell)
    if name in ("upload", "path"):
        check_digest(digest, source.get("sha256"))
    return size, digest


def check_digest(digest: str, asked: str | None, field: str = "source.sha256") -> None:
    """Raise BadArchive where a file is not the one that somebody asked for."""
    if asked is not None and not hmac.compare_digest(digest, asked):
        raise BadArchive(
            say("Its sha256 is %(digest)s, not %(asked)s.", digest=digest, asked=asked), field=field, entry="", limit=""
        )


def require_room(directory: Path, size_bytes: int) -> None:
    """Raise StorageFull where there is no room for a file of that size."""
    found = os.statvfs(directory)
    if found.f_bavail * found.f_frsize < size_bytes + SPARE_BYTES:
        full = files.full("copy", directory)
        full.message += f" The file has {format_bytes(size_bytes)}."
        raise full


@contextlib.contextmanager
def opened_upload(host: Host, upload: str) -> Iterator[int]:
    """Yield a descriptor of an upload, which the web may change while it is read; raises SpecError."""
    with _upload(host, {"upload": upload}, "upload", "upload") as file_fd:
        if not stat.S_ISREG(os.fstat(file_fd).st_mode):
            raise SpecError("This is not a file.", field="upload")
        yield file_fd


@contextlib.contextmanager
def _upload(host: Host, source: dict[str, Any], name: str, field: str) -> Iterator[int]:
    upload = str(source[name])
    if not _UPLOAD.fullmatch(upload):
        raise SpecError("This is no upload.", field=field)
    try:
        with files.opened(host.web_dir) as web_fd, files.entered(web_fd, ("uploads",)) as directory_fd:
            file_fd = os.open(f"{upload}.part", _READ, dir_fd=directory_fd)
    except FileNotFoundError:
        raise SpecError("The upload is gone: send it again.", field=field) from None
    try:
        yield file_fd
    finally:
        os.close(file_fd)


@contextlib.contextmanager
def _served(host: Host, source: dict[str, Any], name: str, field: str) -> Iterator[int]:
    """Open a file below one of the directories that the host's policy names; never through a link."""
    directory = policy_file.load(host).images.directories.get(str(source["directory"]))
    if directory is None:
        raise PolicyDenied("This host's policy names no such directory of images.", field="source.directory")
    *parents, last = [part for part in str(source[name]).split("/") if part not in ("", ".")] or [""]
    if not last or ".." in (*parents, last):
        raise SpecError("Give a path below the directory.", field=field)
    try:
        with files.opened(directory) as top_fd, files.entered(top_fd, parents) as directory_fd:
            file_fd = os.open(last, _READ, dir_fd=directory_fd)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO):
            raise SpecError("There is no such file in this directory.", field=field) from None
        raise
    try:
        yield file_fd
    finally:
        os.close(file_fd)


def _copy(order: Order, file_fd: int, size: int, target: Path, tell: Callable[[float], None]) -> str:
    digest = hashlib.sha256()
    done = 0
    try:
        with open(target, "xb", buffering=0) as copy:
            while done < size:
                order.check_cancelled()
                data = os.read(file_fd, min(_CHUNK_BYTES, size - done))
                if not data:
                    raise SpecError("The file became shorter while it was read.", field="source")
                digest.update(data)
                view = memoryview(data)
                while view:
                    view = view[copy.write(view) :]
                done += len(data)
                tell(done / max(1, size))
    except OSError as error:
        raise files.translated(error, "copy", target) from error
    return digest.hexdigest()


def forget_upload(host: Host, upload: str) -> None:
    """Remove an upload that has become an image; one that is gone is fine."""
    if not _UPLOAD.fullmatch(upload):
        return
    with contextlib.suppress(OSError):
        with files.opened(host.web_dir) as web_fd, files.entered(web_fd, ("uploads",)) as directory_fd:
            for name in (f"{upload}.json", f"{upload}.part"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=directory_fd)
