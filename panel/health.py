"""/healthz: whether web, database, Redis and worker all answer; and what is told where the database does not."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Any, Final

import redis
from django.db import DatabaseError, OperationalError, connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.utils.translation import gettext_noop as _
from django.views.defaults import server_error
from redis.backoff import NoBackoff
from redis.retry import Retry

from containers.asking import services
from containers.messaging import notices
from containers.models import local_host

TIMEOUT_SEC = 5.0
"""A busy host lets Redis wait for a second or two, and that is no fault of it."""

FULL: Final = _("The disk that holds the database is full: nothing can be changed until there is room again.")
SILENT: Final = _("The database does not answer; try again.")
FULL_BELOW_BYTES: Final = 64 * 1024
"""With less room the database takes in nothing: its journal grows by pages of 4 KiB, a dozen for a change."""

log = logging.getLogger(__name__)


def database_message(error: OperationalError) -> str:
    """Return what is told of a database that fails."""
    if "disk is full" in str(error) or "No space left" in str(error):
        return FULL
    return SILENT


def failed(request: HttpRequest) -> HttpResponse:
    """Answer what went wrong, being asked while the exception is handled; a failing database's reason is told."""
    error = sys.exception()
    if not isinstance(error, OperationalError):
        return server_error(request)
    log.error("database: %s", error)
    return render(request, "503.html", {"message": database_message(error)}, status=503)


def healthz(_request: HttpRequest) -> JsonResponse:
    """Answer 200 {"status": "ok"}, or 503 naming the first part that does not answer."""
    for part, answers in (("database", _database), ("redis", _redis), ("worker", _worker)):
        problem = answers()
        if problem:
            body: dict[str, Any] = {"status": "unavailable", "part": part, "message": problem}
            return JsonResponse(body, status=503)
    return JsonResponse({"status": "ok"})


def _database() -> str:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError as error:
        log.warning("healthz: database: %s", error)
        return "The database does not answer."
    if connection.vendor == "sqlite" and is_full(Path(connection.settings_dict["NAME"]).parent):
        return FULL
    return ""


def is_full(directory: Path) -> bool:
    """Whether the file system of a directory has no room for a change of the database."""
    try:
        state = os.statvfs(directory)
    except OSError:
        return False  # a database in memory, as tests have
    return state.f_bavail * state.f_frsize < FULL_BELOW_BYTES


def _redis() -> str:
    url = notices.redis_url()
    if not url:
        return "This installation has no Redis."
    client = redis.Redis.from_url(
        url, socket_timeout=TIMEOUT_SEC, socket_connect_timeout=TIMEOUT_SEC, retry=Retry(NoBackoff(), 0)
    )
    try:
        client.ping()
    except (redis.RedisError, OSError) as error:
        log.warning("healthz: redis: %s", error)
        return "Redis does not answer."
    finally:
        client.close()
    return ""


def _worker() -> str:
    return "" if services.worker_answers(local_host()) else "The worker has not answered for a while."
