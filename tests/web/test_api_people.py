"""/projects, /users, /tokens: who may make, change and see what."""

from __future__ import annotations

import datetime as dt

import pytest
from django.utils import timezone

from panel.accounts import services, tokens
from panel.accounts.models import ApiToken, AuditRecord, Membership, Project, User
from tests.web.api import Api, assert_error

pytestmark = pytest.mark.django_db


def test_host_administrators_make_projects(root, alice):
    status, body = Api(root).post("/projects", {"name": "shop", "description": "the shop"})
    assert (status, body["name"], body["members"]) == (201, "shop", [])
    assert_error(Api(root).post("/projects", {"name": "shop"}), 409, "already-exists", "name")
    assert_error(Api(root).post("/projects", {"name": "Shop"}), 422, "invalid-value", "name")
    assert_error(Api(alice).post("/projects", {"name": "mine"}), 403, "forbidden")
    assert AuditRecord.objects.filter(actor_name="alice", action="project.create", outcome="denied").exists()


def test_projects_are_seen_by_their_members(root, alice, bob, charlie):
    assert [row["name"] for row in Api(bob).get("/projects")[1]["items"]] == ["team"]
    assert Api(charlie).get("/projects")[1]["items"] == []
    assert {"user": "alice", "role": "administrator"} in Api(root).get("/projects/team")[1]["members"]
    assert_error(Api(charlie).get("/projects/team"), 404, "not-found")


@pytest.mark.parametrize(
    ("who", "status"), [("root", 200), ("alice", 200), ("olga", 403), ("bob", 403), ("charlie", 404)]
)
def test_who_may_invite(who, status, request, root, alice, olga, bob, charlie):
    user = request.getfixturevalue(who)
    got, _body = Api(user).put("/projects/team/members/charlie", {"role": "viewer"})
    assert got == status
    assert Membership.objects.filter(user=charlie).exists() == (status == 200)


def test_a_role_is_replaced_and_taken_away(alice, bob):
    api = Api(alice)
    version = bob.roles_version
    assert api.put("/projects/team/members/bob", {"role": "operator"}) == (200, {"user": "bob", "role": "operator"})
    assert Membership.objects.get(user=bob).role == "operator"
    assert api.delete("/projects/team/members/bob") == (204, None)
    assert_error(api.delete("/projects/team/members/bob"), 404, "not-found")
    bob.refresh_from_db()
    assert bob.roles_version == version + 2


def test_bad_members(alice):
    api = Api(alice)
    assert_error(api.put("/projects/team/members/nobody", {"role": "viewer"}), 404, "not-found")
    assert_error(api.put("/projects/team/members/alice", {"role": "king"}), 422, "invalid-value", "role")
    assert_error(api.put("/projects/team/members/alice", {}), 400, "bad-request", "role")


def test_host_administrators_make_users_with_a_link(root, alice):
    status, body = Api(root).post("/users", {"username": "dora"})
    assert (status, body["username"], body["host_admin"], body["active"]) == (201, "dora", False, True)
    assert "/sign-in/link/" in body["sign_in_link"]
    assert not User.objects.get(username="dora").has_usable_password()
    assert_error(Api(root).post("/users", {"username": "dora"}), 409, "already-exists", "username")
    assert_error(Api(root).post("/users", {"username": "a b"}), 422, "invalid-value", "username")
    assert_error(Api(alice).post("/users", {"username": "eve", "host_admin": True}), 403, "forbidden")
    assert not User.objects.filter(username="eve").exists()


def test_users_see_those_they_share_a_project_with(root, alice, bob, charlie):
    def names(user):
        return [row["username"] for row in Api(user).get("/users")[1]["items"]]

    assert names(root) == ["alice", "bob", "charlie", "root"]
    assert names(bob) == ["alice", "bob"]
    assert names(charlie) == ["charlie"]
    assert_error(Api(charlie).get("/users/alice"), 404, "not-found")


def test_disabling_a_user_stops_his_tokens_and_sessions(root, bob, client):
    client.force_login(bob, backend="allauth.account.auth_backends.AuthenticationBackend")
    assert services.sessions_of(bob)
    api = Api(bob)
    assert api.get("/containers")[0] == 200
    status, body = Api(root).patch("/users/bob", {"active": False})
    assert (status, body["active"]) == (200, False)
    assert_error(api.get("/containers"), 401, "unauthenticated")
    assert services.sessions_of(bob) == []
    assert Api(root).patch("/users/bob", {"active": True})[1]["active"] is True
    assert api.get("/containers")[0] == 200


