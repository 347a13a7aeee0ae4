"""What an archive may hold, and how much of it. Pure.

Source of the numbers: the design's threat model; of the names of whiteouts: OCI image-spec, layer.md.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ..sentences import say

IDS: Final = 65536
"""How many owners there are: a container has ids for them, from 0 on."""
NAME_MAX_BYTES: Final = 255
PATH_MAX_BYTES: Final = 4096
DEPTH_MAX: Final = 128
EXACT_PATH_MAX_BYTES: Final = 64 << 10
EXACT_DEPTH_MAX: Final = 1000
"""Of a layer that a backup holds: a container can nest deeper than the path of any system call is long."""
HEADER_MAX_BYTES: Final = 1 << 20
"""Of one extended header, or long name."""
RATIO_FLOOR_BYTES: Final = 16 << 20
"""So much may always come out, however small the archive: a few blocks of zeros compress to nearly nothing."""
WHITEOUT: Final = ".wh."
WHITEOUT_OPAQUE: Final = ".wh..wh..opq"
WHITEOUT_META: Final = ".wh..wh."
"""aufs's own files, of no meaning to anybody else."""

_XATTR: Final = "SCHILY.xattr."
_XATTRS_MAX: Final = 64
_XATTR_MAX_BYTES: Final = 65536
ACL: Final = "system.posix_acl_access"
_ACLS: Final = (ACL, "system.posix_acl_default")
_CAPABILITY: Final = "security.capability"
_VFS_CAP_SIZES: Final = {0x02000000: 20, 0x03000000: 24}
"""By revision. Source: include/uapi/linux/capability.h."""


_OWNS: Final = (
    "%(number)s owns an entry; containers have 0 to %(most)s. Was it packed on a host that shifts owners? Pack it "
    "inside the container."
)
SENTENCES: Final = (
    "A file is larger than %(most)s bytes.",
    "A name is longer than %(most)s bytes.",
    "A path is longer than %(most)s bytes.",
    "Directories lie more than %(most)s deep.",
    "It comes to more than %(most)s bytes.",
    "It holds an entry of an unknown kind (%(type)s).",
    "It holds more than %(most)s entries.",
    f"The group {_OWNS}",
    f"The user {_OWNS}",
    "It is damaged: %(words)s.",
)
"""What a process that reads an archive says with values in it; only its text is taken."""


class Refused(Exception):
    """An archive that is not taken. entry: the name in it, or "". limit: which limit it goes past, or ""."""

    def __init__(self, why: str, entry: str = "", *, limit: str = "") -> None:
        super().__init__(why)
        self.why = why
        self.entry = entry
        self.limit = limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much one archive may come to. ratio: plain bytes for each byte of the file, above RATIO_FLOOR_BYTES.

    ids: how many owners there are, from 0 on.
    """

    bytes: int = 64 << 30
    entries: int = 2_000_000
    ratio: int = 200
    wall_sec: float = 3600.0
    memory_bytes: int = 2 << 30
    ids: int = IDS

    def as_dict(self) -> dict[str, Any]:
        """Return the limits as JSON values."""
        return dataclasses.asdict(self)

    def check_flow(self, plain_bytes: int, archive_bytes: int) -> None:
        """Raise Refused where more has come out of an archive than may."""
        if plain_bytes > self.bytes:
            raise Refused(say("It comes to more than %(most)s bytes.", most=self.bytes), limit="bytes")
        if plain_bytes > max(RATIO_FLOOR_BYTES, archive_bytes * self.ratio):
            raise Refused(say("It grows to more than %(most)s times its size.", most=self.ratio), limit="ratio")


def parts(name: str, *, entry: str | None = None, exact: bool = False) -> tuple[str, ...]:
    """Return the names on an entry's way, the root's own as none; raises Refused for what leads out or is too long.

    A leading slash and ``.`` mean nothing, as to every tar. entry: what to call it in the error, where it is not name.
    exact: of a backup's layer.
    """
    path_max, depth_max = (EXACT_PATH_MAX_BYTES, EXACT_DEPTH_MAX) if exact else (PATH_MAX_BYTES, DEPTH_MAX)
    shown = name if entry is None else entry
    if "\0" in name:
        raise Refused("A name holds a zero byte.", shown)
    found = tuple(part for part in name.split("/") if part not in ("", "."))
    if ".." in found:
        raise Refused("A name leads out of the archive.", shown)
    try:
        encoded = [part.encode("utf-8", "surrogateescape") for part in found]
    except UnicodeEncodeError:
        raise Refused("A name cannot be one of a file.", ascii(shown)) from None
    if any(len(part) > NAME_MAX_BYTES for part in encoded):
        raise Refused(say("A name is longer than %(most)s bytes.", most=NAME_MAX_BYTES), shown, limit="name")
    if sum(map(len, encoded)) + len(encoded) > path_max:
        raise Refused(say("A path is longer than %(most)s bytes.", most=path_max), shown, limit="path")
    if len(found) > depth_max:
        raise Refused(say("Directories lie more than %(most)s deep.", most=depth_max), shown, limit="depth")
    return found


def owner(uid: int, gid: int, entry: str, ids: int = IDS) -> tuple[int, int]:
    """Return an entry's owner; raises Refused for ids that its container has not."""
    for kind, number in (("user", uid), ("group", gid)):
        if not 0 <= number < ids:
            template = next(one for one in SENTENCES if one.startswith(f"The {kind} "))
            raise Refused(say(template, number=number, most=ids - 1), entry)
    return uid, gid


def xattrs(headers: Mapping[str, str], *, directory: bool) -> tuple[dict[str, bytes], int]:
    """Return the extended attributes that an entry may have, and how many others it asked for.

    What is allowed: user.*, but for overlay's own marks; POSIX ACLs; a file's capabilities, without the namespace that
    they were given in: they count in the container's.
    """
    kept: dict[str, bytes] = {}
    refused = 0
    for key, text in headers.items():
        if not key.startswith(_XATTR):
            continue
        name, value = key.removeprefix(_XATTR), text.encode("utf-8", "surrogateescape")
        if name == _CAPABILITY and not directory and (rooted := capability(value)) is not None:
            kept[name] = rooted
        elif _plain(name, value) and len(kept) < _XATTRS_MAX:
            kept[name] = value
        else:
            refused += 1
    return kept, refused


def _plain(name: str, value: bytes) -> bool:
    if len(value) > _XATTR_MAX_BYTES or len(name.encode("utf-8", "surrogateescape")) > NAME_MAX_BYTES or "\0" in name:
        return False
    if name in _ACLS:
        return True
    return name.startswith("user.") and name != "user." and not name.startswith("user.overlay.")


def capability(value: bytes) -> bytes | None:
    """Return a file's capabilities without the id of the root that they belong to; None for what are none."""
    if len(value) < 4:
        return None
    (magic,) = struct.unpack_from("<I", value)
    if _VFS_CAP_SIZES.get(magic & 0xFF000000) != len(value):
        return None
    return struct.pack("<I", magic & 0x00FFFFFF | 0x02000000) + value[4:20]
