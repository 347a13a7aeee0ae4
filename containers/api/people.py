"""/projects, /users, /tokens: who may do what."""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.http import HttpRequest
from ninja import Router, Status

from containers.core.errors import NotFound
from containers.showing import present
from panel.accounts import links, services, tokens

from . import lists
from .auth import actor
from .lists import PageQuery
from .people_schemas import MemberIn, ProjectChanges, ProjectIn, TokenIn, UserChanges, UserIn

router = Router(tags=["people"])
CREATED: dict[int, Any] = {201: dict[str, Any]}
GONE: dict[int, Any] = {204: None}


@router.get("/projects", summary="Projects")
def list_projects(request: HttpRequest, page: PageQuery) -> dict[str, Any]:
    """The projects that the caller is a member of, all for host administrators."""
    rows = services.visible_projects(actor(request).user).prefetch_related("memberships__user")
    return lists.answer(request, rows, page, present.project)


@router.get("/projects/{name}", summary="A project")
def get_project(request: HttpRequest, name: str) -> dict[str, Any]:
    """One project with its members."""
    return present.project(services.find_project(actor(request), name))


@router.post("/projects", summary="Make a project", response=CREATED)
def create_project(request: HttpRequest, body: ProjectIn) -> Status[Any]:
    """Make a project. Host administrators only."""
    row = services.create_project(actor(request), body.name, description=body.description)
    return Status(201, present.project(row))


@router.patch("/projects/{name}", summary="Rename or describe a project")
def change_project(request: HttpRequest, name: str, body: ProjectChanges) -> dict[str, Any]:
    """Change name or description. Host administrators only; the default project keeps its name."""
    row = services.change_project(actor(request), name, new_name=body.name, description=body.description)
    return present.project(row)


@router.delete("/projects/{name}", summary="Delete a project", response=GONE)
def delete_project(request: HttpRequest, name: str) -> Status[Any]:
    """Remove a project that has neither containers nor networks (409 `in-use`). Host administrators only."""
    services.delete_project(actor(request), name)
    return Status(204, None)


@router.put("/projects/{name}/members/{username}", summary="Give a user a role")
def set_member(request: HttpRequest, name: str, username: str, body: MemberIn) -> dict[str, Any]:
    """Give a user a role in a project, in the place of the one he had."""
    return present.member(services.set_member(actor(request), name, username, body.role))


@router.delete("/projects/{name}/members/{username}", summary="Take a user's role away", response=GONE)
def remove_member(request: HttpRequest, name: str, username: str) -> Status[Any]:
    """End a user's membership."""
    services.remove_member(actor(request), name, username)
    return Status(204, None)


@router.get("/users", summary="Users")
def list_users(request: HttpRequest, page: PageQuery) -> dict[str, Any]:
    """All users for host administrators; for others those who share a project with them."""
    rows = services.visible_users(actor(request).user)
    return lists.answer(request, rows, page, present.user, order=("username",))


@router.get("/users/{username}", summary="A user")
def get_user(request: HttpRequest, username: str) -> dict[str, Any]:
    """One user."""
    row = services.visible_users(actor(request).user).filter(username=username).first()
    if row is None:
        raise NotFound("There is no such user.")
    return present.user(row)


@router.post("/users", summary="Make a user", response=CREATED)
def create_user(request: HttpRequest, body: UserIn) -> Status[Any]:
    """Make a user; `sign_in_link` works once, for 24 hours."""
    row, secret = services.create_user(actor(request), body.username, host_admin=body.host_admin)
    return Status(201, {**present.user(row), "sign_in_link": links.url(secret)})


@router.patch("/users/{username}", summary="Let a user in, or shut him out")
def change_user(request: HttpRequest, username: str, body: UserChanges) -> dict[str, Any]:
    """Disabling ends the user's sessions and sockets, and stops his tokens."""
    return present.user(services.set_active(actor(request), username, active=body.active))


@router.delete("/users/{username}", summary="Remove a user", response=GONE)
def delete_user(request: HttpRequest, username: str) -> Status[Any]:
    """His sessions, tokens and roles end. Not oneself, nor the last active host administrator (409 `in-use`)."""
    services.delete_user(actor(request), username)
    return Status(204, None)


@router.post("/users/{username}/link", summary="Make a new sign-in link", response=CREATED)
def create_link(request: HttpRequest, username: str) -> Status[Any]:
    """Make a link that signs the user in once, within 24 hours. Host administrators only."""
    return Status(201, {"sign_in_link": links.url(services.new_link(actor(request), username))})


@router.get("/tokens", summary="Tokens")
def list_tokens(request: HttpRequest, page: PageQuery) -> dict[str, Any]:
    """The caller's own tokens, newest first."""
    return lists.answer(request, actor(request).user.api_tokens.all(), page, present.token, order=lists.NEWEST)


@router.post("/tokens", summary="Make a token", response=CREATED)
def create_token(request: HttpRequest, body: TokenIn) -> Status[Any]:
    """Make a token for oneself; `token` is shown this once."""
    expires_at = dt.datetime.fromisoformat(body.expires_at) if body.expires_at else None
    row, secret = tokens.create(actor(request), name=body.name, expires_at=expires_at, read_only=body.read_only)
    return Status(201, {**present.token(row), "token": secret})


@router.delete("/tokens/{token_id}", summary="Delete a token", response=GONE)
def delete_token(request: HttpRequest, token_id: str) -> Status[Any]:
    """Delete one of one's own tokens; it stops working at once."""
    if not (token_id.isascii() and token_id.isdecimal() and len(token_id) < 19):
        raise NotFound("You have no such token.")
    tokens.delete(actor(request), int(token_id))
    return Status(204, None)
