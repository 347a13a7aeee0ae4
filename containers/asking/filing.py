"""A container's files for people and programs: seen, taken, written, managed. Whoever may open a terminal may do so.

Each change has a record in the audit trail from before it is made, with its outcome. Paths come as calls carry them
(core.filenames), and are absolute, without "..", before they go any further.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from panel.accounts import audit
from panel.accounts.actor import Actor

from ..clients import filing
from ..core.errors import CoreError, PolicyDenied, SpecError
from ..core.filenames import one_name, parsed, shown
from ..models import Container
from . import uploads
from .access import find_container
from .points import find

ACTION: Final = "files"
PAGE_MAX: Final = 1000
PIECE_BYTES: Final = 256 * 1024
FILE_BYTES: Final = 16 * 1024**3
"""How large a file may be that is sent, until the host's worker has told what its policy says."""
SORTS: Final = ("name", "size", "modified")
MODE_MAX: Final = 0o7777
NAME_MAX: Final = 255


def _seen(actor: Actor, name: str, snapshot: str) -> Container:
    """Return a container whose files the actor may see, in a snapshot too; raises NotFound, Forbidden, SpecError."""
    container = find_container(actor, name, ACTION)
    if snapshot and find(container, snapshot).holds == "configuration":
        raise SpecError("This point holds the configuration only.", field="snapshot")
    return container


def listing(
    actor: Actor,
    name: str,
    path: str,
    *,
    snapshot: str = "",
    offset: int = 0,
    limit: int = 100,
    sort: str = "name",
    descending: bool = False,
    match: str = "",
) -> dict[str, Any]:
    """Return a page of a directory: {"items", "total", "complete", "directory"}, directories first."""
    if sort not in SORTS:
        raise SpecError("Sort by name, size or modified.", field="sort")
    container = _seen(actor, name, snapshot)
    asked = {
        "path": parsed(path),
        "offset": max(0, offset),
        "limit": max(1, min(limit, PAGE_MAX)),
        "sort": sort,
        "descending": descending,
        "match": match[:NAME_MAX],
    }
    return filing.ask(container.pk, "list", asked, snapshot=snapshot)


def entry(actor: Actor, name: str, path: str, *, snapshot: str = "") -> dict[str, Any]:
    """Return one file or directory, as a listing tells it."""
    container = _seen(actor, name, snapshot)
    found: dict[str, Any] = filing.ask(container.pk, "entry", {"path": parsed(path)}, snapshot=snapshot)["entry"]
    return found


def text(actor: Actor, name: str, path: str, *, snapshot: str = "") -> dict[str, Any]:
    """Return a text file: {"text", "etag", "line_ends", "reason", "entry"}; reason: why there is no text."""
    container = _seen(actor, name, snapshot)
    where = parsed(path)
    found = filing.ask(container.pk, "text", {"path": where}, snapshot=snapshot)
    detail = {"path": shown(where), **({"snapshot": snapshot} if snapshot else {})}
    audit.record(actor, "file.read", "container", name, project=container.project.name, detail=detail)
    return found


def prepare_taking(actor: Actor, name: str, path: str, *, snapshot: str = "") -> tuple[Container, str]:
    """Check that somebody may take a file or directory, and tell the audit trail; returns the path for the filer."""
    container, where, _names = prepare_archive(actor, name, path, (), snapshot=snapshot)
    return container, where


def prepare_archive(
    actor: Actor, name: str, path: str, only: Sequence[str], *, snapshot: str = ""
) -> tuple[Container, str, list[str]]:
    """Do the same for what is to be taken of a directory, by name; returns the names for the filer, too."""
    container, where = _seen(actor, name, snapshot), parsed(path)
    names = list(dict.fromkeys(one_name(one, field="only") for one in only))
    detail: dict[str, Any] = {"path": shown(where), **({"snapshot": snapshot} if snapshot else {})}
    if names:
        detail["only"] = [shown(one) for one in names]
    audit.record(actor, "file.read", "container", name, project=container.project.name, detail=detail)
    return container, where, names


def write(
    actor: Actor,
    name: str,
    path: str,
    data: bytes,
    *,
    etag: str = "",
    replace: bool = True,
    mode: int | None = None,
) -> dict[str, Any]:
    """Write a whole file; returns {"entry", "etag"}. etag: of what is to be replaced; replace: whether anything may be.

    Raises Changed where the etag is another's, AlreadyExists, StorageFull, Busy, ...; the old file is whole then.
    """
    with _changing(actor, name, "file.write", path, size_bytes=len(data)) as (container, where):
        asked = _asked(where, len(data), etag, mode, replace=replace)
        return filing.write(container.pk, asked, (data,))


