"""Who calls: a bearer token, or the browser's session with its CSRF token."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from ninja.security.base import AuthBase
from ninja.utils import check_csrf

from panel.accounts import tokens
from panel.accounts.actor import Actor, Forbidden
from panel.accounts.addresses import source_ip

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


class TokenOrSession(AuthBase):
    """Takes the Authorization header where there is one; only without it the session's cookie counts."""

    openapi_type = "http"
    openapi_scheme = "bearer"

    def __call__(self, request: HttpRequest) -> Actor | None:
        """Return who calls, or None (401); raises Forbidden for a read-only token or a missing CSRF token."""
        header = request.headers.get("Authorization")
        if header is not None:
            return self._by_token(request, header)
        user: Any = request.user
        if not user.is_authenticated:
            return None
        if request.method not in SAFE_METHODS and check_csrf(request):
            if getattr(request, "from_elsewhere", False):  # panel.forgery
                raise Forbidden("This was sent from another address than the panel's own.")
            raise Forbidden("The CSRF token is missing or wrong; programs send Authorization: Bearer TOKEN.")
        return Actor(user, source_ip(request))

    def _by_token(self, request: HttpRequest, header: str) -> Actor | None:
        scheme, _, secret = header.partition(" ")
        if scheme.lower() != "bearer":
            return None
        token = tokens.find(secret.strip())
        if token is None:
            return None
        if token.read_only and request.method not in SAFE_METHODS:
            raise Forbidden("This token may only read.")
        return Actor(token.user, source_ip(request), token)


def actor(request: HttpRequest) -> Actor:
    """Return who calls, inside of a view."""
    who: Actor = request.auth  # type: ignore[attr-defined]
    return who
