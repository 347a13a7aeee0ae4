"""An application's standard streams as pipes of its own, for whoever had it started: `manage.py ct execute`.

    caller                      starter                        child (the container's first process)
      listens, asks for a start
                                  ◀── stdio + [far ends] ───────  makes three pipes, which are its command's user's
      ◀── stdio + [far ends, pidfd of init] ─────────────────     its command has the near ends as 0, 1 and 2

The pipes are made inside, by the container's root: no descriptor of the host's gets in, they count among what the
container uses, and its command may open /dev/stdin and the like again. The console is nobody's terminal then.
"""

from __future__ import annotations

import errno
import os
import socket
from dataclasses import dataclass
from typing import Final

from ..errors import SetupFailed
from ..host import Host
from . import messages

STREAMS: Final = 3
_KIND: Final = "stdio"


@dataclass(frozen=True, slots=True)
class Pipes:
    """near: what the command reads and writes, as 0, 1 and 2. far: the other ends, in the same order."""

    near: tuple[int, ...]
    far: tuple[int, ...]


def make(uid: int) -> Pipes:
    """Make the pipes, for a user inside. Raises OSError. Everything is close-on-exec."""
    pairs = [os.pipe2(os.O_CLOEXEC) for _ in range(STREAMS)]
    near = tuple(pair[int(number != 0)] for number, pair in enumerate(pairs))
    for fd in near:
        os.fchown(fd, uid, -1)
    return Pipes(near, tuple(pair[int(number == 0)] for number, pair in enumerate(pairs)))


def tell(connection: socket.socket, pipes: Pipes) -> None:
    """Send the far ends to the starter, and keep none: an end of file would never come. Raises OSError."""
    messages.send(connection, {"type": _KIND}, pipes.far)
    for fd in pipes.far:
        os.close(fd)


def put_on(near: tuple[int, ...]) -> None:
    """Make them this process's standard streams. Raises OSError."""
    for number, fd in enumerate(near):
        os.dup2(fd, number)


def hand_over(host: Host, name: str, far: list[int], init_pidfd: int) -> None:
    """Send the far ends to the caller, which listens by that name; they are closed. Raises SetupFailed."""
    try:
        if not (name.isascii() and name.isalnum()):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), name)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC) as caller:
            caller.connect(str(host.stdio_socket(name)))
            messages.send(caller, {"type": _KIND}, (*far, init_pidfd))
    except OSError as error:
        raise SetupFailed.from_oserror("hand over its standard streams", error) from error
    finally:
        for fd in far:
            os.close(fd)
