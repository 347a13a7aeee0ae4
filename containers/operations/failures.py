"""Why operations failed, as their rows keep it."""

from __future__ import annotations

import errno
from typing import Any, Final

from ..core.errors import CoreError, SetupFailed, StorageFull
from ..core.sentences import say

_NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT)


def described(error: BaseException) -> dict[str, Any]:
    """Return an error as operations keep it: code, message, field, step, path, errno, console and what else it has."""
    if isinstance(error, OSError):
        kind = StorageFull if error.errno in _NO_SPACE else SetupFailed
        error = kind.from_oserror("working on the host", error)
    if not isinstance(error, CoreError):
        name = type(error).__name__
        error = SetupFailed(
            say("Something unexpected went wrong (%(name)s); the worker's log has it.", name=name), step="unexpected"
        )
    return {"step": None, "path": None, "errno": None, "console": None, **error.kept()}
