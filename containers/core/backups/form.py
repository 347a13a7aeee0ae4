"""What a backup is made of: a plain tar in one zstd stream. Pure; docs/backups.md describes it for others.

Its members, in this order: ``manifest.json``; each layer's own tar, cut into pieces; ``digests.json``, which tells the
sha256 of all of them. Nothing else may be in it, and their headers are of the one kind that header() makes.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from dataclasses import dataclass
from typing import Any, Final

from ..archives.rules import Refused
from ..errors import SpecError
from ..host import IDS_PER_CONTAINER
from ..hoststore.points import KINDS, LINEAGE_MAX
from ..model.idmap import IDS_MAX
from ..names import check_name
from ..sentences import say

FORMAT: Final = "boxroom-backup"
VERSION: Final = 1
MANIFEST: Final = "manifest.json"
DIGESTS: Final = "digests.json"
PIECE_BYTES: Final = 8 << 20
"""A piece of a layer is so long, unless it is its last."""
JSON_MAX_BYTES: Final = 16 << 20
LAYERS_MAX: Final = 2000
STACK_MAX: Final = 200
POINTS_MAX: Final = 1000
SUFFIX: Final = ".boxroom.tar.zst"
BLOCK: Final = 512
END: Final = bytes(2 * BLOCK)

HOST_ONLY: Final = frozenset({"id", "slot", "layers", "generation"})
"""What of a spec means something on its own host only."""
_NIC_HOST_ONLY: Final = frozenset({"host_link", "bridge"})
_FILE: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}_[0-9]{8}T[0-9]{6}Z(?:-[0-9]{1,3})?" + re.escape(SUFFIX), re.ASCII)
_SHA256: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A snapshot in a backup. layers: by their number in it, bottom first. container: its configuration then."""

    name: str
    layers: tuple[int, ...]
    container: dict[str, Any]
    note: str = ""
    created_at: str = ""
    size_bytes: int = 0
    kind: str = "manual"
    pinned: bool = False
    expires_at: str = ""
    lineage: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a backup holds. container: the spec without what is its host's; layers: about how much each takes on disk.

    root: the container's own stack of layers, by number, bottom first.
    """

    made_at: str
    container: dict[str, Any]
    sizes: tuple[int, ...]
    root: tuple[int, ...]
    lineage: tuple[str, ...] = ()
    points: tuple[Point, ...] = ()

    @property
    def name(self) -> str:
        """The container's name when it was made."""
        return str(self.container["name"])

    @property
    def size_bytes(self) -> int:
        """About how much it takes on disk, restored."""
        return sum(self.sizes)


def portable(spec: dict[str, Any]) -> dict[str, Any]:
    """Return a spec's JSON values without what means something on its own host only."""
    kept = {key: value for key, value in spec.items() if key not in HOST_ONLY}
    nics = kept.get("nics", ())
    kept["nics"] = [{key: one for key, one in nic.items() if key not in _NIC_HOST_ONLY} for nic in nics]
    return kept


def ids(manifest: Manifest) -> int:
    """Return how many owners its files may have, from 0 on: as many as its container, or any of its snapshots, has."""
    found = IDS_PER_CONTAINER
    for spec in (manifest.container, *(point.container for point in manifest.points)):
        security = spec.get("security")
        asked = security.get("ids") if isinstance(security, dict) else None
        if spec.get("privileged") is True:
            found = IDS_MAX
        elif isinstance(asked, int):
            found = max(found, min(asked, IDS_MAX))
    return found


def file_name(container: str, at: dt.datetime, number: int = 0) -> str:
    """Return what a backup's file is called. number: 1 and more where there is one of that second already."""
    stamp = at.astimezone(dt.UTC).strftime("%Y%m%dT%H%M%SZ")
    return f"{container}_{stamp}{f'-{number}' if number else ''}{SUFFIX}"


def is_file_name(text: str) -> bool:
    """Tell whether this is a name that file_name() makes, and so nothing that leads elsewhere as part of a path."""
    return _FILE.fullmatch(text) is not None


def piece_name(layer: int, piece: int) -> str:
    """Return the name of a piece of a layer's tar."""
    return f"layers/{layer:04d}/{piece:08d}"


def header(name: str, size: int) -> bytes:
    """Return a member's header: ustar, root's own, of no time."""
    fields = [
        name.encode("ascii").ljust(100, b"\0"),
        b"0000600\0",
        b"0000000\0" * 2,
        f"{size:011o}\0".encode("ascii"),
        b"00000000000\0",
        b" " * 8,
        b"0",
        bytes(100),
        b"ustar\x0000",
        bytes(247),
    ]
    block = b"".join(fields)
    return block[:148] + f"{sum(block):06o}\0 ".encode("ascii") + block[156:]


def read_header(block: bytes) -> tuple[str, int] | None:
    """Return the name and size that a header tells, None at the end; raises Refused for one that we never made."""
    if block == bytes(BLOCK):
        return None
    try:
        name = block[:100].rstrip(b"\0").decode("ascii")
        size = int(block[124:135], 8)
    except ValueError:
        raise Refused("It is no backup, or damaged.") from None
    if not 0 <= size <= max(PIECE_BYTES, JSON_MAX_BYTES) or block != header(name, size):
        raise Refused("It is no backup, or damaged.", ascii(name)[1:-1])
    return name, size


