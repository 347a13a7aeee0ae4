"""The ticker's unix sockets: who may connect to them, and who has (unix(7), SO_PEERCRED)."""

from __future__ import annotations

import contextlib
import os
import pwd
import socket
import struct
from pathlib import Path

from ..core.host import WEB_USER


def web_uid() -> int:
    """Return the web's uid, root's where there is no such user (in tests of the socket alone)."""
    try:
        return pwd.getpwnam(WEB_USER).pw_uid
    except KeyError:
        return 0


def peer_uid(connection: socket.socket) -> int:
    """Return the uid of who is at the other end of a stream socket."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    uid: int = struct.unpack("3i", credentials)[1]
    return uid


def listen(path: Path, kind: socket.SocketKind, mode: int) -> socket.socket:
    """Return a bound socket (root:boxroom); what a killed ticker left there is replaced."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        mask = os.umask(0o777 & ~mode)
        try:
            listener.bind(str(path))
        finally:
            os.umask(mask)
        if mode & 0o060:
            with contextlib.suppress(KeyError):
                os.chown(path, 0, pwd.getpwnam(WEB_USER).pw_gid)
        if kind == socket.SOCK_STREAM:
            listener.listen(64)
    except BaseException:
        listener.close()
        raise
    return listener
