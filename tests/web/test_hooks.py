"""Hooks: through the API and the settings page, into the row, and from there to the runtime."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse

from containers.asking import services
from containers.bookkeeping import specs
from containers.core.model.hooks import Hook
from containers.models import Container, Operation
from tests.web.api import Api, assert_error
from tests.web.world import actor, make_container, make_host, run

pytestmark = pytest.mark.django_db

WANTED = [{"point": "pre-start", "hook": "nas"}, {"point": "start", "command": ["/bin/prepare", "it"]}]
HOOKS = (Hook(point="pre-start", hook="nas"), Hook(point="start", command=("/bin/prepare", "it")))


@pytest.fixture(autouse=True)
def host():
    made = make_host()
    hooks = {
        "nas": {"projects": ["team"], "points": ["pre-start", "post-stop"], "timeout_sec": 5},
        "others": {"projects": ["elsewhere"], "points": ["pre-start"], "timeout_sec": 5},
    }
    made.facts = {**made.facts, "policy": {"hooks": hooks}}
    made.save()
    return made


def test_they_are_taken_shown_kept_cloned_and_taken_away(alice, team, runtime):
    body = {"name": "web-1", "image": "busybox", "project": "team", "hooks": WANTED}
    status, answer = Api(alice).post("/containers", body)
    assert status == 202, answer
    run(Operation.objects.get(pk=answer["id"]), runtime)
    row = Container.objects.get(name="web-1")
    assert Api(alice).get("/containers/web-1")[1]["hooks"] == WANTED
    assert runtime.specs[row.pk].hooks == HOOKS
    assert specs.columns_of(runtime.specs[row.pk])["hooks"] == row.hooks == WANTED
    run(services.act(actor(alice), "web-1", "clone", {"name": "web-2"}), runtime)
    assert runtime.specs[Container.objects.get(name="web-2").pk].hooks == HOOKS
    _status, answer = Api(alice).patch("/containers/web-1", {"hooks": []})
    run(Operation.objects.get(pk=answer["id"]), runtime)
    assert runtime.specs[row.pk].hooks == ()


@pytest.mark.parametrize(
    ("hook", "status", "code", "field"),
    [
        ({"point": "pre-start", "hook": "others"}, 403, "policy", "hooks.0.hook"),
        ({"point": "pre-start", "hook": "unheard-of"}, 403, "policy", "hooks.0.hook"),
        ({"point": "mount", "hook": "nas"}, 403, "policy", "hooks.0.hook"),
        ({"point": "midnight", "hook": "nas"}, 422, "invalid-value", "hooks.0.point"),
        ({"point": "pre-start", "hook": "../nas"}, 422, "invalid-value", "hooks.0.hook"),
        ({"point": "pre-start", "hook": "nas", "command": ["/x"]}, 422, "invalid-value", "hooks.0.command"),
        ({"point": "start", "hook": "nas"}, 422, "invalid-value", "hooks.0.hook"),
        ({"point": "start", "command": ["x"]}, 422, "invalid-value", "hooks.0.command"),
        ({"point": "start", "command": ["/x", "a\nb"]}, 422, "invalid-value", "hooks.0.command"),
        ({"point": "start", "path": "/x"}, 400, "bad-request", "hooks.0.path"),
    ],
)
def test_what_is_refused_names_its_field(alice, team, hook, status, code, field):
    make_container(team)
    assert_error(Api(alice).patch("/containers/web-1", {"hooks": [hook]}), status, code, field)
    body = {"name": "web-2", "image": "busybox", "project": "team", "hooks": [hook]}
    assert_error(Api(alice).post("/containers", body), status, code, field)
    assert not Operation.objects.exists()


def test_the_settings_page_shows_and_changes_them(alice, team):
    make_container(team, hooks=WANTED)
    client = Client()
    client.force_login(alice, backend="allauth.account.auth_backends.AuthenticationBackend")
    where = reverse("containers:settings", args=["web-1"])
    assert "pre-start nas\nstart /bin/prepare it</textarea>" in client.get(where).content.decode()
    for text in ("pre-start", "midnight nas", "pre-start others", "start 'x", "start x"):
        wrong = client.post(where, {"hooks": text}, headers={"HX-Request": "true"}).content.decode()
        assert "data-error" in wrong.split('data-setting="hooks"')[1].split('<div class="setting" ')[0], text
    fields = {"hooks": "post-stop nas\r\n\r\nstart /bin/sh -c 'echo hi'\r\n"}
    assert client.post(where, fields, headers={"HX-Request": "true"}).status_code == 204
    assert Operation.objects.get().arguments["changes"]["hooks"] == [
        {"point": "post-stop", "hook": "nas"},
        {"point": "start", "command": ["/bin/sh", "-c", "echo hi"]},
    ]
