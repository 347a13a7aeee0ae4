"""What every answer tells the browser, and what is refused by where it comes from."""

from __future__ import annotations

import time

import pytest
from django.test import Client
from django.utils.http import parse_http_date

pytestmark = pytest.mark.django_db

PATHS = ["/sign-in", "/healthz", "/api/v1/openapi.json", "/api/v1/containers", "/nothing", "/static/nothing.css"]


@pytest.mark.parametrize("path", PATHS)
def test_every_answer_carries_the_policies(path, client):
    headers = client.get(path).headers
    policy = dict(part.partition(" ")[::2] for part in headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'self'"
    for name in ("object-src", "base-uri", "frame-ancestors"):
        assert policy[name] == "'none'"
    assert policy["form-action"] == "'self'"
    assert policy["connect-src"].startswith("'self' ws://")
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "same-origin"
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert "camera=()" in headers["Permissions-Policy"]
    assert abs(parse_http_date(headers["Date"]) - time.time()) < 60, "pages go by it"


@pytest.mark.parametrize("site", ["cross-site", "same-site", "nonsense"])
def test_changes_asked_by_other_sites_are_refused(site, client):
    response = client.post("/sign-in", {"login": "a", "password": "b"}, headers={"Sec-Fetch-Site": site})
    assert response.status_code == 403
    api = client.post("/api/v1/containers", {}, content_type="application/json", headers={"Sec-Fetch-Site": site})
    assert (api.status_code, api.json()["code"]) == (403, "forbidden")
    assert client.get("/sign-in", headers={"Sec-Fetch-Site": site}).status_code == 200


@pytest.mark.parametrize("site", ["same-origin", "none"])
def test_changes_of_our_own_pages_are_taken(site, client):
    assert client.post("/sign-in", {"login": "a", "password": "b"}, headers={"Sec-Fetch-Site": site}).status_code == 200


def test_cookies_are_out_of_scripts_reach(alice, client):
    alice.set_password("a long enough passphrase")
    alice.save()
    client.get("/sign-in")
    client.post("/sign-in", {"login": "alice", "password": "a long enough passphrase"})
    for name in ("boxroom_sessionid", "boxroom_csrftoken"):
        assert client.cookies[name]["httponly"]
        assert client.cookies[name]["samesite"] in ("Lax", "Strict")


def test_an_unknown_host_name_is_refused():
    response = Client(SERVER_NAME="evil.example").get("/api/v1/containers")
    assert (response.status_code, response.json()["code"]) == (400, "bad-request")


@pytest.mark.parametrize("path", ["/sign-in", "/account", "/account/password"])
def test_pages_of_ours_have_no_script_and_no_attribute_inline(path, alice, client):
    client.force_login(
        alice, backend="allauth.account.auth_backends.AuthenticationBackend"
    ) if path != "/sign-in" else None
    page = client.get(path).content.decode()
    assert "style=" not in page
    assert "onclick" not in page
    assert all("src=" in tag for tag in page.split("<script")[1:])
