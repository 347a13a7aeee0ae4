"""Where a request came from."""

from __future__ import annotations

import ipaddress

from django.http import HttpRequest


def source_ip(request: HttpRequest) -> str | None:
    """Return the peer's address as the web server saw it; headers that a client can write do not count.

    Behind a reverse proxy daphne is told which header to trust (--proxy-headers-host X-Real-IP) and puts it there.
    """
    return valid_ip(request.META.get("REMOTE_ADDR"))


def valid_ip(text: str | None) -> str | None:
    """Return text if it is an IP address (an IPv4 one mapped into IPv6 is unwrapped), else None."""
    try:
        address = ipaddress.ip_address(text or "")
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(address)


def neighbourhood(text: str | None) -> str:
    """Return the network that an attacker is likely to hold as one: a /24 of IPv4, a /64 of IPv6."""
    if text is None:
        return "unknown"
    prefix = 64 if ":" in text else 24
    return str(ipaddress.ip_network(f"{text}/{prefix}", strict=False))
