"""Looking objects up for somebody: NotFound for what he may not see, Forbidden for what he may see but not do.

What is refused by a role is told to the audit trail.
"""

from __future__ import annotations

from typing import Any, NoReturn, TypeVar
from uuid import UUID

from django.db import models

from panel.accounts import audit
from panel.accounts.actor import Actor, Forbidden
from panel.accounts.models import Project

from ..bookkeeping import records
from ..core.errors import NotFound
from ..core.sentences import say
from ..models import Container, Host, Image, Network, Operation, local_host
from ..rights.permissions import roles_that_may

_Row = TypeVar("_Row", bound=models.Model)


def find_container(actor: Actor, name: str, action: str = "view") -> Container:
    """Return the container, if the actor may do the action on it; raises NotFound or Forbidden."""
    # a host's facts are 20 KB of JSON, which few who ask for a container look at
    rows = Container.objects.select_related("host", "project", "image").defer("host__facts")
    return _find(rows, actor, action, "container", name=name)


def find_to_act(actor: Actor, name: str, action: str) -> Container:
    """Return the container as find_container() does, with nothing but what it is and whose: all else is read later."""
    rows = Container.objects.select_related("host", "project").only("name", "host__name", "project__name")
    return _find(rows, actor, action, "container", name=name)


def find_image(actor: Actor, name: str, action: str = "view", host: Host | None = None) -> Image:
    """Return the image, if the actor may do the action on it; raises NotFound or Forbidden."""
    rows = Image.objects.select_related("host")
    return _find(rows, actor, action, "image", name=name, host=host or local_host())


def find_network(actor: Actor, name: str, action: str = "view", host: Host | None = None) -> Network:
    """Return the network, if the actor may do the action on it; raises NotFound or Forbidden."""
    rows = Network.objects.select_related("host", "project")
    return _find(rows, actor, action, "network", name=name, host=host or local_host())


def find_operation(actor: Actor, operation_id: UUID, action: str = "view") -> Operation:
    """Return the operation, if the actor may do the action on it; raises NotFound or Forbidden."""
    rows = Operation.objects.select_related("host", "container", "project", "actor")
    return _find(rows, actor, action, "operation", pk=operation_id)


def find_project(actor: Actor, name: str, action: str = "view") -> Project:
    """Return the project, if the actor has the role that the action needs in it; raises NotFound or Forbidden."""
    project = None if "\0" in name else Project.objects.filter(name=name).first()
    role = None
    if project is not None and not actor.user.host_admin:
        role = actor.user.memberships.filter(project=project).values_list("role", flat=True).first()
    if project is None or not actor.user.is_active or (role is None and not actor.user.host_admin):
        raise NotFound(say("There is no project %(name)r.", name=name), field="project")
    _refuse_read_only(actor, action)
    if not actor.user.host_admin and role not in roles_that_may(action):
        _denied(actor, action, name, project.name)
    return project


def _find(rows: models.QuerySet[_Row], actor: Actor, action: str, kind: str, **key: Any) -> _Row:
    if any("\0" in value for value in key.values() if isinstance(value, str)):  # PostgreSQL refuses to look for it
        raise NotFound(say("There is no such %(kind)s.", kind=kind))
    row = rows.visible_to(actor.user, action).filter(**key).first()  # type: ignore[attr-defined]
    if row is None:
        seen = rows.visible_to(actor.user, "view").filter(**key).first()  # type: ignore[attr-defined]
        if action == "view" or seen is None:
            raise NotFound(say("There is no such %(kind)s.", kind=kind))
        project = getattr(seen, "project", None)
        _denied(actor, action, str(seen), project.name if project else "")
    _refuse_read_only(actor, action)
    found: _Row = row
    return found


def _denied(actor: Actor, action: str, name: str, project: str) -> NoReturn:
    word, kind = records.audit_action(action), records.audit_object(action)
    audit.record(actor, word, kind, name, project=project, outcome=audit.Outcome.DENIED)
    raise Forbidden("Your role does not allow this.", action=action)


def _refuse_read_only(actor: Actor, action: str) -> None:
    if action != "view" and actor.token is not None and actor.token.read_only:
        raise Forbidden("This token may only read.", action=action)


def require_host_admin(actor: Actor, action: str, name: str) -> None:
    """Raise Forbidden unless the actor stands above the projects."""
    _refuse_read_only(actor, action)
    if not (actor.user.is_active and actor.user.host_admin):
        _denied(actor, action, name, "")
