"""/healthz names the part that does not answer."""

from __future__ import annotations

import datetime as dt
import secrets
import subprocess
import time
from pathlib import Path

import pytest
import redis
from django.utils import timezone

from containers.asking import services
from containers.models import local_host
from panel import health
from tests.web.sockets import WAIT_SEC

pytestmark = pytest.mark.django_db


@pytest.fixture
def redis_url(tmp_path, settings, monkeypatch):
    """A real Redis of its own, on a socket."""
    socket = Path("/tmp") / f"bx{secrets.token_hex(4)}.sock"  # short: the path of a socket ends at 107 bytes
    command = ["redis-server", "--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(tmp_path)]
    # what is slow is not silent here
    monkeypatch.setattr(services, "WORKER_SILENT_SEC", WAIT_SEC)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + WAIT_SEC
        while True:
            try:
                client = redis.Redis(unix_socket_path=str(socket))
                client.ping()
                client.close()
                break
            except redis.ConnectionError:
                assert time.monotonic() < deadline
                time.sleep(0.01)
        settings.REDIS_URL = f"redis+socket://{socket}"
        yield process
    finally:
        process.kill()
        process.wait()
        socket.unlink(missing_ok=True)


def seen(seconds_ago: float) -> None:
    host = local_host()
    host.seen_at = timezone.now() - dt.timedelta(seconds=seconds_ago)
    host.save()


def test_all_well(redis_url, client):
    seen(1)
    response = client.get("/healthz")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


def test_a_silent_worker_is_named(redis_url, client):
    seen(3600)
    response = client.get("/healthz")
    assert (response.status_code, response.json()["part"]) == (503, "worker")


def test_a_dead_redis_is_named(redis_url, client):
    seen(1)
    redis_url.kill()
    redis_url.wait()
    response = client.get("/healthz")
    assert (response.status_code, response.json()["part"]) == (503, "redis")


def test_a_dead_database_is_named(client, monkeypatch):
    from django.db import OperationalError, connection

    def broken(*_args, **_kwargs):
        raise OperationalError("disk I/O error")

    monkeypatch.setattr(connection, "cursor", broken)
    response = client.get("/healthz")
    assert (response.status_code, response.json()["part"]) == (503, "database")


@pytest.fixture
def full_disk(tmp_path):
    """A directory on a small disk that is full."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "test", tmp_path], check=True)
    try:
        assert not health.is_full(tmp_path)
        (tmp_path / "much").write_bytes(bytes(240 * 1024))
        yield tmp_path
    finally:
        subprocess.run(["umount", "--lazy", tmp_path], check=True)


def test_a_full_disk_is_named_before_who_is_silent_for_it(full_disk, client, monkeypatch):
    from django.db import connection

    seen(3600)
    monkeypatch.setitem(connection.settings_dict, "NAME", str(full_disk / "db.sqlite3"))
    monkeypatch.setattr(connection, "vendor", "sqlite")
    response = client.get("/healthz")
    assert (response.status_code, response.json()["part"]) == (503, "database")
    assert response.json()["message"] == health.FULL


@pytest.mark.parametrize(("language", "words"), [("en", "is full"), ("de", "ist voll")])
def test_a_page_tells_of_a_full_disk_wherever_the_database_failed(language, words, client, monkeypatch):
    from django.contrib.sessions.backends.base import SessionBase
    from django.db import OperationalError

    def full(*_args, **_kwargs):
        raise OperationalError("database or disk is full")

    monkeypatch.setattr(SessionBase, "is_empty", full)  # as where the session is kept, behind every view
    client.raise_request_exception = False
    response = client.get("/sign-in", headers={"Accept-Language": language})
    assert response.status_code == 503
    assert words in response.content.decode()
