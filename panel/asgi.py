"""The web process's entry: HTTP to Django, WebSockets to their consumers."""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "panel.settings")

from panel.handler import get_application

django_application: Any = get_application()

# what follows reads models, so Django must be up
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402

from panel import bodies, long_running, sockets  # noqa: E402
from panel.routing import websocket_urlpatterns  # noqa: E402
from panel.static_serving import Static  # noqa: E402


class FixedRoot:
    """ASGI middleware: the root path is empty, whatever a client's Daphne-Root-Path header says."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Pass the request on with an empty root path."""
        await self._inner({**scope, "root_path": ""}, receive, send)


long_running.settle()
bodies.install()
sockets.install()

application = FixedRoot(
    ProtocolTypeRouter(
        {
            "http": Static(bodies.BodyLimit(django_application)),
            "websocket": URLRouter(websocket_urlpatterns),
        }
    )
)
