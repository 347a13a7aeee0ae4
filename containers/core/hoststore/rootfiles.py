"""Files that the host's administrator puts into a directory of the instance, each known by its name there.

Only root may have written them: whoever could write to one would be root on the host.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ..errors import SetupFailed, SpecError
from ..names import check_name

_MAX_BYTES = 1 << 20
_OTHERS_WRITE = 0o022
_DIRECTORY_OPEN = "Others than root may change this directory (chown root, chmod go-w)."
_FILE_OPEN = "Others than root may change this file (chown root, chmod go-w)."


def open_own(directory: Path, name: str, *, step: str, executable: bool = False) -> int:
    """Return a descriptor (O_RDONLY, close-on-exec) of a regular file that only root can write; no link is followed.

    Raises SetupFailed with the path: it is missing, somebody else's, or (executable) not to be executed.
    """
    path = directory / name
    try:
        check_name(name)
        place_fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            file_fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=place_fd)
            problem = _problem(os.fstat(place_fd), _DIRECTORY_OPEN) or _problem(os.fstat(file_fd), _FILE_OPEN)
        finally:
            os.close(place_fd)
    except SpecError as error:
        raise SetupFailed(error.message, step=step, path=str(path)) from error
    except OSError as error:
        raise SetupFailed.from_oserror(step, OSError(error.errno, error.strerror, str(path))) from error
    mode = os.fstat(file_fd).st_mode
    if not problem and not stat.S_ISREG(mode):
        problem = "It is no file."
    if not problem and executable and not mode & 0o100:
        problem = "It is not executable (chmod 700)."
    if problem:
        os.close(file_fd)
        raise SetupFailed(problem, step=step, path=str(path))
    return file_fd


def read_own(directory: Path, name: str, *, step: str) -> str:
    """Return the text of such a file; raises SetupFailed, also for more than a mebibyte."""
    with open(open_own(directory, name, step=step), "rb") as file:
        data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise SetupFailed("It is larger than a mebibyte.", step=step, path=str(directory / name))
    return data.decode(errors="surrogateescape")


def _problem(info: os.stat_result, told: str) -> str:
    return told if info.st_uid != 0 or info.st_mode & _OTHERS_WRITE else ""
