"""Headers of a tar, as tarfile reads them: their size looked at before anything is read for them, their times exact."""

from __future__ import annotations

import math
import re
import tarfile
from typing import Final

from . import rules
from .rules import Refused

_TIME_MAX: Final = 2**34 - 1
"""In the year 2514: the last second that ext4 can keep."""
_TIME: Final = re.compile(r"(-?)([0-9]{1,12})(?:\.([0-9]{1,9})[0-9]*)?", re.ASCII)


class Header(tarfile.TarInfo):
    """A header whose size is looked at before anything is read for it, and which tells how the last one was."""

    ended: str = ""
    """What the last block was that is no header: EOFHeaderError for the end that every tar should have."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Header:
        """Read a header; raises Refused for an extended one of more than HEADER_MAX_BYTES."""
        try:
            found = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            Header.ended = type(error).__name__
            raise
        extended = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
        if found.type in (*extended, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK) and not (
            0 <= found.size <= rules.HEADER_MAX_BYTES
        ):
            raise Refused("An extended header is too long.", found.name, limit="header")
        return found


def times(member: tarfile.TarInfo) -> tuple[int, int]:
    """Return when an entry was read and written last, in nanoseconds; read when it was written, where it tells no more.

    tarfile makes a float of what a pax header says to the nanosecond.
    """
    modified = _stamp(member.pax_headers.get("mtime")) or _nanoseconds(member.mtime)
    return _stamp(member.pax_headers.get("atime")) or modified, modified


def _stamp(text: str | None) -> int:
    """Return a pax header's time in nanoseconds, 0 where it tells none."""
    found = _TIME.fullmatch(text or "")
    if found is None:
        return 0
    told = int(found[2]) * 1_000_000_000 + int((found[3] or "0").ljust(9, "0"))
    return max(min(-told if found[1] else told, _TIME_MAX * 1_000_000_000), -(2**31) * 1_000_000_000)


def _nanoseconds(seconds: float) -> int:
    return 0 if math.isnan(seconds) else int(min(max(seconds, 0.0), float(_TIME_MAX)) * 1_000_000_000)
