"""People: users, projects, members and one-time links."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext as _

from containers.core.errors import CoreError
from containers.showing.sentences import describe, translated
from panel.accounts import links, services
from panel.accounts.models import Membership, Role, User
from panel.pages.web import actor_of, changes, done, go, in_dialog, page, unknown, user_of


@page
def people(request: HttpRequest) -> HttpResponse:
    """Show projects with their members, and the users; or make a project or a user."""
    user = user_of(request)
    context: dict[str, Any] = {"values": request.POST, "link": request.session.pop("new_link", None)}
    status = 200
    if request.method == "POST":
        try:
            return _make(request)
        except CoreError as error:
            what = request.POST.get("what", "")
            context |= {"error": translated(error.message), "field": error.field or "all", "what": what}
            status = 422
    projects = list(services.visible_projects(user))
    describe(*projects)
    members: dict[int, list[Membership]] = {project.pk: [] for project in projects}
    for row in Membership.objects.filter(project__in=projects).select_related("user").order_by("user__username"):
        members[row.project_id].append(row)
    invitable = {project.pk for project in services.visible_projects(user, "invite")}
    context |= {
        "projects": [(project, members[project.pk], project.pk in invitable) for project in projects],
        "users": list(services.visible_users(user).prefetch_related("memberships__project")),
        "roles": Role.choices,
        "may_make": user.host_admin,
    }
    return render(request, "pages/people.html", context, status=status)


def _make(request: HttpRequest) -> HttpResponse:
    """Make what the form on the page asks for: a project or a user."""
    form, actor, where = request.POST, actor_of(request), reverse("pages:people")
    if form.get("what") == "project":
        name = form.get("name", "").strip()
        services.create_project(actor, name, description=form.get("description", "").strip())
        return done(request, f"{where}#project-{name}")
    if form.get("what") == "user":
        user, secret = services.create_user(
            actor, form.get("username", "").strip(), host_admin=bool(form.get("host_admin"))
        )
        if form.get("project"):
            services.set_member(actor, form["project"], user.username, form.get("role", Role.VIEWER))
        _show_link(request, user, secret)
        return done(request, f"{where}#new-link")
    raise unknown()


PROJECT_DIALOGS = ("change", "delete")


@page
def project_dialog(request: HttpRequest, name: str, action: str) -> HttpResponse:
    """Show the dialog that changes or deletes a project, or do what it asked for."""
    actor = actor_of(request)
    if action not in PROJECT_DIALOGS or not actor.user.host_admin:
        raise unknown()
    if request.method == "POST":
        return _project_done(request, name, action)
    project = services.find_project(actor, name)
    context = {
        "project": project,
        "containers": project.containers.count(),
        "networks": project.networks.count(),
        "members": project.memberships.count(),
        "stays": name == services.DEFAULT_PROJECT,
    }
    return render(request, f"pages/dialog_project_{action}.html", context)


@changes
def _project_done(request: HttpRequest, name: str, action: str) -> HttpResponse:
    form, actor, where = request.POST, actor_of(request), reverse("pages:people")
    try:
        if action == "delete":
            services.delete_project(actor, name)
            messages.success(request, _("The project %(name)s is deleted.") % {"name": name})
            return go(request, where)
        new = form.get("name", "").strip() or name
        services.change_project(actor, name, new_name=new, description=form.get("description", "").strip())
        return go(request, f"{where}?changed={new}#project-{new}")  # another address, so that the page is loaded again
    except CoreError as error:
        return in_dialog(request, error)


@page
def user_dialog(request: HttpRequest, name: str) -> HttpResponse:
    """Show the dialog that removes a user, or remove him."""
    actor = actor_of(request)
    if not actor.user.host_admin:
        raise unknown()
    if request.method == "POST":
        return _user_removed(request, name)
    user = services.visible_users(actor.user).filter(username=name).first()
    if user is None:
        raise unknown()
    context = {
        "removed": user,
        "sessions": len(services.sessions_of(user)),
        "tokens": user.api_tokens.count(),
        "projects": list(user.memberships.order_by("project__name").values_list("project__name", flat=True)),
    }
    return render(request, "pages/dialog_user_delete.html", context)


@changes
def _user_removed(request: HttpRequest, name: str) -> HttpResponse:
    try:
        services.delete_user(actor_of(request), name)
    except CoreError as error:
        return in_dialog(request, error)
    messages.success(request, _("The user %(name)s is removed.") % {"name": name})
    return go(request, reverse("pages:people"))


def _show_link(request: HttpRequest, user: User, secret: str) -> None:
    """Keep a one-time link for the next page only: it is shown once."""
    origin = f"{request.scheme}://{request.get_host()}"
    request.session["new_link"] = {"username": user.username, "url": links.url(secret, origin=origin)}


@changes
def member(request: HttpRequest, name: str) -> HttpResponse:
    """Give somebody a role in a project, or take it away (role empty)."""
    username, role = request.POST.get("username", "").strip(), request.POST.get("role", "")
    if role:
        services.set_member(actor_of(request), name, username, role)
    else:
        services.remove_member(actor_of(request), name, username)
    return done(request, reverse("pages:people") + f"#project-{name}", people="")


@changes
def user_action(request: HttpRequest, name: str, action: str) -> HttpResponse:
    """Let a user in or shut him out, or make a new sign-in link for him."""
    actor, where = actor_of(request), reverse("pages:people")
    if action == "link":
        secret = services.new_link(actor, name)
        _show_link(request, User.objects.get(username=name), secret)
        where += "#new-link"
    elif action in ("enable", "disable"):
        services.set_active(actor, name, active=action == "enable")
    else:
        raise unknown()
    return done(request, where)
