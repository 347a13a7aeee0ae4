"""What containers wrote to their consoles, as supervisors keep it: in console.log, and older files beside it."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from ..host import Host

TAIL_MAX_BYTES: Final = 8 * 1024**2
NAME: Final = "console.log"


def tail(host: Host, container_id: str, size: int) -> tuple[bytes, int]:
    """Return the last `size` bytes (TAIL_MAX_BYTES at most) of a container's console, and how many there are in all.

    The files are read as one, the oldest first. Nothing is there before the first start, or where no log is kept.
    """
    size = max(0, min(size, TAIL_MAX_BYTES))
    found: list[bytes] = []
    total = 0
    for path in _files(host.container_dir(container_id)):
        try:
            log_fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue  # it was rotated away just now, or is none of ours
        with os.fdopen(log_fd, "rb") as log:
            status = os.fstat(log_fd)
            if not stat.S_ISREG(status.st_mode):
                continue
            total += status.st_size
            wanted = min(size, status.st_size)
            if wanted:
                log.seek(status.st_size - wanted)
                found.insert(0, log.read(wanted))
                size -= wanted
    return b"".join(found), total


def _files(directory: Path) -> list[Path]:
    """Return the files of a console, the newest first."""
    try:
        names = os.listdir(directory)
    except OSError:
        return []
    numbers = [int(name.removeprefix(f"{NAME}.")) for name in names if _is_older(name)]
    newest = [directory / NAME] if NAME in names else []
    return newest + [directory / f"{NAME}.{number}" for number in sorted(numbers)]


def _is_older(name: str) -> bool:
    number = name.removeprefix(f"{NAME}.")
    return number != name and number.isascii() and number.isdigit() and len(number) < 6
