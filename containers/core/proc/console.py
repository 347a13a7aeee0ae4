"""/dev/console of a container: always read, kept in a ring and in a log file, shown to whoever looks.

Nobody who looks can hold it up, for the container's boot would wait with it: a viewer who is too slow misses bytes.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any, Final

from . import records
from .loop import Loop
from .terminals import Pty

CONSOLE: Final = "console"
LOG_MAX_BYTES: Final = 1024 * 1024


class Log:
    """A file that is begun anew at LOG_MAX_BYTES; the one before it is kept as PATH.1. Root's, 0600."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._size = 0

    def write(self, data: bytes) -> None:
        """Append; what cannot be written (a full disk) is left out."""
        with contextlib.suppress(OSError):
            if self._fd < 0:
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
                self._fd = os.open(self._path, flags, 0o600)
                self._size = os.fstat(self._fd).st_size
            self._size += os.write(self._fd, data)
            if self._size >= LOG_MAX_BYTES:
                self.close()
                os.replace(self._path, f"{self._path}.1")

    def close(self) -> None:
        """Close the file; the next write opens it again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Console(Pty):
    """The session called "console". The master belongs to whoever attaches it; log_path None keeps no file."""

    def __init__(self, loop: Loop, log_path: Path | None) -> None:
        super().__init__(loop)
        self.created_at = records.now()
        self._log = Log(log_path) if log_path else None

    @property
    def wanted(self) -> bool:
        """Always: see the module."""
        return True

    def feed(self, data: bytes) -> None:
        """Take output: log it, keep it, show it."""
        if self._log is not None:
            self._log.write(data)
        super().feed(data)

    def attach(self, master_fd: int) -> None:
        """Read a new master, borrowed until detach(); it becomes non-blocking."""
        self._attach(master_fd)

    def detach(self) -> None:
        """Read what is left and let the master go."""
        while self.master_fd >= 0:
            before = self.ring.end
            self._read()
            if self.ring.end == before:
                break
        self._detach()

    def close(self) -> None:
        """Let go of master and log."""
        self.detach()
        if self._log is not None:
            self._log.close()

    def tail(self, size: int) -> str:
        """Return the last `size` bytes as text."""
        return self.ring.tail(size).decode(errors="replace")

    def describe(self) -> dict[str, Any]:
        """Return what a list of sessions shows."""
        return {
            "session": CONSOLE,
            "command": [],
            "user": "",
            "created_at": self.created_at,
            "viewers": [viewer.user for viewer in self.viewers],
            "ended": False,
        }

    def _hung_up(self) -> None:
        # the supervisor keeps a slave open, so this is the container's end
        self._detach()
