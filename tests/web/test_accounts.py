"""Signing in and out, one-time links, passwords, second factor, tokens, open sessions."""

from __future__ import annotations

import datetime as dt
import io
import re

import pytest
from allauth.mfa.recovery_codes.internal.auth import RecoveryCodes
from allauth.mfa.totp.internal.auth import TOTP, generate_totp_secret
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone

from containers.management.commands import prepare
from panel.accounts import attempts, links, services, tokens
from panel.accounts.models import ApiToken, AuditRecord, Membership, SignInLink, User

pytestmark = pytest.mark.django_db

PASSWORD = "a long enough passphrase"
BACKEND = "allauth.account.auth_backends.AuthenticationBackend"


@pytest.fixture
def dora(bob):
    """Bob with a password."""
    bob.set_password(PASSWORD)
    bob.save()
    return bob


def sign_in(client: Client, username: str = "bob", password: str = PASSWORD, **more: str):
    return client.post("/sign-in", {"login": username, "password": password, **more})


def signed_in(client: Client) -> bool:
    return client.get("/account").status_code == 200


def test_sign_in_and_out(dora, client):
    assert not signed_in(client)
    assert client.get("/account")["Location"].startswith("/sign-in?next=")
    response = sign_in(client)
    assert (response.status_code, response["Location"]) == (302, "/")
    assert signed_in(client)
    assert client.get("/sign-out").status_code == 405
    client.post("/sign-out")
    assert not signed_in(client)
    actions = list(AuditRecord.objects.filter(actor=dora).values_list("action", "outcome", "source_ip"))
    assert actions == [("sign-out", "succeeded", "127.0.0.1"), ("sign-in", "succeeded", "127.0.0.1")]


def test_the_session_key_is_rotated_at_sign_in(dora, client):
    client.get("/sign-in")
    session = client.session
    session["x"] = 1
    session.save()
    before = session.session_key
    client.cookies["boxroom_sessionid"] = before
    sign_in(client)
    assert client.session.session_key != before


@pytest.mark.parametrize(
    ("username", "password"), [("bob", "wrong"), ("nobody", PASSWORD), ("", PASSWORD), ("bob", "")]
)
def test_a_wrong_sign_in_says_the_same_for_all(username, password, dora, client):
    response = sign_in(client, username, password)
    assert response.status_code == 200
    assert not signed_in(client)
    if username and password:
        assert b"The user name or the password is not right." in response.content
        assert AuditRecord.objects.filter(action="sign-in", outcome="denied", object_name=username).count() == 1


def test_a_user_without_a_password_cannot_sign_in_with_one(bob, client):
    assert not signed_in(client)
    sign_in(client, password="!")
    assert not signed_in(client)


def test_a_disabled_user_cannot_sign_in_and_loses_his_session(dora, client, root):
    from panel.accounts.actor import Actor

    sign_in(client)
    services.set_active(Actor(root), "bob", active=False)
    assert not signed_in(client)
    sign_in(client)
    assert not signed_in(client)


@pytest.mark.parametrize("target", ["https://evil.example/", "//evil.example/", "javascript:alert(1)", "http:\\\\evil"])
def test_the_way_back_never_leaves_the_site(target, dora, client):
    assert sign_in(client, next=target)["Location"] == "/"


def test_the_way_back_is_kept(dora, client):
    assert sign_in(client, next="/containers/?project=team")["Location"] == "/containers/?project=team"


def test_too_many_failures_of_an_account_are_429_for_the_right_password_too(dora, client):
    for _ in range(attempts.PER_ACCOUNT):
        assert sign_in(client, password="wrong").status_code == 200
    assert sign_in(client).status_code == 429
    assert not signed_in(client)
    # what is refused is not counted: it ends when the failures are old
    assert AuditRecord.objects.filter(outcome="denied").count() == attempts.PER_ACCOUNT
    AuditRecord.objects.update(at=timezone.now() - attempts.PERIOD - dt.timedelta(seconds=1))
    assert sign_in(client).status_code == 302


def test_too_many_failures_from_a_neighbourhood_are_429(dora):
    for number in range(attempts.PER_NEIGHBOURHOOD):
        attempts.failed(f"user{number}", f"192.0.2.{number}")
    assert sign_in(Client(REMOTE_ADDR="192.0.2.200")).status_code == 429
    assert sign_in(Client(REMOTE_ADDR="192.0.3.1")).status_code == 302


