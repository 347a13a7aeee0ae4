"""Hands the bytes of backups to the web: of those that lie in a place, and of containers that are backed up just now.

A connection to host.backup_socket is one question, a line of JSON: ``{"destination", "file"}`` or ``{"container",
"with_snapshots"}``. Its answer is a line of JSON, and the bytes behind it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import stat
from collections.abc import Iterator
from typing import Any, Final

from ..core.backups import places, writing
from ..core.errors import Busy, CoreError, SpecError
from ..core.host import Host
from ..core.lifecycle import backing
from .reading import Readers, asked_on

log = logging.getLogger(__name__)

_CHUNK_BYTES: Final = 8 << 20


class BackupStreams(Readers):
    """Serves the backups' socket in a thread of its own, and each download in one more."""

    def __init__(self, host: Host) -> None:
        super().__init__(host, host.backup_socket, name="backups")

    def _work(self, connection: socket.socket) -> None:
        asked = _question(connection)
        with self._turn():
            if "file" in asked:
                self._stored(connection, str(asked["destination"]), str(asked["file"]))
            else:
                self._made(connection, str(asked["container"]), with_points=asked["with_snapshots"] is True)

    def _stored(self, connection: socket.socket, destination: str, file: str) -> None:
        place = places.of(self._host, destination)
        with contextlib.ExitStack() as held:
            fd = held.enter_context(place.reading(file))
            left = place.size_bytes(file)
            with _body(connection, {"name": file, "size_bytes": left}):
                move = os.splice if stat.S_ISFIFO(os.fstat(fd).st_mode) else _send_file
                while left and not self._stopping:
                    count = move(fd, connection.fileno(), min(_CHUNK_BYTES, left))
                    if not count:
                        break
                    left -= count
                held.close()

    def _made(self, connection: socket.socket, container_id: str, *, with_points: bool) -> None:
        def check() -> None:
            if self._stopping:
                raise Busy("The panel stops.")

        with backing.point(self._host, container_id, with_points=with_points) as taken:
            with (
                _body(connection, {"name": backing.name_now(taken.manifest.name)}),
                writing.compressed(connection.sendall) as output,
            ):
                backing.stream(self._host, taken, output, backing.Watcher(check_cancelled=check))


def _send_file(from_fd: int, to_fd: int, count: int) -> int:
    return os.sendfile(to_fd, from_fd, None, count)


@contextlib.contextmanager
def _body(connection: socket.socket, head: dict[str, Any]) -> Iterator[None]:
    """Send the line that bytes follow. What fails then is not told among them: they end early."""
    connection.sendall(json.dumps({"ok": True, **head}).encode() + b"\n")
    try:
        yield
    except (CoreError, OSError, ValueError) as error:
        log.warning("%s was not sent to its end: %s", head["name"], error)


def _question(connection: socket.socket) -> dict[str, Any]:
    asked = asked_on(connection)
    if not isinstance(asked, dict) or set(asked) not in ({"destination", "file"}, {"container", "with_snapshots"}):
        raise SpecError("This is no question.")
    return asked
