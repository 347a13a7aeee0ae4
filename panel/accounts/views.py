"""One's own account: password, tokens, second factor, language and theme, open sessions."""

from __future__ import annotations

import datetime as dt
from typing import cast

from allauth.mfa.models import Authenticator
from allauth.mfa.utils import is_mfa_enabled
from django.conf import settings
from django.contrib import messages
from django.contrib.auth import update_session_auth_hash
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from containers.core.errors import CoreError
from containers.showing.sentences import translated
from panel.pages.web import back_of

from . import audit, services, tokens
from .actor import Actor
from .addresses import source_ip
from .forms import PasswordForm, PreferencesForm, TokenForm
from .models import User
from .signing import BY_LINK


def _actor(request: HttpRequest) -> Actor:
    return Actor(cast("User", request.user), source_ip(request))


@never_cache
@login_required
@require_GET
def account(request: HttpRequest) -> HttpResponse:
    """Show the account page."""
    return _account(request)


def _account(
    request: HttpRequest, *, token_form: TokenForm | None = None, secret: str | None = None, status: int = 200
) -> HttpResponse:
    user = cast("User", request.user)
    here = request.session.session_key
    context = {
        "tokens": user.api_tokens.order_by("-created_at"),
        "token_form": token_form or TokenForm(),
        "secret": secret,
        "preferences": PreferencesForm(instance=user),
        "second_factor": is_mfa_enabled(user, [Authenticator.Type.TOTP]),
        "sessions": [
            {"key": row.session_key[:8], "until": row.expire_date, "here": row.session_key == here}
            for row in services.sessions_of(user)
        ],
        "now": timezone.now(),
    }
    return render(request, "account/account.html", context, status=status)


@never_cache
@login_required
@sensitive_post_parameters()
@require_http_methods(["GET", "HEAD", "POST"])
def password(request: HttpRequest) -> HttpResponse:
    """Set or change the password; every other session of the user ends."""
    user = cast("User", request.user)
    by_link = bool(request.session.get(BY_LINK)) or not user.has_usable_password()
    form = PasswordForm(request.POST or None, user=user, needs_present=not by_link)
    if request.method == "POST" and form.is_valid():
        user.set_password(form.cleaned_data["new"])
        user.save(update_fields=["password"])
        request.session.pop(BY_LINK, None)
        update_session_auth_hash(request, user)  # rotates the session's key, too
        services.end_sessions(user, but=request.session.session_key)
        services.rights_changed(user)
        audit.record(_actor(request), "password.set", "user", user.username)
        messages.success(request, _("Your password is set. Other sessions have ended."))
        return HttpResponseRedirect(settings.LOGIN_REDIRECT_URL if by_link else request.path)
    context = {"form": form, "first": by_link, "username": user.username}
    return render(request, "account/password.html", context)


@never_cache
@login_required
@require_POST
def make_token(request: HttpRequest) -> HttpResponse:
    """Make a token and show its secret, this once."""
    form = TokenForm(request.POST)
    if not form.is_valid():
        return _account(request, token_form=form, status=422)
    days = form.cleaned_data["days"]
    expires_at = timezone.now() + dt.timedelta(days=days) if days else None
    try:
        _row, secret = tokens.create(
            _actor(request),
            name=form.cleaned_data["name"],
            expires_at=expires_at,
            read_only=form.cleaned_data["read_only"],
        )
    except CoreError as error:
        form.add_error("name", translated(error.message))
        return _account(request, token_form=form, status=422)
    return _account(request, secret=secret)


@login_required
@require_POST
def delete_token(request: HttpRequest, token_id: int) -> HttpResponse:
    """Delete a token."""
    try:
        tokens.delete(_actor(request), token_id)
    except CoreError as error:
        messages.error(request, translated(error.message))
    return redirect("account")


@login_required
@require_POST
def end_sessions(request: HttpRequest) -> HttpResponse:
    """End every other session of the user, with its sockets."""
    user = cast("User", request.user)
    ended = services.end_sessions(user, but=request.session.session_key)
    services.rights_changed(user)
    audit.record(_actor(request), "session.end-others", "user", user.username, detail={"sessions": ended})
    messages.success(request, _("All other sessions have ended."))
    return redirect("account")


@login_required
@require_POST
def preferences(request: HttpRequest) -> HttpResponse:
    """Save language and theme; from the sidebar of whatever page this is."""
    user = cast("User", request.user)
    form = PreferencesForm(request.POST, instance=user)
    response = HttpResponseRedirect(back_of(request))
    if form.is_valid():
        form.save()
        _set_language(response, user.language)
    return response


def _set_language(response: HttpResponse, language: str) -> None:
    """Keep the language in the cookie that Django's middleware reads; empty follows the browser."""
    name = settings.LANGUAGE_COOKIE_NAME
    if language:
        response.set_cookie(name, language, max_age=365 * 86400, samesite="Lax", secure=settings.SECURE, httponly=True)
    else:
        response.delete_cookie(name, samesite="Lax")
