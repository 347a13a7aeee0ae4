"""Reads request bodies: strict JSON, within a limit."""

from __future__ import annotations

import json
from typing import Annotated, Any, Final, NoReturn

from django.http import HttpRequest
from ninja.parser import Parser
from pydantic import AfterValidator, BaseModel, ConfigDict

from containers.core.errors import SpecError
from containers.core.model.spec import encodable
from containers.core.names import check_name

from .errors import BadRequest, TooLarge

JSON_MAX_BYTES: Final = 9 * 1024**2
"""Room for exec's standard input; panel.bodies refuses more before it is even read."""


class StrictParser(Parser):
    """JSON without NaN and Infinity, whose errors name what is wrong."""

    def parse_body(self, request: HttpRequest) -> Any:
        """Return the body's JSON value; raises BadRequest or TooLarge."""
        body = request.body
        if len(body) > JSON_MAX_BYTES:
            raise TooLarge(f"A JSON body holds at most {JSON_MAX_BYTES} bytes.")
        return json.loads(body, parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> NoReturn:
    raise BadRequest(f"{name} is not JSON.")


class Body(BaseModel):
    """A request's body: unknown fields and wrong types are refused, nothing is converted."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    def given(self) -> dict[str, Any]:
        """Return the fields that were sent, without those left out."""
        return self.model_dump(exclude_unset=True)


def _name(value: str) -> str:
    try:
        return check_name(value)
    except SpecError as error:
        raise ValueError(error.message) from None


def _unicode(value: str) -> str:
    # JSON may name half of a surrogate pair, which no encoding has
    if not encodable(value):
        raise ValueError("The text is not valid Unicode.")
    return value


def _no_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("NUL is not allowed.")
    return _unicode(value)


Name = Annotated[str, AfterValidator(_name)]
Text = Annotated[str, AfterValidator(_no_nul)]
Input = Annotated[str, AfterValidator(_unicode)]
