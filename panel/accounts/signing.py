"""Signing in and out: by password (and second factor), and by a one-time link."""

from __future__ import annotations

from typing import Any, Final, cast

from allauth.account.internal.flows.login import perform_login, perform_password_login
from allauth.account.models import Login
from allauth.mfa.signals import authentication_failed
from django.conf import settings
from django.contrib.auth import authenticate, logout
from django.contrib.auth.signals import user_logged_in
from django.dispatch import receiver
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST

from . import attempts, audit, links
from .actor import Actor
from .addresses import source_ip
from .forms import SignInForm
from .models import User

BY_LINK: Final = "signed_in_by_link"
"""In the session of who came by a link: a new password may be set without the present one."""


def next_url(request: HttpRequest) -> str:
    """Return where to go afterwards: a path of this site, never another's."""
    wanted = request.POST.get("next") or request.GET.get("next") or ""
    own = url_has_allowed_host_and_scheme(wanted, allowed_hosts={request.get_host()}, require_https=request.is_secure())
    return wanted if wanted and own else settings.LOGIN_REDIRECT_URL


@never_cache
@sensitive_post_parameters("password")
@require_http_methods(["GET", "HEAD", "POST"])
def sign_in(request: HttpRequest) -> HttpResponse:
    """Show the form; sign in. 429 after too many failures."""
    if request.user.is_authenticated:
        return HttpResponseRedirect(next_url(request))
    form = SignInForm(request.POST or None)
    status = 200
    if request.method == "POST" and form.is_valid():
        username, ip = form.cleaned_data["login"].strip(), source_ip(request)
        if attempts.too_many(username, ip):
            form.add_error(None, _("Too many failed attempts. Try again in 15 minutes, or ask for a sign-in link."))
            status = 429
        else:
            user = authenticate(request, username=username, password=form.cleaned_data["password"])
            if isinstance(user, User):
                login = Login(user=user, redirect_url=next_url(request))
                return cast("HttpResponse", perform_password_login(request, {"username": username}, login))
            attempts.failed(username, ip)
            form.add_error(None, _("The user name or the password is not right."))
    return render(request, "account/sign_in.html", {"form": form, "next": next_url(request)}, status=status)


@require_POST
def sign_out(request: HttpRequest) -> HttpResponse:
    """End the session."""
    if isinstance(request.user, User):
        audit.record(Actor(request.user, source_ip(request)), "sign-out", "user", request.user.username)
    logout(request)
    return HttpResponseRedirect(reverse("account_login"))


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def by_link(request: HttpRequest, secret: str) -> HttpResponse:
    """Show whom a link signs in, and do it on POST: programs that look at links beforehand do not use it up."""
    ip = source_ip(request)
    if attempts.too_many(None, ip):
        return render(
            request, "account/link.html", {"problem": _("Too many failed attempts. Wait a while.")}, status=429
        )
    if request.method == "POST":
        user = links.use(secret)
        if user is not None:
            if request.user.is_authenticated:
                logout(request)
            request.session[BY_LINK] = True
            login = Login(user=user, redirect_url=reverse("account_change_password"))
            return cast("HttpResponse", perform_login(request, login))
    link = links.find(secret)
    if link is None:
        attempts.failed("", ip, action="sign-in.link")
        problem = _("This link has been used, has expired, or never was one. Ask for a new one.")
        return render(request, "account/link.html", {"problem": problem}, status=404)
    return render(request, "account/link.html", {"who": link.user.username})


def inactive(request: HttpRequest) -> HttpResponse:
    """Tell a user who was disabled."""
    return render(request, "account/inactive.html", status=403)


@receiver(user_logged_in)
def _signed_in(request: HttpRequest, user: User, **_more: Any) -> None:
    how = "sign-in.link" if request.session.get(BY_LINK) else attempts.ACTION
    attempts.succeeded(user.username, source_ip(request), action=how)


@receiver(authentication_failed)
def _wrong_code(request: HttpRequest, user: User, **_more: Any) -> None:
    attempts.failed(user.username, source_ip(request), action="sign-in.second-factor")
