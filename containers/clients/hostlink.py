"""The one place where the web reaches a host: the sockets of its supervisors.

A supervisor speaks the frames of core/protocol.py. Its peer must be root: whoever else listens there is not believed.
Today web and host share a machine; a transport between machines would end here.
"""

from __future__ import annotations

import asyncio
import base64
import socket
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from django.conf import settings

from ..core.errors import CoreError, InvalidTransition
from ..core.protocol import FRAME_MAX_BYTES, Decoder, Kind, ProtocolError, control, encode, parse_control
from ..core.sentences import say

CONNECT_SEC: Final = 3.0
GRACE_SEC: Final = 15.0
"""How much longer than the command's own time-out an answer may take."""
READ_BYTES: Final = 64 * 1024


class HostUnavailable(CoreError):
    """The supervisor does not answer."""

    code = "unavailable"


class TooLong(CoreError):
    """What is asked for does not fit into a message to the supervisor."""

    code = "too-large"


class Refused(CoreError):
    """The supervisor refused; code, message and field are its own.

    exit_code: what a shell would end with (126, 127), where it is the command itself that cannot be run.
    """

    def __init__(self, message: dict[str, Any]) -> None:
        super().__init__(str(message.get("message", "The container refused.")), field=message.get("field"))
        self.code = str(message.get("code", "internal-error"))  # type: ignore[misc]
        self.exit_code: int | None = message.get("exit_code")


def supervisor_socket(container_id: str) -> Path:
    """Return the path of a container's supervisor's socket."""
    return Path(settings.BOXROOM_RUN_DIR) / "c" / f"{container_id}.sock"


def check_peer(link: socket.socket) -> None:
    """Raise HostUnavailable unless root is at the other end. Source: unix(7), SO_PEERCRED."""
    raw = link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _pid, uid, _gid = struct.unpack("3i", raw)
    if uid != 0:
        raise HostUnavailable("What listens on the container's socket is not its supervisor.")


def not_running() -> InvalidTransition:
    """Return the error for a container without a supervisor."""
    return InvalidTransition("The container is not running.", status="stopped")


class Link:
    """A conversation with a supervisor from the event loop. Close it when done."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._decoder = Decoder()
        self._frames: list[tuple[Kind, bytes]] = []

    @classmethod
    async def open(cls, container_id: str) -> Link:
        """Connect; raises InvalidTransition where no supervisor listens, HostUnavailable where it does not answer."""
        path = str(supervisor_socket(container_id))
        try:
            reader, writer = await asyncio.wait_for(asyncio.open_unix_connection(path, limit=READ_BYTES), CONNECT_SEC)
        except (FileNotFoundError, ConnectionRefusedError):
            raise not_running() from None
        except (OSError, TimeoutError) as error:
            raise HostUnavailable(say("The container's supervisor does not answer: %(error)s", error=error)) from error
        link = cls(reader, writer)
        try:
            check_peer(writer.get_extra_info("socket"))
        except BaseException:
            link.close()
            raise
        return link

    async def receive(self) -> tuple[Kind, bytes] | None:
        """Return the next frame, or None at the end; raises ProtocolError for nonsense."""
        while not self._frames:
            try:
                data = await self._reader.read(READ_BYTES)
            except OSError:
                return None
            if not data:
                return None
            self._frames.extend(self._decoder.feed(data))
        return self._frames.pop(0)

    async def ask(self, **message: Any) -> dict[str, Any]:
        """Send a CONTROL frame and return the CONTROL frame that answers; raises Refused for an error."""
        self.send_control(**message)
        await self.drain()
        frame = await asyncio.wait_for(self.receive(), CONNECT_SEC + GRACE_SEC)
        if frame is None:
            raise not_running()
        if frame[0] is not Kind.CONTROL:
            raise ProtocolError("the first answer is not a CONTROL frame")
        answer = parse_control(frame[1])
        if answer.get("type") == "error":
            raise Refused(answer)
        return answer

    async def drain(self) -> None:
        """Wait until what was written may be followed by more."""
        await self._writer.drain()

    def send_control(self, **message: Any) -> None:
        """Write a CONTROL frame; raises TooLong where it does not fit."""
        try:
            frame = control(**message)
        except ValueError:
            most = FRAME_MAX_BYTES // 1024
            raise TooLong(
                say("Command and environment may be %(most)s KiB together.", most=most), field="command"
            ) from None
        self._writer.write(frame)

    def send_data(self, data: bytes) -> None:
        """Write bytes as DATA frames."""
        for start in range(0, len(data), FRAME_MAX_BYTES):
            self._writer.write(encode(Kind.DATA, data[start : start + FRAME_MAX_BYTES]))

    def close(self) -> None:
        """Hang up once everything has been sent."""
        self._writer.close()

    def abort(self) -> None:
        """Hang up now; what was not sent is of no use any more."""
        self._writer.transport.abort()


async def sessions(container_id: str) -> list[dict[str, Any]]:
    """Return the container's terminal sessions; raises InvalidTransition where it does not run."""
    link = await Link.open(container_id)
    try:
        found: list[dict[str, Any]] = (await link.ask(cmd="sessions"))["items"]
        return found
    finally:
        link.close()


