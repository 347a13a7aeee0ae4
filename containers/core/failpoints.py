"""Named places where a test may kill, stall or fail a process: every step boundary of what changes the disk.

Honoured only where the environment has ``BOXROOM_FAILPOINTS`` and the state directory holds a file
``allow-failpoints`` that root owns and nobody else may write; otherwise a call costs one dictionary look-up.
The variable reads ``NAME=ACTION[@N];...``: NAME may end in ``*``; ACTION is ``kill9``, ``sleep(SECONDS)`` or an errno's
name such as ``ENOSPC``; N is the hit that it takes (1, the first).
"""

from __future__ import annotations

import errno
import os
import re
import signal
import time
from pathlib import Path
from typing import Final

VARIABLE: Final = "BOXROOM_FAILPOINTS"
MARKER: Final = "allow-failpoints"
_ACTION = re.compile(r"(?P<name>[^=]+)=(?P<action>kill9|sleep\((?P<sec>[0-9.]+)\)|E[A-Z0-9]+)(@(?P<hit>[0-9]+))?")
_hits: dict[str, int] = {}


def failpoint(state_dir: Path, name: str) -> None:
    """Do what the environment asks for at this place; nothing unless a test set it up."""
    asked = os.environ.get(VARIABLE)
    if not asked or not _allowed(state_dir):
        return
    for part in asked.split(";"):
        match = _ACTION.fullmatch(part.strip())
        if match is None:
            raise ValueError(f"{VARIABLE}: {part!r} is not NAME=ACTION[@N]")
        pattern = match["name"]
        if name != pattern and not (pattern.endswith("*") and name.startswith(pattern[:-1])):
            continue
        _hits[pattern] = _hits.get(pattern, 0) + 1
        if _hits[pattern] == int(match["hit"] or 1):
            _act(match["action"], match["sec"], name)


def _allowed(state_dir: Path) -> bool:
    try:
        status = os.lstat(state_dir / MARKER)
    except FileNotFoundError:
        return False
    return status.st_uid == 0 and not status.st_mode & 0o022


def _act(action: str, seconds: str | None, name: str) -> None:
    if action == "kill9":
        os.kill(os.getpid(), signal.SIGKILL)
    if seconds is not None:
        time.sleep(float(seconds))
        return
    number = getattr(errno, action)
    raise OSError(number, os.strerror(number), name)
