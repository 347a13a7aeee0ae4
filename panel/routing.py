"""Every WebSocket of the panel. What is not here is refused in words."""

from __future__ import annotations

from typing import Any

from django.urls import path, re_path

from containers.consumers.base import UnknownPath
from containers.consumers.events import EventsConsumer
from containers.consumers.stats import StatsConsumer
from containers.consumers.terminal import ConsoleConsumer, TerminalConsumer

websocket_urlpatterns: list[Any] = [
    path("ws/events", EventsConsumer.as_asgi()),
    path("ws/stats", StatsConsumer.as_asgi()),
    path("ws/containers/<str:name>/terminal", TerminalConsumer.as_asgi()),
    path("ws/containers/<str:name>/console", ConsoleConsumer.as_asgi()),
    re_path(r"", UnknownPath.as_asgi()),
]
