"""Archives, and files for containers, that are sent in pieces. They lie in the web's own directory: the worker reads an
archive when it makes an image, the web sends a file into its container.

Each upload is two files: ID.json (who, how large) and ID.part (what has arrived).
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import secrets
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from django.conf import settings

from panel.accounts.actor import Actor, Forbidden

from ..core.errors import CoreError, NotFound, SpecError
from ..core.sentences import say
from ..rights.permissions import roles_that_may

PIECE_MAX_BYTES: Final = 8 * 1024**2
UNFINISHED_MAX: Final = 8
LIFETIME_SEC: Final = 24 * 3600
SPARE_BYTES: Final = 1024**3
"""What an upload leaves free on the disk."""
_written: Final[dict[str, float]] = {}
"""When this process last wrote to an upload, by the monotonic clock: a clock that is set makes none of them old."""


class NoRoom(CoreError):
    """The disk would be full."""

    code = "storage-full"


@dataclass(frozen=True)
class Upload:
    """One archive or file. received_bytes: how much has arrived, without gaps. container_id: for whom, or "".

    name: what its sender calls it; nothing is decided by it.
    """

    id: str
    user_id: int
    size_bytes: int
    directory: Path
    container_id: str = ""
    name: str = ""

    @property
    def path(self) -> Path:
        """The file with what has arrived."""
        return self.directory / f"{self.id}.part"

    @property
    def received_bytes(self) -> int:
        """How many bytes have arrived."""
        return self.path.stat().st_size

    @property
    def complete(self) -> bool:
        """Whether all of it has arrived."""
        return self.received_bytes == self.size_bytes

    @property
    def changed_at(self) -> dt.datetime:
        """When its last bytes arrived."""
        return dt.datetime.fromtimestamp(self.path.stat().st_mtime, dt.UTC)

    def as_dict(self) -> dict[str, Any]:
        """Return the API's shape."""
        received = self.received_bytes
        return {
            "id": self.id,
            "name": self.name,
            "size_bytes": self.size_bytes,
            "received_bytes": received,
            "complete": received == self.size_bytes,
            "changed_at": self.changed_at,
        }


def directory() -> Path:
    """Return the directory of uploads, making it at the first call."""
    path: Path = settings.WEB_DIR / "uploads"
    path.mkdir(mode=0o700, exist_ok=True)
    return path


def mine(actor: Actor) -> list[Upload]:
    """Return what an actor has sent and not used up, the latest first."""
    where = settings.WEB_DIR / "uploads"  # a look makes nothing
    _sweep(where)
    found = []
    for upload in _all(where):
        with contextlib.suppress(FileNotFoundError):  # somebody uses it up just now
            if upload.user_id == actor.user.pk:
                found.append((upload.changed_at, upload.id, upload))
    return [upload for _at, _id, upload in sorted(found, reverse=True)]


def begin(actor: Actor, size_bytes: int, name: str = "") -> Upload:
    """Begin an upload; who may make images or containers may. Raises Forbidden, SpecError, NoRoom."""
    if not (actor.user.host_admin or actor.user.memberships.filter(role__in=roles_that_may("backup-import")).exists()):
        raise Forbidden("Only administrators send archives.")
    return _begin(Upload(secrets.token_hex(16), actor.user.pk, size_bytes, directory(), name=name))


def begin_file(actor: Actor, container_id: str, size_bytes: int, *, most_bytes: int, name: str = "") -> Upload:
    """Begin sending a file for a container, which the actor may write to. most_bytes: of all that he sends at once.

    Raises SpecError, NoRoom.
    """
    where = directory()
    mine = sum(one.size_bytes for one in _all(where) if one.user_id == actor.user.pk and one.container_id)
    if mine + size_bytes > most_bytes:
        raise SpecError("Finish or delete your other uploads first.", field="size_bytes")
    return _begin(Upload(secrets.token_hex(16), actor.user.pk, size_bytes, where, container_id, name))


def _begin(upload: Upload) -> Upload:
    where = upload.directory
    _sweep(where)
    known = _all(where)
    if sum(one.user_id == upload.user_id for one in known) >= UNFINISHED_MAX:
        raise SpecError(say("You have %(most)s uploads; delete one first.", most=UNFINISHED_MAX))
    # what others have begun to send will take its room, too
    expected = sum(max(0, one.size_bytes - one.received_bytes) for one in known)
    if shutil.disk_usage(where).free < upload.size_bytes + expected + SPARE_BYTES:
        raise NoRoom("There is not enough room on the disk for an archive of this size.", field="size_bytes")
    os.close(os.open(upload.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    about = {name: getattr(upload, name) for name in ("user_id", "size_bytes", "container_id", "name")}
    temporary = where / f"{upload.id}.tmp"
    temporary.write_text(json.dumps(about))
    temporary.rename(where / f"{upload.id}.json")
    return upload


def find(actor: Actor, upload_id: str) -> Upload:
    """Return one of the actor's own uploads; raises NotFound."""
    upload = _read(directory(), upload_id) if len(upload_id) == 32 and upload_id.isalnum() else None
    if upload is None or upload.user_id != actor.user.pk:
        raise NotFound("You have no such upload.")
    return upload


def write(actor: Actor, upload_id: str, offset: int, piece: bytes) -> Upload:
    """Write a piece at an offset; pieces come in order, and one may be sent again.

    Raises SpecError where it would leave a gap or exceed the size, NoRoom where the disk is full.
    """
    upload = find(actor, upload_id)
    received = upload.received_bytes
    if offset > received:
        raise SpecError(
            say("Go on at offset %(received)s: nothing may be left out.", received=received), field="offset"
        )
    if offset + len(piece) > upload.size_bytes:
        raise SpecError(
            say("This piece goes past the size of %(size_bytes)s bytes.", size_bytes=upload.size_bytes), field="offset"
        )
    fd = os.open(upload.path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        view = memoryview(piece)
        while view:
            written = os.pwrite(fd, view, offset)
            view, offset = view[written:], offset + written
        _written[upload.id] = time.monotonic()
    except OSError as error:
        raise NoRoom(f"The piece could not be written: {error.strerror}.") from error
    finally:
        os.close(fd)
    return upload


def remove(actor: Actor, upload_id: str) -> None:
    """Remove one of the actor's own uploads; raises NotFound."""
    _remove(find(actor, upload_id))


def _remove(upload: Upload) -> None:
    _written.pop(upload.id, None)
    (upload.directory / f"{upload.id}.json").unlink(missing_ok=True)
    upload.path.unlink(missing_ok=True)


def _read(where: Path, upload_id: str) -> Upload | None:
    try:
        about = json.loads((where / f"{upload_id}.json").read_text())
        (where / f"{upload_id}.part").stat()
    except FileNotFoundError:
        return None
    named = about.get("container_id", ""), about.get("name", "")
    return Upload(upload_id, about["user_id"], about["size_bytes"], where, *named)


def _all(where: Path) -> list[Upload]:
    return [upload for path in where.glob("*.json") if (upload := _read(where, path.stem))]


def _sweep(where: Path) -> None:
    """Remove uploads that nobody has gone on with for a day."""
    for upload in _all(where):
        try:
            old = time.time() - upload.path.stat().st_mtime > LIFETIME_SEC
            if old and time.monotonic() - _written.get(upload.id, float("-inf")) > LIFETIME_SEC:
                _remove(upload)
        except FileNotFoundError:
            continue
