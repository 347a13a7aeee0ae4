"""/ws/containers/NAME/terminal: terminal bytes between a browser and the container's supervisor.

The supervisor keeps the window: it never has more than 256 KiB un-acknowledged to one viewer, so what lies here and in
the web server is bounded by that. What the browser sends is bounded here: it is queued, and too much of it ends the
socket. Nothing passes through Redis. The supervisor keeps the session when this socket goes.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import deque
from typing import Any, Final

from containers.asking.access import find_container
from containers.clients.hostlink import HostUnavailable, Link
from containers.core.errors import InvalidTransition
from containers.core.model.spec import check_init_command
from containers.core.protocol import Kind, ProtocolError, parse_control
from containers.messaging.notices import hub
from containers.models import Container
from panel.accounts import audit

from .base import Consumer, Refusal, in_database

INPUT_MAX_BYTES: Final = 1024**2
CONSOLE: Final = "console"
_CONSOLE: Final = re.compile(r"console|tty[0-9]+")
LOG_COLUMNS: Final = 80
LOG_ROWS: Final = 24
SIZE_MAX: Final = 1000
"""Columns or rows; a wider terminal than this is a mistake or an attack on its program's memory."""


class TerminalConsumer(Consumer):
    """One viewer of one terminal session. action: the right that it takes; may_type: or only look."""

    action = "terminal"
    may_type = True

    async def opened(self) -> None:
        """Check that there may be a terminal at all; the session is opened by the first message."""
        self._name = str(self.scope["url_route"]["kwargs"]["name"])
        self._link: Link | None = None
        self._input: deque[bytes | dict[str, Any]] = deque()
        self._waiting = 0
        self._ready = asyncio.Event()
        await self._find()

    async def authorise(self) -> None:
        """Look again whether he may: withdrawn rights end the socket."""
        await self._find()

    async def _find(self) -> Container:
        container: Container = await in_database(find_container)(self.actor, self._name, self.action)
        return container

    async def got_text(self, message: dict[str, Any]) -> None:
        """Handle open, resize and ack."""
        kind = message["type"]
        if kind == "open":
            await self._open(message)
        elif self._link is None:
            raise Refusal("bad-request", 'Send {"type": "open", ...} first.', field="type")
        elif kind == "resize" and self.may_type:
            self._queue({"cmd": "resize", "cols": _size(message, "cols"), "rows": _size(message, "rows")}, 64)
        elif kind == "ack":
            self._queue({"cmd": "ack", "bytes": _whole(message, "bytes", 0, 2**40)}, 64)
        else:
            raise Refusal("bad-request", f"{kind!r} is not a message of this socket.", field="type")

    async def got_bytes(self, data: bytes) -> None:
        """Queue what was typed or pasted."""
        if self._link is None:
            raise Refusal("bad-request", 'Send {"type": "open", ...} first.', field="type")
        if not self.may_type:
            raise Refusal("forbidden", "This socket only shows.")
        if data:
            self._queue(data, len(data))

    def _queue(self, item: bytes | dict[str, Any], size: int) -> None:
        self._waiting += size
        if self._waiting > INPUT_MAX_BYTES:
            raise Refusal(
                "too-many", "The program inside does not read what is typed; this is more than can wait for it."
            )
        self._input.append(item)
        self._ready.set()

    async def _open(self, message: dict[str, Any]) -> None:
        if self._link is not None:
            raise Refusal("bad-request", "This socket has a session already.", field="type")
        asked = self._wanted(message)
        container = await self._find()
        if container.status != "running" and asked["session"] is None:
            raise InvalidTransition(
                f"{self._name} is {container.status}; a terminal needs it running.", status=container.status
            )
        link = await Link.open(container.id)
        self._link = link
        try:
            mode = "rw" if self.may_type else "ro"
            viewer = {"user": self.actor.name, "user_id": self.actor.user.pk, "mode": mode}
            answer = await link.ask(cmd="open", viewer=viewer, **asked)
        except (ProtocolError, TimeoutError) as error:
            raise HostUnavailable(f"The container's supervisor does not answer: {error}") from error
        # who sits down at a console may find somebody else's shell there
        if answer.get("created") or (mode == "rw" and _CONSOLE.fullmatch(str(asked["session"]))):
            await in_database(audit.record)(
                self.actor, "session.open", "container", self._name, project=container.project.name,
                detail={"session": answer["session"], "command": asked["command"], "user": asked["user"]},
            )  # fmt: skip
        # replay: how many bytes of scrollback come first, which a terminal must draw without answering to them
        # taken: how much of what this typist sent has arrived; a supervisor from before an update does not count
        taken = {"taken": answer["taken"]} if "taken" in answer else {}
        await self.tell(type="opened", session=answer["session"], replay=answer.get("replay", 0), **taken)
        self.beside(self._to_browser(link))
        self.beside(self._to_supervisor(link))
        self.beside(self._hear(container.id))

    def _wanted(self, message: dict[str, Any]) -> dict[str, Any]:
        """Return what the first message asks the supervisor for; raises Refusal."""
        return _opening(message)

    async def _to_browser(self, link: Link) -> None:
        while (frame := await link.receive()) is not None:
            kind, payload = frame
            if kind is not Kind.CONTROL:
                if not self._ended:
                    await self.send(bytes_data=payload)
                continue
            message = parse_control(payload)
            if message.get("type") == "error":
                raise Refusal(str(message.get("code")), str(message.get("message")))
            if message.get("type") in ("exit", "viewers", "taken"):
                await self.tell(**message)
            if message.get("type") == "exit":
                await self._finish()
                return
        raise InvalidTransition(f"{self._name} stopped, and this terminal with it.", status="stopped")

    async def _finish(self) -> None:
        """Close without an error: the command has ended, and everything it printed was sent."""
        await self._end()
        with contextlib.suppress(RuntimeError):
            await self.close()

    async def _to_supervisor(self, link: Link) -> None:
        while True:
            await self._ready.wait()
            while self._input:
                item = self._input.popleft()
                if isinstance(item, bytes):
                    link.send_data(item)
                    self._waiting -= len(item)
                else:
                    link.send_control(**item)
                    self._waiting -= 64
                try:
                    await link.drain()
                except OSError:
                    return
            self._ready.clear()

    async def _hear(self, container_id: str) -> None:
        """Look at the rights at once when a notice says that somebody's changed."""
        with hub().subscribe() as notices:
            async for notice in notices:
                if notice["kind"] in ("user", "project", "resync") or notice["id"] == container_id:
                    await self._find()

    async def closed(self) -> None:
        """Hang up; the session lives on in the supervisor."""
        if getattr(self, "_link", None) is not None:
            self._link.close()  # type: ignore[union-attr]


