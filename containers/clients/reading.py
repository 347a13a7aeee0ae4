"""The web's side of the reader's socket: what is in a container's files, now and in its snapshots."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final, Literal

from django.conf import settings

from ..core.errors import Busy, CoreError, NotFound, SpecError
from .ticker_client import check_peer

Verb = Literal["changes", "text", "list", "content", "archive"]
ANSWER_SEC: Final = 90.0
ANSWER_MAX_BYTES: Final = 32 * 1024**2
CHUNK_BYTES: Final = 256 * 1024


class ReaderUnavailable(CoreError):
    """Nobody reads files at the moment."""

    code = "unavailable"

    def __init__(self) -> None:
        super().__init__("Files cannot be read at the moment; try again.")


def socket_path() -> Path:
    """Return where the ticker takes questions about files."""
    return Path(settings.BOXROOM_RUN_DIR) / "reader.sock"


def _question(container_id: str, verb: Verb, after: str, before: str, path: str) -> bytes:
    asked = {"container": container_id, "verb": verb, "after": after, "before": before, "path": path}
    return json.dumps(asked).encode() + b"\n"


def ask(container_id: str, verb: Verb, *, after: str, before: str = "", path: str = "/") -> dict[str, Any]:
    """Return the answer to changes, text or list. after, before: a snapshot's name, or "" for now.

    Raises NotFound, SpecError, Busy, ReaderUnavailable.
    """
    data = bytearray()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as link:
            link.settimeout(ANSWER_SEC)
            link.connect(str(socket_path()))
            check_peer(link)
            link.sendall(_question(container_id, verb, after, before, path))
            while piece := link.recv(CHUNK_BYTES):
                data += piece
                if len(data) > ANSWER_MAX_BYTES:
                    raise ReaderUnavailable
    except (OSError, TimeoutError) as error:
        raise ReaderUnavailable from error
    return _head(bytes(data))


def _head(line: bytes) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = json.loads(line)
    except ValueError:
        raise ReaderUnavailable from None
    if answer.pop("ok", False):
        return answer
    kinds: dict[str, type[CoreError]] = {"not-found": NotFound, "invalid-value": SpecError, "busy": Busy}
    kind = kinds.get(str(answer.get("code")))
    if kind is None:
        raise ReaderUnavailable
    raise kind(str(answer.get("message")), field="path")


class Stream:
    """The bytes of a file or an archive, as they come. head: what was said of them before. Closed by its reader."""

    def __init__(self, head: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.head = head
        self._reader, self._writer = reader, writer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield them all."""
        try:
            while piece := await asyncio.wait_for(self._reader.read(CHUNK_BYTES), ANSWER_SEC):
                yield piece
        finally:
            self.close()

    def close(self) -> None:
        """Have the reader end."""
        self._writer.close()


async def stream(container_id: str, verb: Verb, *, after: str, path: str) -> Stream:
    """Begin the answer to content or archive; raises as ask does."""
    return await begun(socket_path(), _question(container_id, verb, after, "", path))


async def begun(place: Path, question: bytes, head_of: Callable[[bytes], dict[str, Any]] | None = None) -> Stream:
    """Begin the answer to a question, asked at a socket of the ticker's.

    head_of: returns what the answer's first line says, or raises; None: as ask does.
    """
    try:
        reader, writer = await asyncio.open_unix_connection(str(place), limit=1 << 20)
    except OSError as error:
        raise ReaderUnavailable from error
    with contextlib.ExitStack() as undo:
        undo.callback(writer.close)
        try:
            check_peer(writer.get_extra_info("socket"))
            writer.write(question)
            line = await asyncio.wait_for(reader.readline(), ANSWER_SEC)
        except (OSError, TimeoutError) as error:
            raise ReaderUnavailable from error
        head = (head_of or _head)(line)
        undo.pop_all()
    return Stream(head, reader, writer)
