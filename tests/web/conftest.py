"""What tests of the web have: a host, a runtime in memory, and a product that waits long for its other processes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
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