class ConsoleConsumer(TerminalConsumer):
    """/ws/containers/NAME/console: who may see the container sees what it writes to its console, from the past on.

    The same messages as a terminal's, but that nothing is typed and no size is set: a log has none.
    """

    action = "view"
    may_type = False

    def _wanted(self, message: dict[str, Any]) -> dict[str, Any]:
        if set(message) - {"type"}:
            raise Refusal("bad-request", 'Send {"type": "open"}: a log takes nothing else.')
        return {"command": None, "user": None, "session": CONSOLE, "cols": LOG_COLUMNS, "rows": LOG_ROWS}


def _opening(message: dict[str, Any]) -> dict[str, Any]:
    command = message.get("command")
    if command is not None:
        if not isinstance(command, list) or not all(isinstance(word, str) for word in command):
            raise Refusal("bad-request", "command must be a list of strings.", field="command")
        _check_command(command)
    for name in ("user", "session", "typist"):
        value = message.get(name)
        if value is not None and (not isinstance(value, str) or len(value) > 128):
            raise Refusal("bad-request", f"{name} must be a short string.", field=name)
    return {
        "command": command,
        "user": message.get("user"),
        "session": message.get("session"),
        "typist": message.get("typist"),
        "cols": _size(message, "cols"),
        "rows": _size(message, "rows"),
    }


def _check_command(command: list[str]) -> None:
    if command and "/" not in command[0]:
        check_init_command(("/", *command), field="command")
    else:
        check_init_command(tuple(command), field="command")


def _size(message: dict[str, Any], name: str) -> int:
    return _whole(message, name, 1, SIZE_MAX)


def _whole(message: dict[str, Any], name: str, least: int, most: int) -> int:
    value = message.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise Refusal("bad-request", f"{name} must be a whole number from {least} to {most}.", field=name)
    return value
