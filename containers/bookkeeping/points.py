"""Snapshots: the record in a host's store as a row, and what of its spec a restore brings back."""

from __future__ import annotations

import datetime as dt
from typing import Any, Final

from django.utils import timezone

from ..core.errors import SpecError
from ..core.model.spec import Spec
from ..models import Container, Snapshot
from . import specs

NOT_RESTORED: Final = frozenset(
    {"name", "slot", "image_name", "layers", "machine_id", "created_at", "generation", "ephemeral"}
)
"""What makes a container itself, and stays; and what would have it removed as soon as it stops."""


def moment(text: str | None) -> dt.datetime | None:
    """Return a time of the store's, or None for none."""
    return dt.datetime.fromisoformat(text) if text else None


def columns_of(found: dict[str, Any]) -> dict[str, Any]:
    """Return the columns of a snapshot's row. found: the fields of core.hoststore.points.Snapshot."""
    return {
        "note": found.get("note", ""),
        "layers": list(found["layers"]),
        "spec": found.get("spec") or {},
        "size_bytes": found.get("size_bytes", 0),
        "created_at": moment(found.get("created_at")) or timezone.now(),
        "kind": found.get("kind", "manual"),
        "pinned": found.get("pinned", False),
        "expires_at": moment(found.get("expires_at")),
        "lineage": list(found.get("lineage", ())),
    }


def take(container: Container, name: str, found: dict[str, Any], created_by: str | None = None) -> Snapshot:
    """Write a snapshot of the store's into its row. created_by None: as it is."""
    more = {} if created_by is None else {"created_by": created_by}
    row: Snapshot = Snapshot.objects.update_or_create(
        container=container, name=name, defaults={**columns_of(found), **more}
    )[0]
    return row


def configuration(spec: dict[str, Any]) -> dict[str, Any]:
    """Return the columns of a container's row that a restore of the configuration sets; raises SpecError."""
    if not spec:
        raise SpecError("This snapshot holds no configuration.", field="what")
    columns = specs.columns_of(Spec.from_dict(spec))
    return {name: value for name, value in columns.items() if name not in NOT_RESTORED}