def test_headers_of_a_client_do_not_change_its_address(dora):
    sign_in(Client(REMOTE_ADDR="192.0.2.1", HTTP_X_FORWARDED_FOR="6.6.6.6", HTTP_X_REAL_IP="6.6.6.6"))
    assert AuditRecord.objects.get().source_ip == "192.0.2.1"


def test_a_link_signs_in_once_and_only_by_its_button(bob):
    secret = links.create(bob)
    path = f"/sign-in/link/{secret}"
    looker, first, second = Client(), Client(), Client()
    assert b"bob" in looker.get(path).content  # a program that looks at links
    assert looker.head(path).status_code == 200
    assert not signed_in(looker)
    response = first.post(path)
    assert (response.status_code, response["Location"]) == (302, "/account/password")
    assert signed_in(first)
    assert second.post(path).status_code == 404
    assert not signed_in(second)
    assert AuditRecord.objects.filter(action="sign-in.link", outcome="succeeded", object_name="bob").count() == 1


def test_a_link_asks_for_a_password_without_the_present_one(bob, client):
    client.post(f"/sign-in/link/{links.create(bob)}")
    page = client.get("/account/password")
    assert b'name="present"' not in page.content
    response = client.post("/account/password", {"new": PASSWORD, "again": PASSWORD})
    assert (response.status_code, response["Location"]) == (302, "/")
    assert signed_in(client)
    assert b'name="present"' in client.get("/account/password").content  # from now on it is asked for
    assert sign_in(Client()).status_code == 302


def test_a_link_needs_its_csrf_token(bob):
    client = Client(enforce_csrf_checks=True)
    assert client.post(f"/sign-in/link/{links.create(bob)}").status_code == 403
    assert SignInLink.objects.filter(used_at=None).count() == 1


def test_links_expire_and_newer_ones_replace_them(bob, client):
    old = links.create(bob)
    new = links.create(bob)
    assert client.get(f"/sign-in/link/{old}").status_code == 404
    SignInLink.objects.update(expires_at=timezone.now())
    assert client.get(f"/sign-in/link/{new}").status_code == 404
    assert client.post(f"/sign-in/link/{new}").status_code == 404
    assert not signed_in(client)


def test_only_digests_are_kept(bob):
    secret = links.create(bob)
    _row, token = tokens.issue(bob, name="t")
    kept = str([vars(row) for row in (*SignInLink.objects.all(), *ApiToken.objects.all())])
    assert secret not in kept
    assert token not in kept


@pytest.mark.parametrize(
    ("new", "again", "problem"),
    [
        ("short", "short", "12 characters"),
        (PASSWORD, "another one", "differ"),
        ("q1w2e3r4t5y6", "q1w2e3r4t5y6", "common"),
    ],
)
def test_bad_passwords_are_refused(new, again, problem, dora, client):
    sign_in(client)
    response = client.post("/account/password", {"present": PASSWORD, "new": new, "again": again})
    assert problem in response.content.decode()
    dora.refresh_from_db()
    assert dora.check_password(PASSWORD)


def test_changing_the_password_needs_the_present_one_and_ends_other_sessions(dora):
    here, elsewhere = Client(), Client()
    sign_in(here)
    sign_in(elsewhere)
    other = "another long passphrase"
    assert here.post("/account/password", {"present": "wrong", "new": other, "again": other}).status_code == 200
    assert signed_in(elsewhere)
    assert here.post("/account/password", {"present": PASSWORD, "new": other, "again": other}).status_code == 302
    assert signed_in(here)
    assert not signed_in(elsewhere)


def test_a_second_factor_is_asked_for(dora, client):
    secret = generate_totp_secret()
    TOTP.activate(dora, secret)
    RecoveryCodes.activate(dora)
    response = sign_in(client)
    assert response["Location"] == "/account/second-factor/authenticate/"
    assert not signed_in(client)
    assert client.get(response["Location"]).status_code == 200
    client.post(response["Location"], {"code": "000000"})
    assert not signed_in(client)
    assert AuditRecord.objects.filter(action="sign-in.second-factor", outcome="denied").count() == 1
    code = RecoveryCodes(dora.authenticator_set.get(type="recovery_codes")).get_unused_codes()[0]
    client.post(response["Location"], {"code": code})
    assert signed_in(client)


def test_a_link_does_not_pass_by_the_second_factor(dora, client):
    TOTP.activate(dora, generate_totp_secret())
    response = client.post(f"/sign-in/link/{links.create(dora)}")
    assert response["Location"] == "/account/second-factor/authenticate/"
    assert not signed_in(client)


