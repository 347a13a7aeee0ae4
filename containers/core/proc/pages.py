"""The pages that a start writes to: the first start finds them out, and the next ones take them at one stroke.

After a fork a page is copied when it is first written to, and a fault for each costs half as much again as the copying
itself. Which pages these are is the same for all that one launcher forks. What is learned stands in memory that the
launcher and its forks share; neither a container's init nor a supervisor keeps it.

A page that a process shares with no other is one that it has copied, or one that all others have: these are few.
Source: kernel Documentation/admin-guide/mm/pagemap.rst; process_madvise(2), madvise(2) on MADV_POPULATE_WRITE.
"""

from __future__ import annotations

import mmap
import os
import struct
from array import array
from typing import Final

_PAGE: Final = mmap.PAGESIZE
_MEMORY_BYTES: Final = 128 * 1024
_HEAD: Final = struct.Struct("Q")
_PRESENT: Final = 1 << 63
_EXCLUSIVE: Final = 1 << 56


class Pages:
    """What the starts of one launcher write to, as (address, bytes) of each range, for syscalls.populate()."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _MEMORY_BYTES)

    @property
    def known(self) -> bool:
        """Whether a start has found them out."""
        return _HEAD.unpack_from(self._memory) != (0,)

    def ranges(self) -> bytes:
        """Return them; nothing where they are not known."""
        return self._memory[_HEAD.size : _HEAD.size + _HEAD.unpack_from(self._memory)[0]]

    def keep(self, ranges: bytes) -> None:
        """Keep what a start has found out. Where two do it at once, the mixture is as good."""
        if _HEAD.size + len(ranges) <= _MEMORY_BYTES:
            self._memory[_HEAD.size : _HEAD.size + len(ranges)] = ranges
            _HEAD.pack_into(self._memory, 0, len(ranges))

    def keep_from_children(self) -> None:
        """Have what is forked from here on go without it."""
        self._memory.madvise(mmap.MADV_DONTFORK)

    def close(self) -> None:
        """Do without it from here on."""
        self._memory.close()


def own(pid: int) -> bytes:
    """Return the memory that a process shares with no other. Raises OSError.

    After a fork that is what it has written to, or what all that shared it have written to.
    """
    found = array("Q")
    with (
        open(f"/proc/{pid}/maps", encoding="ascii", errors="replace") as maps,
        open(f"/proc/{pid}/pagemap", "rb") as pagemap,
    ):
        for line in maps:
            place, rights = line.split(maxsplit=2)[:2]
            if rights != "rw-p":
                continue
            first, end = (int(text, 16) for text in place.split("-"))
            words = array("Q", os.pread(pagemap.fileno(), (end - first) // _PAGE * 8, first // _PAGE * 8))
            for address, word in zip(range(first, end, _PAGE), words, strict=True):
                if word & _PRESENT and word & _EXCLUSIVE:
                    _add(found, address)
    return found.tobytes()


def _add(ranges: array[int], address: int) -> None:
    if ranges and ranges[-2] + ranges[-1] == address:
        ranges[-1] += _PAGE
    else:
        ranges.extend((address, _PAGE))
