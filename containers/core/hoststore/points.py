"""Snapshots as the store keeps them: one record each, ``containers/ID/snapshots/NAME.json``.

A record names layers, and so holds them; removing it is all that deleting a snapshot takes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, get_args

from ..errors import NotFound
from ..host import Host
from ..kernel import files
from ..model.spec import build
from ..names import check_name
from ..sentences import say

Kind = Literal["manual", "schedule", "safety"]
"""Why it was taken: somebody asked, a schedule did, or a restore needed an undo."""
KINDS: Final = get_args(Kind)
LINEAGE_MAX: Final = 200
"""So many ancestors are remembered, the youngest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A point to go back to. size_bytes: what it added on disk. spec: the container's spec at that time.

    layers: empty for a safety point of a restore that changed the configuration only. lineage: the snapshots that the
    container's state descended from then, oldest first, whether they are still there or not. expires_at: ISO 8601, or
    empty for never; a pinned one does not expire.
    """

    name: str
    layers: tuple[str, ...]
    note: str = ""
    created_at: str = ""
    size_bytes: int = 0
    spec: dict[str, Any] = field(default_factory=dict)
    kind: Kind = "manual"
    pinned: bool = False
    expires_at: str = ""
    lineage: tuple[str, ...] = ()


def descended(lineage: tuple[str, ...], name: str) -> tuple[str, ...]:
    """Return the lineage of what comes after a snapshot: its own, and it."""
    return (*lineage, name)[-LINEAGE_MAX:]


def directory(host: Host, container_id: str) -> Path:
    """Return the directory of a container's snapshot records."""
    return host.container_dir(container_id) / "snapshots"


def listed(host: Host, container_id: str) -> list[Snapshot]:
    """Return a container's snapshots, oldest first."""
    found = records(directory(host, container_id))
    return sorted(found, key=lambda snapshot: (snapshot.created_at, snapshot.name))


def records(place: Path) -> list[Snapshot]:
    """Return the snapshots whose records lie in a directory, in no order."""
    try:
        names = os.listdir(place)
    except FileNotFoundError:
        return []
    return [_read(place / name) for name in names if name.endswith(".json") and not name.startswith(".")]


def load(host: Host, container_id: str, name: str) -> Snapshot:
    """Return a snapshot; raises NotFound."""
    try:
        return _read(_path(host, container_id, name))
    except FileNotFoundError:
        raise NotFound(say("There is no snapshot %(name)s.", name=name)) from None


def save(host: Host, container_id: str, snapshot: Snapshot) -> None:
    """Record a snapshot, or replace its record."""
    files.write_json(_path(host, container_id, snapshot.name), dataclasses.asdict(snapshot))


def rename(host: Host, container_id: str, name: str, snapshot: Snapshot) -> None:
    """Put a record in the place of one of another name: first there are both, which share their layers."""
    save(host, container_id, snapshot)
    if snapshot.name != name:
        remove(host, container_id, name)


def remove(host: Host, container_id: str, name: str) -> None:
    """Forget a snapshot; its layers go with the next collect. One that is not there is fine."""
    path = _path(host, container_id, name)
    path.unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        files.sync_dir(path.parent)


def _path(host: Host, container_id: str, name: str) -> Path:
    return directory(host, container_id) / f"{check_name(name)}.json"


def _read(path: Path) -> Snapshot:
    data = files.read_json(path)
    return build(
        Snapshot, {**data, "layers": tuple(data["layers"]), "lineage": tuple(data.get("lineage", ()))}, "snapshot"
    )
