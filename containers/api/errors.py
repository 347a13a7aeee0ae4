"""One shape for every error under /api/, and one table from codes to HTTP statuses."""

from __future__ import annotations

import logging
from typing import Any, Final

from django.core.exceptions import RequestDataTooBig
from django.db import OperationalError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from ninja import NinjaAPI
from ninja.errors import AuthenticationError, HttpError, ValidationError

from containers.core.errors import CoreError
from panel.health import database_message

log = logging.getLogger(__name__)

STATUS_OF_CODE: Final[dict[str, int]] = {
    "already-exists": 409,
    "bad-archive": 422,
    "bad-request": 400,
    "busy": 409,
    "changed": 412,
    "cancelled": 409,
    "forbidden": 403,
    "host-unsupported": 409,
    "in-use": 409,
    "internal-error": 500,
    "invalid-transition": 409,
    "invalid-value": 422,
    "method-not-allowed": 405,
    "not-found": 404,
    "policy": 403,
    "setup-failed": 409,
    "storage-full": 409,
    "timed-out": 409,
    "too-large": 413,
    "too-many": 429,
    "unauthenticated": 401,
    "unavailable": 503,
}
CODE_OF_STATUS: Final[dict[int, str]] = {
    400: "bad-request",
    401: "unauthenticated",
    403: "forbidden",
    404: "not-found",
    405: "method-not-allowed",
    413: "too-large",
    429: "too-many",
    500: "internal-error",
    503: "unavailable",
}
MESSAGE_OF_STATUS: Final[dict[int, str]] = {
    400: "The request could not be understood.",
    401: "Send a valid token: Authorization: Bearer TOKEN.",
    403: "You may not do this.",
    404: "There is nothing here.",
    405: "This path does not take this method.",
    413: "The body is too large.",
    429: "Too many requests; wait a moment.",
    500: "Something went wrong here; the log says what.",
    503: "This is not available at the moment; try again.",
}


class BadRequest(CoreError):
    """Not JSON, a wrong type, or an unknown field."""

    code = "bad-request"


class TooLarge(CoreError):
    """The body is larger than what this call takes."""

    code = "too-large"


class TooMany(CoreError):
    """The caller asks too often, or for too much at once."""

    code = "too-many"


class Unavailable(CoreError):
    """A part that is needed does not answer."""

    code = "unavailable"


def error_response(
    status: int, *, code: str | None = None, message: str | None = None, field: str | None = None, **details: Any
) -> JsonResponse:
    """Return an error in the API's shape; code and message default to those of the status."""
    body = {
        "code": code or CODE_OF_STATUS.get(status, "error"),
        "message": message or MESSAGE_OF_STATUS.get(status, "The request failed."),
        "field": field,
        **details,
    }
    response = JsonResponse(body, status=status)
    if status == 401:
        response["WWW-Authenticate"] = "Bearer"
    return response


def of_core_error(error: CoreError) -> JsonResponse:
    """Translate one of the runtime's or the services' errors."""
    return JsonResponse(error.as_dict(), status=STATUS_OF_CODE.get(error.code, 500))


def of_exception(request: HttpRequest, error: Exception) -> JsonResponse:
    """Translate any exception; of what nobody expected the log tells more than the answer."""
    if isinstance(error, CoreError):
        return of_core_error(error)
    if isinstance(error, OperationalError):
        log.error("database: %s", error)
        return error_response(503, message=database_message(error))
    log.error("%s %s", request.method, request.path, exc_info=error)
    return error_response(500)


_WRONG_VALUE: Final = frozenset(
    """
    string_too_short string_too_long string_pattern_mismatch string_unicode
    greater_than greater_than_equal less_than less_than_equal multiple_of finite_number
    too_short too_long literal_error enum value_error assertion_error union_tag_invalid
    datetime_parsing datetime_from_date_parsing timezone_aware
    """.split()
)
"""pydantic's error types that mean: the type is right, the value is not. All others are a wrong shape."""


def of_validation_error(error: ValidationError) -> JsonResponse:
    """Translate what does not fit a schema: 400 for a wrong shape, before 422 for a wrong value."""
    problems = sorted(error.errors, key=lambda problem: problem["type"] in _WRONG_VALUE)
    problem = problems[0]
    source, *path = problem["loc"]
    if source == "body":
        path = path[1:]  # the parameter's name in the view
    if problem["type"].startswith("union_tag_"):
        path = [*path, "type"]
    field = ".".join(str(part) for part in _without_tag(path)) or None
    status, code = (422, "invalid-value") if problem["type"] in _WRONG_VALUE else (400, "bad-request")
    message = _MESSAGES.get(problem["type"]) or f"{problem['msg'].removeprefix('Value error, ')}."
    if problem["type"] == "missing" and not path:
        message = "Send a JSON object."
    return error_response(status, code=code, message=message.replace("..", "."), field=field)


def _without_tag(path: list[Any]) -> list[Any]:
    """Return a field's path as it stands in the JSON: pydantic puts the kind of an image's source into it."""
    return path[:1] + path[2:] if path[:1] == ["source"] and len(path) > 2 else path


_MESSAGES: Final = {
    "extra_forbidden": "This field is not known here.",
    "missing": "This field is needed.",
    "model_type": "Send a JSON object.",
    "model_attributes_type": "Send a JSON object.",
    "union_tag_invalid": "There is no such kind of source.",
    "union_tag_not_found": "This field is needed.",
    "string_unicode": "The text is not valid Unicode.",
}


def install(api: NinjaAPI) -> None:
    """Register the handlers of all errors with the API."""

    for kind in (CoreError, OperationalError, Exception):
        api.exception_handler(kind)(of_exception)

    @api.exception_handler(ValidationError)
    def validation_error(_request: HttpRequest, error: ValidationError) -> HttpResponse:
        return of_validation_error(error)

    @api.exception_handler(AuthenticationError)
    def not_authenticated(_request: HttpRequest, _error: AuthenticationError) -> HttpResponse:
        return error_response(401)

    @api.exception_handler(HttpError)
    def http_error(_request: HttpRequest, error: HttpError) -> HttpResponse:
        message = "The body is not JSON." if error.status_code == 400 else None
        return error_response(error.status_code, message=message)

    @api.exception_handler(Http404)
    def not_found(_request: HttpRequest, _error: Http404) -> HttpResponse:
        return error_response(404)

    @api.exception_handler(RequestDataTooBig)
    def too_large(_request: HttpRequest, _error: RequestDataTooBig) -> HttpResponse:
        return error_response(413)


@csrf_exempt  # nothing is done here, and an unknown path is 404 for every method
def unknown_path(_request: HttpRequest, *_args: Any, **_kwargs: Any) -> HttpResponse:
    """Answer whatever under /api/ is no resource."""
    return error_response(404)
