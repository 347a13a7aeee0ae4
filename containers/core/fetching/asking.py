"""Starts the confined process that speaks with servers, and hands it the connections that root has made."""

from __future__ import annotations

import array
import contextlib
import json
import os
import select
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from ..archives import unpacking
from ..cgroups import Cgroups, cages
from ..errors import Cancelled, SetupFailed
from ..sentences import say
from . import process

WAIT_SEC: Final = 10.0
"""How long a server may say nothing before its connection is given up, and gone on with anew."""
MEMORY_BYTES: Final = 256 << 20
_CPU_SEC: Final = 12 * 3600.0
_POLL_SEC: Final = 0.2
_GRACE_SEC: Final = 5.0
"""How much later than the server the confined process itself is given up."""
_START_SEC: Final = 60.0
_DRAIN_SEC: Final = 1.0
_DRAIN_BYTES: Final = 256 << 10
_ENVIRONMENT: Final = ("SSL_CERT_DIR", "SSL_CERT_FILE")


class Unreachable(SetupFailed):
    """Nobody answers, or a connection broke: it may be tried again."""


class Broken(Exception):
    """A connection that came to an early end, or the confined process did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked of whom. key: names the connection, for as long as it is kept. path: the request's target.

    server_name: for TLS, and whose certificate it has to be; None for none. proxy_headers: of a tunnel to host and
    port through the proxy that connect leads to; None for none. connect: makes the connection, where it is allowed.
    """

    key: str
    path: str
    headers: Mapping[str, str]
    host: str
    port: int
    server_name: str | None
    proxy_headers: Mapping[str, str] | None
    connect: Callable[[], socket.socket]

    def packet(self) -> bytes:
        """Return it as the confined process takes it."""
        tunnel = None
        if self.proxy_headers is not None:
            tunnel = {"host": self.host, "port": self.port, "headers": dict(self.proxy_headers)}
        return json.dumps(
            {
                "key": self.key,
                "method": "GET",
                "path": self.path,
                "headers": dict(self.headers),
                "server_name": self.server_name,
                "tunnel": tunnel,
                "wait_sec": WAIT_SEC,
            }
        ).encode()


