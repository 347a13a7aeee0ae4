"""The marks by which overlay says, in a layer, that something of the layers below is not there."""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

OPAQUE: Final = "user.overlay.opaque"
ORIGIN: Final = "user.overlay.origin"
OWN_XATTRS: Final = "user.overlay."


def is_whiteout(status: os.stat_result) -> bool:
    """Tell whether an entry says that there is nothing: a character device 0/0."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(directory_fd: int) -> bool:
    """Tell whether a directory hides the ones of the same name below."""
    try:
        return os.getxattr(directory_fd, OPAQUE) == b"y"
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
            return False
        raise
