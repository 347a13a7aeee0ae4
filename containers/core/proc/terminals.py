"""A terminal session: a process on a pty of the container, its scrollback, and those who share it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import struct
import sys
import termios
from collections.abc import Callable
from typing import Any, Final

from ..protocol import SCROLLBACK_BYTES
from . import attach, records
from .loop import Loop, Timer
from .streams import Stream, Viewer

INPUT_MAX_BYTES: Final = 64 * 1024
SESSION_MAX_SEC: Final = 24 * 3600.0
_READ_BYTES: Final = 64 * 1024
_SETTLE_SEC: Final = 0.1
_HANGUP_SEC: Final = 2.0
_PTMX: Final = os.makedev(5, 2)
_TIOCGPTN: Final = 0x80045430


def check_pty(master_fd: int, number: int | None = None) -> None:
    """Raise OSError where a descriptor that a container gave is not the master of a pty, or of another than number."""
    if os.fstat(master_fd).st_rdev != _PTMX:
        raise OSError("what the container gave is not a pty")
    if number is not None and fcntl.ioctl(master_fd, _TIOCGPTN, bytes(4)) != number.to_bytes(4, sys.byteorder):
        raise OSError(f"what the container gave is not its pty number {number}")


class Pty(Stream):
    """A stream whose source and sink is the master of a pty. Owns master_fd once attached."""

    def __init__(self, loop: Loop, ring_bytes: int = SCROLLBACK_BYTES) -> None:
        super().__init__(ring_bytes)
        self._loop = loop
        self._input = bytearray()
        self.master_fd = -1
        self.size: tuple[int, int] | None = None
        self.on_room = self._watch

    def typed(self, viewer: Viewer, payload: bytes) -> None:
        """Write to the terminal; who types more than the program reads waits."""
        if viewer.size is not None and viewer.size != self.size:
            self._set_size(viewer.size)
        self._input += payload
        self._write()

    def resized(self, viewer: Viewer) -> None:
        """Take the size of whoever came alone or changed his window while typing here."""
        if viewer.may_type and viewer.size is not None:
            self._set_size(viewer.size)

    def _set_size(self, size: tuple[int, int]) -> None:
        self.size = size
        if self.master_fd >= 0:
            columns, rows = size
            with contextlib.suppress(OSError):
                # the kernel sends SIGWINCH to the foreground process group where the size differs
                fcntl.ioctl(self.master_fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def _attach(self, master_fd: int) -> None:
        check_pty(master_fd)
        os.set_blocking(master_fd, False)
        self.master_fd = master_fd
        self._watch()

    def _detach(self) -> int:
        """Forget the master, which is the caller's again."""
        fd, self.master_fd = self.master_fd, -1
        if fd >= 0:
            self._loop.forget(fd)
        self._input.clear()
        return fd

    def _watch(self) -> None:
        if self.master_fd >= 0:
            self._loop.watch(
                self.master_fd,
                read=self._read if self.wanted else None,
                write=self._write if self._input else None,
            )

    def _read(self) -> None:
        try:
            data = os.read(self.master_fd, _READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            # EIO: nobody inside has the terminal open any more, and everything was read
            self._hung_up()
            return
        self.feed(data)
        self._watch()

    def _hung_up(self) -> None:
        """The terminal's other side is closed."""

    def _write(self) -> None:
        if self.master_fd >= 0 and self._input:
            try:
                del self._input[: os.write(self.master_fd, self._input)]
            except BlockingIOError:
                pass
            except OSError:
                self._input.clear()
        for viewer in self.viewers:
            viewer.client.reading(wanted=len(self._input) < INPUT_MAX_BYTES)
        self._watch()


class Session(Pty):
    """A shell, or another command, with a terminal. It lives until its command ends, SESSION_MAX_SEC at most."""

    def __init__(self, loop: Loop, session_id: str, user: str, on_end: Callable[[Session], None]) -> None:
        super().__init__(loop)
        self.id = session_id
        self.user = user
        self.created_at = records.now()
        self.exit_code: int | None = None
        self._on_end = on_end
        self._process: attach.Started | None = None
        self._code: int | None = None
        self._timers: list[Timer] = []

    @property
    def ended(self) -> bool:
        """Whether the command has ended and everything it printed was read."""
        return self.exit_code is not None

    def begin(self, process: attach.Started, size: tuple[int, int]) -> None:
        """Take over a process with its terminal. Raises OSError where the terminal is none."""
        self._process = process
        self.size = size
        self._attach(process.master_fd)
        process.master_fd = -1
        self._loop.watch(process.pidfd, read=self._exited)
        self._timers.append(self._loop.later(SESSION_MAX_SEC, self.hang_up))

    def describe(self) -> dict[str, Any]:
        """Return what a list of sessions shows."""
        return {
            "session": self.id,
            "command": list(self._process.command) if self._process else [],
            "user": self.user,
            "created_at": self.created_at,
            "viewers": [viewer.user for viewer in self.viewers],
            "ended": self.ended,
        }

    def join(self, viewer: Viewer) -> None:
        """Add a viewer; one who comes after the end gets the last output and the exit code."""
        super().join(viewer)
        self._tell_exit(viewer)

    def advanced(self, viewer: Viewer) -> None:
        """Send a viewer more, and the exit code after the last byte."""
        super().advanced(viewer)
        self._tell_exit(viewer)

    def hang_up(self) -> None:
        """End the session as closing a terminal does: SIGHUP, and SIGKILL for a command that ignores it."""
        if self._process is None or self.ended:
            return
        self._process.signal(signal.SIGHUP)
        fd = self._detach()
        if fd >= 0:
            # the kernel sends SIGHUP to the whole foreground group
            os.close(fd)
        self._timers.append(self._loop.later(_HANGUP_SEC, self._kill))

    def _kill(self) -> None:
        if self._process is not None:
            self._process.signal(signal.SIGKILL)

    def _exited(self) -> None:
        process = self._process
        assert process is not None
        self._loop.forget(process.pidfd)
        self._code = process.reap()
        # what it printed may still be on its way through the line discipline; a child may have kept the terminal
        self._settle()

    def _settle(self) -> None:
        before = self.ring.end

        def quiet() -> None:
            if self.master_fd >= 0 and self.wanted:
                # a read waits for the line discipline where the loop only hears of it
                self._read()
            if self.master_fd >= 0 and (self.ring.end != before or not self.wanted):
                self._settle()
            else:
                self._end()

        if self.master_fd >= 0:
            self._timers.append(self._loop.later(_SETTLE_SEC, quiet))
        else:
            self._end()

    def _hung_up(self) -> None:
        os.close(self._detach())
        if self._code is not None:
            self._end()

    def _end(self) -> None:
        if self.ended:
            return
        for timer in self._timers:
            timer.cancel()
        fd = self._detach()
        if fd >= 0:
            os.close(fd)
        self.exit_code = self._code
        for viewer in list(self.viewers):
            self._tell_exit(viewer)
        self._on_end(self)

    def _tell_exit(self, viewer: Viewer) -> None:
        if self.ended and viewer in self.viewers and not viewer.behind:
            viewer.client.tell(type="exit", code=self.exit_code)
            viewer.client.close_when_sent()