class Asker:
    """One confined process, and the connections that it keeps. secure: it can speak TLS."""

    def __init__(self, groups: Cgroups, scratch: Path, check_cancelled: Callable[[], None], *, secure: bool) -> None:
        self.check_cancelled = check_cancelled
        self._held = contextlib.ExitStack()
        self._kept: set[str] = set()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control = self._held.enter_context(ours)
        try:
            with theirs:
                inside = self._held.enter_context(cages.cage(groups, memory_bytes=MEMORY_BYTES))
                orders = {
                    "cage": inside.procs,
                    "scratch": os.fspath(scratch),
                    "secure": secure,
                    "memory_bytes": inside.memory_bytes,
                    "cpu_sec": _CPU_SEC,
                    "environment": {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
                }
                self._process = self._held.enter_context(
                    unpacking.started(
                        orders,
                        script=Path(process.__file__),
                        stdout=subprocess.DEVNULL,
                        report_fd=theirs.fileno(),
                    )
                )
            self._await_ready()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process and all that it keeps."""
        self._kept.clear()
        self._held.close()

    def ended(self) -> bool:
        """Tell whether it is of no use any more."""
        return self.control.fileno() < 0

    def ask(self, request: Request) -> Answer:
        """Return the answer to a request when it begins; raises Unreachable, and what request.connect raises."""
        try:
            if request.key in self._kept:
                with contextlib.suppress(Broken):  # the server has closed it meanwhile: that is its right
                    return self._ask(request, None)
            with request.connect() as made:
                return self._ask(request, made)
        except Broken as broken:
            raise unreachable(request.host, str(broken)) from broken

    def _ask(self, request: Request, made: socket.socket | None) -> Answer:
        self._kept.discard(request.key)
        read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
        unpacking.widen(read_fd)
        answer = Answer(self, request, read_fd)
        try:
            with open(write_fd, "wb", buffering=0):
                fds = array.array("i", [write_fd, *([made.fileno()] if made is not None else [])])
                self.control.sendmsg([request.packet()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
            answer.begin()
        except OSError as error:
            answer.abandon()
            raise Broken(error.strerror or "it cannot be asked") from error
        except BaseException:
            answer.abandon()
            raise
        return answer

    def keep(self, key: str) -> None:
        """Note that a connection may be gone on with."""
        self._kept.add(key)

    def packet(self, wait_sec: float) -> dict[str, Any]:
        """Return the next packet of the process's; raises Broken where it says none, or that a connection broke."""
        deadline = time.monotonic() + wait_sec
        while not _readable(self.control.fileno()):
            self.check_cancelled()
            if time.monotonic() > deadline:
                self.close()
                raise Broken("it does not answer in time")
        value = _checked(self.control.recv(process.PACKET_MAX_BYTES))
        if value is None:
            self.close()
            raise Broken("what it answers cannot be read")
        if "broken" in value:
            raise Broken(str(value["broken"])[:300])
        return value

    def _await_ready(self) -> None:
        try:
            if self.packet(_START_SEC).get("ready") is True:
                return
            words = ""
        except Broken:
            assert self._process.stderr is not None
            words = unpacking.words_of(self._process.stderr) if not self._process.stderr.closed else ""
        raise SetupFailed(say("Nothing can be downloaded: %(words)s.", words=words or "it ended"), step="download")


@dataclass(slots=True)
class Answer:
    """One answer on its way. headers: those of process.TOLD that it has."""

    _asker: Asker
    _request: Request
    _read_fd: int
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    _ended: bool = False

    def begin(self) -> None:
        """Wait until it begins."""
        value = self._asker.packet(WAIT_SEC + _GRACE_SEC)
        self.status, self.headers = int(value.get("status", 0)), value.get("headers", {})

    def read(self, most_bytes: int) -> bytes:
        """Return what has come of its body, nothing at its end; raises Unreachable where it breaks before."""
        if self._ended:
            return b""
        deadline = time.monotonic() + WAIT_SEC + _GRACE_SEC
        while not _readable(self._read_fd):
            self._asker.check_cancelled()
            if time.monotonic() > deadline:
                self._asker.close()
                raise unreachable(self._request.host, "it does not answer in time")
        data = os.read(self._read_fd, most_bytes)
        if not data:
            self._ended = True
            try:
                if self._asker.packet(_GRACE_SEC).get("kept") is True:
                    self._asker.keep(self._request.key)
            except Broken as broken:
                raise unreachable(self._request.host, str(broken)) from broken
        return data

    def close(self) -> None:
        """Let go of it; where little of it is left, its connection is kept."""
        deadline, left = time.monotonic() + _DRAIN_SEC, _DRAIN_BYTES
        with contextlib.suppress(SetupFailed, Cancelled):
            while not self._ended and left > 0 and time.monotonic() < deadline:
                if _readable(self._read_fd):
                    left -= len(self.read(left))
        if not self._ended:
            self._asker.close()  # it waits for the server, and nobody for it
        self.abandon()

    def abandon(self) -> None:
        """Close the pipe."""
        self._ended = True
        if self._read_fd >= 0:
            os.close(self._read_fd)
            self._read_fd = -1


def unreachable(host: str, words: str) -> Unreachable:
    """Return the error for a server that could not be asked, or not to the end."""
    return Unreachable(
        say("%(host)s could not be asked: %(words)s.", host=host, words=words), step="download", path=host
    )


def _readable(fd: int) -> bool:
    """Wait a little; tell whether there is anything to read."""
    waiting = select.poll()
    waiting.register(fd, select.POLLIN)
    return bool(waiting.poll(_POLL_SEC * 1000))


def _checked(data: bytes) -> dict[str, Any] | None:
    """Return a packet, if it is one that the process would send; it is not believed."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    if "status" in value:
        headers = value.get("headers")
        if not isinstance(value["status"], int) or not isinstance(headers, dict):
            return None
        for name, text in headers.items():
            if name not in process.TOLD or not isinstance(text, str) or len(text) > process.HEADER_MAX_CHARS:
                return None
    return value
