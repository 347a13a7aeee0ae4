"""One thing that the doctor looks at."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ..sentences import as_json, say

Level = Literal["required", "recommended", "info"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at. Sentences with values in them are made by say(), to be said in other languages.

    what: what is so. why: what it is needed for. mend: a command or an advice, empty where there is none. part: what it
    is about; all but "host" is looked at again while the panel runs. bridge: the network's that it is about, if one's.
    """

    id: str
    ok: bool
    level: Level
    what: str
    why: str
    mend: str = ""
    part: Literal["host", "network", "policy"] = "host"
    bridge: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the check as JSON values; said: how those of its sentences were made that have values in them."""
        made = {key: as_json(getattr(self, key)) for key in ("what", "why", "mend")}
        return {**asdict(self), "said": {key: parts for key, parts in made.items() if parts}}


def works(subject: str, problem: str | None) -> str:
    """Return that something works, or why not."""
    if problem is None:
        return f"{subject[0].upper()}{subject[1:]} work."
    return say("No %(kind)s: %(why)s.", kind=subject, why=problem)


def number(path: Path) -> int | None:
    """Return the number that a file holds; None where there is none."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
