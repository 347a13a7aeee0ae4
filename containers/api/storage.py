"""/storage: what the host's disk holds, and who of it."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from ninja import Router

from containers.models import local_host
from containers.showing import storage

from .auth import actor

router = Router(tags=["host"])


@router.get("/storage", summary="What the disk holds")
def get_storage(request: HttpRequest) -> dict[str, Any]:
    """Used and free, what images, containers, snapshots and the trash hold, and what the storage can do."""
    return storage.overview(actor(request).user, local_host())
