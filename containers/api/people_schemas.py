"""What the API's calls on projects, people and tokens take."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from panel.accounts.models import Role

from .parsing import Body, Name, Text


class ProjectIn(Body):
    """A project to make."""

    name: Name
    description: Annotated[Text, Field(max_length=500)] = ""


class ProjectChanges(Body):
    """What is to be different; what is not given stays."""

    name: Name | None = None
    description: Annotated[Text, Field(max_length=500)] | None = None


RoleName = Literal["viewer", "operator", "administrator"]


class MemberIn(Body):
    """A member's role."""

    role: RoleName


class UserIn(Body):
    """A user to make. Nobody chooses another's password: the answer holds a one-time sign-in link."""

    username: Name
    host_admin: bool = False


class UserChanges(Body):
    """Whether the user may use the panel at all."""

    active: bool


def _aware(value: str) -> str:
    try:
        at = dt.datetime.fromisoformat(value)
    except ValueError:
        raise ValueError("Give a time as RFC 3339, such as 2030-01-31T12:00:00Z.") from None
    if at.tzinfo is None:
        raise ValueError("Give the time with its zone, such as 2030-01-31T12:00:00Z.")
    try:
        at.astimezone(dt.UTC)
    except OverflowError:
        raise ValueError("This time is out of range.") from None
    return value


Time = Annotated[str, Field(max_length=40), AfterValidator(_aware)]


class TokenIn(Body):
    """A token to make for oneself. expires_at: null = never."""

    name: Annotated[Text, Field(min_length=1, max_length=63)]
    expires_at: Time | None = None
    read_only: bool = False


assert set(RoleName.__args__) == set(Role.values)  # type: ignore[attr-defined]  # one list of roles
