"""This process's own standard streams, or its terminal, joined to a container: for the command line.

A conversation with a supervisor (core/protocol.py) without an event loop of asyncio's: it must work with pipes, files
and terminals alike, and end with the exit code of what ran inside.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from typing import Any, Final

from ..core.errors import InvalidTransition
from ..core.protocol import FRAME_MAX_BYTES, Decoder, Kind, control, encode, parse_control
from .hostlink import CONNECT_SEC, HostUnavailable, Refused, check_peer, not_running, supervisor_socket

READ_BYTES: Final = 32 * 1024
WAITING_MAX_BYTES: Final = 256 * 1024
"""What may wait to be sent before standard input is left alone."""
LEAVE: Final = b"q"


class Conversation:
    """A connection to a supervisor. Close it when done."""

    def __init__(self, container_id: str) -> None:
        """Connect; raises InvalidTransition where no supervisor listens, HostUnavailable where it does not answer."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._socket.settimeout(CONNECT_SEC)
        self._decoder = Decoder()
        self._out = bytearray()
        try:
            self._socket.connect(str(supervisor_socket(container_id)))
            check_peer(self._socket)
        except (FileNotFoundError, ConnectionRefusedError):
            self._socket.close()
            raise not_running() from None
        except OSError as error:
            self._socket.close()
            raise HostUnavailable(f"The container's supervisor does not answer: {error}") from error
        self._socket.settimeout(0.0)

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    @property
    def full(self) -> bool:
        """Whether enough waits to be sent."""
        return len(self._out) > WAITING_MAX_BYTES

    def tell(self, **message: Any) -> None:
        """Send a CONTROL frame."""
        self._out += control(**message)

    def give(self, data: bytes) -> None:
        """Send DATA frames; nothing at all is end of file."""
        for start in range(0, len(data) or 1, FRAME_MAX_BYTES):
            self._out += encode(Kind.DATA, data[start : start + FRAME_MAX_BYTES])

    def wait(self, input_fd: int | None, others: tuple[int, ...] = ()) -> tuple[list[tuple[Kind, bytes]], set[int]]:
        """Wait for something; return the frames that came, and which of the descriptors can be read.

        Raises InvalidTransition where the supervisor is gone.
        """
        poll = select.poll()
        poll.register(self._socket, select.POLLIN | (select.POLLOUT if self._out else 0))
        for fd in (*((input_fd,) if input_fd is not None and not self.full else ()), *others):
            poll.register(fd, select.POLLIN)
        ready = {fd for fd, _event in poll.poll()}
        if self._out:
            with contextlib.suppress(BlockingIOError):
                try:
                    del self._out[: self._socket.send(self._out)]
                except (BrokenPipeError, ConnectionResetError):
                    # its last words may still be there to be read
                    self._out.clear()
        frames: list[tuple[Kind, bytes]] = []
        if self._socket.fileno() in ready:
            try:
                data = self._socket.recv(READ_BYTES)
            except BlockingIOError:
                return [], ready
            except ConnectionResetError:
                data = b""
            if not data:
                raise not_running()
            frames = list(self._decoder.feed(data))
        return frames, ready


def run_command(container_id: str, **request: Any) -> int:
    """Run a command inside with this process's standard streams; returns its exit code.

    request: as a supervisor takes an exec. Raises InvalidTransition, Refused, HostUnavailable. Where it is interrupted,
    what was started is killed: the supervisor sees the connection close.
    """
    link = Conversation(container_id)
    try:
        link.tell(cmd="exec", **request)
        input_fd: int | None = 0
        while True:
            frames, ready = link.wait(input_fd)
            for kind, payload in frames:
                if kind is not Kind.CONTROL:
                    write(payload, 2 if kind is Kind.STDERR else 1)
                    continue
                message = parse_control(payload)
                if message["type"] == "error":
                    raise Refused(message)
                if message["type"] == "exit":
                    return int(message["code"])
            if input_fd in ready:
                data = os.read(0, READ_BYTES)
                link.give(data)
                if not data:
                    input_fd = None
    finally:
        link.close()


