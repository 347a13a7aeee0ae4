"""Debian's own LXC for the suite: downloaded, unpacked in the cache, shown below /usr to what is run with it.

Not installed: Debian's package makes a bridge with a DHCP server at every boot. Whoever runs a program by PREFIX sees
LXC's files where they belong, through an overlay in a mount namespace that ends with the program.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from . import packages

_SHOW: Final = 'mount -t overlay -o "ro,lowerdir=$1/usr:/usr" overlay /usr && shift && exec "$@"'


def unpacked() -> Path:
    """Return the directory with LXC's files, as below /; downloaded if this version was not before."""
    return packages.unpacked("lxc", "liblxc*", "libapparmor1", "libcap2")


def prefix() -> tuple[str, ...]:
    """Return the words before a command line that is to see LXC below /usr; needs root."""
    namespace = ("unshare", "--mount", "--propagation", "private")
    return (*namespace, "/bin/sh", "-eu", "-c", _SHOW, "sh", str(unpacked()))
