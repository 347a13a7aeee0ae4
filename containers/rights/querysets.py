"""Who may see and do what: the only door to rows that belong to somebody.

`visible_to(user, action)` returns the rows on which the user may do the action; what a user may not even view is
not there for him (404), what he may view but not act upon is refused by name (403).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self, TypeVar

from django.db import models
from django.db.models import Q

from .permissions import roles_that_may

if TYPE_CHECKING:
    from panel.accounts.models import User

    from ..keeping_models import Backup, Schedule, Trashed  # noqa: F401  named in bases, as text
    from ..models import Container, Image, Network, Operation  # noqa: F401  named in bases, as text

_M = TypeVar("_M", bound=models.Model)


class _Visible(models.QuerySet[_M]):
    project_field = "project"

    def visible_to(self, user: User, action: str = "view") -> Self:
        """Return the rows on which user may do action."""
        if not user.is_active:
            return self.none()
        if user.host_admin:
            return self
        roles = roles_that_may(action)
        if not roles:
            return self.none()
        member: dict[str, Any] = {
            f"{self.project_field}__in": user.memberships.filter(role__in=roles).values("project_id")
        }
        return self.filter(Q(**member) | self._everybodys(action))

    def _everybodys(self, action: str) -> Q:
        return Q(pk__in=())


class ContainerQuerySet(_Visible["Container"]):
    """Containers, seen through their projects."""


class OperationQuerySet(_Visible["Operation"]):
    """Operations, seen through their projects; those of no project by host administrators only."""


class NetworkQuerySet(_Visible["Network"]):
    """Networks: a project's own, and those of no project, which everybody may use."""

    def _everybodys(self, action: str) -> Q:
        return Q(project__isnull=True) if action in ("view", "use") else Q(pk__in=())


class ScheduleQuerySet(_Visible["Schedule"]):
    """Schedules, seen through their projects."""


class TrashQuerySet(_Visible["Trashed"]):
    """What was deleted, seen through its project; images by host administrators only."""


class BackupQuerySet(_Visible["Backup"]):
    """Backups, seen through their projects; those of no project by host administrators only."""


class ImageQuerySet(models.QuerySet["Image"]):
    """Images: everybody who is signed in may see and use them; host administrators change them."""

    def visible_to(self, user: User, action: str = "view") -> Self:
        """Return the images on which user may do action."""
        if user.is_active and (user.host_admin or action in ("view", "use")):
            return self
        return self.none()
