"""Addresses of signing in and of one's own account. The names are those that allauth looks for."""

from __future__ import annotations

from allauth.account.views import reauthenticate
from django.urls import include, path
from django.views.generic import RedirectView

from . import signing, views

urlpatterns = [
    path("sign-in", signing.sign_in, name="account_login"),
    path("sign-in/link/<str:secret>", signing.by_link, name="account_link"),
    path("sign-out", signing.sign_out, name="account_logout"),
    path("account", views.account, name="account"),
    path("account/inactive", signing.inactive, name="account_inactive"),
    path("account/reauthenticate", reauthenticate, name="account_reauthenticate"),
    path("account/password", views.password, name="account_change_password"),
    path("account/tokens", views.make_token, name="account_make_token"),
    path("account/tokens/<int:token_id>/delete", views.delete_token, name="account_delete_token"),
    path("account/sessions/end", views.end_sessions, name="account_end_sessions"),
    path("account/preferences", views.preferences, name="account_preferences"),
    path("account/second-factor/", RedirectView.as_view(pattern_name="account")),
    path("account/second-factor/", include("allauth.mfa.urls")),
]
