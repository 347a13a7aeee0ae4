"""This process's standard streams for an application that is about to be started: for the command line.

The application has pipes (core/proc/stdio.py), and this process carries bytes between those and its own streams, each
of the three for itself, as if the application had them: an end of file arrives, whoever reads no more of what it
writes ends it by SIGPIPE, and nobody who is slow with one holds up another.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Self

from django.conf import settings

from .hostlink import check_peer

HANDED_ON: Final = (
    signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM,
)  # fmt: skip
"""What the application gets in the place of this process, which ends with it."""
READ_BYTES: Final = 64 * 1024
_MESSAGE_BYTES: Final = 256
_FDS: Final = 4


class Offer:
    """This process's streams, on offer to whoever starts the application, which is told the name."""

    def __init__(self) -> None:
        """Raises OSError."""
        self.name = secrets.token_hex(8)
        self._path = Path(settings.BOXROOM_RUN_DIR) / f"stdio-{self.name}.sock"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        previous = os.umask(0o177)
        try:
            self._socket.bind(str(self._path))
        except OSError:
            self._socket.close()
            raise
        finally:
            os.umask(previous)
        self._socket.listen(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Wait for nobody any more."""
        self._path.unlink(missing_ok=True)
        self._socket.close()

    def taken(self) -> Streams | None:
        """Return what whoever has started the application sent; None where nobody has taken the offer."""
        try:
            caller, _ = self._socket.accept()
        except BlockingIOError:
            return None
        with caller:
            check_peer(caller)
            data, fds, _, _ = socket.recv_fds(caller, _MESSAGE_BYTES, _FDS, socket.MSG_CMSG_CLOEXEC)
        if len(fds) != _FDS or json.loads(data).get("type") != "stdio":
            for fd in fds:
                os.close(fd)
            return None
        return Streams(*fds)


class Streams:
    """An application's pipes, of which this is the other side, and its container's first process as a pidfd."""

    def __init__(self, stdin_fd: int, stdout_fd: int, stderr_fd: int, init_pidfd: int) -> None:
        self._init_pidfd = init_pidfd
        # where one of ours was closed from the beginning, its number is by now something else's
        self._input = _Carrier(0 if sys.stdin is not None else None, stdin_fd, ours=stdin_fd)
        self._outputs = [
            _Carrier(stdout_fd, 1 if sys.stdout is not None else None, ours=stdout_fd),
            _Carrier(stderr_fd, 2 if sys.stderr is not None else None, ours=stderr_fd),
        ]

    def carry(self) -> OSError | None:
        """Carry bytes, and hand signals on, until the application's container has ended and all it wrote is written.

        Returns why something of it could not be written; that nobody reads it any more is no such reason.
        """
        with self._signals_handed_on() as woken_fd:
            for carrier in (self._input, *self._outputs):
                carrier.start()
            poll = select.poll()
            for fd in (self._init_pidfd, woken_fd):
                poll.register(fd, select.POLLIN)
            while self._init_pidfd not in [fd for fd, _events in poll.poll()]:
                os.read(woken_fd, _MESSAGE_BYTES)
        os.close(self._init_pidfd)
        for carrier in self._outputs:
            carrier.join()
        return next((carrier.error for carrier in self._outputs if carrier.error is not None), None)

    @contextlib.contextmanager
    def _signals_handed_on(self) -> Iterator[int]:
        """Hand signals on; yield a descriptor that becomes readable with each.

        Python carries out a handler in the main thread, and only between two steps of it: one whose signal came to
        another thread, or right before the main one began to wait, would wait as long.
        """

        def hand_on(number: int, _frame: Any) -> None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._init_pidfd, number)

        # one that this process was told to ignore, by nohup say, the application is to ignore, too
        heard = [number for number in HANDED_ON if signal.getsignal(number) != signal.SIG_IGN]
        woken_fd, wake_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        woken_before = signal.set_wakeup_fd(wake_fd, warn_on_full_buffer=False)
        before = {number: signal.signal(number, hand_on) for number in heard}
        try:
            yield woken_fd
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(woken_before)
            os.close(woken_fd)
            os.close(wake_fd)


class _Carrier(threading.Thread):
    """Carries bytes to the end of either descriptor; None is at its end. ours: closed then."""

    def __init__(self, source_fd: int | None, target_fd: int | None, *, ours: int) -> None:
        # nobody waits for one that reads what this process is given to read
        super().__init__(daemon=True)
        self._source_fd, self._target_fd, self._ours = source_fd, target_fd, ours
        self.error: OSError | None = None

    def run(self) -> None:
        """Carry."""
        try:
            self._carry()
        except BrokenPipeError:
            # whoever reads there has had enough; whoever writes here hears it from the next write
            pass
        except OSError as error:
            self.error = error
        finally:
            os.close(self._ours)

    def _carry(self) -> None:
        if self._source_fd is None or self._target_fd is None:
            return
        while data := os.read(self._source_fd, READ_BYTES):
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._target_fd, rest) :]
