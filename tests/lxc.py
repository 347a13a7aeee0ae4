"""Debian's own LXC for the suite: downloaded, unpacked in the cache, shown below /usr to what is run with it.

Not installed: Debian's package makes a bridge with a DHCP server at every boot. Whoever runs a program by PREFIX sees
LXC's files where they belong, through an overlay in a mount namespace that ends with the program.
"""

from __future__ import annotations

import fcntl
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

CACHE: Final = Path("/var/cache/boxroom-tests")
_SHOW: Final = 'mount -t overlay -o "ro,lowerdir=$1/usr:/usr" overlay /usr && shift && exec "$@"'


def unpacked() -> Path:
    """Return the directory with LXC's files, as below /; downloaded if this version was not before."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / ".lxc.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        version = _version()
        target = CACHE / f"lxc-{version}"
        if not target.exists():
            for old in CACHE.glob("lxc-*"):
                shutil.rmtree(old)
            _unpack(target)
        return target


def prefix() -> tuple[str, ...]:
    """Return the words before a command line that is to see LXC below /usr; needs root."""
    namespace = ("unshare", "--mount", "--propagation", "private")
    return (*namespace, "/bin/sh", "-eu", "-c", _SHOW, "sh", str(unpacked()))


def _version() -> str:
    for attempt in range(2):
        if attempt:  # a machine whose lists of packages were never loaded
            subprocess.run(["apt-get", "-q", "update"], check=True, capture_output=True)
        shown = subprocess.run(["apt-cache", "policy", "lxc"], check=True, capture_output=True, text=True).stdout
        found = re.search(r"Candidate: (?!\(none\))(\S+)", shown)
        if found:
            return found[1].replace(":", "_")
    raise AssertionError("apt knows no lxc")


def _unpack(target: Path) -> None:
    depends = subprocess.run(["apt-cache", "depends", "lxc", "--important"], check=True, capture_output=True, text=True)
    own = sorted(set(re.findall(r"Depends: (liblxc\S+)", depends.stdout)))
    assert own, depends.stdout
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        words = ["apt-get", "-q", "download", "lxc", *own, "libapparmor1", "libcap2"]
        subprocess.run(words, cwd=scratch, check=True, capture_output=True)
        fresh = Path(scratch) / "root"
        for archive in sorted(Path(scratch).glob("*.deb")):
            subprocess.run(["dpkg-deb", "-x", archive, fresh], check=True)
        fresh.rename(target)
