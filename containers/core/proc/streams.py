"""What a terminal printed, and who looks at it: a ring of the last MiB, and one place in it per viewer."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from ..protocol import FRAME_MAX_BYTES, SCROLLBACK_BYTES, WINDOW_BYTES, Kind
from .clients import Client
from .typists import TELL_BYTES, Typist, Typists

STALLED_SEC: Final = 30.0
SIZE_MIN: Final = 1
SIZE_MAX: Final = 1000
VIEWERS_MAX: Final = 16


class Ring:
    """The last SCROLLBACK_BYTES of a stream, addressed by offset from its beginning."""

    def __init__(self, size: int = SCROLLBACK_BYTES) -> None:
        self._size = size
        self._data = bytearray()
        self.end = 0

    @property
    def start(self) -> int:
        """The offset of the oldest byte that is still there."""
        return self.end - len(self._data)

    def write(self, data: bytes) -> None:
        """Append, forgetting the oldest; the buffer may lie over its size by an eighth until it is cut."""
        self._data += data
        self.end += len(data)
        if len(self._data) > self._size + self._size // 8:
            del self._data[: len(self._data) - self._size]

    def read(self, offset: int, most: int) -> bytes:
        """Return up to `most` bytes from an offset, which is moved up to start where that is later."""
        begin = max(0, offset - self.start)
        return bytes(memoryview(self._data)[begin : begin + most])

    def tail(self, size: int) -> bytes:
        """Return the last bytes."""
        return bytes(self._data[-size:])


class Viewer:
    """One client's view of a stream. sent and acked count bytes since it came."""

    def __init__(
        self,
        client: Client,
        stream: Stream,
        user: str,
        user_id: int | None,
        *,
        may_type: bool,
        typist: Typist | None = None,
    ) -> None:
        self.client = client
        self.stream = stream
        self.user = user
        self.user_id = user_id
        self.may_type = may_type
        self.typist = typist
        self._taken = self._told = (stream.typists.taken(typist) if typist else None) or 0
        self.size: tuple[int, int] | None = None
        self.position = stream.ring.start
        self._unacked = 0
        self._progress = time.monotonic()

    @property
    def behind(self) -> bool:
        """Whether bytes wait because the window is full."""
        return self.position < self.stream.ring.end

    @property
    def stalled(self) -> bool:
        """Whether it has acknowledged nothing for too long while bytes wait for it."""
        return self.behind and time.monotonic() - self._progress > STALLED_SEC

    def advance(self) -> None:
        """Send what fits into the window."""
        ring = self.stream.ring
        if not self.behind:
            return
        self.position = max(self.position, ring.start)
        while (room := WINDOW_BYTES - self._unacked) > 0 and self.behind and self.client.has_room:
            data = ring.read(self.position, min(room, FRAME_MAX_BYTES))
            if not self._unacked:
                self._progress = time.monotonic()
            self.position += len(data)
            self._unacked += len(data)
            self.client.send(Kind.DATA, data)

    # -- what the client says ----------------------------------------------------------------------------------------

    def control(self, message: dict[str, Any]) -> None:
        """Handle a resize or an acknowledgement."""
        match message.get("cmd"):
            case "ack":
                size = message.get("bytes")
                if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= self._unacked:
                    self.client.refuse("bad-frame", "bytes must be what was received and not acknowledged yet.")
                    return
                self._unacked -= size
                self._progress = time.monotonic()
                self.stream.advanced(self)
            case "resize":
                size_wanted = terminal_size(message.get("cols"), message.get("rows"))
                if size_wanted is None:
                    # the terminal stays as it is: no reason to end the session
                    self.client.tell(type="error", code="invalid-value", message=SIZE_RULE, field="cols")
                    return
                self.size = size_wanted
                self.stream.resized(self)
            case _:
                self.client.refuse("bad-frame", "Use ack or resize here.")

    def data(self, payload: bytes) -> None:
        """Pass on what was typed; a viewer who may only look is not heard."""
        if not self.may_type:
            return
        self.stream.typed(self, payload)
        if self.typist is not None:
            self._taken += len(payload)
            self.stream.typists.note(self.typist, self._taken)
            if self._taken - self._told >= TELL_BYTES:
                self._told = self._taken
                self.client.tell(type="taken", bytes=self._taken)

    def room(self) -> None:
        """Send more: the socket has taken what there was."""
        self.stream.advanced(self)

    def closed(self) -> None:
        """Leave the stream."""
        self.stream.leave(self)


SIZE_RULE: Final = f"A terminal has {SIZE_MIN} to {SIZE_MAX} columns and rows."


def terminal_size(columns: object, rows: object) -> tuple[int, int] | None:
    """Return (columns, rows) where both are sensible, else None."""
    for value in (columns, rows):
        if isinstance(value, bool) or not isinstance(value, int) or not SIZE_MIN <= value <= SIZE_MAX:
            return None
    return columns, rows  # type: ignore[return-value]


class Stream:
    """Output with viewers. The source is heard through `wanted`: whether more may be read now."""

    def __init__(self, ring_bytes: int = SCROLLBACK_BYTES) -> None:
        self.ring = Ring(ring_bytes)
        self.viewers: list[Viewer] = []
        self.typists = Typists()
        self.on_room: Callable[[], None] = lambda: None

    @property
    def wanted(self) -> bool:
        """Whether every viewer has been sent everything: the slowest one's window decides."""
        return not any(viewer.behind for viewer in self.viewers)

    def feed(self, data: bytes) -> None:
        """Take output from the source."""
        self.ring.write(data)
        for viewer in list(self.viewers):
            viewer.advance()

    def join(self, viewer: Viewer) -> None:
        """Add a viewer; the scrollback goes out first."""
        self.viewers.append(viewer)
        viewer.client.handler = viewer
        viewer.advance()
        self._tell_viewers()
        self.on_room()

    def leave(self, viewer: Viewer) -> None:
        """Forget a viewer."""
        if viewer in self.viewers:
            self.viewers.remove(viewer)
            self._tell_viewers()
            self.on_room()

    def drop_typist(self, who: Typist) -> None:
        """Part with an earlier connection of somebody who comes again; what it has not brought yet is not heard."""
        for viewer in list(self.viewers):
            if viewer.typist == who:
                viewer.client.close()

    def advanced(self, viewer: Viewer) -> None:
        """Send a viewer more, and read more if nobody is behind."""
        viewer.advance()
        self.on_room()

    def drop_stalled(self) -> None:
        """Part with viewers who take nothing; the others go on."""
        for viewer in list(self.viewers):
            if viewer.stalled:
                viewer.client.refuse("stalled", f"Nothing was acknowledged for {STALLED_SEC:.0f} s.")
                self.leave(viewer)

    def typed(self, viewer: Viewer, payload: bytes) -> None:
        """Take input; a stream without a terminal has no use for it."""

    def resized(self, viewer: Viewer) -> None:
        """Take a viewer's new size."""

    def _tell_viewers(self) -> None:
        names = [{"user": viewer.user, "may_type": viewer.may_type} for viewer in self.viewers]
        for viewer in self.viewers:
            viewer.client.tell(type="viewers", items=names)