def run_terminal(
    container_id: str, *, escape: int | None = None, until_closed: bool = False, **request: Any
) -> int | None:
    """Join this process's terminal to one inside; returns the exit code of what ran there, None where one has left.

    request: as a supervisor takes an open. escape: a byte; typed, and then q, one leaves; typed twice it is typed.
    until_closed: the container's end is no error, but what is waited for.
    """
    link = Conversation(container_id)
    try:
        with _resized() as resized, _raw():
            columns, rows = _size()
            link.tell(cmd="open", cols=columns, rows=rows, **request)
            return _relay(link, resized, _Keys(escape))
    except InvalidTransition:
        if not until_closed:
            raise
        return None
    except Refused as refused:
        if refused.exit_code is None:
            raise
        write(f"{refused.message}\n".encode(errors="replace"), 2)
        return refused.exit_code
    finally:
        link.close()


def lines(data: bytes) -> bytes:
    """Return what a terminal shows as lines of text."""
    return data.replace(b"\r\n", b"\n")


def write(data: bytes, fd: int = 1) -> None:
    """Write bytes to standard output, or another descriptor, past Python's buffers."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


class _Keys:
    """Finds the way out in what is typed."""

    def __init__(self, escape: int | None) -> None:
        self._escape = escape
        self._seen = False

    def sort(self, data: bytes) -> tuple[bytes, bool]:
        """Return what is to be typed inside, and whether to leave."""
        if self._escape is None:
            return data, False
        found = bytearray()
        for byte in data:
            if self._seen:
                self._seen = False
                if bytes((byte,)) == LEAVE:
                    return bytes(found), True
                found += bytes((byte,)) if byte == self._escape else bytes((self._escape, byte))
            elif byte == self._escape:
                self._seen = True
            else:
                found.append(byte)
        return bytes(found), False


def _relay(link: Conversation, resized: int, keys: _Keys) -> int | None:
    opened = False
    while True:
        # until it is open nobody is there to take anything
        frames, ready = link.wait(0, (resized,)) if opened else link.wait(None)
        for kind, payload in frames:
            if kind is not Kind.CONTROL:
                write(payload)
                link.tell(cmd="ack", bytes=len(payload))
                continue
            message = parse_control(payload)
            opened = opened or message["type"] == "opened"
            if message["type"] == "error":
                raise Refused(message)
            if message["type"] == "exit":
                return int(message["code"])
        if resized in ready:
            os.read(resized, 64)
            columns, rows = _size()
            link.tell(cmd="resize", cols=columns, rows=rows)
        if 0 in ready:
            typed, leave = keys.sort(os.read(0, READ_BYTES))
            if typed:
                link.give(typed)
            if leave:
                return None


def _size() -> tuple[int, int]:
    """Return the terminal's columns and rows; what every terminal had once, where it does not know."""
    columns, rows = os.get_terminal_size(0)
    return columns or 80, rows or 24


@contextlib.contextmanager
def _raw() -> Iterator[None]:
    before = termios.tcgetattr(0)
    # what was typed already is for the program inside
    tty.setraw(0, termios.TCSADRAIN)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


@contextlib.contextmanager
def _resized() -> Iterator[int]:
    """Give a descriptor that can be read when the terminal's size has changed."""
    read_fd, write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    ignore: Callable[[int, Any], None] = lambda _number, _frame: None  # noqa: E731  a handler, so that the descriptor is woken
    before = signal.signal(signal.SIGWINCH, ignore)
    old_fd = signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
    try:
        yield read_fd
    finally:
        signal.set_wakeup_fd(old_fd)
        signal.signal(signal.SIGWINCH, before)
        os.close(read_fd)
        os.close(write_fd)


def is_terminal() -> bool:
    """Whether this process's standard input and output are a terminal."""
    # one that was closed from the beginning is None
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout))