def put(
    actor: Actor,
    name: str,
    path: str,
    upload_id: str,
    *,
    etag: str = "",
    replace: bool = False,
    mode: int | None = None,
) -> dict[str, Any]:
    """Make a complete upload a file of the container, and forget the upload; returns and raises as write does."""
    upload = uploads.find(actor, upload_id)
    if upload.received_bytes != upload.size_bytes:
        raise SpecError("The upload is not complete yet.", field="upload")
    with _changing(actor, name, "file.write", path, size_bytes=upload.size_bytes) as (container, where):
        if upload.container_id != container.pk:
            raise SpecError("This upload was begun for something else.", field="upload")
        asked = _asked(where, upload.size_bytes, etag, mode, replace=replace)
        found = filing.write(container.pk, asked, _pieces(upload.path, upload.size_bytes))
    uploads.remove(actor, upload_id)
    return found


def _asked(where: str, size: int, etag: str, mode: int | None, *, replace: bool) -> dict[str, Any]:
    return {"path": where, "size": size, "etag": etag, "replace": replace, "mode": checked_mode(mode)}


def _pieces(path: Path, size: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        while size and (piece := file.read(min(size, PIECE_BYTES))):
            size -= len(piece)
            yield piece


def make(actor: Actor, name: str, path: str, *, mode: int | None = None) -> dict[str, Any]:
    """Make a directory; returns {"entry"}."""
    with _changing(actor, name, "file.make", path) as (container, where):
        return filing.ask(container.pk, "make", {"path": where, "mode": checked_mode(mode)})


def rename(actor: Actor, name: str, path: str, to: str) -> dict[str, Any]:
    """Give a file or directory another name or place, where there is nothing; returns {"entry"}."""
    target = parsed(to, field="to")
    with _changing(actor, name, "file.rename", path, to=shown(target)) as (container, where):
        return filing.ask(container.pk, "rename", {"path": where, "to": target})


def remove(actor: Actor, name: str, path: str, *, recursive: bool = False) -> None:
    """Remove a file or directory; one that is not empty only where recursive (InUse otherwise)."""
    with _changing(actor, name, "file.delete", path) as (container, where):
        filing.ask(container.pk, "remove", {"path": where, "recursive": recursive})


def attributes(
    actor: Actor,
    name: str,
    path: str,
    *,
    mode: int | None = None,
    user: str | None = None,
    group: str | None = None,
    recursive: bool = False,
) -> dict[str, Any]:
    """Change mode and owner, what is None stays. user, group: the container's names, or numbers."""
    asked = {"mode": checked_mode(mode), "user": user, "group": group, "recursive": recursive}
    told = {key: value for key, value in asked.items() if value not in (None, False)}
    if mode is not None:
        told["mode"] = f"{mode:04o}"
    for field, value in (("user", user), ("group", group)):
        if value is not None and (not value or len(value) > NAME_MAX or not value.isprintable()):
            raise SpecError("Give a name or a number.", field=field)
    with _changing(actor, name, "file.change", path, **told) as (container, where):
        return filing.ask(container.pk, "attributes", {"path": where, **asked})


def checked_mode(mode: int | None) -> int | None:
    """Return a mode that is one; raises SpecError."""
    if mode is not None and not 0 <= mode <= MODE_MAX:
        raise SpecError("Give a mode from 0 to 7777, in octal.", field="mode")
    return mode


def parsed_mode(text: str, *, field: str = "mode") -> int | None:
    """Return the mode that a text means in octal, None for an empty one; raises SpecError."""
    if not text:
        return None
    if not text.isascii() or len(text) > 5 or set(text) - set("01234567"):
        raise SpecError("Give a mode from 0 to 7777, in octal.", field=field)
    return checked_mode(int(text, 8))


def file_bytes(container: Container) -> int:
    """Return how large a file may be that is sent, by the host's policy as its worker last told it."""
    return int(container.host.facts.get("policy", {}).get("file_bytes", FILE_BYTES))


def begin_upload(actor: Actor, name: str, size_bytes: int, file_name: str = "") -> uploads.Upload:
    """Begin sending a large file in pieces, for a container. Raises PolicyDenied, SpecError, NoRoom."""
    container = find_container(actor, name, ACTION)
    if size_bytes > file_bytes(container):
        raise PolicyDenied("The host's policy allows no file of this size.", field="size_bytes")
    return uploads.begin_file(actor, container.pk, size_bytes, most_bytes=file_bytes(container), name=file_name)


@contextlib.contextmanager
def _changing(actor: Actor, name: str, action: str, path: str, **detail: Any) -> Iterator[tuple[Container, str]]:
    """Check that somebody may change a container's files, and tell the audit trail before and after."""
    container, where = find_container(actor, name, ACTION), parsed(path)
    record = audit.record(
        actor,
        action,
        "container",
        name,
        project=container.project.name,
        outcome=audit.Outcome.PENDING,
        detail={"path": shown(where), **detail},
    )
    outcome, told = audit.Outcome.FAILED, {}
    try:
        yield container, where
        outcome = audit.Outcome.SUCCEEDED
    except CoreError as error:
        told = {"code": error.code}
        raise
    finally:
        audit.end(record, outcome, told)
