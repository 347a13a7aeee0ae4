"""The suite's Debians: each made once by debootstrap, kept by what it was made with, shared by every test.

Kept below BOXROOM_TEST_IMAGES (/var/cache/boxroom-tests/images), in a directory named after the digest of the builder's
source and Debian's point release: a changed builder, or a new point release, makes it again, and what nobody has used
for a week goes then. Of sid, which has no
releases, the newest that was made within a week is good enough.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import http.client
import json
import os
import re
import secrets
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from containers.core import images
from containers.core.errors import CoreError
from containers.core.host import Host
from containers.core.hoststore import store
from containers.core.images import apt_sources, debian_fit, debian_inits, debootstrap, sandbox
from containers.core.images.base import BuiltImage, Order, make

SOURCES: Final[dict[str, dict[str, Any]]] = {
    "debian-12": {"type": "debootstrap", "suite": "bookworm"},
    "debian-13": {"type": "debootstrap", "suite": "trixie"},
    "sid": {"type": "debootstrap", "suite": "sid"},
    "debian-12-sysvinit": {"type": "debootstrap", "suite": "bookworm", "init": "sysvinit"},
    "debian-12-openrc": {"type": "debootstrap", "suite": "bookworm", "init": "openrc"},
}
NAME: Final = "debian-12"
PAUSES_SEC: Final = (5.0, 15.0, 30.0)
"""Before a mirror that failed is asked again."""
_SID_KEPT_SEC: Final = 7 * 86400
_UNUSED_SEC: Final = 7 * 86400
"""How long one is kept that a suite with another builder made: that suite may be running beside this one."""
CACHE: Final = Path(os.environ.get("BOXROOM_TEST_IMAGES", "/var/cache/boxroom-tests/images"))


def put(host: Host, name: str = NAME) -> BuiltImage:
    """Put a Debian into an instance's store, made now if no test made it before."""
    kept = cached(name)
    defaults = json.loads((kept / "defaults.json").read_text())

    def fill(_order: Order, rootfs: Path) -> dict[str, Any]:
        # hard links: a layer is never written to
        same = os.stat(kept).st_dev == os.stat(rootfs).st_dev
        subprocess.run(["cp", "-al" if same else "-a", "-T", kept / "rootfs", rootfs], check=True)
        return dict(defaults)

    order = Order(
        host=host,
        name=name,
        source=dict(SOURCES[name]),
        progress=lambda _pct, _message: None,
        log=lambda _line: None,
        cancelled=lambda: False,
    )
    return make(order, fill)


def cached(name: str = NAME) -> Path:
    """Return the directory with rootfs and defaults.json, made if it is not there."""
    CACHE.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked():
        release = point_release(SOURCES[name]["suite"])
        mine = re.compile(rf"{name}-([0-9a-f]{{16}})-[0-9.]+")
        found = sorted(path for path in CACHE.iterdir() if mine.fullmatch(path.name))
        good = [path for path in found if path.name.startswith(f"{name}-{builder_digest()}-{release}")]
        if good and (release or name != "sid" or time.time() - good[-1].stat().st_mtime < _SID_KEPT_SEC):
            os.utime(good[-1] / "defaults.json")  # when it was last used
            return good[-1]
        assert release or name == "sid", "the Debian mirror does not answer, and no Debian is kept from an earlier run"
        for old in found:
            if old in good or _unused(old):
                shutil.rmtree(old)
        return _build(name, CACHE / f"{name}-{builder_digest()}-{release or '0'}")


def _unused(kept: Path) -> bool:
    """Tell whether nobody has used one for a week, or it is what is left of one whose removal was killed."""
    used = kept / "defaults.json"
    return not used.exists() or time.time() - used.stat().st_mtime > _UNUSED_SEC


@functools.cache
def builder_digest() -> str:
    """Return a digest of the source that decides what is in the image."""
    digest = hashlib.sha256()
    for module in (debootstrap, debian_fit, debian_inits, sandbox):
        digest.update(Path(str(module.__file__)).read_bytes())
    return digest.hexdigest()[:16]


@functools.cache
def point_release(suite: str) -> str:
    """Return Debian's version as its mirror says it, 12.11; empty where no mirror answers, and for sid."""
    proxies = {name.removesuffix("_proxy"): address for name, address in debootstrap.proxies().items()}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler(proxies))
    for pause_sec in (*PAUSES_SEC, None):
        try:
            with opener.open(f"{apt_sources.mirrors()[0]}/dists/{suite}/Release", timeout=30) as answer:
                found = re.search(rb"^Version: ([0-9.]+)$", answer.read(4096), re.MULTILINE)
                return found[1].decode() if found else ""
        except (OSError, http.client.HTTPException):
            if pause_sec is not None:
                time.sleep(pause_sec)
    return ""


def _build(name: str, target: Path) -> Path:
    """Build it in a store of its own, next to where it is kept, and check what the builder told on the way."""
    for pause_sec in PAUSES_SEC:
        try:
            return _try_to_build(name, target)
        except CoreError:
            time.sleep(pause_sec)
    return _try_to_build(name, target)


def _try_to_build(name: str, target: Path) -> Path:
    work = CACHE / "building-now"
    shutil.rmtree(work, ignore_errors=True)  # of a run that was killed
    work.mkdir(mode=0o711)
    host = Host(work, "".join(secrets.choice("abcdefghijklmnopqrstuvwxyz234567") for _ in range(5)))
    told: list[int] = []
    lines: list[str] = []
    try:
        built = images.build(
            host, name, dict(SOURCES[name]), progress=lambda pct, _message: told.append(pct), log=lines.append
        )
        assert told == sorted(told)
        assert told[-1] == 100
        assert len(set(told)) > 40, "progress moves"
        assert len(lines) > 300, "the log is live"
        made = work / "made"
        made.mkdir(mode=0o700)
        (made / "defaults.json").write_text(json.dumps(built.defaults))
        store.rootfs(host, built.layers[0]).rename(made / "rootfs")
        made.rename(target)
    finally:
        shutil.rmtree(work)
        shutil.rmtree(host.run_dir, ignore_errors=True)
    return target


@contextmanager
def _locked() -> Iterator[None]:
    """Let one test process at a time look and build; the others wait for it."""
    with (CACHE / ".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
