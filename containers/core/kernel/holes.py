"""Where a file's data lies: what is between is a hole, reads as zeros and takes no room. Source: lseek(2)."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator


def data_ranges(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield (begin, end) of each piece of data of an open file, up to size. It moves the position."""
    at = 0
    while at < size:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole up to the end
                return
            raise
        end = os.lseek(fd, at, os.SEEK_HOLE)
        yield at, end
        at = end
