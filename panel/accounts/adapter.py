"""How allauth is bent to Boxroom: nobody signs up by himself, and the peer's address is the web server's word."""

from __future__ import annotations

from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from django.http import HttpRequest

from .addresses import source_ip


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc]  # allauth has no types
    """Settings that allauth asks for in code."""

    def is_open_for_signup(self, _request: HttpRequest) -> bool:
        """Return False: host administrators make users."""
        return False

    def get_client_ip(self, request: HttpRequest) -> str:
        """Return the peer's address; headers that a client can write do not count."""
        return source_ip(request) or "0.0.0.0"

    def send_notification_mail(self, *_args: Any, **_kwargs: Any) -> None:
        """Send nothing: there is no mail server; the audit trail tells."""