def test_the_last_host_administrator_stays(root, alice):
    assert_error(Api(root).patch("/users/root", {"active": False}), 409, "in-use", "active")
    assert_error(Api(alice).patch("/users/alice", {"active": False}), 403, "forbidden")
    assert_error(Api(alice).patch("/users/root", {"active": False}), 404, "not-found")
    assert_error(Api(root).patch("/users/root", {"active": "no"}), 400, "bad-request", "active")


def test_a_tokens_secret_is_shown_once_and_kept_as_a_digest(alice):
    status, body = Api(alice).post("/tokens", {"name": "ci"})
    secret = body["token"]
    assert status == 201
    assert Api(None).get("/containers", Authorization=f"Bearer {secret}")[0] == 200
    _status, listed = Api(alice).get("/tokens")
    assert all("token" not in row for row in listed["items"])
    row = ApiToken.objects.get(name="ci")
    assert secret not in str(vars(row))
    assert row.last_used_at is not None


def test_a_token_that_has_expired_is_401(alice):
    _row, secret = tokens.issue(alice, name="old", expires_at=timezone.now() - dt.timedelta(seconds=1))
    assert_error(Api(None).get("/containers", Authorization=f"Bearer {secret}"), 401, "unauthenticated")


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({}, 400, "name"),
        ({"name": ""}, 422, "name"),
        ({"name": "x" * 64}, 422, "name"),
        ({"name": "x", "expires_at": "2001-01-01T00:00:00Z"}, 422, "expires_at"),
        ({"name": "x", "expires_at": "tomorrow"}, 422, "expires_at"),
        ({"name": "x", "expires_at": "2100-01-01T00:00:00"}, 422, "expires_at"),
        ({"name": "x", "expires_at": 5}, 400, "expires_at"),
        ({"name": "x", "read_only": 1}, 400, "read_only"),
    ],
)
def test_bad_tokens(body, status, field, alice):
    got, answer = Api(alice).post("/tokens", body)
    assert (got, answer["field"]) == (status, field)


def test_tokens_are_ones_own(alice, bob):
    token_id = Api(alice).post("/tokens", {"name": "ci"})[1]["id"]
    assert_error(Api(bob).delete(f"/tokens/{token_id}"), 404, "not-found")
    assert Api(alice).delete(f"/tokens/{token_id}") == (204, None)
    assert_error(Api(alice).delete("/tokens/x"), 404, "not-found")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/containers"),
        ("DELETE", "/containers/x"),
        ("PATCH", "/containers/x"),
        ("POST", "/tokens"),
        ("PUT", "/uploads/x"),
    ],
)
def test_a_read_only_token_refuses_whatever_changes_something(method, path, root):
    api = Api(root, read_only=True)
    assert api.get("/containers")[0] == 200
    assert_error(api.call(method, path, {}), 403, "forbidden")


def test_a_token_makes_none_that_outlives_it(alice):
    api = Api(alice)
    ApiToken.objects.filter(user=alice).update(expires_at=timezone.now() + dt.timedelta(hours=1))
    assert_error(api.post("/tokens", {"name": "for ever"}), 403, "forbidden", "expires_at")


def test_a_session_works_too_but_needs_its_csrf_token(alice):
    from django.test import Client

    client = Client(enforce_csrf_checks=True)
    client.force_login(alice, backend="allauth.account.auth_backends.AuthenticationBackend")
    assert client.get("/api/v1/containers").status_code == 200
    refused = client.post("/api/v1/tokens", {"name": "x"}, content_type="application/json")
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    client.get("/account/password")
    token = client.cookies["boxroom_csrftoken"].value
    taken = client.post(
        "/api/v1/tokens", {"name": "x"}, content_type="application/json", headers={"X-CSRFToken": token}
    )
    assert taken.status_code == 201


def test_a_wrong_token_is_not_saved_by_a_good_session(alice, client):
    client.force_login(alice, backend="allauth.account.auth_backends.AuthenticationBackend")
    assert client.get("/api/v1/containers", headers={"Authorization": "Bearer x"}).status_code == 401


def test_projects_of_new_containers(root, alice, charlie):
    from panel.accounts.actor import Actor

    shop = Project.objects.create(name="shop")
    Membership.objects.create(project=shop, user=charlie, role="administrator")
    assert services.default_project(Actor(charlie)) == "shop"
    assert services.default_project(Actor(root)) == "default"
    assert services.default_project(Actor(alice)) == "team"
