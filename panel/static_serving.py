"""Serves the static files before Django sees the request.

A page asks for a dozen of them at once, and each would cross the middlewares, a thread and a request object of its
own: thirty times the work of opening the file. Which files there are, in which encodings and for how long a browser
may keep them, WhiteNoise knows.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from django.conf import settings
from whitenoise.middleware import WhiteNoiseMiddleware

from .middleware import PERMISSIONS_POLICY, content_security_policy

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_ASKED: Final = {
    b"accept-encoding": "HTTP_ACCEPT_ENCODING",
    b"if-none-match": "HTTP_IF_NONE_MATCH",
    b"if-modified-since": "HTTP_IF_MODIFIED_SINCE",
    b"range": "HTTP_RANGE",
}
"""The request's headers that count, by the names that WhiteNoise reads them under."""


def security_headers() -> dict[str, str]:
    """Return what every answer carries; for others than static files, Django's middlewares add the same."""
    return {
        "Content-Security-Policy": content_security_policy(),
        "Permissions-Policy": PERMISSIONS_POLICY,
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": settings.X_FRAME_OPTIONS,
        "Referrer-Policy": str(settings.SECURE_REFERRER_POLICY),
        "Cross-Origin-Opener-Policy": str(settings.SECURE_CROSS_ORIGIN_OPENER_POLICY),
    }


class Static:
    """ASGI middleware: answers for a static file, passes every other request on."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._found = WhiteNoiseMiddleware(application)
        self._always = [(name.encode(), value.encode()) for name, value in security_headers().items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass on. A file of some hundred kB is read here and now: it is in the page cache."""
        file = self._found.files.get(scope["path"])
        if file is None:
            await self._application(scope, receive, send)
            return
        asked = {_ASKED[name]: value.decode("latin-1") for name, value in scope["headers"] if name in _ASKED}
        answer = file.get_response(scope["method"], asked)
        body = b""
        if answer.file is not None:
            with answer.file:
                body = answer.file.read()
        headers = [(name.encode("latin-1"), str(value).encode("latin-1")) for name, value in answer.headers]
        status = int(answer.status)
        await send({"type": "http.response.start", "status": status, "headers": headers + self._always})
        await send({"type": "http.response.body", "body": body})
