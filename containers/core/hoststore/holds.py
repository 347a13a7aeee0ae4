"""Layers that a process is at work with and that nothing in the store refers to: kept from being collected meanwhile.

One file for each, ``host/holds/ID.json``: the layers' ids. Its maker holds a flock on it, so that what a killed one
left behind can be told, and counts for nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..host import Host
from . import store


@contextlib.contextmanager
def held(host: Host, layers: Iterable[str]) -> Iterator[None]:
    """Keep layers until the end. The caller holds the layers lock (shared), or something that refers to them."""
    host.holds_dir.mkdir(mode=0o700, exist_ok=True)
    data = json.dumps(sorted(layers)).encode()
    while (made := _made(host, data)) is None:
        pass  # somebody swept it away before it was locked
    path, fd = made
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(fd)


def _made(host: Host, data: bytes) -> tuple[Path, int] | None:
    """Write a file and lock it before anybody believes it; return it, and the descriptor that holds the lock."""
    name = f"{store.new_layer_id()}.json"
    path, new = host.holds_dir / name, host.holds_dir / f".{name}"
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        with open(fd, "wb", closefd=False) as file:
            file.write(data)
        new.rename(path)
    except FileNotFoundError:
        os.close(fd)
        return None
    except BaseException:
        new.unlink(missing_ok=True)
        os.close(fd)
        raise
    return path, fd


def layers(host: Host) -> set[str]:
    """Return the layers that somebody who lives holds. Asked before the store is: what is held may be referred to."""
    found: set[str] = set()
    for path in _listed(host):
        if not path.name.startswith(".") and not _abandoned(path):
            with contextlib.suppress(FileNotFoundError):
                found.update(json.loads(path.read_bytes()))
    return found


def abandoned(host: Host) -> list[Path]:
    """Return what killed processes left."""
    return [path for path in _listed(host) if _abandoned(path)]


def _listed(host: Host) -> list[Path]:
    try:
        return sorted(host.holds_dir.iterdir())
    except FileNotFoundError:
        return []


def _abandoned(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except FileNotFoundError:
        return False
    return True
