"""What this host can do, tried and not read from configuration files. Needs no database and no instance."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from ..host import Host
from ..kernel import files
from . import surroundings, this_host
from .check import Check, Level

__all__ = ["Check", "Level", "examine", "missing", "refresh", "refresh_changing"]


def examine(state_dir: str | os.PathLike[str]) -> list[Check]:
    """Look at everything; state_dir need not exist yet. Takes about half a second. Root, or the probes fail."""
    return [*this_host.checks(_existing(Path(state_dir))), *surroundings.checks(Path(state_dir))]


def refresh(host: Host, *, older_sec: float = 0.0) -> bool:
    """Look again and write host.doctor_path, where what is there is older than that; return whether it was."""
    try:
        if abs(time.time() - host.doctor_path.stat().st_mtime) < older_sec:
            return False
    except FileNotFoundError:
        pass
    files.write_json(host.doctor_path, {"checks": [check.as_dict() for check in examine(host.state_dir)]}, sync=False)
    return True


def refresh_changing(host: Host) -> bool:
    """Look again at what others change, and write it into host.doctor_path; return whether something has changed."""
    try:
        known: list[dict[str, Any]] = json.loads(host.doctor_path.read_text())["checks"]
    except (OSError, ValueError, KeyError):
        return False  # refresh() writes it whole
    kept = [check for check in known if check.get("part", "host") == "host"]
    checks = [*kept, *(check.as_dict() for check in surroundings.checks(host.state_dir))]
    if checks == known:
        return False
    files.write_json(host.doctor_path, {"checks": checks}, sync=False)
    return True


def missing(checks: list[Check]) -> list[Check]:
    """Return the checks without which no container runs here."""
    return [check for check in checks if not check.ok and check.level == "required"]


def _existing(path: Path) -> Path:
    """Return the path, or its nearest parent that is there."""
    path = path.absolute()
    return next(place for place in (path, *path.parents) if os.path.isdir(place))
