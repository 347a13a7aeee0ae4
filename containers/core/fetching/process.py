"""The confined process that speaks with servers: ``python -I -S process.py ORDERS``, as root, for one order.

TLS and HTTP of a hostile server are taken apart here: by somebody who owns nothing, in namespaces of its own, with an
empty, read-only root directory and no network, in a cgroup with little memory. It can make no connection: whoever
started it connects, where that is allowed, and hands the socket over with the request; and it can write no file: what
an answer holds goes out by a pipe that came with the request, too. It dies with whoever started it.

On descriptor 3, a socket that keeps packets apart, come requests, {"key", "method", "path", "headers", ...}, each with
the writing end of a pipe and, unless it goes on with a connection that is kept, with a socket. Each gets two packets:
{"status", "headers"} when the answer begins, {"kept"} when all of it is in the pipe; or {"broken"} instead of either.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import ssl
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from containers.core.archives import confinement
from containers.core.archives.calls import compile_connection
from containers.core.kernel import syscalls
from containers.core.plans.mount_flags import MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY

PACKET_MAX_BYTES: Final = 128 << 10
HEADER_MAX_CHARS: Final = 16 << 10
TOLD: Final = ("Content-Length", "Content-Range", "ETag", "Location", "WWW-Authenticate")
"""The headers that anybody outside asks for."""
_CHUNK_BYTES: Final = 1 << 20


class Connection(http.client.HTTPConnection):
    """A connection that others have made. request: as told above; context: for TLS, where it has a server_name."""

    def __init__(self, made: socket.socket, request: Mapping[str, Any], context: ssl.SSLContext | None) -> None:
        super().__init__("connected.invalid", timeout=request["wait_sec"])
        self._made = made
        self._name: str | None = request.get("server_name")
        self._context = context
        self.auto_open = 0
        made.settimeout(request["wait_sec"])
        if tunnel := request.get("tunnel"):
            self.set_tunnel(tunnel["host"], tunnel["port"], tunnel["headers"])
        self._through_proxy = bool(tunnel)

    def connect(self) -> None:
        """Speak with the proxy, where there is one, and then TLS, where that is asked for."""
        self.sock = self._made
        if self._through_proxy:
            self._tunnel()  # type: ignore[attr-defined]
        if self._name is not None:
            assert self._context is not None
            self.sock = self._context.wrap_socket(self.sock, server_hostname=self._name)


def main(orders: dict[str, Any]) -> int:
    """Confine this process and answer requests until there are no more; return its exit status."""
    confinement.enter_cage(orders["cage"], orders["report"])
    os.environ.update(orders["environment"])
    context = trusting() if orders["secure"] else None
    filters = compile_connection()
    _load_the_rest(context)
    confinement.leave_host()
    flags = MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY
    syscalls.mount("boxroom-fetch", orders["scratch"], "tmpfs", flags, "mode=555,size=4k")
    confinement.enter_root(orders["scratch"])
    child = os.fork()
    if child == 0:
        _in_child(orders, filters, context)
    _pid, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) & 0xFF


def trusting() -> ssl.SSLContext:
    """Return what checks servers by the host's list of authorities, all of it read: later there is no file to read."""
    context = ssl.create_default_context()
    directory = ssl.get_default_verify_paths().capath
    for path in sorted(Path(directory).glob("*.[0-9]")) if directory else ():
        with contextlib.suppress(OSError, ssl.SSLError):  # one that is none is passed over by OpenSSL, too
            context.load_verify_locations(cafile=path)
    return context


def _load_the_rest(context: ssl.SSLContext | None) -> None:
    """Have Python load what it loads when it is first used."""
    for codec in ("ascii", "idna", "latin-1", "utf-8"):
        "x.example".encode(codec).decode(codec)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"HTTP/1.1 200 OK\r\nETag: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n")
        connection = Connection(ours, {"wait_sec": 1.0}, None)
        connection.connect()
        answer = _asked(connection, {"method": "GET", "path": "/", "headers": {}})
        _headers(answer)
        while answer.read1(_CHUNK_BYTES):
            pass
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"no TLS at all")
        if context is not None:
            with contextlib.suppress(OSError):
                context.wrap_socket(ours, server_hostname="x.example")


