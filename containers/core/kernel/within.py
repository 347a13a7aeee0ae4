"""Names in a directory, for the calls that take no descriptor beside a name."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def within(directory_fd: int) -> Iterator[None]:
    """Have a directory as the working directory, and then the one from before. For processes of one thread only."""
    before_fd = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fchdir(directory_fd)
        try:
            yield
        finally:
            os.fchdir(before_fd)
    finally:
        os.close(before_fd)
