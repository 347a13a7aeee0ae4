"""Debian's packages for the suite: downloaded and unpacked in the cache, never installed, kept by their version.

A mirror that does not answer is asked again: one lost download is no reason for a test to fail. Where apt does not know
Debian's packages, as on Ubuntu, they come from Debian's archive all the same, by sources that only the suite has.
"""

from __future__ import annotations

import fcntl
import functools
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
KERNEL: Final = "linux-image-amd64"
"""What tells whether apt knows Debian's packages: nobody else calls a package so."""
KEYRING: Final = "/usr/share/keyrings/debian-archive-keyring.gpg"
SOURCES: Final = f"deb [signed-by={KEYRING}] http://deb.debian.org/debian bookworm main\n"


def apt_get(*words: str, cwd: Path | None = None, options: tuple[str, ...] = ()) -> None:
    """Run apt-get, again where it fails; the lists of packages are loaded anew in between. Fails with what it said.

    One of the suite's processes at a time: apt-get waits for others' lock of dpkg, and not for that of the lists.
    options: those of debian().
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / ".apt.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _apt_get(words, cwd, options)


def _apt_get(words: tuple[str, ...], cwd: Path | None, options: tuple[str, ...]) -> None:
    patient = ["apt-get", "-q", "-o", "Acquire::Retries=5", "-o", "DPkg::Lock::Timeout=600", *options]
    for left in reversed(range(TRIES)):
        done = subprocess.run([*patient, *words], cwd=cwd, capture_output=True, text=True, check=False)
        if not done.returncode:
            return
        if left:
            time.sleep(PAUSE_SEC)
            # a package that is not where the lists say it is was replaced by a newer one
            subprocess.run([*patient, "update"], capture_output=True, check=False)
    raise AssertionError(f"apt-get {' '.join(words)}, tried {TRIES} times: {done.stdout[-2000:]}{done.stderr[-4000:]}")


def about(*words: str, options: tuple[str, ...] = ()) -> str:
    """Return what apt-cache says, in English: it is looked through. options: those of debian()."""
    command = ["env", "LC_ALL=C.UTF-8", "apt-cache", *options, *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@functools.cache
def debian() -> tuple[str, ...]:
    """Return the options with which apt knows Debian's packages: none where this host's apt knows them by itself.

    Elsewhere apt gets sources, lists and a cache of its own in ours, checked by Debian's keyring.
    """
    if not about("search", "--names-only", f"^{KERNEL}$"):  # a machine whose lists of packages were never loaded
        apt_get("update")
    if about("search", "--names-only", f"^{KERNEL}$"):
        return ()
    own = CACHE / "debian"
    for directory in ("state/lists/partial", "cache/archives/partial"):
        (own / directory).mkdir(parents=True, exist_ok=True)
    (own / "sources.list").write_text(SOURCES)
    (own / "state/status").touch()
    settings = {
        "Dir::Etc::sourcelist": own / "sources.list",
        "Dir::Etc::sourceparts": "-",
        "Dir::State": own / "state",
        "Dir::State::status": own / "state/status",
        "Dir::Cache": own / "cache",
    }
    options = tuple(word for name, value in settings.items() for word in ("-o", f"{name}={value}"))
    apt_get("update", options=options)
    return options


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
