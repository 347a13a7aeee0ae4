"""Celery, as a doorbell: one task, JSON, an operation's id and nothing else.

The row in the database says what to do; a doorbell may be lost, doubled or forged without harm. So messages are
acknowledged early, there is no result backend, no remote control, no canvas, and publishing never waits long.
`app` is the worker's, `publisher` everybody else's (and the worker's own, for ringing again).
"""

from __future__ import annotations

import logging
import os
from typing import Any, Final

import django
from celery import Celery
from celery.app.amqp import AMQP
from django.conf import settings
from kombu.connection import Connection
from kombu.entity import Queue

TASK: Final = "boxroom.run"
RETRY_MAX_SEC: Final = 1.0

if os.environ.get("BOXROOM_ROLE") == "worker":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "panel.settings")
    django.setup()


def queue_name(host: str) -> str:
    """Return the name of a host's queue."""
    return f"host.{host}"


class _EagerConnection(Connection):
    """Tries again at once when Redis is gone: kombu's own pauses grow to half a minute."""

    def _ensure_connection(self, *args: Any, **kwargs: Any) -> Any:
        kwargs.update(interval_start=0.1, interval_step=0.2, interval_max=RETRY_MAX_SEC)
        # errback, max_retries are the only ones that Celery gives by position
        return super()._ensure_connection(*args[:2], **kwargs)  # type: ignore[no-untyped-call]


class _EagerAMQP(AMQP):  # type: ignore[misc]
    Connection = _EagerConnection


class _WorkerApp(Celery):  # type: ignore[misc]
    amqp_cls = "panel.celery:_EagerAMQP"


_COMMON: Final[dict[str, Any]] = {
    "broker_url": settings.REDIS_URL or "memory://",
    "task_serializer": "json",
    "accept_content": ["json"],
    "result_accept_content": [],
    "result_backend": None,
    "task_ignore_result": True,
    "task_send_sent_event": False,
    "worker_send_task_events": False,
    "worker_enable_remote_control": False,
}


def _worker_app() -> Celery:
    app = _WorkerApp("boxroom", set_as_current=True, fixups=[])
    name = queue_name(settings.BOXROOM_HOST)
    app.conf.update(
        **_COMMON,
        include=["containers.tasks"],
        task_default_queue=name,
        task_queues=[Queue(name)],  # type: ignore[no-untyped-call]
        task_create_missing_queues=False,
        task_acks_late=False,
        task_time_limit=None,
        task_soft_time_limit=None,
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_eta_task_limit=100,
        broker_connection_retry_on_startup=True,
        broker_connection_retry=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "visibility_timeout": 3600,
            "socket_connect_timeout": 5,
            "socket_timeout": 30,
            "health_check_interval": 25,
            "retry_on_timeout": True,
        },
    )
    for noisy in ("celery.worker.strategy", "celery.app.trace"):
        # a line for every doorbell, canaries too, would drown what matters
        logging.getLogger(noisy).setLevel(logging.WARNING)
    app.on_after_finalize.connect(_close_surface, weak=False)
    return app


def _close_surface(sender: Celery, **_signal: Any) -> None:
    """Unregister map, chord and the rest: what is not registered, no message can call."""
    for name in [name for name in sender.tasks if name.startswith("celery.")]:
        sender.tasks.pop(name)


def _publisher_app() -> Celery:
    app = Celery("boxroom-publisher", set_as_current=False, fixups=[])
    app.conf.update(
        **_COMMON,
        broker_pool_limit=1,
        broker_connection_timeout=3,
        broker_connection_retry=False,
        task_publish_retry=False,
        broker_transport_options={
            "visibility_timeout": 3600,
            "socket_connect_timeout": 3,
            "socket_timeout": 3,
            "max_retries": 0,
        },
    )
    return app


app = _worker_app()
publisher = _publisher_app()
