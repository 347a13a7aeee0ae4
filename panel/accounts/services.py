"""Users, projects and members: who may change them, and what follows when rights change."""

from __future__ import annotations

from typing import Final, NoReturn

from django.contrib.sessions.models import Session
from django.db import IntegrityError, transaction
from django.db.models import F, ProtectedError, Q, QuerySet
from django.utils import timezone

from containers.core.errors import AlreadyExists, InUse, NotFound, SpecError
from containers.core.model.spec import check_text
from containers.core.names import check_name
from containers.core.sentences import say
from containers.messaging import notices
from containers.rights.permissions import roles_that_may

from . import audit, links
from .actor import Actor, Forbidden
from .models import Membership, Project, Role, User

DEFAULT_PROJECT = "default"
USERS_SHOWN: Final = 20


# -- users ----------------------------------------------------------------------------------------------------------


def visible_users(user: User) -> QuerySet[User]:
    """Return the users that user may see: all for host administrators, else those who share a project with him."""
    everybody = User.objects.order_by("username")
    if user.host_admin:
        return everybody
    shared = Membership.objects.filter(project__memberships__user=user).values("user_id")
    return everybody.filter(Q(pk=user.pk) | Q(pk__in=shared))


def create_user(actor: Actor, username: str, *, host_admin: bool = False) -> tuple[User, str]:
    """Make a user; return him and the secret of his sign-in link. Host administrators only."""
    if not actor.user.host_admin:
        _refuse(actor, "user.create", "user", username, "Only host administrators make users.")
    user, secret = add_user(username, host_admin=host_admin)
    audit.record(actor, "user.create", "user", username, detail={"host_admin": host_admin})
    return user, secret


def add_user(username: str, *, host_admin: bool = False) -> tuple[User, str]:
    """Make a user without asking anybody: for the command line. Raises SpecError or AlreadyExists."""
    user = _create(username, host_admin=host_admin)
    return user, links.create(user)


def add_first(username: str) -> User:
    """Make the first host administrator, with no way in yet. Raises SpecError or AlreadyExists."""
    return _create(username, host_admin=True)


def _create(username: str, *, host_admin: bool) -> User:
    check_name(username, field="username")
    try:
        with transaction.atomic():
            user = User.objects.create_user(username, host_admin=host_admin)
    except IntegrityError:
        raise AlreadyExists(say("There is a user %(username)s already.", username=username), field="username") from None
    return user


def set_active(actor: Actor, username: str, *, active: bool) -> User:
    """Let a user in, or shut him out: his sessions and sockets end, his tokens and links stop working."""
    user = _find_user(actor, username)
    action = "user.enable" if active else "user.disable"
    if not actor.user.host_admin:
        _refuse(actor, action, "user", username, "Only host administrators do this.")
    if user.is_active == active:
        return user
    if not active and user.host_admin and not _other_host_admins(user):
        raise InUse("The last active host administrator cannot be disabled.", field="active", users=[username])
    with transaction.atomic():
        user.is_active = active
        user.save(update_fields=["is_active"])
        if not active:
            end_sessions(user)
        rights_changed(user)
        audit.record(actor, action, "user", username)
    return user


def delete_user(actor: Actor, username: str) -> None:
    """Remove a user: his sessions, sockets, tokens, links and memberships end; what he did stays on record by name."""
    user = _find_user(actor, username)
    if not actor.user.host_admin:
        _refuse(actor, "user.delete", "user", username, "Only host administrators do this.")
    if user == actor.user:
        raise InUse("You cannot remove yourself.", users=[username])
    with transaction.atomic():
        # who removes each other at the same moment: one of them waits, and is looked at again
        list(User.objects.select_for_update().filter(host_admin=True).order_by("pk"))
        if user.host_admin and user.is_active and not _other_host_admins(user):
            raise InUse("The last active host administrator cannot be removed.", users=[username])
        projects = sorted(user.memberships.values_list("project__name", flat=True))
        audit.record(actor, "user.delete", "user", username, detail={"projects": projects})
        end_sessions(user)
        rights_changed(user)
        user.delete()


def new_link(actor: Actor, username: str) -> str:
    """Make a new sign-in link for a user and return its secret. Host administrators only."""
    user = _find_user(actor, username)
    if not actor.user.host_admin:
        _refuse(actor, "user.link", "user", username, "Only host administrators make sign-in links.")
    audit.record(actor, "user.link", "user", username)
    return links.create(user)


def _find_user(actor: Actor, username: str) -> User:
    user = visible_users(actor.user).filter(username=username).first()
    if user is None:
        raise NotFound("There is no such user.")
    return user


def _other_host_admins(user: User) -> bool:
    return User.objects.filter(host_admin=True, is_active=True).exclude(pk=user.pk).exists()


def sessions_of(user: User) -> list[Session]:
    """Return the user's browser sessions that have not expired, newest last."""
    open_sessions = Session.objects.filter(expire_date__gt=timezone.now()).order_by("expire_date")
    return [row for row in open_sessions if row.get_decoded().get("_auth_user_id") == str(user.pk)]


def end_sessions(user: User, *, but: str | None = None) -> int:
    """End the user's browser sessions except the one whose key is `but`; return how many."""
    ended = [row for row in sessions_of(user) if row.session_key != but]
    Session.objects.filter(pk__in=[row.pk for row in ended]).delete()
    return len(ended)


def rights_changed(user: User) -> None:
    """Note that a user's rights changed, so that open sockets look again at once."""
    User.objects.filter(pk=user.pk).update(roles_version=F("roles_version") + 1)
    notices.notify("user", user.pk)


# -- projects and members -------------------------------------------------------------------------------------------


