"""Answers to what may have been forged, by the true reason: sent from elsewhere, or without a token that counts."""

from __future__ import annotations

from typing import Final

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _

from panel.pages.web import toast, wants_fragment

ELSEWHERE: Final = ("Origin checking failed", "Referer checking failed")
"""How the reasons of django.middleware.csrf begin that say nothing of the token."""


def refused(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Answer 403 and say why: a toast for a script of the page, a page otherwise. reason: the middleware's words.

    The API words its errors itself, and finds in request.from_elsewhere which of the two it was.
    """
    from_elsewhere = vars(request)["from_elsewhere"] = reason.startswith(ELSEWHERE)
    if request.path.startswith("/api/"):
        return HttpResponse(status=403)
    if from_elsewhere:
        why = _(
            "This was sent from another address than the panel's own, which takes changes from its own pages only. "
            "Behind a proxy, “up --origin” names the address under which people reach it."
        )
    else:
        why = _("The token of the form is missing or too old: open the page again and send it from there.")
    if wants_fragment(request):
        return toast("error", why, status=403)
    return render(request, "403.html", {"why": why}, status=403)
