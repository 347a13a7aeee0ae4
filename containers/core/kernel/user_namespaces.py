"""User namespaces that are made for their ids alone: to mount with, or to be entered (user_namespaces(7))."""

from __future__ import annotations

import errno
import os
from typing import Final

from . import syscalls

_READY: Final = b"."


def made(ids: str, *, owner_id: int | None = None) -> int:
    """Return the descriptor of a new user namespace, the caller's. Raises OSError.

    ids: lines for uid_map and gid_map. owner_id: who owns it, as user and group; None: whoever calls. It is made by a
    child of the caller's only thread, or by one that does nothing but system calls.
    """
    ready_read, ready_write = os.pipe2(os.O_CLOEXEC)
    held_read, held_write = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            os.close(held_write)
            if owner_id is not None:
                os.setgroups([])
                os.setresgid(owner_id, owner_id, owner_id)
                os.setresuid(owner_id, owner_id, owner_id)
            syscalls.unshare(syscalls.CLONE_NEWUSER)
            os.write(ready_write, _READY)
            os.read(held_read, 1)  # until the caller lets go, or ends
        finally:
            os._exit(1)
    os.close(ready_write)
    os.close(held_read)
    try:
        if os.read(ready_read, 1) != _READY:
            raise OSError(errno.EPERM, "no user namespace could be made")
        for name in ("uid_map", "gid_map"):
            with open(f"/proc/{pid}/{name}", "wb", buffering=0) as file:
                file.write(ids.encode())
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(ready_read)
        os.close(held_write)
        os.waitpid(pid, 0)
