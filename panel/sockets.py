"""What daphne does for our WebSockets otherwise than by itself.

- It closes them with the codes that the API names: 1011 (a fault here) and 1013 (try again later). Autobahn takes 1000
  and 3000 to 4999 only from an application, because RFC 6455 leaves the others to the server; here the application is
  the server. It also cuts a peer off that does not answer a close within a second; one that still reads what came
  before, over a slow line or on a busy machine, would lose the end of it.
- When it is told to stop it says so on every socket, with 1013, before it goes.
- It measures how long something takes by the monotonic clock, and so does the reactor under it: by the other one a step
  back would hold up its pings, its time-outs and the clearing away of connections until the clock is there again.
"""

from __future__ import annotations

import json
import sys
import time
from types import SimpleNamespace
from typing import Any, Final

from daphne import http_protocol, ws_protocol
from twisted.internet.base import ReactorBase

OURS: Final = (1011, 1012, 1013)
CLOSE_SEC: Final = 30.0
"""For how long a peer may go on reading before it answers a close."""
LEAVE_SEC: Final = 1.0
"""For how long a server that stops waits for the answers to its closes."""
_LOOK_SEC: Final = 0.02
_LEAVING: Final = json.dumps(
    {"type": "error", "code": "unavailable", "message": "The panel restarts; come back in a moment.", "field": None}
).encode()

_open: set[Protocol] = set()
_shutdown: dict[str, bool] = {"heard of": False, "begun": False}


class Protocol(ws_protocol.WebSocketProtocol):  # type: ignore[misc]  # daphne has no types
    """Daphne's connection, which may be closed with the server's codes too."""

    def serverClose(self, code: int | None = None) -> None:
        """Begin to close with a code; a peer that is closing already is left to it."""
        self.closeHandshakeTimeout = CLOSE_SEC
        if code in OURS:
            if self.state == self.STATE_OPEN:
                self.sendCloseFrame(code=code, isReply=False)
        else:
            super().serverClose(code)

    def onOpen(self) -> None:
        """Note that it is open."""
        super().onOpen()
        _open.add(self)
        _hear_of_shutdown()
        if _shutdown["begun"]:
            self.leave()

    def onClose(self, *arguments: Any) -> None:
        """Note that it is not open any more."""
        _open.discard(self)
        super().onClose(*arguments)

    def leave(self) -> None:
        """Say that the server stops, and close."""
        if self.state == self.STATE_OPEN:
            self.sendMessage(_LEAVING, isBinary=False)
            self.sendCloseFrame(code=1013, isReply=False)


def _hear_of_shutdown() -> None:
    # not before somebody is there: by then daphne has chosen its reactor, which importing it would do otherwise
    if not _shutdown["heard of"]:
        from twisted import internet

        reactor: Any = internet.reactor
        _shutdown["heard of"] = True
        reactor.addSystemEventTrigger("before", "shutdown", _leave, reactor)


def _leave(reactor: Any) -> Any:
    """Say goodbye on every socket; return what fires once all have answered, or LEAVE_SEC are over."""
    from twisted.internet.defer import Deferred

    _shutdown["begun"] = True
    for protocol in tuple(_open):
        protocol.leave()
    done: Any = Deferred()
    until = time.monotonic() + LEAVE_SEC

    def look() -> None:
        if not _open or time.monotonic() >= until:
            done.callback(None)
        else:
            reactor.callLater(_LOOK_SEC, look)

    look()
    return done


def install() -> None:
    """Make daphne use this; called where the ASGI application is made, before daphne listens."""
    ws_protocol.WebSocketFactory.protocol = Protocol
    # the server's own module chooses a reactor when it is imported: here only where daphne has done so itself
    modules: list[Any] = [ws_protocol, http_protocol, sys.modules.get("daphne.server")]
    for module in filter(None, modules):
        module.time = SimpleNamespace(time=time.monotonic)
    # no reactor is chosen by this; nothing is to be called yet, as daphne begins to listen afterwards
    ReactorBase.seconds = staticmethod(time.monotonic)
