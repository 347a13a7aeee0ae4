"""One file on its way from a server: gone on with after a break, checked by its digest, kept from try to try."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from ..archives.unpacking import BadArchive
from ..errors import Cancelled, SetupFailed
from ..fetching.asking import Answer, Unreachable
from ..kernel import files
from ..sentences import say
from .base import Order

IDLE_TRIES: Final = 10
"""How often in a row a download may bring nothing, before it fails."""
TOTAL_SEC: Final = 3600.0
KEPT_SEC: Final = 24 * 3600
"""How long what a failed or killed download has brought is kept, for the next one of the same digest."""
_CHUNK_BYTES: Final = 1 << 20


class Source(Protocol):
    """Who asks (images.remote.Remote)."""

    order: Order
    field: str

    def get(
        self, url: str, headers: Mapping[str, str], *, private: Mapping[str, str] | None = None
    ) -> AbstractContextManager[Answer]:
        """Yield the answer to a GET, not read yet."""
        ...


class Download:
    """One file on its way, over as many connections as it takes."""

    def __init__(
        self,
        remote: Source,
        url: str,
        part: Path,
        digest: str | None,
        wanted: int,
        tell: Callable[[float], None],
        private: Callable[[], Mapping[str, str]],
        renew: Callable[[str], None] | None,
    ) -> None:
        self._remote = remote
        self._url = url
        self._part = part
        self._digest = digest
        self._wanted = wanted
        self._tell = tell
        self._private = private
        self._renew = renew
        self._hash = hashlib.sha256()
        self._have = 0
        self._whole: int | None = None
        self._etag = ""
        self._deadline = time.monotonic() + TOTAL_SEC

    def run(self, *, exact: bool) -> str:
        """Download, and return the sha256 of what came; exact: the size is known, and more or less is refused."""
        idle = 0
        with open(self._part, "r+b", buffering=0) as file:
            self._read_again(file)
            while True:
                if exact and self._have == self._wanted:
                    break
                before = self._have
                ended = self._once(file)
                if ended and not exact:
                    break
                idle = 0 if self._have > before else idle + 1
                self._remote.order.check_cancelled()
                time.sleep(0.1 * idle)
                if idle >= IDLE_TRIES or time.monotonic() > self._deadline:
                    raise SetupFailed(
                        say(
                            "The download does not get on: %(have)s of %(wanted)s bytes.",
                            have=self._have,
                            wanted=self._wanted,
                        ),
                        step="download",
                        path=urlsplit(self._url).netloc,
                    )
            found = self._hash.hexdigest()
            if self._digest is not None and found != self._digest:
                file.truncate(0)
                raise BadArchive(
                    say(
                        "What came has the sha256 %(hexdigest)s, not %(digest)s.",
                        hexdigest=found,
                        digest=self._digest,
                    ),
                    field=self._remote.field,
                    entry="",
                    limit="",
                )
        return found

    def _read_again(self, file: Any) -> None:
        """Take into account what an earlier attempt brought."""
        while data := file.read(_CHUNK_BYTES):
            self._hash.update(data)
            self._have += len(data)
        if self._have > self._wanted:
            self._begin_anew(file)

    def _begin_anew(self, file: Any) -> None:
        file.truncate(0)
        file.seek(0)
        self._hash, self._have = hashlib.sha256(), 0

    def _once(self, file: Any) -> bool:
        """Ask for what is missing and take what comes; returns whether the answer came to its end."""
        if self._digest is None and not self._etag:
            self._begin_anew(file)  # nobody could say whether the rest belongs to what is here
        headers = {"Range": f"bytes={self._have}-"} if self._have else {}
        if headers and self._digest is None:
            headers["If-Range"] = self._etag
        try:
            with self._remote.get(self._url, headers, private=self._private()) as answer:
                if answer.status == 200 and self._have:
                    self._begin_anew(file)  # it does not know Range
                elif answer.status == 416 and self._have:
                    self._begin_anew(file)
                    return False
                elif answer.status == 401 and self._renew is not None:
                    self._renew(answer.headers.get("WWW-Authenticate", ""))
                    return False
                elif answer.status not in (200, 206) or (
                    answer.status == 206
                    and not answer.headers.get("Content-Range", "").startswith(f"bytes {self._have}-")
                ):
                    raise SetupFailed(
                        say(
                            "%(netloc)s answers with %(status)s.",
                            netloc=urlsplit(self._url).netloc,
                            status=answer.status,
                        ),
                        step="download",
                        path=urlsplit(self._url).netloc,
                    )
                self._look_at(answer)
                return self._take(answer, file)
        except Unreachable:
            return False  # the connection broke: the next one goes on

    def _look_at(self, answer: Answer) -> None:
        """Note how long the whole will be, and what says whether it is still the same (RFC 9110 8.8.3)."""
        length, etag = answer.headers.get("Content-Length", ""), answer.headers.get("ETag", "")
        self._whole = self._have + int(length) if length.isascii() and length.isdecimal() else None
        self._etag = etag if etag.startswith('"') else ""

    def _take(self, answer: Answer, file: Any) -> bool:
        while data := answer.read(_CHUNK_BYTES):
            self._remote.order.check_cancelled()
            if time.monotonic() > self._deadline:
                return False  # however slowly it comes, it comes to an end
            self._have += len(data)
            if self._have > self._wanted:
                raise BadArchive(
                    say("It has more than %(wanted)s bytes.", wanted=self._wanted),
                    field=self._remote.field,
                    entry="",
                    limit="bytes",
                )
            self._hash.update(data)
            view = memoryview(data)
            try:
                while view:
                    view = view[file.write(view) :]
            except OSError as error:
                raise files.translated(error, "download", self._part) from error
            self._tell(self._have / max(1, self._whole or self._wanted))
        return True


@contextlib.contextmanager
def partial(order: Order, digest: str | None, target: Path) -> Iterator[Path]:
    """Yield the file that a digest's bytes are collected in, kept from one attempt to the next.

    Where another order downloads the same at this moment, or nobody said a digest, a file beside the target.
    """
    if digest is None:
        path = target.with_name(f"{target.name}.part")
        path.touch(mode=0o600)
        yield path
        return
    directory = order.host.downloads_dir
    directory.mkdir(mode=0o700, exist_ok=True)
    sweep(directory)
    path = directory / f"{digest}.part"
    part_fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(part_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            path = target.with_name(f"{target.name}.part")
            path.touch(mode=0o600)
        yield path
    except Cancelled:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(part_fd)


def sweep(directory: Path) -> list[str]:
    """Remove what nobody has gone on with for KEPT_SEC; return it, in words. No such directory is fine."""
    removed = []
    for name in sorted(os.listdir(directory)) if directory.is_dir() else ():
        with contextlib.suppress(OSError):
            with open(directory / name, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                about = os.fstat(file.fileno())
                if time.time() - about.st_mtime > KEPT_SEC:
                    os.unlink(directory / name)
                    removed.append(f"unfinished download: {name}")
    return removed
