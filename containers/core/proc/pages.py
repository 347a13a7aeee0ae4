"""The pages that a start writes to: the first start finds them out, and the next ones take them at one stroke.

After a fork a page is copied when it is first written to, and a fault for each costs half as much again as the copying
itself. Which pages these are is the same for all that one launcher forks. What is learned stands in memory that the
launcher and its forks share; a child that will be a container's init does not get it, and neither does a supervisor
keep it.

A page that a process shares with no other is one that it has copied, or one that all others have. These are told apart
by a witness, which has all pages as they were before the clone: so neither takes what only the other needs.
Source: kernel Documentation/admin-guide/mm/pagemap.rst; process_madvise(2), madvise(2) on MADV_POPULATE_WRITE.
"""

from __future__ import annotations

import mmap
import os
import signal
import struct
from array import array
from typing import Final

from ..kernel.syscalls import PR_SET_PDEATHSIG, clone3, prctl

_PAGE: Final = mmap.PAGESIZE
_DESCRIPTORS: Final = 1024
_MEMORY_BYTES: Final = 128 * 1024
_HEAD: Final = struct.Struct("QQQ")
_PRESENT: Final = 1 << 63
_EXCLUSIVE: Final = 1 << 56


class Pages:
    """What the starts of one launcher write to, as lists of (address, bytes) for syscalls.populate()."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _MEMORY_BYTES)

    @property
    def known(self) -> bool:
        """Whether a start has found them out."""
        return self._memory[: _HEAD.size] != bytes(_HEAD.size)

    def lists(self) -> tuple[bytes, bytes, bytes]:
        """Return the starter's, the child's, and the starter's after the clone; nothing where not known."""
        lists, first = [], _HEAD.size
        for length in _HEAD.unpack_from(self._memory):
            lists.append(self._memory[first : first + length])
            first += length
        own, child, after = lists
        return own, child, after

    def keep(self, own: bytes, child: bytes, after: bytes) -> None:
        """Keep what a start has found out. Where two do it at once, the mixture is as good."""
        every = own + child + after
        if _HEAD.size + len(every) <= _MEMORY_BYTES:
            self._memory[_HEAD.size : _HEAD.size + len(every)] = every
            _HEAD.pack_into(self._memory, 0, len(own), len(child), len(after))

    def keep_from_children(self) -> None:
        """Have what is forked from here on go without it."""
        self._memory.madvise(mmap.MADV_DONTFORK)

    def close(self) -> None:
        """Do without it from here on."""
        self._memory.close()


class Witness:
    """A fork that keeps this process's memory as it is: whoever else has it, and writes to it, has to copy it."""

    def __init__(self) -> None:
        maker = os.getpid()
        self._pid, self._pidfd = clone3(0, exit_signal=signal.SIGCHLD)
        if self._pid == 0:
            try:
                prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
                os.closerange(0, _DESCRIPTORS)
                while os.getppid() == maker:
                    signal.pause()
            finally:
                os._exit(0)

    def end(self) -> None:
        """Let go of the memory; it goes with its maker in any case."""
        signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        os.close(self._pidfd)
        os.waitpid(self._pid, 0)


def own(pid: int) -> bytes:
    """Return the memory that a process shares with no other. Raises OSError.

    After a fork that is what it has written to, or, without a witness, what all that shared it have.
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
