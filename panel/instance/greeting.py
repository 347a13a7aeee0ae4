"""What `up` says when the panel is ready. A sign-in link is for the person at the terminal, and for no log."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Final

from .options import DEFAULT_STATE_DIR

PROJECT: Final = Path(__file__).resolve().parents[2]
VALID: Final = "Sign in once with this link, and choose a password (valid for 24 hours):"


def read_by_others(descriptor: int = 1) -> bool:
    """Tell whether a descriptor leads into systemd's journal, which more people may read than root.

    Source: systemd.exec(5), $JOURNAL_STREAM: device and inode of the stream, to be compared with the descriptor's.
    """
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def link_command(state_dir: Path) -> str:
    """Return the command that gives the first administrator a fresh link."""
    words = ["sudo", "python3", str(PROJECT / "manage.py"), "user", "link", "admin"]
    if state_dir != Path(DEFAULT_STATE_DIR):
        words += ["--state-dir", str(state_dir)]
    return shlex.join(words)


def lines(address: str, served: str, link: str, command: str, *, terminal: bool = True) -> list[str]:
    """Return what is said. link: a path, or nothing; command: what gives one, where one is needed and none is told.

    terminal: whether somebody may type Ctrl-C.
    """
    said = ["", f"Boxroom is ready: {address}{f', served at {served}' if served != address else ''}"]
    if link:
        said += [VALID, f"  {served}{link}"]
    elif command:
        said += ["The administrator has no password yet. This prints a sign-in link, valid once:", f"  {command}"]
    if terminal:
        said.append("Ctrl-C stops the panel and leaves containers running.")
    return [*said, ""]


def greet(address: str, served: str, link: str, command: str) -> None:
    """Say it; to whom waits for the detached panel, in a pipe, and then the link stands in no log."""
    waiting = os.environ.get("BOXROOM_READY_FD")
    said = lines(address, served, "" if waiting else link, command, terminal=not read_by_others())
    sys.stdout.write("\n".join(said) + "\n")
    sys.stdout.flush()