def _in_child(orders: dict[str, Any], filters: bytes, context: ssl.SSLContext | None) -> None:
    """Give up what is left of root's rights and answer; the first process of its pid namespace. Never returns."""
    status = 1
    try:
        confinement.limit(memory_bytes=orders["memory_bytes"], cpu_sec=orders["cpu_sec"], file_bytes=0)
        # whatever Python would look for now is not there
        sys.meta_path.clear()
        sys.path.clear()
        sys.path_hooks.clear()
        confinement.drop_to_nobody(filters)
        control = socket.socket(fileno=confinement.REPORT_FD)
        _tell(control, {"ready": True})
        _serve(control, context)
        status = 0
    except OSError as error:
        with contextlib.suppress(OSError):
            os.write(2, f"{error.strerror} [{error.errno}]\n".encode())
    finally:
        os._exit(status)


def _serve(control: socket.socket, context: ssl.SSLContext | None) -> None:
    """Answer each request in turn. Connections that may be gone on with are kept, by the key of their request."""
    kept: dict[str, Connection] = {}
    while True:
        data, fds, _flags, _address = socket.recv_fds(control, PACKET_MAX_BYTES, 2)
        if not data:
            return
        request = json.loads(data)
        pipe_fd, *made = fds
        try:
            if made:
                old = kept.pop(request["key"], None)
                if old is not None:
                    old.close()
                connection = Connection(socket.socket(fileno=made[0]), request, context)
                connection.connect()
            else:
                connection = kept.pop(request["key"])
                connection.sock.settimeout(request["wait_sec"])
            answer = _asked(connection, request)
            _tell(control, {"status": answer.status, "headers": _headers(answer)})
            if _passed_on(answer, pipe_fd) and not answer.will_close:
                answer.close()
                kept[request["key"]] = connection
            else:
                connection.close()
            os.close(pipe_fd)
            _tell(control, {"kept": request["key"] in kept})
        except (OSError, http.client.HTTPException, ValueError) as error:
            with contextlib.suppress(OSError):
                os.close(pipe_fd)
            _tell(control, {"broken": _words(error)})


def _asked(connection: Connection, request: Mapping[str, Any]) -> http.client.HTTPResponse:
    connection.putrequest(request["method"], request["path"], skip_host=True, skip_accept_encoding=True)
    for name, value in request["headers"].items():
        connection.putheader(name, value)
    connection.endheaders()
    return connection.getresponse()


def _passed_on(answer: http.client.HTTPResponse, pipe_fd: int) -> bool:
    """Write an answer's body into the pipe as it comes; False where nobody reads any more."""
    try:
        while data := answer.read1(_CHUNK_BYTES):
            view = memoryview(data)
            while view:
                view = view[os.write(pipe_fd, view) :]
    except BrokenPipeError:
        return False
    if answer.length:
        raise http.client.IncompleteRead(b"", answer.length)
    return True


def _headers(answer: http.client.HTTPResponse) -> dict[str, str]:
    found = {name: ", ".join(answer.headers.get_all(name, ())) for name in TOLD}
    if any(len(value) > HEADER_MAX_CHARS for value in found.values()):
        raise http.client.LineTooLong("header")
    return {name: value for name, value in found.items() if value}


def _words(error: Exception) -> str:
    """Return what an error says, as one line of ASCII."""
    if isinstance(error, ssl.SSLCertVerificationError):
        text = f"its certificate is not valid: {error.verify_message}"
    elif isinstance(error, TimeoutError):
        text = "it does not answer in time"
    else:
        text = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return ascii(text)[1:-1][:300].rstrip(".")


def _tell(control: socket.socket, value: dict[str, Any]) -> None:
    control.send(json.dumps(value).encode())


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
