"""One command in the container without a terminal: standard input in, output and error out, and how it ended.

    client ── exec ──▶ ── DATA… DATA(empty) ──▶ stdin
           ◀── DATA, STDERR … ◀── exit {code, timed_out}

The call ends with the command, whatever it left behind in the background. When the client goes or the time is up,
everything the command started is killed, by its cgroup.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from ..protocol import Kind
from . import attach
from .clients import Client
from .inside import Request, Target
from .loop import Loop, Timer

STDIN_MAX_BYTES: Final = 128 * 1024
KILLED: Final = 137
_READ_BYTES: Final = 64 * 1024
_DISSOLVE_SEC: Final = 0.05


class Output:
    """A pipe from the command to a client. Owns its descriptor."""

    def __init__(self, loop: Loop, fd: int, kind: Kind, client: Client, on_end: Callable[[], None]) -> None:
        self._loop = loop
        self._fd = fd
        self._kind = kind
        self._client = client
        self._on_end = on_end
        self._left: int | None = None
        os.set_blocking(fd, False)
        self.watch()

    @property
    def open(self) -> bool:
        """Whether more may come."""
        return self._fd >= 0

    def watch(self) -> None:
        """Read while the client takes it."""
        if self._fd >= 0:
            self._loop.watch(self._fd, read=self._read if self._client.has_room else None)

    def last_call(self) -> None:
        """The command has ended: what is in the pipe now is all there will be, though a child may keep it open."""
        if self._fd >= 0:
            (self._left,) = struct.unpack("i", fcntl.ioctl(self._fd, termios.FIONREAD, bytes(4)))
            if not self._left:
                self.close()

    def close(self) -> None:
        """Close the pipe."""
        if self._fd >= 0:
            self._loop.forget(self._fd)
            os.close(self._fd)
            self._fd = -1
            self._on_end()

    def _read(self) -> None:
        most = _READ_BYTES if self._left is None else min(self._left, _READ_BYTES)
        try:
            data = os.read(self._fd, most)
        except BlockingIOError:
            return
        if data:
            self._client.send(self._kind, data)
        if self._left is not None:
            self._left -= len(data)
        if not data or self._left == 0:
            self.close()
        else:
            self.watch()


class Exec:
    """One command and its client, from the request to the exit code."""

    def __init__(
        self,
        loop: Loop,
        target: Target,
        client: Client,
        request: dict[str, Any],
        *,
        name: str,
        on_end: Callable[[Exec], None],
    ) -> None:
        """Start it. request: checked values as sessions.exec_request gives them. Raises OSError."""
        self._loop = loop
        self._client = client
        self._on_end = on_end
        self._process: attach.Started | None = None
        self._code: int | None = None
        self._timed_out = False
        self._timer: Timer | None = None
        self._timeout_sec: float | None = request["timeout"]
        self._stdin = bytearray()
        self._stdin_ends = False
        self._ours: list[int] = []
        self._group = attach.CommandGroup(target, name)
        theirs: list[int] = []
        try:
            for index in range(3):
                read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
                theirs.append(write_fd if index else read_fd)
                self._ours.append(read_fd if index else write_fd)
            self._launch: attach.Launch | None = attach.Launch(
                loop, target, self._request(request, theirs, self._group.path), self._started
            )
        except OSError:
            for fd in self._ours:
                os.close(fd)
            self._group.dissolve()
            raise
        finally:
            for fd in theirs:
                os.close(fd)
        self._stdin_fd = self._ours[0]
        os.set_blocking(self._stdin_fd, False)
        self._outputs = [
            Output(loop, fd, kind, client, self._look_at_end)
            for fd, kind in zip(self._ours[1:], (Kind.DATA, Kind.STDERR), strict=True)
        ]
        client.handler = self

    @staticmethod
    def _request(values: dict[str, Any], theirs: list[int], cgroup: Path) -> Request:
        return Request(
            command=values["command"],
            user=values["user"],
            cwd=values["cwd"],
            environment=values["environment"],
            stdio=(theirs[0], theirs[1], theirs[2]),
            cgroup=cgroup,
        )

    def _started(self, result: attach.Started | attach.Failure) -> None:
        self._launch = None
        if isinstance(result, attach.Failure):
            self._failed(result)
            return
        self._process = result
        self._loop.watch(result.pidfd, read=self._exited)
        if self._client.gone:
            self._group.kill()
        elif self._timeout_sec is not None:
            self._timer = self._loop.later(self._timeout_sec, self._time_is_up)

    def _failed(self, failure: attach.Failure) -> None:
        if failure.exit_code is None:
            self._client.refuse(failure.code, failure.message, field=failure.field)
        else:
            self._client.send(Kind.STDERR, f"{failure.message}\n".encode(errors="replace"))
        self._code = failure.exit_code if failure.exit_code is not None else 255
        for output in self._outputs:
            output.close()
        self._look_at_end()

    def _time_is_up(self) -> None:
        self._timed_out = True
        self._group.kill()

    def _exited(self) -> None:
        process = self._process
        assert process is not None
        self._loop.forget(process.pidfd)
        code = process.reap()
        self._code = KILLED if self._timed_out else code
        if self._timer is not None:
            self._timer.cancel()
        for output in self._outputs:
            output.last_call()
        self._look_at_end()

    def _look_at_end(self) -> None:
        if self._code is None or any(output.open for output in self._outputs):
            return
        if self._stdin_fd >= 0:
            self._close_stdin()
        if not self._client.gone:
            self._client.tell(type="exit", code=self._code, timed_out=self._timed_out)
            self._client.close_when_sent()
        if self._on_end is not None:
            on_end, self._on_end = self._on_end, lambda _: None
            self._dissolve()
            on_end(self)

    def _dissolve(self) -> None:
        if not self._group.dissolve():
            self._loop.later(_DISSOLVE_SEC, self._dissolve)

    # -- what the client says ----------------------------------------------------------------------------------------

    def control(self, message: dict[str, Any]) -> None:
        """Nothing may be said while a command runs."""
        self._client.refuse("bad-frame", "Only standard input may follow.")
        self._abandon()

    def data(self, payload: bytes) -> None:
        """Pass on standard input; an empty frame ends it."""
        if self._stdin_fd < 0 or self._stdin_ends:
            return
        if payload:
            self._stdin += payload
        else:
            self._stdin_ends = True
        self._write_stdin()

    def room(self) -> None:
        """The client has taken what there was: go on reading."""
        for output in self._outputs:
            output.watch()

    def closed(self) -> None:
        """Nobody waits any more: end it, with all it started."""
        self._abandon()

    def _abandon(self) -> None:
        if self._code is not None and not any(output.open for output in self._outputs):
            return
        self._group.kill()
        if self._stdin_fd >= 0:
            self._close_stdin()
        if self._launch is not None:
            self._launch.cancel()
            self._launch = None
            self._code = KILLED
        for output in self._outputs:
            output.close()

    def _write_stdin(self) -> None:
        if self._stdin:
            try:
                del self._stdin[: os.write(self._stdin_fd, self._stdin)]
            except BlockingIOError:
                pass
            except BrokenPipeError:
                self._stdin.clear()
                self._close_stdin()
                return
        if self._stdin:
            self._loop.watch(self._stdin_fd, write=self._write_stdin)
        else:
            self._loop.forget(self._stdin_fd)
            if self._stdin_ends:
                self._close_stdin()
        self._client.reading(wanted=len(self._stdin) < STDIN_MAX_BYTES)

    def _close_stdin(self) -> None:
        self._loop.forget(self._stdin_fd)
        with contextlib.suppress(OSError):
            os.close(self._stdin_fd)
        self._stdin_fd = -1
        self._client.reading(wanted=True)
