"""What tests of the web have: a host, a runtime in memory, and a product that waits long for its other processes.

Once more, on a PostgreSQL (panel/instance/testing.py), only what may look at a database is run: pytest-django refuses
every query of the others, whatever database there is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.contrib.auth.hashers import Argon2PasswordHasher
from django.utils import timezone, translation

from containers.clients import audit_seal, history, room, ticker_client
from containers.messaging import notices
from containers.models import Host
from panel import health
from tests.web.sockets import WAIT_SEC
from tests.web.world import FakeRuntime, make_host

LIMITS = (
    (audit_seal, "_TIMEOUT_SEC"), (history, "LIMITS_SEC"), (room, "_TIMEOUT_SEC"), (ticker_client, "TIMEOUT_SEC"),
    (health, "TIMEOUT_SEC"), (notices, "TIMEOUT_SEC"), (notices, "PUBLISH_SEC"),
)  # fmt: skip


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what has no database where a PostgreSQL is what the tests are run for."""
    if not os.environ.get("DATABASE_URL"):
        return
    here = Path(__file__).parent
    with_one = [item for item in items if here not in item.path.parents or _asks_a_database(item)]
    config.hook.pytest_deselected(items=sorted(set(items) - set(with_one), key=items.index))
    items[:] = with_one


def _asks_a_database(item: pytest.Item) -> bool:
    fixtures = {"db", "transactional_db"} & set(getattr(item, "fixturenames", ()))
    return bool(fixtures) or item.get_closest_marker("django_db") is not None


@pytest.fixture(autouse=True, scope="session")
def passwords_cost_little() -> Iterator[None]:
    """Hash passwords in one round over 8 KiB: what a guess costs is nothing that a test of the web asks."""
    with pytest.MonkeyPatch.context() as patch:
        for name, least in (("time_cost", 1), ("memory_cost", 8), ("parallelism", 1)):
            patch.setattr(Argon2PasswordHasher, name, least)
        yield


@pytest.fixture(autouse=True)
def slow_is_not_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """No page is shown without what the ticker or Redis says, only because that process had no core for a moment."""
    for module, name in LIMITS:
        monkeypatch.setattr(module, name, WAIT_SEC)


@pytest.fixture(autouse=True)
def own_language() -> Iterator[None]:
    """Leave the thread as it was: a request sets language and time zone for whatever comes after it."""
    yield
    translation.deactivate()
    timezone.deactivate()


@pytest.fixture
def host(db: None) -> Host:
    """Return the host of a new installation."""
    return make_host()


@pytest.fixture
def runtime() -> FakeRuntime:
    """Return the host core, in memory."""
    return FakeRuntime()
