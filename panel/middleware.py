"""What every answer says to the browser, what is refused by where it comes from, and the API's shape of errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from asgiref.sync import iscoroutinefunction
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.decorators import sync_and_async_middleware
from django.utils.http import http_date

from containers.api.errors import error_response

from . import styles

GetResponse = Callable[[HttpRequest], Any]

SAFE_METHODS: Final = ("GET", "HEAD", "OPTIONS", "TRACE")
TRUSTED_SITES: Final = ("same-origin", "none")
"""What Sec-Fetch-Site may say of a request that changes something; none: typed in or a bookmark."""
API: Final = "/api/"
PERMISSIONS_POLICY: Final = (
    "accelerometer=(), camera=(), display-capture=(), geolocation=(), gyroscope=(), magnetometer=(), "
    "microphone=(), midi=(), payment=(), usb=()"
)


def content_security_policy(inline_styles: Sequence[str] = ()) -> str:
    """Return the policy: nothing from elsewhere, nobody frames us, and nothing inline but the style sheets named.

    inline_styles: source expressions of what the answer has in place, 'sha256-…'.
    """
    # older browsers do not count a WebSocket to the same origin as 'self'
    sockets = [origin.replace("http", "ws", 1) for origin in settings.BOXROOM_ORIGINS]
    return "; ".join(
        (
            "default-src 'self'",
            *([f"style-src 'self' {' '.join(inline_styles)}"] if inline_styles else []),
            f"connect-src 'self' {' '.join(sockets)}".rstrip(),
            "img-src 'self' data:",  # the QR code of a second factor
            "object-src 'none'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
            "form-action 'self'",
        )
    )


@sync_and_async_middleware
def ContentSecurityPolicy(get_response: GetResponse) -> GetResponse:
    """Refuse changes asked by other sites' pages, and put the security headers on every answer."""

    def before(request: HttpRequest) -> HttpResponse | None:
        site = request.headers.get("Sec-Fetch-Site", "same-origin")
        if request.method in SAFE_METHODS or site in TRUSTED_SITES:
            return None
        if request.path.startswith(API):
            return error_response(403, message="Another site's page asked for this.")
        return HttpResponse("Another site's page asked for this.\n", status=403, content_type="text/plain")

    def after(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        response.setdefault("Content-Security-Policy", content_security_policy(styles.allowed(request)))
        response.setdefault("Permissions-Policy", PERMISSIONS_POLICY)
        # the server below us sends none; pages see by it how far this clock is from their machine's
        response.setdefault("Date", http_date())
        return response

    return _wrap(get_response, before, after)


@sync_and_async_middleware
def ApiErrors(get_response: GetResponse) -> GetResponse:
    """Give Django's own errors under /api/ (a wrong method, a bad host, a broken view) the API's shape."""

    def after(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        wrong = response.status_code >= 400 and request.path.startswith(API)
        if not wrong or response.headers.get("Content-Type", "").startswith("application/json"):
            return response
        shaped = error_response(response.status_code)
        if "Allow" in response.headers:
            shaped["Allow"] = response.headers["Allow"]
        return shaped

    if iscoroutinefunction(get_response):

        async def asynchronous(request: HttpRequest) -> HttpResponseBase:
            return after(request, await get_response(request))

        return asynchronous

    def synchronous(request: HttpRequest) -> HttpResponseBase:
        return after(request, get_response(request))

    return synchronous


def _wrap(
    get_response: GetResponse,
    before: Callable[[HttpRequest], HttpResponse | None],
    after: Callable[[HttpRequest, HttpResponseBase], HttpResponseBase],
) -> GetResponse:
    """Return a middleware of the same kind, sync or async, as what it wraps."""
    if iscoroutinefunction(get_response):

        async def asynchronous(request: HttpRequest) -> HttpResponseBase:
            return after(request, before(request) or await get_response(request))

        return asynchronous

    def synchronous(request: HttpRequest) -> HttpResponseBase:
        return after(request, before(request) or get_response(request))

    return synchronous
