"""Rings a host's worker: there may be something to do. The row says what; a lost ring is rung again by the ticker."""

from __future__ import annotations

from functools import partial
from typing import Final
from uuid import UUID

from django.conf import settings
from django.db import transaction

from .outbox import Outbox

CANARY: Final = UUID(int=0)
"""Rung every few seconds by the ticker; the worker answers by setting its host's seen_at."""
GIVE_WAY_SEC: Final = 0.005
"""How long who rings lets the thread that sends go first; with a Redis that does not answer he goes on after that."""

_outbox: Outbox[tuple[UUID, str]] = Outbox("doorbell", lambda rings: publish(*rings[0]))


def ring(operation_id: UUID, host_name: str) -> None:
    """Ring for one operation once the present transaction is committed; never waits for long, never fails."""
    transaction.on_commit(partial(ring_now, operation_id, host_name), robust=True)


def ring_now(operation_id: UUID, host_name: str) -> None:
    """Ring without waiting for a commit."""
    if settings.REDIS_URL:
        _outbox.post(operation_id, (operation_id, host_name))
        # two threads that compute take turns: what this one has left to do can wait for the ring, not the other way
        _outbox.flush(GIVE_WAY_SEC)


def publish(operation_id: UUID, host_name: str) -> None:
    """Send the message now; raises what kombu raises, after 3 seconds at most."""
    from panel.celery import TASK, publisher, queue_name

    publisher.send_task(TASK, args=[str(operation_id)], queue=queue_name(host_name), retry=False)
