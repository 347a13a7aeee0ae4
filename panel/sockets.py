"""Lets daphne close WebSockets with the codes that the API names: 1011 (a fault here) and 1013 (try again later).

Autobahn takes 1000 and 3000 to 4999 only from an application, because RFC 6455 leaves the others to the server; here
the application is the server. It also cuts a peer off that does not answer a close within a second; one that still
reads what came before, over a slow line or on a busy machine, would lose the end of it.
"""

from __future__ import annotations

from typing import Final

from daphne import ws_protocol

OURS: Final = (1011, 1012, 1013)
CLOSE_SEC: Final = 30.0
"""For how long a peer may go on reading before it answers a close."""


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


def install() -> None:
    """Make daphne use this; called where the ASGI application is made, before daphne listens."""
    ws_protocol.WebSocketFactory.protocol = Protocol
