"""Debian's packages for the suite: downloaded and unpacked in the cache, never installed, kept by their version."""

from __future__ import annotations

import fcntl
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

CACHE: Final = Path("/var/cache/boxroom-tests")


def unpacked(package: str, *more: str) -> Path:
    """Return the directory with a package's files, as below /; downloaded if this version was not before.

    more: packages that are unpacked over it; where one ends in *, those of its dependencies that begin so.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f".{package}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        target = CACHE / f"{package}-{_version(package)}"
        if not target.exists():
            for old in CACHE.glob(f"{package}-*"):
                shutil.rmtree(old)
            _unpack(package, more, target)
        return target


def _version(package: str) -> str:
    for attempt in range(2):
        if attempt:  # a machine whose lists of packages were never loaded
            subprocess.run(["apt-get", "-q", "update"], check=True, capture_output=True)
        shown = subprocess.run(["apt-cache", "policy", package], check=True, capture_output=True, text=True).stdout
        found = re.search(r"Candidate: (?!\(none\))(\S+)", shown)
        if found:
            return found[1].replace(":", "_")
    raise AssertionError(f"apt knows no {package}")


def _unpack(package: str, more: tuple[str, ...], target: Path) -> None:
    words = ["apt-cache", "depends", package, "--important"]
    depends = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    names = [package]
    for name in more:
        own = sorted(set(re.findall(rf"Depends: ({re.escape(name[:-1])}\S+)", depends))) if name[-1] == "*" else [name]
        assert own, depends
        names += own
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        subprocess.run(["apt-get", "-q", "download", *names], cwd=scratch, check=True, capture_output=True)
        fresh = Path(scratch) / "root"
        for archive in sorted(Path(scratch).glob("*.deb")):
            subprocess.run(["dpkg-deb", "-x", archive, fresh], check=True)
        fresh.rename(target)
