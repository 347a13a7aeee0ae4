"""Debian's packages for the suite: downloaded and unpacked in the cache, never installed, kept by their version.

A mirror that does not answer is asked again: one lost download is no reason for a test to fail.
"""

from __future__ import annotations

import fcntl
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Final

CACHE: Final = Path("/var/cache/boxroom-tests")
TRIES: Final = 4
PAUSE_SEC: Final = 10.0


def apt_get(*words: str, cwd: Path | None = None) -> None:
    """Run apt-get, again where it fails; the lists of packages are loaded anew in between. Fails with what it said.

    One of the suite's processes at a time: apt-get waits for others' lock of dpkg, and not for that of the lists.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / ".apt.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _apt_get(words, cwd)


def _apt_get(words: tuple[str, ...], cwd: Path | None) -> None:
    patient = ["apt-get", "-q", "-o", "Acquire::Retries=5", "-o", "DPkg::Lock::Timeout=600"]
    for left in reversed(range(TRIES)):
        done = subprocess.run([*patient, *words], cwd=cwd, capture_output=True, text=True, check=False)
        if not done.returncode:
            return
        if left:
            time.sleep(PAUSE_SEC)
            # a package that is not where the lists say it is was replaced by a newer one
            subprocess.run([*patient, "update"], capture_output=True, check=False)
    raise AssertionError(f"apt-get {' '.join(words)}, tried {TRIES} times: {done.stdout[-2000:]}{done.stderr[-4000:]}")


def about(*words: str) -> str:
    """Return what apt-cache says, in English: it is looked through."""
    done = subprocess.run(["env", "LC_ALL=C.UTF-8", "apt-cache", *words], capture_output=True, text=True, check=True)
    return done.stdout


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
            apt_get("update")
        found = re.search(r"Candidate: (?!\(none\))(\S+)", about("policy", package))
        if found:
            return found[1].replace(":", "_")
    raise AssertionError(f"apt knows no {package}")


def _unpack(package: str, more: tuple[str, ...], target: Path) -> None:
    depends = about("depends", package, "--important")
    names = [package]
    for name in more:
        own = sorted(set(re.findall(rf"Depends: ({re.escape(name[:-1])}\S+)", depends))) if name[-1] == "*" else [name]
        assert own, depends
        names += own
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        apt_get("download", *names, cwd=Path(scratch))
        fresh = Path(scratch) / "root"
        for archive in sorted(Path(scratch).glob("*.deb")):
            subprocess.run(["dpkg-deb", "-x", archive, fresh], check=True)
        fresh.rename(target)
