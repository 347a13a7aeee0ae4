"""What is in a host's trash, as rows."""

from __future__ import annotations

import datetime as dt

from panel.accounts.models import Project

from ..core.model.deleted import Entry
from ..models import Host, Trashed


def take(host: Host, entry: Entry) -> Trashed:
    """Write an entry of the store's into its row."""
    row: Trashed = Trashed.objects.update_or_create(
        pk=entry.id,
        defaults={
            "host": host,
            "project": Project.objects.filter(name=entry.project).first() if entry.project else None,
            "kind": entry.kind,
            "name": entry.name,
            "container": entry.container,
            "container_id": entry.container_id,
            "size_bytes": entry.size_bytes,
            "detail": entry.detail,
            "deleted_at": dt.datetime.fromisoformat(entry.deleted_at),
            "deleted_by": entry.deleted_by,
            "expires_at": dt.datetime.fromisoformat(entry.expires_at),
        },
    )[0]
    return row