def test_the_second_factor_can_be_set_up(dora, client):
    sign_in(client)
    asked = client.get("/account/second-factor/totp/activate/")["Location"]  # the password, once more
    assert asked.startswith("/account/reauthenticate")
    assert client.get(asked).status_code == 200
    page = client.post(asked, {"password": PASSWORD}, follow=True)
    assert page.redirect_chain == [("/account/second-factor/totp/activate/", 302)]
    assert b"data:image/svg+xml" in page.content
    assert b"<script" not in page.content
    assert client.get("/account/second-factor/")["Location"] == "/account"


def test_tokens_are_made_shown_once_and_deleted(dora, client):
    sign_in(client)
    page = client.post("/account/tokens", {"name": "laptop", "days": "30"})
    (secret,) = set(re.findall(r"bxr_[\w-]+", page.content.decode()))
    assert tokens.find(secret).user == dora
    assert secret not in client.get("/account").content.decode()
    assert client.post("/account/tokens", {"name": "", "days": "30"}).status_code == 422
    token_id = ApiToken.objects.get().pk
    client.post(f"/account/tokens/{token_id}/delete")
    assert tokens.find(secret) is None


def test_others_tokens_are_not_ones_own(dora, alice, client):
    row, _secret = tokens.issue(alice, name="hers")
    sign_in(client)
    client.post(f"/account/tokens/{row.pk}/delete")
    assert ApiToken.objects.filter(pk=row.pk).exists()


def test_other_sessions_can_be_ended(dora):
    here, elsewhere = Client(), Client()
    sign_in(here)
    sign_in(elsewhere)
    here.post("/account/sessions/end")
    assert signed_in(here)
    assert not signed_in(elsewhere)


def test_language_and_theme(dora, client):
    sign_in(client)
    response = client.post("/account/preferences", {"language": "de", "theme": "dark"})
    assert response.cookies["django_language"].value == "de"
    dora.refresh_from_db()
    assert (dora.language, dora.theme) == ("de", "dark")
    assert b'data-theme="dark"' in client.get("/account").content
    client.post("/account/preferences", {"language": "xx", "theme": "pink"})
    dora.refresh_from_db()
    assert (dora.language, dora.theme) == ("de", "dark")


@pytest.mark.parametrize(
    "path", ["/sign-up", "/accounts/signup/", "/signup/", "/account/password/reset/", "/account/email/"]
)
def test_nobody_signs_up_or_resets_by_mail(path, client):
    assert client.get(path).status_code == 404


def test_the_token_command_prints_it_alone_on_the_last_line(root):
    out, err = io.StringIO(), io.StringIO()
    call_command("token", "root", stdout=out, stderr=err)
    assert tokens.find(out.getvalue().splitlines()[-1]).user == root
    with pytest.raises(CommandError):
        call_command("token", "nobody")


def test_the_first_administrator_has_no_link_until_one_is_asked_for(client):
    admin = prepare.first_administrator()
    assert admin.host_admin
    assert not SignInLink.objects.exists(), "a service makes none, and leaves the one that somebody was given"
    old = prepare.sign_in_path(admin)
    assert prepare.first_administrator() == admin
    assert client.get(old).status_code == 200
    assert prepare.sign_in_path(admin) != old
    assert client.get(old).status_code == 404
    admin.set_password("correct horse battery staple")
    admin.save()
    assert prepare.first_administrator() is None


def test_the_user_command_makes_members_and_links(team, client):
    out = io.StringIO()
    call_command("user", "add", "eve", "--project", "team", "--role", "operator", stdout=out, stderr=io.StringIO())
    assert Membership.objects.get(user__username="eve").role == "operator"
    path = re.search(r"/sign-in/link/\S+", out.getvalue())[0]
    client.post(path)
    assert signed_in(client)
    out = io.StringIO()
    call_command("user", "link", "eve", stdout=out, stderr=io.StringIO())
    assert Client().get(re.search(r"/sign-in/link/\S+", out.getvalue())[0]).status_code == 200


@pytest.mark.parametrize(
    "arguments",
    [
        ("add", "Eve"),
        ("add", "root"),
        ("add", "x", "--project", "none"),
        ("add", "x", "--role", "viewer"),
        ("link", "none"),
    ],
)
def test_the_user_command_refuses_what_is_wrong(arguments, root):
    with pytest.raises(CommandError):
        call_command("user", *arguments)
    assert not User.objects.filter(username="x").exists()
