"""What every page's view needs: who asks, and answers that suit both htmx and a plain form."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, cast

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.db import OperationalError
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.utils.translation import gettext as _

from containers.core.errors import CoreError, NotFound
from containers.messaging import notices
from containers.showing.sentences import translated
from panel.accounts.actor import Actor, Forbidden
from panel.accounts.addresses import source_ip
from panel.accounts.models import User
from panel.health import database_message

log = logging.getLogger(__name__)

P = ParamSpec("P")
View = Callable[Concatenate[HttpRequest, P], HttpResponse]

STATUS_OF = {
    "forbidden": 403,
    "policy": 403,
    "not-found": 404,
    "invalid-value": 422,
    "already-exists": 409,
    "busy": 409,
    "changed": 412,
    "invalid-transition": 409,
    "in-use": 409,
    "timed-out": 409,
    "storage-full": 409,
    "setup-failed": 409,
}


def user_of(request: HttpRequest) -> User:
    """Return the signed-in user of a view behind `page`."""
    return cast("User", request.user)


def actor_of(request: HttpRequest) -> Actor:
    """Return who asks, for services and for the audit trail."""
    return Actor(user_of(request), source_ip=source_ip(request))


def wants_fragment(request: HttpRequest) -> bool:
    """Return whether the request is from a script of the page, which needs no whole page."""
    return "HX-Request" in request.headers


def page(view: View[P]) -> View[P]:
    """Make a view one for signed-in people; what may not be seen is 404, what may not be done 403 with its reason."""

    @wraps(view)
    def checked(request: HttpRequest, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
        vars(request)["heard"] = notices.position()  # before anything is read
        try:
            return view(request, *args, **kwargs)
        except NotFound as error:
            raise Http404(error.message) from error
        except Forbidden as error:
            return render(request, "pages/refused.html", {"message": translated(error.message)}, status=403)

    return cast("View[P]", login_required(checked))


def changes(view: View[P]) -> View[P]:
    """Make a view one that changes something: POST only, errors become a toast, or a message on the page before."""

    @wraps(view)
    def checked(request: HttpRequest, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
        if request.method != "POST":
            return HttpResponse(status=405, headers={"Allow": "POST"})
        try:
            return view(request, *args, **kwargs)
        except CoreError as error:
            return refuse(request, error)
        except OperationalError as error:
            log.error("database: %s", error)
            return refuse(request, CoreError(database_message(error)))

    return cast("View[P]", login_required(checked))


def refuse(request: HttpRequest, error: CoreError) -> HttpResponse:
    """Answer with the error: a toast for a script, a message on the page the form was on otherwise."""
    if wants_fragment(request):
        return toast("error", translated(error.message), status=STATUS_OF.get(error.code, 400))
    messages.error(request, translated(error.message))
    return HttpResponseRedirect(back_of(request))


def in_dialog(request: HttpRequest, error: CoreError) -> HttpResponse:
    """Answer with the error in the open dialog; as refuse() where there is none, as without scripts."""
    if not wants_fragment(request):
        return refuse(request, error)
    context = {"field": error.field or "name", "message": translated(error.message)}
    response = render(request, "parts/field_error.html", context)
    response["HX-Retarget"], response["HX-Reswap"] = "#dialog-error", "innerHTML"
    return response


def back_of(request: HttpRequest) -> str:
    """Return the path of the page the request came from, never another site's."""
    referer = request.headers.get("Referer", "")
    own = f"{request.scheme}://{request.get_host()}"
    return referer.removeprefix(own) or "/" if referer.startswith(f"{own}/") else "/"


def toast(level: str, text: str, *, status: int = 200, triggers: dict[str, Any] | None = None) -> HttpResponse:
    """Answer with nothing but a short message in the page's corner. level: ok, info or error. triggers: more events."""
    response = HttpResponse(status=status)
    response["HX-Trigger"] = json.dumps({"boxroom:toast": {"level": level, "text": text}, **(triggers or {})})
    return response


def done(request: HttpRequest, where: str, *, text: str = "", **changed: str) -> HttpResponse:
    """Answer a change that was taken: scripts refresh what changed at once, plain forms go to `where`.

    changed: topics of the page, such as container="web-1".
    """
    if not wants_fragment(request):
        if text:
            messages.success(request, text)
        return HttpResponseRedirect(where)
    triggers: dict[str, Any] = {"boxroom:changed": changed, "boxroom:close": True}
    if text:
        triggers["boxroom:toast"] = {"level": "info", "text": text}  # asked for, not done yet
    response = HttpResponse(status=204)
    response["HX-Trigger"] = json.dumps(triggers)
    return response


def go(request: HttpRequest, where: str) -> HttpResponse:
    """Send the browser to another page, from a script's request too."""
    if wants_fragment(request):
        return HttpResponse(status=204, headers={"HX-Redirect": where})
    return HttpResponseRedirect(where)


def whole_number(text: str | None, default: int, *, least: int, most: int) -> int:
    """Return a number out of the address bar, clamped; default where it is none."""
    try:
        return max(least, min(most, int(text or default)))
    except ValueError:
        return default


def unknown() -> Http404:
    """Return the exception for what is not there, or not to be seen."""
    return Http404(_("There is nothing here, or nothing you may see."))
