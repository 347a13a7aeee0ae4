"""The one option that must be known before Django's settings are read: which instance."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

DEFAULT_STATE_DIR: Final = "/var/lib/boxroom"


def take_state_dir(arguments: list[str]) -> None:
    """Put --state-dir (or its default) into the environment as an absolute path; the command parses it again later."""
    given = os.environ.get("BOXROOM_STATE_DIR", DEFAULT_STATE_DIR)
    for position, argument in enumerate(arguments):
        if argument == "--state-dir" and position + 1 < len(arguments):
            given = arguments[position + 1]
        elif argument.startswith("--state-dir="):
            given = argument.partition("=")[2]
    os.environ["BOXROOM_STATE_DIR"] = str(Path(given).resolve())
