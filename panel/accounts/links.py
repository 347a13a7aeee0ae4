"""One-time sign-in links: how somebody without a password comes in, and how a forgotten one is replaced."""

from __future__ import annotations

import datetime as dt
import secrets
from typing import Final

from django.conf import settings
from django.db import transaction
from django.urls import reverse
from django.utils import timezone

from .models import SignInLink, User
from .tokens import digest

LIFETIME: Final = dt.timedelta(hours=24)


def create(user: User, *, lifetime: dt.timedelta = LIFETIME) -> str:
    """Make a link's secret for a user; the user's older unused links stop working."""
    secret = secrets.token_urlsafe(32)
    with transaction.atomic():
        SignInLink.objects.filter(user=user, used_at=None).delete()
        SignInLink.objects.create(user=user, digest=digest(secret), expires_at=timezone.now() + lifetime)
    return secret


def url(secret: str, *, origin: str | None = None) -> str:
    """Return the full address of a link; origin defaults to the first of the panel's origins."""
    return f"{origin or settings.BOXROOM_ORIGINS[0]}{reverse('account_link', args=[secret])}"


def find(secret: str) -> SignInLink | None:
    """Return the link if it may still be used, without using it."""
    link = SignInLink.objects.select_related("user").filter(digest=digest(secret), used_at=None).first()
    if link is None or link.expires_at <= timezone.now() or not link.user.is_active:
        return None
    return link


def use(secret: str) -> User | None:
    """Use a link up; return its user, or None where it was used, has expired, or never was. Of two at once one wins."""
    link = find(secret)
    if link is None:
        return None
    won = SignInLink.objects.filter(pk=link.pk, used_at=None).update(used_at=timezone.now())
    return link.user if won == 1 else None
