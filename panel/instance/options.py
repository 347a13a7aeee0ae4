"""The one option that must be known before Django's settings are read: which instance."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

DEFAULT_STATE_DIR: Final = "/var/lib/boxroom"


OWN: Final = ("up", "down", "halt", "install", "doctor")
"""Commands that parse --state-dir themselves, and tell of it in their help."""


OF_AN_INSTANCE: Final = ("token", "user", "fsck", "audit", "import-lxc", "ct")
"""Commands that read what `up` has made, and as root."""


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


def refusal(arguments: list[str]) -> str:
    """Return why a command cannot run at all, or nothing: no root, no instance yet. After take_state_dir()."""
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    if not arguments or arguments[0] not in OF_AN_INSTANCE or {"-h", "--help"} & set(own):
        return ""
    if os.geteuid() != 0:
        return f"`{arguments[0]}` needs root: run it with sudo."
    state_dir = Path(os.environ["BOXROOM_STATE_DIR"])
    if not (state_dir / "instance.json").exists():
        return f"There is no Boxroom in {state_dir}. `manage.py up` makes one; --state-dir names another."
    if not (state_dir / "prepared").exists():
        return f"The Boxroom in {state_dir} was never ready. Start it with `manage.py up`, which says what is missing."
    return ""
