"""What every template may use."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpRequest


def page(_request: HttpRequest) -> dict[str, Any]:
    """Return the installation's host name and whether the panel is reached over https."""
    return {"panel_host": settings.HOSTNAME, "panel_secure": settings.SECURE}
