"""The one option that must be known before Django's settings are read: which instance."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

DEFAULT_STATE_DIR: Final = "/var/lib/boxroom"


OWN: Final = ("up", "down", "install", "doctor")
"""Commands that parse --state-dir themselves, and tell of it in their help."""


def take_state_dir(arguments: list[str]) -> list[str]:
    """Put --state-dir (or its default) into the environment as an absolute path.

    Returns the arguments that are left to parse: every command takes the option, those of OWN see it again.
    """
    given, rest = os.environ.get("BOXROOM_STATE_DIR", DEFAULT_STATE_DIR), []
    words = iter(arguments)
    for word in words:
        if word == "--":
            rest += [word, *words]
        elif word == "--state-dir" and (value := next(words, None)) is not None:
            given = value
        elif word.startswith("--state-dir="):
            given = word.partition("=")[2]
        else:
            rest.append(word)
    os.environ["BOXROOM_STATE_DIR"] = str(Path(given).resolve())
    return arguments if arguments[:1] and arguments[0] in OWN else rest
