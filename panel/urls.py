"""Every address of the panel."""

from __future__ import annotations

from django.urls import include, path

from containers.api.app import urls as api_urls
from containers.api.errors import unknown_path

from .health import healthz

handler500 = "panel.health.failed"

urlpatterns = [
    path("healthz", healthz, name="healthz"),
    path("api", unknown_path),
    path("api/", include(api_urls)),
    path("", include("panel.accounts.urls")),
    path("containers/", include("containers.urls")),
    path("", include("panel.pages.urls")),
]
