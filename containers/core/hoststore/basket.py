"""What was deleted and can be had back: one directory each below ``basket/``, with what it was inside.

    basket/ENTRY/entry.json      what it is, when and by whom it was deleted, when it goes for good
    basket/ENTRY/container/      a container's directory, as it was
    basket/ENTRY/snapshot.json   a snapshot's record, or image.json an image's

It counts as soon as the second is there, which is moved in, and out again, by one rename. Its layers stay meanwhile.
"""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path
from typing import Final

from ..errors import NotFound
from ..host import Host
from ..kernel import files
from ..model.deleted import Entry, Kind
from ..model.spec import build
from . import points

PAYLOAD: Final[dict[Kind, str]] = {"container": "container", "snapshot": "snapshot.json", "image": "image.json"}
_ID: Final = re.compile(r"[0-9a-f]{12}|[0-9a-f]{32}", re.ASCII)


def directory(host: Host, entry_id: str) -> Path:
    """Return an entry's directory; raises NotFound for what is no id."""
    if not _ID.fullmatch(entry_id):
        raise NotFound("There is no such thing in the trash.")
    return host.basket_dir / entry_id


def payload(host: Host, entry: Entry) -> Path:
    """Return where the thing itself lies."""
    return directory(host, entry.id) / PAYLOAD[entry.kind]


def write(host: Host, entry: Entry) -> Path:
    """Make or replace an entry's directory; it counts when its payload is moved in."""
    place = directory(host, entry.id)
    place.mkdir(mode=0o700, exist_ok=True)
    files.write_json(place / "entry.json", dataclasses.asdict(entry))
    files.sync_dir(host.basket_dir)
    return place


def load(host: Host, entry_id: str) -> Entry:
    """Return an entry that counts; raises NotFound."""
    try:
        entry = build(Entry, files.read_json(directory(host, entry_id) / "entry.json"), "entry")
    except FileNotFoundError:
        raise NotFound("It is not in the trash any more.") from None
    if not payload(host, entry).exists():
        raise NotFound("It is not in the trash any more.")
    return entry


def ids(host: Host) -> list[str]:
    """Return the names of all entries, also of those that do not count."""
    try:
        return sorted(name for name in os.listdir(host.basket_dir) if _ID.fullmatch(name))
    except FileNotFoundError:
        return []


def listed(host: Host) -> dict[str, Entry]:
    """Return the entries that count, by id; raises where one cannot be read."""
    found = {}
    for entry_id in ids(host):
        try:
            found[entry_id] = load(host, entry_id)
        except NotFound:
            continue
    return found


def hollow(host: Host, entry_id: str) -> bool:
    """Whether an entry has nothing in it: its payload was not moved in yet, or has been moved out."""
    place = directory(host, entry_id)
    return place.is_dir() and not any((place / name).exists() for name in PAYLOAD.values())


def layers(host: Host, entry_id: str) -> set[str]:
    """Return the layers that an entry holds; raises where that is unknown."""
    place = directory(host, entry_id)
    used: set[str] = set()
    for name in ("snapshot.json", "image.json"):
        if (place / name).exists():
            used.update(files.read_json(place / name)["layers"])
    if (place / "container").exists():
        root = files.read_json(place / "container" / "root.json")
        used |= {*root["layers"], root["writable"]}
        for record in points.records(place / "container" / "snapshots"):
            used.update(record.layers)
    return used
