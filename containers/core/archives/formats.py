"""What kind of file an archive is, by its first bytes, and the program that turns it into a plain tar. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

HEAD_BYTES: Final = 512
"""How much of a file detect() looks at."""
PLACE: Final = "/archive"
"""Where a program finds the file, in its confined process; it is its standard input, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One kind of archive. program: writes the file as a plain tar; empty: it is one. package: Debian's."""

    name: str
    program: tuple[str, ...] = ()
    package: str = ""


TAR: Final = Format(name="tar")
GZIP: Final = Format(name="gzip", program=("/usr/bin/gzip", "-dc"), package="gzip")
XZ: Final = Format(name="xz", program=("/usr/bin/xz", "-dc", "--memlimit=1GiB", "--no-adjust"), package="xz-utils")
ZSTD: Final = Format(name="zstd", program=("/usr/bin/zstd", "-dcq", "--no-progress", "--memory=512MB"), package="zstd")
SQUASHFS: Final = Format(
    name="squashfs", program=("/usr/bin/sqfs2tar", "--root-becomes", ".", PLACE), package="squashfs-tools-ng"
)

FORMATS: Final = (TAR, GZIP, XZ, ZSTD, SQUASHFS)
_MAGIC: Final = {
    b"\x1f\x8b": GZIP,
    b"\xfd7zXZ\x00": XZ,
    b"\x28\xb5\x2f\xfd": ZSTD,
    b"hsqs": SQUASHFS,
}
_OTHERS: Final = {b"BZh": "bzip2", b"7z\xbc\xaf": "7z", b"PK\x03\x04": "zip", b"QFI\xfb": "qcow2"}


def detect(head: bytes) -> Format | None:
    """Return what a file is that begins with these bytes (HEAD_BYTES, fewer at its end); None where it is none."""
    for magic, found in _MAGIC.items():
        if head.startswith(magic):
            return found
    return TAR if _is_tar(head) else None


def name_of(head: bytes) -> str:
    """Return the name of a kind of file that is none of ours, or ""."""
    return next((name for magic, name in _OTHERS.items() if head.startswith(magic)), "")


def _is_tar(head: bytes) -> bool:
    """Tell whether a block is a tar's header: its checksum, signed or not, is that of its bytes (tar(5))."""
    if len(head) < HEAD_BYTES or not any(head[:HEAD_BYTES]):
        return False
    digits = head[148:156].strip(b"\0 ")
    try:
        asked = int(digits, 8)
    except ValueError:
        return False
    block = head[:148] + b" " * 8 + head[156:512]
    return asked in (sum(block), sum(byte - 256 if byte > 127 else byte for byte in block))
