"""What a filer's refusal stands for (core.proc.filer, ticker.filing). Pure: for the worker, and for the web."""

from __future__ import annotations

from typing import Final

from .errors import (
    AlreadyExists,
    Busy,
    Changed,
    CoreError,
    InUse,
    InvalidTransition,
    NotFound,
    PolicyDenied,
    SetupFailed,
    SpecError,
    StorageFull,
)

STEP: Final = "files"
_OF_A_FIELD: Final = {
    kind.code: kind
    for kind in (AlreadyExists, Busy, Changed, InUse, InvalidTransition, NotFound, PolicyDenied, SpecError)
}
_OF_A_STEP: Final = {kind.code: kind for kind in (SetupFailed, StorageFull)}


def error(code: str, message: str, *, field: str = "path") -> CoreError | None:
    """Return the error that a refusal stands for; None for one that nobody knows."""
    if code in _OF_A_FIELD:
        return _OF_A_FIELD[code](message, field=field)
    return _OF_A_STEP[code](message, step=STEP) if code in _OF_A_STEP else None


def silence() -> SetupFailed:
    """Return what it stands for that nothing was said: killed with the container, or for its memory."""
    return SetupFailed("The process that works on files ended early.", step=STEP)
