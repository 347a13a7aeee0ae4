"""The web's side of the filers' socket: a container's files as they are now, and changes of them."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from django.conf import settings

from ..core import filer_answers
from ..core.sentences import restored
from .reading import ANSWER_MAX_BYTES, ANSWER_SEC, CHUNK_BYTES, ReaderUnavailable, Stream, begun
from .ticker_client import check_peer

WRITE_SEC: Final = 600.0
"""How long a file may take to be put on the disk after it was sent."""


def socket_path() -> Path:
    """Return where the ticker takes requests about containers' files."""
    return Path(settings.BOXROOM_RUN_DIR) / "filer.sock"


def _request(container_id: str, verb: str, snapshot: str, asked: dict[str, Any]) -> bytes:
    said = {"container": container_id, "verb": verb, "snapshot": snapshot, "asked": asked}
    return json.dumps(said).encode() + b"\n"


def ask(container_id: str, verb: str, asked: dict[str, Any], *, snapshot: str = "") -> dict[str, Any]:
    """Return the answer to a request without bytes: list, entry, text, make, rename, remove, attributes.

    Raises NotFound, SpecError, AlreadyExists, Busy, Changed, InUse, InvalidTransition, StorageFull, SetupFailed,
    ReaderUnavailable.
    """
    try:
        with _connected() as link:
            link.sendall(_request(container_id, verb, snapshot, asked))
            return _answer(_line(link))
    except (OSError, TimeoutError) as error:
        raise ReaderUnavailable from error


def write(container_id: str, asked: dict[str, Any], pieces: Iterable[bytes]) -> dict[str, Any]:
    """Send a file of asked["size"] bytes; returns {"entry", "etag"}. Raises as ask does, and PolicyDenied."""
    try:
        with _connected() as link:
            link.sendall(_request(container_id, "write", "", asked))
            first = _line(link)
            if "go" not in json.loads(first or b"{}"):
                return _answer(first)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it says why it takes no more
                for piece in pieces:
                    link.sendall(piece)
                link.shutdown(socket.SHUT_WR)
            link.settimeout(WRITE_SEC)
            return _answer(_line(link))
    except (OSError, TimeoutError) as error:
        raise ReaderUnavailable from error


@contextlib.contextmanager
def _connected() -> Any:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as link:
        link.settimeout(ANSWER_SEC)
        link.connect(str(socket_path()))
        check_peer(link)
        yield link


def _line(link: socket.socket) -> bytes:
    """Return one line; what comes without an end is what there was of it."""
    data = bytearray()
    while not data.endswith(b"\n"):
        piece = link.recv(CHUNK_BYTES)
        data += piece
        if not piece or len(data) > ANSWER_MAX_BYTES:
            break
    return bytes(data)


def _answer(line: bytes) -> dict[str, Any]:
    if not line:
        raise filer_answers.silence()
    try:
        answer: dict[str, Any] = json.loads(line)
    except ValueError:
        raise ReaderUnavailable from None
    if answer.pop("ok", False):
        return answer
    raise (
        filer_answers.error(str(answer.get("code")), restored(answer), field=answer.get("field") or "path")
        or ReaderUnavailable()
    )


async def stream(container_id: str, verb: str, path: str, *, snapshot: str = "", only: Sequence[str] = ()) -> Stream:
    """Begin the answer to content or archive; raises as ask does. only: what an archive of a directory is to hold."""
    asked = {"path": path, **({"only": list(only)} if verb == "archive" else {})}
    return await begun(socket_path(), _request(container_id, verb, snapshot, asked), _answer)
