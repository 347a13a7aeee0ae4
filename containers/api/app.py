"""The API as a whole: its routers, its errors, its description."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, path, re_path
from ninja import NinjaAPI

from . import (
    audit,
    backups,
    commands,
    containers,
    errors,
    files,
    filing,
    giving,
    images,
    networks,
    operations,
    people,
    schedules,
    storage,
    trash,
    waiting,
)
from .auth import TokenOrSession
from .parsing import StrictParser
from .writing import FastJSON

api = NinjaAPI(
    title="Boxroom",
    version="1",
    description="System containers for teams. docs/api.md tells of errors, waiting, lists and sockets.",
    urls_namespace="api",
    auth=TokenOrSession(),
    parser=StrictParser(),
    renderer=FastJSON(),
    docs_url=None,  # the viewer needs inline scripts, which the Content-Security-Policy forbids
    openapi_url="/openapi.json",
)
for module in (
    containers,
    files,
    filing,
    schedules,
    backups,
    trash,
    waiting,
    commands,
    operations,
    images,
    networks,
    giving,
    people,
    storage,
    audit,
):
    api.add_router("", module.router)
errors.install(api)


urls: list[URLPattern | URLResolver] = [
    path("v1/", api.urls),
    re_path(r"", errors.unknown_path),
]
