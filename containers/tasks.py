"""The worker's one task: somebody rang for an operation."""

from __future__ import annotations

import logging
from typing import Any
from uuid import UUID

from celery import Task
from celery.signals import worker_ready
from django.db import close_old_connections, connections

from panel import long_running
from panel.celery import TASK, app

from .bookkeeping import records
from .messaging import doorbell
from .operations import runner

log = logging.getLogger(__name__)


class _Doorbell(Task):  # type: ignore[misc]
    """Takes nothing of a message but the id: what else Celery's headers could ask for is dropped."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.request.update(callbacks=None, errbacks=None, chain=None, chord=None, group=None)
        return super().__call__(*args, **kwargs)


@app.task(name=TASK, base=_Doorbell, ignore_result=True, acks_late=False, max_retries=0)  # type: ignore[untyped-decorator]
def run(operation_id: str) -> None:
    """Run the operation, if its row says that it waits; a forged, doubled or late doorbell does nothing."""
    try:
        identity = UUID(operation_id)
        if identity == doorbell.CANARY:
            records.worker_seen()
        else:
            runner.run(identity)
    except ValueError:
        log.warning("a doorbell with no operation's id")
    finally:
        close_old_connections()


@worker_ready.connect  # type: ignore[untyped-decorator]
def ready(**_signal: Any) -> None:
    """Tell that the worker answers as soon as it does, without waiting for the ticker's canary."""
    long_running.settle()
    try:
        records.worker_seen()
    finally:
        connections.close_all()
