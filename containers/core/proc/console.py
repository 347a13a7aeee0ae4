"""A container's consoles, /dev/console and /dev/tty1 to N: always read, kept in rings, shown to whoever looks.

Nobody who looks can hold one up, for the container's boot would wait with it: a viewer who is too slow misses bytes.
What goes to /dev/console is also kept in a log file.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
from pathlib import Path
from typing import Any, Final

from ..model.behaviour import Consoles
from . import records
from .loop import Loop
from .terminals import Pty

CONSOLE: Final = "console"
_TIOCGPTPEER: Final = 0x5441


def names(settings: Consoles) -> tuple[str, ...]:
    """Return the sessions' names of a container's consoles, which are those of their devices."""
    return (CONSOLE, *(f"tty{number}" for number in range(1, settings.ttys + 1)))


class Log:
    """A file that is begun anew when it is full; `rotations` older ones are kept as PATH.1 and so on. Root's, 0600."""

    def __init__(self, path: Path, *, most: int, rotations: int) -> None:
        self._path = path
        self._most = most
        self._rotations = rotations
        self._fd = -1
        self._size = 0

    def write(self, data: bytes) -> None:
        """Append; what cannot be written (a full disk) is left out."""
        rest = memoryview(data)
        with contextlib.suppress(OSError):
            while rest:
                if self._fd < 0:
                    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
                    self._fd = os.open(self._path, flags, 0o600)
                    self._size = os.fstat(self._fd).st_size
                if self._size >= self._most:
                    # it has been full since before its size was changed
                    self._turn()
                    continue
                written = os.write(self._fd, rest[: self._most - self._size])
                self._size += written
                rest = rest[written:]
                if self._size >= self._most:
                    self._turn()

    def _turn(self) -> None:
        self.close()
        with contextlib.suppress(FileNotFoundError):
            # more were kept before
            for number in itertools.count(self._rotations + 1):
                os.unlink(f"{self._path}.{number}")
        for number in range(self._rotations, 1, -1):
            with contextlib.suppress(FileNotFoundError):
                os.replace(f"{self._path}.{number - 1}", f"{self._path}.{number}")
        if self._rotations:
            os.replace(self._path, f"{self._path}.1")
        else:
            os.unlink(self._path)

    def close(self) -> None:
        """Close the file; the next write opens it again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Console(Pty):
    """The session of one console. Its pty belongs to whoever attaches it; log None keeps no file.

    exclusive: whether one client at a time may type.
    """

    def __init__(self, loop: Loop, name: str, settings: Consoles, log_path: Path | None) -> None:
        super().__init__(loop, settings.buffer_bytes)
        self.name = name
        self.exclusive = settings.exclusive
        self.created_at = records.now()
        self._slave_fd = -1
        self._log: Log | None = None
        if log_path is not None and settings.log_bytes:
            self._log = Log(log_path, most=settings.log_bytes, rotations=settings.rotations)

    @property
    def wanted(self) -> bool:
        """Always: see the module."""
        return True

    @property
    def taken(self) -> bool:
        """Whether somebody types here."""
        return any(viewer.may_type for viewer in self.viewers)

    def feed(self, data: bytes) -> None:
        """Take output: log it, keep it, show it."""
        if self._log is not None:
            self._log.write(data)
        super().feed(data)

    def attach(self, master_fd: int, slave_fd: int) -> None:
        """Read a new master, which becomes non-blocking; slave_fd keeps it open. Both are borrowed until detach()."""
        self._slave_fd = slave_fd
        self._attach(master_fd)

    def detach(self) -> None:
        """Read what is left and let the pty go."""
        while self.master_fd >= 0:
            before = self.ring.end
            self._read()
            if self.ring.end == before:
                break
        self._slave_fd = -1
        self._detach()

    def close(self) -> None:
        """Let go of pty and log."""
        self.detach()
        if self._log is not None:
            self._log.close()

    def tail(self, size: int) -> str:
        """Return the last `size` bytes as text."""
        return self.ring.tail(size).decode(errors="replace")

    def describe(self) -> dict[str, Any]:
        """Return what a list of sessions shows."""
        return {
            "session": self.name,
            "command": [],
            "user": "",
            "created_at": self.created_at,
            "viewers": [viewer.user for viewer in self.viewers],
            "ended": False,
        }

    def _hung_up(self) -> None:
        """Go on with a new other side, in the place of ours that a session's end inside has made useless.

        Who logs out leads a session, whose end hangs its terminal up (tty_io.c, disassociate_ctty): for everybody who
        has it open, us too. The next login opens it again.
        """
        master_fd = self._detach()
        if self._slave_fd < 0:
            return
        try:
            fresh = fcntl.ioctl(master_fd, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:
            # the container's file systems are gone
            return
        os.dup2(fresh, self._slave_fd, inheritable=False)
        os.close(fresh)
        self._attach(master_fd)
