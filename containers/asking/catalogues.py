"""What image servers offer: asked for by an operation, because only a worker goes out; kept in the host's facts."""

from __future__ import annotations

from typing import Any, Final

from panel.accounts.actor import Actor

from ..core.errors import NotFound
from ..models import Host, Operation, local_host
from . import queue, sources
from .access import require_host_admin

FACT: Final = "image_servers"
OBJECT_MAX_CHARS: Final = 63


def fetch(actor: Actor, server: str, *, idempotency_key: str | None = None) -> Operation:
    """Ask for a server's list to be fetched anew; raises SpecError (field server), PolicyDenied, Forbidden."""
    if known := queue.known(actor, idempotency_key):
        return known
    address = server.strip().rstrip("/")
    require_host_admin(actor, "image-catalogue", address[:OBJECT_MAX_CHARS])
    host = local_host()
    sources.check_server(address, host, field="server")

    def make() -> Operation:
        name = address.partition("://")[2][:OBJECT_MAX_CHARS]
        return queue.insert(
            actor, "image-catalogue", host, idempotency_key, name=name, arguments={"server": address}, cancellable=True
        )

    return queue.committed(actor, idempotency_key, make)


def known(host: Host) -> dict[str, dict[str, Any]]:
    """Return what was fetched, by server: {"at", "items"}."""
    found: dict[str, dict[str, Any]] = host.facts.get(FACT) or {}
    return found


def items(host: Host, server: str, **wanted: str) -> list[dict[str, Any]]:
    """Return what a server offers, by name; wanted: q (in any of its words), os, release, variant, architecture.

    Raises NotFound where its list was not fetched yet.
    """
    kept = known(host).get(server.strip().rstrip("/"))
    if kept is None:
        raise NotFound("The list of this server was not fetched yet.")
    words = wanted.pop("q", "").lower().split()
    exact = {name: value.lower() for name, value in wanted.items() if value}
    return [item for item in kept["items"] if _fits(item, words, exact)]


def _fits(item: dict[str, Any], words: list[str], exact: dict[str, str]) -> bool:
    text = " ".join(str(item[name]) for name in ("alias", "os", "release", "variant", "architecture")).lower()
    return all(word in text for word in words) and all(str(item[name]).lower() == one for name, one in exact.items())
