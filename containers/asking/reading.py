"""What is in snapshots, for people and programs: what differs, what is there, and files taken out of them."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Final

from django.conf import settings

from panel.accounts import audit
from panel.accounts.actor import Actor

from ..bookkeeping import points, specs
from ..clients import reading
from ..core.errors import SpecError
from ..core.filenames import parsed
from ..core.host import Host
from ..core.model.differences import differences
from ..models import Container, Snapshot
from .access import find_container
from .points import find

PATH_MAX: Final = 4096
ACTION: Final = "files"


def _point(container: Container, name: str) -> Snapshot | None:
    """Return a snapshot, or None for what the container is now; raises NotFound."""
    return find(container, name) if name else None


def _with_files(container: Container, name: str) -> Snapshot | None:
    found = _point(container, name)
    if found is not None and found.holds == "configuration":
        raise SpecError("This point holds the configuration only.", field="snapshot")
    return found


def changes(actor: Actor, name: str, before: str, after: str) -> dict[str, Any]:
    """Return what is to be done to one point to have the other: {"files", "configuration"}. "" is now.

    files: what core.reading.compare tells; None where one of them holds none. configuration: a list of field, before
    and after; None where one of them holds none. Raises NotFound, Forbidden, ReaderUnavailable.
    """
    container = find_container(actor, name, ACTION)
    rows = [_point(container, one) for one in (before, after)]
    files = None
    if all(row is None or row.holds != "configuration" for row in rows):
        files = reading.ask(container.pk, "changes", before=before, after=after)
    configuration = None
    if all(row is None or row.holds != "files" for row in rows):
        old, new = (_configuration(container, row) for row in rows)
        configuration = [dataclasses.asdict(one) for one in differences(old, new)]
    return {"before": before or None, "after": after or None, "files": files, "configuration": configuration}


def _configuration(container: Container, row: Snapshot | None) -> dict[str, Any]:
    if row is not None:
        return points.configuration(row.spec)
    host = Host(settings.STATE_DIR, settings.BOXROOM_INSTANCE)
    spec = dataclasses.asdict(specs.spec_of(container, host))
    return points.configuration(json.loads(json.dumps(spec)))


def put_back_changes(actor: Actor, name: str, snapshot: str, path: str, *, exact: bool) -> dict[str, Any]:
    """Return what putting a file or directory of a snapshot back changes, as `changes` tells of files.

    exact: what is there now and was not then is removed; it stays otherwise, and is not told.
    """
    container = find_container(actor, name, ACTION)
    _with_files(container, snapshot)
    found = reading.ask(container.pk, "changes", before="", after=snapshot, path=parsed(path))
    if not exact:
        found["items"] = [item for item in found["items"] if item["change"] != "removed"]
        found["removed"] = {"count": 0, "size_bytes": 0}
    return found


def text(actor: Actor, name: str, before: str, after: str, path: str) -> dict[str, Any]:
    """Return in which lines a file differs: {"diff": unified} or {"diff": None, "reason"}."""
    container = find_container(actor, name, ACTION)
    for one in (before, after):
        _with_files(container, one)
    return reading.ask(container.pk, "text", before=before, after=after, path=_path(path))


def listing(actor: Actor, name: str, snapshot: str, path: str) -> dict[str, Any]:
    """Return a directory of a snapshot: {"items", "complete"}."""
    container = find_container(actor, name, ACTION)
    _with_files(container, snapshot)
    return reading.ask(container.pk, "list", after=snapshot, path=_path(path))


def prepare_taking(actor: Actor, name: str, snapshot: str, path: str) -> tuple[Container, str]:
    """Check that somebody may take a file or directory out of a snapshot, and tell the audit trail."""
    container = find_container(actor, name, ACTION)
    _with_files(container, snapshot)
    where = _path(path)
    detail = {"snapshot": snapshot, "path": where}
    audit.record(actor, "snapshot.read", "container", name, project=container.project.name, detail=detail)
    return container, where


def _path(path: str) -> str:
    if not path.startswith("/") or len(path) > PATH_MAX or "\0" in path:
        raise SpecError("Give an absolute path.", field="path")
    return path