def visible_projects(user: User, action: str = "view") -> QuerySet[Project]:
    """Return the projects in which user may do action."""
    projects = Project.objects.order_by("name")
    if user.host_admin:
        return projects
    return projects.filter(memberships__user=user, memberships__role__in=roles_that_may(action)).distinct()


def find_project(actor: Actor, name: str, action: str = "view") -> Project:
    """Return a project; raises NotFound where it is not the actor's to see, Forbidden where his role is too small."""
    project = visible_projects(actor.user).filter(name=name).first()
    if project is None:
        raise NotFound("There is no such project.")
    if not visible_projects(actor.user, action).filter(pk=project.pk).exists():
        _refuse(actor, f"project.{action}", "project", name, "Your role in this project does not allow this.", name)
    return project


def default_project(actor: Actor) -> str:
    """Return the project that a new container goes to where none is named; raises SpecError where that is unclear."""
    names = list(visible_projects(actor.user, "create").values_list("name", flat=True)[:2])
    if actor.user.host_admin or len(names) == 0:
        return DEFAULT_PROJECT
    if len(names) > 1 and not visible_projects(actor.user, "create").filter(name=DEFAULT_PROJECT).exists():
        raise SpecError("You may make containers in several projects: name one.", field="project")
    return names[0] if len(names) == 1 else DEFAULT_PROJECT


def create_project(actor: Actor, name: str, *, description: str = "") -> Project:
    """Make a project. Host administrators only."""
    if not actor.user.host_admin:
        _refuse(actor, "project.create", "project", name, "Only host administrators make projects.")
    check_name(name)
    check_text(description, field="description", most=500, lines=True)
    try:
        with transaction.atomic():
            project = Project.objects.create(name=name, description=description)
            audit.record(actor, "project.create", "project", name, project=name)
    except IntegrityError:
        raise AlreadyExists(say("There is a project %(name)s already.", name=name), field="name") from None
    return project


def change_project(actor: Actor, name: str, *, new_name: str | None = None, description: str | None = None) -> Project:
    """Give a project another name or description. Host administrators only, as policy.toml may name projects.

    Its members, containers and networks stay its own; what was recorded before keeps the name of that time.
    """
    project = _administered(actor, name, "project.change")
    if description is not None:
        check_text(description, field="description", most=500, lines=True)
        project.description = description
    if new_name is not None and new_name != name:
        check_name(new_name)
        _refuse_default(name)
        project.name = new_name
    try:
        with transaction.atomic():
            project.save(update_fields=["name", "description"])
            detail = {"name": new_name} if project.name != name else {}
            audit.record(actor, "project.change", "project", name, project=project.name, detail=detail)
            notices.notify("project", project.pk)
    except IntegrityError:
        raise AlreadyExists(say("There is a project %(name)s already.", name=new_name), field="name") from None
    return project


def delete_project(actor: Actor, name: str) -> None:
    """Remove a project with its memberships; raises InUse while it has containers or networks."""
    project = _administered(actor, name, "project.delete")
    _refuse_default(name)
    containers = list(project.containers.order_by("name").values_list("name", flat=True)[:USERS_SHOWN])
    networks = list(project.networks.order_by("name").values_list("name", flat=True)[:USERS_SHOWN])
    if containers:
        told = say("%(name)s has containers: delete them first (%(names)s).", name=name, names=", ".join(containers))
        raise InUse(told, users=containers)
    if networks:
        told = say("%(name)s has networks: delete them first (%(names)s).", name=name, names=", ".join(networks))
        raise InUse(told, users=networks)
    members = User.objects.filter(memberships__project=project)
    try:
        with transaction.atomic():
            for user in members:
                rights_changed(user)
            audit.record(actor, "project.delete", "project", name, project=name)
            project.delete()
    except (ProtectedError, IntegrityError):  # something came meanwhile
        raise InUse(say("%(name)s is in use by now: try again.", name=name), users=[]) from None


def _administered(actor: Actor, name: str, action: str) -> Project:
    """Return a project that a host administrator wants to change; Forbidden for others who see it."""
    project = find_project(actor, name)
    if not actor.user.host_admin:
        _refuse(actor, action, "project", name, "Only host administrators do this.", name)
    return project


def _refuse_default(name: str) -> None:
    if name == DEFAULT_PROJECT:
        raise InUse("The default project stays: containers that name no project go there.", field="name", users=[])


def set_member(actor: Actor, project_name: str, username: str, role: str) -> Membership:
    """Give a user a role in a project, in the place of the one he had."""
    if role not in Role.values:
        raise SpecError(say("Use one of %(names)s.", names=", ".join(Role.values)), field="role")
    project = find_project(actor, project_name, "invite")
    user = User.objects.filter(username=username).first()
    if user is None:
        raise NotFound("There is no such user.")
    with transaction.atomic():
        member, _made = Membership.objects.update_or_create(project=project, user=user, defaults={"role": role})
        rights_changed(user)
        audit.record(actor, "member.set", "user", username, project=project.name, detail={"role": role})
    return member


def remove_member(actor: Actor, project_name: str, username: str) -> None:
    """Take a user's role in a project away; raises NotFound where he has none."""
    project = find_project(actor, project_name, "invite")
    member = project.memberships.select_related("user").filter(user__username=username).first()
    if member is None:
        raise NotFound("This user is no member of the project.")
    with transaction.atomic():
        member.delete()
        rights_changed(member.user)
        audit.record(actor, "member.remove", "user", username, project=project.name)


def _refuse(actor: Actor, action: str, object_type: str, name: str, message: str, project: str = "") -> NoReturn:
    audit.record(actor, action, object_type, name, project=project, outcome=audit.Outcome.DENIED)
    raise Forbidden(message)
