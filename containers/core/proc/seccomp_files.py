"""The compiled system call filters of an instance: made once, read by every start."""

from __future__ import annotations

import os
from pathlib import Path

from ..host import Host
from ..kernel.syscalls import pack_filters


def path(host: Host, *, nesting: bool, keyctl: bool = False) -> Path:
    """Return the file of Boxroom's own list; root's, 0600."""
    return host.run_dir / f"seccomp-{'nesting' if nesting else 'keyctl' if keyctl else 'default'}.bpf"


def make(host: Host) -> None:
    """Compile and write Boxroom's own lists. Call it in a process of its own: libseccomp's memory is not given back."""
    # not above: libseccomp has no place in a supervisor
    from ..kernel import seccomp

    for nesting, keyctl in ((False, False), (False, True), (True, True)):
        programs = seccomp.compile_profile(nesting=nesting, keyctl=keyctl)
        write(path(host, nesting=nesting, keyctl=keyctl), pack_filters(programs))


def write(target: Path, data: bytes) -> None:
    """Write a compiled list, root's, 0600, at one stroke."""
    temporary = target.with_suffix(f".{os.getpid()}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
    os.replace(temporary, target)


def open_list(host: Host, *, nesting: bool, keyctl: bool = False, custom: str = "") -> int:
    """Open a list, for the caller; custom: what lifecycle.profiles made. Raises FileNotFoundError."""
    place = host.run_dir / custom if custom else path(host, nesting=nesting, keyctl=keyctl)
    return os.open(place, os.O_RDONLY | os.O_CLOEXEC)


def contents(list_fd: int) -> bytes:
    """Return an open list, as load_seccomp takes it."""
    return os.pread(list_fd, os.fstat(list_fd).st_size, 0)
