"""What every test of the web has: a product that waits long for its other processes, which are threads of a test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.utils import timezone, translation

from containers.clients import audit_seal, history, room, ticker_client
from containers.messaging import notices
from panel import health
from tests.web.sockets import WAIT_SEC

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
