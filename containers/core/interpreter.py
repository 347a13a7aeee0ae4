"""The interpreter for programs that run without any environment's packages."""

from __future__ import annotations

import sys
from pathlib import Path


def interpreter() -> str:
    """Return the path of the Python that this process's virtual environment, if any, was made with.

    Helpers are started by it, isolated (-I -S): a virtual environment may lie where they may not look.
    """
    return str(Path(sys._base_executable).resolve())  # type: ignore[attr-defined]
