"""Hands what the web asks about containers' files as they are now, and what it wants changed, to filers: one for each.

A connection to host.filer_socket is one request: a line of JSON ``{"container", "verb", "snapshot", "asked"}``
(core.lifecycle.filing), and gets the filer's own answer. A file that is written follows the line ``{"go": true}``.
"""

from __future__ import annotations

import collections
import socket
import threading
from typing import Any, Final

from ..core.errors import Busy, CoreError, SpecError
from ..core.host import Host
from ..core.lifecycle import filing
from .reading import AT_ONCE, Readers, asked_on, refuse

OF_ONE_AT_ONCE: Final = 4
"""Filers of one container: a file system in it that never answers holds up nobody else."""
_VERBS: Final = (*filing.READING, *(verb for verb in filing.CHANGING if verb != "put-back"))
_STRINGS: Final = ("container", "verb", "snapshot")


class Filers(Readers):
    """Serves the filers' socket in a thread of its own, and each request in one more."""

    def __init__(self, host: Host) -> None:
        super().__init__(host, host.filer_socket, name="filers")
        self._free = threading.BoundedSemaphore(2 * AT_ONCE)
        self._of_one: collections.Counter[str] = collections.Counter()
        self._counting = threading.Lock()

    def _work(self, connection: socket.socket) -> None:
        request = _request(connection)
        container_id = request["container"]
        with self._counting:
            if self._of_one[container_id] >= OF_ONE_AT_ONCE:
                raise Busy("Too many files of this container are worked on at once; try again.")
            self._of_one[container_id] += 1
        try:
            with self._turn():
                self._file(connection, container_id, request)
        finally:
            with self._counting:
                self._of_one[container_id] -= 1
                if not self._of_one[container_id]:
                    del self._of_one[container_id]

    def _file(self, connection: socket.socket, container_id: str, request: dict[str, Any]) -> None:
        verb, snapshot = request["verb"], request["snapshot"]
        if snapshot and verb in filing.CHANGING:
            raise SpecError("What is in a snapshot stays as it is.", field="snapshot")
        with filing.prepared(self._host, container_id, verb, request["asked"], snapshot=snapshot) as ready:
            self._attend(filing.start(self._host, ready, connection.fileno()))

    def _refused(self, connection: socket.socket, error: CoreError) -> None:
        refuse(connection, {"ok": False, **error.kept()})


def _request(connection: socket.socket) -> dict[str, Any]:
    """Return a request, and nothing of what follows it; raises SpecError for what is none."""
    request = asked_on(connection)
    if not isinstance(request, dict) or request.keys() != {*_STRINGS, "asked"}:
        raise SpecError("This is no request.")
    if not all(isinstance(request[name], str) for name in _STRINGS) or not isinstance(request["asked"], dict):
        raise SpecError("This is no request.")
    if request["verb"] not in _VERBS or not _fits(request["verb"], request["asked"]):
        raise SpecError("This is no request.")
    return request


_Types = tuple[type | None, ...]
_PATH: Final[dict[str, _Types]] = {"path": (str,)}
_ASKED: Final[dict[str, dict[str, _Types]]] = {
    "list": {**_PATH, "offset": (int,), "limit": (int,), "sort": (str,), "descending": (bool,), "match": (str,)},
    "entry": _PATH,
    "text": _PATH,
    "content": _PATH,
    "archive": {**_PATH, "only": (list,)},
    "write": {**_PATH, "size": (int,), "etag": (str,), "replace": (bool,), "mode": (int, None)},
    "make": {**_PATH, "mode": (int, None)},
    "rename": {**_PATH, "to": (str,)},
    "remove": {**_PATH, "recursive": (bool,)},
    "attributes": {**_PATH, "mode": (int, None), "user": (str, None), "group": (str, None), "recursive": (bool,)},
}


def _is_name(value: Any) -> bool:
    return type(value) is str and value not in ("", ".", "..") and not {"/", "\0"} & set(value)


def _fits(verb: str, asked: dict[str, Any]) -> bool:
    """Tell whether arguments are those of a verb, by name and by type, and paths absolute."""
    wanted = _ASKED[verb]
    if asked.keys() != wanted.keys():
        return False
    for name, types in wanted.items():
        value = asked[name]
        if (None if value is None else type(value)) not in types:
            return False
        if type(value) is int and value < 0:
            return False
        if type(value) is list and not all(map(_is_name, value)):
            return False
    return all(asked[name].startswith("/") and "\0" not in asked[name] for name in ("path", "to") if name in asked)