async def close_session(container_id: str, session: str) -> None:
    """End a terminal session and everything started in it; raises Refused (not-found) where there is none."""
    link = await Link.open(container_id)
    try:
        await link.ask(cmd="close-session", session=session)
    finally:
        link.close()


@dataclass
class ExecResult:
    """What a command did. exit_code: 0 to 255, 128 + signal, 126, 127. truncated: output past the limit was dropped."""

    exit_code: int = 255
    stdout: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)
    truncated: bool = False
    timed_out: bool = False

    def add(self, kind: Kind, data: bytes, limit: int) -> None:
        """Keep output up to limit bytes of each stream."""
        kept = self.stdout if kind is Kind.DATA else self.stderr
        room = limit - len(kept)
        kept += data[:room]
        self.truncated = self.truncated or len(data) > room

    def as_json(self, encoding: str) -> dict[str, Any]:
        """Return the result with its streams as UTF-8 (invalid bytes replaced) or base64 text."""

        def text(data: bytearray) -> str:
            if encoding == "base64":
                return base64.b64encode(data).decode()
            return data.decode(errors="replace")

        return {
            "exit_code": self.exit_code,
            "stdout": text(self.stdout),
            "stderr": text(self.stderr),
            "truncated": self.truncated,
            "timed_out": self.timed_out,
        }


async def execute(
    container_id: str,
    command: list[str],
    *,
    user: str | None = None,
    cwd: str | None = None,
    environment: dict[str, str] | None = None,
    stdin: bytes = b"",
    timeout_sec: float = 60.0,
    max_output_bytes: int = 4 * 1024**2,
) -> ExecResult:
    """Run a command inside and return how it went.

    Raises InvalidTransition where the container does not run or is frozen, Refused for what the supervisor refuses,
    HostUnavailable where it stops answering. When this is cancelled, everything started is killed: the supervisor sees
    the connection close.
    """
    link = await Link.open(container_id)
    feeding: asyncio.Task[None] | None = None
    try:
        link.send_control(
            cmd="exec",
            command=command,
            user=user,
            cwd=cwd,
            environment=environment or {},
            timeout=timeout_sec,
            tty=False,
        )
        feeding = asyncio.create_task(_feed(link, stdin))
        return await asyncio.wait_for(_collect(link, max_output_bytes), timeout_sec + GRACE_SEC)
    except TimeoutError:
        raise HostUnavailable("The container's supervisor stopped answering.") from None
    finally:
        if feeding is not None:
            feeding.cancel()
        link.abort()


async def _feed(link: Link, stdin: bytes) -> None:
    try:
        for start in range(0, len(stdin), FRAME_MAX_BYTES):
            link.send_data(stdin[start : start + FRAME_MAX_BYTES])
            await link.drain()
        link._writer.write(encode(Kind.DATA, b""))
        await link.drain()
    except OSError:
        return


async def _collect(link: Link, limit: int) -> ExecResult:
    result = ExecResult()
    while (frame := await link.receive()) is not None:
        kind, payload = frame
        if kind is not Kind.CONTROL:
            result.add(kind, payload, limit)
            continue
        message = parse_control(payload)
        if message.get("type") == "error":
            raise Refused(message)
        if message.get("type") == "exit":
            result.exit_code = int(message["code"])
            result.timed_out = bool(message.get("timed_out"))
            return result
    # the supervisor ends with its container, and what ran inside was killed with it
    raise InvalidTransition("The container stopped while the command ran.", status="stopped")
