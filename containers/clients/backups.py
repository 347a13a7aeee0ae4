"""The web's side of the backups' socket: their bytes, as they come."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from django.conf import settings

from . import reading
from .reading import Stream


async def stored(destination: str, file: str) -> Stream:
    """Begin a backup that lies in a place. Raises NotFound, Busy, ReaderUnavailable."""
    return await _stream({"destination": destination, "file": file})


async def made_now(container_id: str, *, with_snapshots: bool) -> Stream:
    """Begin a backup that is made while it is sent; one that ends early is refused by whoever reads it back."""
    return await _stream({"container": container_id, "with_snapshots": with_snapshots})


async def _stream(asked: dict[str, Any]) -> Stream:
    return await reading.begun(Path(settings.BOXROOM_RUN_DIR) / "backup.sock", json.dumps(asked).encode() + b"\n")
