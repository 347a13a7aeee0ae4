"""/healthz: whether web, database, Redis and worker all answer."""

from __future__ import annotations

import logging
from typing import Any

import redis
from django.db import DatabaseError, OperationalError, connection
from django.http import HttpRequest, JsonResponse
from redis.backoff import NoBackoff
from redis.retry import Retry

from containers.asking import services
from containers.messaging import notices
from containers.models import local_host

TIMEOUT_SEC = 5.0
"""A busy host lets Redis wait for a second or two, and that is no fault of it."""

log = logging.getLogger(__name__)


def database_message(error: OperationalError) -> str:
    """Return what is told of a database that fails."""
    if "disk is full" in str(error) or "No space left" in str(error):
        return "The disk that holds the database is full: nothing can be changed until there is room again."
    return "The database does not answer; try again."


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
    return ""


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
