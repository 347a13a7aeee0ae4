"""Who asks, from where, and with what: the first argument of everything that has an effect."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from containers.core.errors import CoreError

if TYPE_CHECKING:
    from .models import ApiToken, User


@dataclass(frozen=True, slots=True)
class Actor:
    """user: signed in and active. source_ip: of the request, None for commands. token: the one used, if any."""

    user: User
    source_ip: str | None = None
    token: ApiToken | None = None

    @property
    def name(self) -> str:
        """Return the user's name as the audit trail keeps it."""
        return self.user.username


class Forbidden(CoreError):
    """The object may be seen, but this may not be done to it by this user."""

    code = "forbidden"