def padding(size: int) -> bytes:
    """Return what fills up a member's last block."""
    return bytes(-size % BLOCK)


def write_manifest(manifest: Manifest) -> bytes:
    """Return a manifest as it stands in a backup."""
    told = {
        "format": FORMAT,
        "version": VERSION,
        "made_at": manifest.made_at,
        "container": manifest.container,
        "layers": [{"size_bytes": size} for size in manifest.sizes],
        "root": {"layers": list(manifest.root), "lineage": list(manifest.lineage)},
        "points": [{name: getattr(one, name) for name in Point.__dataclass_fields__} for one in manifest.points],
    }
    return json.dumps(told, sort_keys=True, indent=1).encode() + b"\n"


def read_manifest(data: bytes) -> Manifest:
    """Return what a manifest says; raises Refused. Specs are JSON objects with a name, and nothing more is known."""
    try:
        told = json.loads(data)
    except (ValueError, RecursionError):
        raise _bad("it is not JSON") from None
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        raise _bad("it is another format")
    if told.get("version") != VERSION:
        raise Refused(
            say(
                "It is of version %(found)s of the format; this Boxroom reads %(known)s.",
                found=ascii(told.get("version"))[:20],
                known=VERSION,
            )
        )
    try:
        sizes = tuple(_count(one["size_bytes"]) for one in told["layers"])
        if not 1 <= len(sizes) <= LAYERS_MAX or len(told["points"]) > POINTS_MAX:
            raise _bad("it has too many layers or points, or none")
        points = tuple(_point(one, len(sizes)) for one in told["points"])
        if len({one.name for one in points}) != len(points):
            raise _bad("two points have one name")
        return Manifest(
            made_at=_moment(told["made_at"]),
            container=_spec(told["container"]),
            sizes=sizes,
            root=_stack(told["root"]["layers"], len(sizes), some=True),
            lineage=_names(told["root"]["lineage"]),
            points=points,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _bad(f"{type(error).__name__}") from None


def _point(told: dict[str, Any], layers: int) -> Point:
    if told["kind"] not in KINDS:
        raise _bad("a point is of an unknown kind")
    return Point(
        name=_name(told["name"]),
        layers=_stack(told["layers"], layers, some=False),
        container=_spec(told["container"]) if told["container"] else {},
        note=_text(told["note"], 500),
        created_at=_moment(told["created_at"]),
        size_bytes=_count(told["size_bytes"]),
        kind=told["kind"],
        pinned=told["pinned"] is True,
        expires_at=_moment(told["expires_at"]) if told["expires_at"] else "",
        lineage=_names(told["lineage"]),
    )


def write_digests(manifest: str, layers: list[tuple[str, int]]) -> bytes:
    """Return the last member: the manifest's sha256, and each layer's, with its length in bytes."""
    told = {"manifest": manifest, "layers": [{"sha256": sha256, "bytes": size} for sha256, size in layers]}
    return json.dumps(told, sort_keys=True, indent=1).encode() + b"\n"


def read_digests(data: bytes) -> tuple[str, list[tuple[str, int]]]:
    """Return what write_digests() was given; raises Refused."""
    try:
        told = json.loads(data)
        layers = [(_sha256(one["sha256"]), _count(one["bytes"])) for one in told["layers"]]
        return _sha256(told["manifest"]), layers
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Refused("Its digests cannot be read: it is damaged.", DIGESTS) from None


def _bad(why: str) -> Refused:
    return Refused(say("Its manifest cannot be read: %(error)s.", error=why), MANIFEST)


def _spec(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _bad("a configuration is none")
    _name(value["name"])
    return value


def _name(value: Any) -> str:
    try:
        return check_name(value)
    except (SpecError, TypeError):
        raise _bad("a name is none") from None


def _names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > LINEAGE_MAX:
        raise _bad("an ancestry is none")
    return tuple(_name(one) for one in value)


def _text(value: Any, most: int) -> str:
    if (
        not isinstance(value, str)
        or len(value) > most
        or any(not one.isprintable() and one not in "\n\t" for one in value)
    ):
        raise _bad("a note is none")
    return value


def _moment(value: Any) -> str:
    found = dt.datetime.fromisoformat(value)
    if found.tzinfo is None:
        raise _bad("a time has no zone")
    return found.astimezone(dt.UTC).isoformat(timespec="milliseconds")


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**60:
        raise _bad("a number is none")
    return value


def _sha256(value: Any) -> str:
    if not isinstance(value, str) or not _SHA256.fullmatch(value):
        raise ValueError("no sha256")
    return value


def _stack(value: Any, layers: int, *, some: bool) -> tuple[int, ...]:
    if not isinstance(value, list) or (some and not value) or len(value) > STACK_MAX:
        raise _bad("a stack of layers is none")
    if any(_count(one) >= layers for one in value):
        raise _bad("a layer is named that it does not hold")
    if len(set(value)) != len(value):
        raise _bad("a layer is in a stack twice")
    return tuple(value)
