"""API tokens: random secrets of which only a digest is kept."""

from __future__ import annotations

import datetime as dt
import hashlib
import secrets
from typing import Final

from django.db import transaction
from django.utils import timezone

from containers.core.errors import NotFound, SpecError
from containers.core.model.spec import check_text
from containers.core.sentences import say

from . import audit
from .actor import Actor, Forbidden
from .models import ApiToken, User

PREFIX: Final = "bxr_"
"""So that a leaked token can be recognised by scanners."""
TOKENS_MAX: Final = 100
_USED_EVERY: Final = dt.timedelta(minutes=1)


def digest(secret: str) -> str:
    """Return what is kept of a secret. A plain hash is enough: the secret has 256 random bits."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def create(
    actor: Actor, *, name: str, expires_at: dt.datetime | None = None, read_only: bool = False
) -> tuple[ApiToken, str]:
    """Make a token for the actor himself; return it and its secret, which cannot be had again.

    Raises SpecError for a time that has passed or too many tokens, Forbidden where a token would outlive its maker.
    """
    check_text(name, field="name", most=63)
    if expires_at is not None and expires_at <= timezone.now():
        raise SpecError("This time has passed.", field="expires_at")
    if actor.token and actor.token.expires_at and (expires_at is None or expires_at > actor.token.expires_at):
        raise Forbidden("A token cannot make one that lives longer than itself.", field="expires_at")
    if actor.user.api_tokens.count() >= TOKENS_MAX:
        raise SpecError(
            say("You have %(most)s tokens; delete one that is not used any more.", most=TOKENS_MAX), field="name"
        )
    with transaction.atomic():
        token, secret = issue(actor.user, name=name, expires_at=expires_at, read_only=read_only)
        audit.record(actor, "token.create", "token", name, detail={"token": token.pk, "read_only": read_only})
    return token, secret


def issue(
    user: User, *, name: str, expires_at: dt.datetime | None = None, read_only: bool = False
) -> tuple[ApiToken, str]:
    """Make a token without asking anybody: for the command line."""
    secret = PREFIX + secrets.token_urlsafe(32)
    token = ApiToken.objects.create(
        user=user, name=name, digest=digest(secret), expires_at=expires_at, read_only=read_only
    )
    return token, secret


def find(secret: str) -> ApiToken | None:
    """Return the valid token of an active user for a secret, noting (to the minute) that it was used."""
    token = ApiToken.objects.select_related("user").filter(digest=digest(secret)).first()
    now = timezone.now()
    if token is None or not token.user.is_active or (token.expires_at is not None and token.expires_at <= now):
        return None
    if token.last_used_at is None or abs(now - token.last_used_at) > _USED_EVERY:
        ApiToken.objects.filter(pk=token.pk).update(last_used_at=now)
    return token


def delete(actor: Actor, token_id: int) -> None:
    """Delete one of the actor's own tokens; raises NotFound."""
    token = actor.user.api_tokens.filter(pk=token_id).first()
    if token is None:
        raise NotFound("You have no such token.")
    with transaction.atomic():
        audit.record(actor, "token.delete", "token", token.name, detail={"token": token.pk})
        token.delete()
