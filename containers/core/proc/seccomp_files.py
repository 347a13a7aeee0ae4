"""The compiled system call filters of an instance: made once, read by every supervisor."""

from __future__ import annotations

import os
from pathlib import Path

from ..host import Host
from ..syscalls import pack_filters


def path(host: Host, *, nesting: bool) -> Path:
    """Return the file of a profile; root's, 0600."""
    return host.run_dir / f"seccomp-{'nesting' if nesting else 'default'}.bpf"


def make(host: Host) -> None:
    """Compile and write both profiles. Call it in a process of its own: libseccomp's memory is not given back."""
    # not above: libseccomp has no place in a supervisor
    from .. import seccomp

    for nesting in (False, True):
        target = path(host, nesting=nesting)
        temporary = target.with_suffix(".tmp")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(pack_filters(seccomp.compile_profile(nesting=nesting)))
        os.replace(temporary, target)


def read(host: Host, *, nesting: bool) -> bytes:
    """Return a profile, as load_seccomp takes it; raises FileNotFoundError before make()."""
    return path(host, nesting=nesting).read_bytes()
