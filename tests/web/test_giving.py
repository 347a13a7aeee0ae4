"""Shared directories and devices: through the API and the settings page, into the row, and on to the runtime."""

from __future__ import annotations

import json
import re

import pytest
from django.test import Client
from django.urls import reverse

from containers.asking import services
from containers.asking.told import policy_problem
from containers.bookkeeping import specs
from containers.core.errors import SetupFailed
from containers.core.host import Host as CoreHost
from containers.core.model.attachments import Device, Mount
from containers.core.sentences import as_json, say
from containers.models import Container, Operation, local_host
from containers.operations import facts
from tests.web.api import Api, assert_error
from tests.web.world import actor, make_container, make_host, run

pytestmark = pytest.mark.django_db

MOUNT = {"share": "media", "target": "/srv/media"}
MOUNT_SHOWN = {
    **MOUNT,
    "subpath": "",
    "read_only": False,
    "create": True,
    "optional": False,
    "propagation": "private",
}
DEVICE_SHOWN = {"device": "fuse", "path": "", "mode": "0666", "uid": 0, "gid": 0}


@pytest.fixture(autouse=True)
def host():
    row = make_host()
    row.facts["policy"] = {
        "shares": {
            "media": {"projects": ["team"], "read_only": False, "submounts": False},
            "books": {"projects": ["*"], "read_only": True, "submounts": False},
            "others": {"projects": ["other"], "read_only": False, "submounts": False},
        },
        "devices": {
            "fuse": {"projects": ["*"], "path": "/dev/fuse"},
            "tun": {"projects": ["other"], "path": "/dev/net/tun"},
            "kvm": {"projects": ["team"], "path": "/dev/kvm"},
        },
    }
    row.save()
    return row


def row():
    return Container.objects.get(name="web-1")


def test_they_are_taken_at_creation_and_shown(alice, team, runtime):
    body = {"name": "web-1", "image": "busybox", "project": "team", "mounts": [MOUNT], "devices": [{"device": "fuse"}]}
    status, answer = Api(alice).post("/containers", body)
    assert status == 202
    assert run(Operation.objects.get(pk=answer["id"]), runtime).status == "succeeded"
    shown = Api(alice).get("/containers/web-1")[1]
    assert (shown["mounts"], shown["devices"]) == ([MOUNT_SHOWN], [DEVICE_SHOWN])
    stored = runtime.specs[row().pk]
    assert (stored.mounts, stored.devices) == ((Mount(**MOUNT),), (Device(device="fuse"),))
    columns = specs.columns_of(stored)
    assert (columns["mounts"], columns["devices"]) == ([MOUNT_SHOWN], [DEVICE_SHOWN])
    assert runtime.count("attach") == 0


def test_what_runs_is_changed_at_once_and_what_is_stopped_is_not(alice, team, runtime):
    make_container(team, runtime=runtime, status="running")
    _status, answer = Api(alice).patch("/containers/web-1", {"mounts": [MOUNT]})
    done = run(Operation.objects.get(pk=answer["id"]), runtime)
    assert (done.status, done.message) == ("succeeded", "Changed.")
    assert runtime.attached[row().pk].mounts == (Mount(**MOUNT),)
    runtime.end(row().pk)
    _status, answer = Api(alice).patch("/containers/web-1", {"mounts": []})
    assert run(Operation.objects.get(pk=answer["id"]), runtime).status == "succeeded"
    assert (runtime.count("attach"), row().mounts, runtime.specs[row().pk].mounts) == (1, [], ())


def test_a_change_that_fails_on_the_host_is_not_kept(alice, team, runtime):
    make_container(team, runtime=runtime, status="running")

    def fail():
        raise SetupFailed("no", step="mount the share media at /srv/media", path="media", errno=2)

    runtime.before["attach"] = fail
    _status, answer = Api(alice).patch("/containers/web-1", {"mounts": [MOUNT]})
    done = run(Operation.objects.get(pk=answer["id"]), runtime)
    assert (done.status, done.error["path"]) == ("failed", "media")
    assert (row().mounts, runtime.specs[row().pk].mounts) == ([], ())


def test_what_is_attached_is_taken_back_where_the_store_fails(alice, team, runtime):
    make_container(team, runtime=runtime, status="running")

    def fail():
        raise OSError(28, "full")

    runtime.before["save"] = fail
    _status, answer = Api(alice).patch("/containers/web-1", {"devices": [{"device": "fuse"}]})
    assert run(Operation.objects.get(pk=answer["id"]), runtime).status == "failed"
    assert runtime.attached[row().pk].devices == ()


@pytest.mark.parametrize(
    ("changes", "status", "code", "field"),
    [
        ({"mounts": [{**MOUNT, "share": "gone"}]}, 403, "policy", "mounts.0.share"),
        ({"mounts": [MOUNT, {"share": "others", "target": "/x"}]}, 403, "policy", "mounts.1.share"),
        ({"mounts": [{**MOUNT, "propagation": "slave"}]}, 403, "policy", "mounts.0.propagation"),
        ({"mounts": [{**MOUNT, "propagation": "shared"}]}, 422, "invalid-value", "mounts.0.propagation"),
        ({"mounts": [{**MOUNT, "target": "/proc/x"}]}, 422, "invalid-value", "mounts.0.target"),
        ({"mounts": [{**MOUNT, "target": "relative"}]}, 422, "invalid-value", "mounts.0.target"),
        ({"mounts": [{**MOUNT, "subpath": "../etc"}]}, 422, "invalid-value", "mounts.0.subpath"),
        ({"mounts": [{**MOUNT, "source": "/etc"}]}, 400, "bad-request", "mounts.0.source"),
        ({"mounts": [{**MOUNT, "path": "/etc"}]}, 400, "bad-request", "mounts.0.path"),
        ({"mounts": [{"share": "media"}]}, 400, "bad-request", "mounts.0.target"),
        ({"mounts": [{**MOUNT, "share": "/etc"}]}, 422, "invalid-value", "mounts.0.share"),
        ({"mounts": [{**MOUNT, "read_only": "yes"}]}, 400, "bad-request", "mounts.0.read_only"),
        ({"mounts": [MOUNT, MOUNT]}, 422, "invalid-value", "mounts.1.target"),
        ({"mounts": None}, 422, "invalid-value", "mounts"),
        ({"devices": [{"device": "tun"}]}, 403, "policy", "devices.0.device"),
        ({"devices": [{"device": "sda"}]}, 403, "policy", "devices.0.device"),
        ({"devices": [{"device": "fuse", "path": "/etc/x"}]}, 422, "invalid-value", "devices.0.path"),
        ({"devices": [{"device": "fuse", "mode": "rw"}]}, 422, "invalid-value", "devices.0.mode"),
        ({"devices": [{"device": "fuse", "major": 8}]}, 400, "bad-request", "devices.0.major"),
    ],
)
def test_what_is_refused_names_its_field(alice, team, changes, status, code, field):
    make_container(team)
    assert_error(Api(alice).patch("/containers/web-1", changes), status, code, field)
    assert not Operation.objects.exists()


def test_nothing_else_may_be_named_at_creation_either(alice, team):
    body = {"name": "web-2", "image": "busybox", "project": "team", "mounts": [{"share": "others", "target": "/x"}]}
    assert_error(Api(alice).post("/containers", body), 403, "policy", "mounts.0.share")
    assert not Container.objects.filter(name="web-2").exists()


def test_while_the_policy_file_cannot_be_understood_that_is_the_reason(alice, team, host, page):
    host.facts |= {"policy": {}, "policy_problem": as_json(say("policy.toml is not valid TOML: %(error)s", error="x"))}
    host.save()
    for changes, field in (
        ({"mounts": [MOUNT]}, "mounts.0.share"),
        ({"devices": [{"device": "fuse"}]}, "devices.0.device"),
        ({"hooks": [{"point": "start-host", "hook": "gone"}]}, "hooks.0.hook"),
        ({"security": {"seccomp": "gone"}}, "security.seccomp"),
        ({"security": {"nesting": True}}, "security.nesting"),
    ):
        answer = Api(alice).patch("/containers/web-1", changes)
        assert_error(answer, 403, "policy", field)
        assert answer[1]["message"] == "policy.toml is not valid TOML: x", field
    shown = page().content.decode()
    assert shown.count("policy.toml is not valid TOML: x") >= 2
    assert "policy gives this project no" not in shown


def test_the_web_is_told_why_a_policy_file_is_not_understood(host, tmp_path):
    for text, told in (("[shares", "policy.toml is not valid TOML: "), ("[shares]\n", "")):
        (tmp_path / "policy.toml").write_text(text)
        host.facts = json.loads(json.dumps(facts.of(CoreHost(tmp_path, ""))))
        assert policy_problem(host).startswith(told)
        assert bool(policy_problem(host)) == bool(told)
        assert host.facts["policy"]["shares"] == {}


def test_lists_tell_what_ones_projects_may_have_and_no_path(alice, team):
    assert Api(alice).get("/shares")[1]["items"] == [
        {"name": "books", "projects": ["team"], "read_only": True, "submounts": False},
        {"name": "media", "projects": ["team"], "read_only": False, "submounts": False},
    ]
    assert Api(alice).get("/devices")[1]["items"] == [
        {"name": "fuse", "projects": ["team"], "path": "/dev/fuse"},
        {"name": "kvm", "projects": ["team"], "path": "/dev/kvm"},
    ]


def test_a_clone_has_them_too(alice, team, runtime):
    make_container(team, runtime=runtime, mounts=[MOUNT_SHOWN], devices=[DEVICE_SHOWN])
    run(services.act(actor(alice), "web-1", "clone", {"name": "web-2"}), runtime)
    clone = runtime.specs[Container.objects.get(name="web-2").pk]
    assert (clone.mounts, clone.devices) == ((Mount(**MOUNT),), (Device(device="fuse"),))


@pytest.fixture
def page(alice, team):
    make_container(team, mounts=[MOUNT_SHOWN], devices=[DEVICE_SHOWN])
    client = Client()
    client.force_login(alice, backend="allauth.account.auth_backends.AuthenticationBackend")

    def send(part="settings", fields=None):
        where = reverse(f"containers:{part}", args=["web-1"])
        if fields is None:
            return client.get(where)
        return client.post(where, fields, headers={"HX-Request": "true"})

    return send


def test_the_settings_page_shows_what_there_is_and_what_may_be_added(page):
    shown = page().content.decode()
    given = shown[shown.index('id="given"') :]
    assert "/srv/media" in given
    assert re.findall(r'<option value="([a-z]+)"', given) == ["books", "media", "kvm"]
    assert "others" not in given
    # fuse is on; tun is another project's, and says why
    assert 'name="remove" value="fuse"' in given
    assert "tun: This host&#x27;s policy does not give it to this project." in given
    assert 'value="tun"' not in given


def test_the_settings_page_adds_and_removes(page):
    fields = {"share": "books", "subpath": "new", "target": "/srv/books", "create": "1", "optional": "1"}
    assert page("mounts", fields).status_code == 204
    wanted = Operation.objects.get().arguments["changes"]["mounts"]
    assert wanted[0] == MOUNT_SHOWN
    assert wanted[1] == {**MOUNT_SHOWN, "share": "books", "subpath": "new", "target": "/srv/books", "optional": True}
    Operation.objects.all().delete()
    assert page("mounts", {"remove": "/srv/media"}).status_code == 204
    assert Operation.objects.get().arguments["changes"] == {"mounts": []}
    Operation.objects.all().delete()
    assert page("devices", {"device": "kvm", "path": "", "mode": "0660"}).status_code == 204
    changes = Operation.objects.get().arguments["changes"]
    assert [(one["device"], one["mode"]) for one in changes["devices"]] == [("fuse", "0666"), ("kvm", "0660")]
    Operation.objects.all().delete()
    assert page("devices", {"remove": "fuse"}).status_code == 204
    assert Operation.objects.get().arguments["changes"] == {"devices": []}


@pytest.mark.parametrize(
    ("part", "fields", "where"),
    [
        ("mounts", {"share": "books", "target": "books"}, 'name="target"'),
        ("mounts", {"share": "others", "target": "/x"}, 'name="share"'),
        ("mounts", {"share": "books", "target": "/x", "subpath": "../a"}, 'name="subpath"'),
        ("devices", {"device": "tun"}, None),
    ],
)
def test_an_error_on_the_page_is_beside_its_field(page, part, fields, where):
    shown = page(part, fields).content.decode()
    assert shown.count('role="alert"') == 1
    if where:
        field = shown[shown.index(where) :]
        assert 'role="alert"' in field[: field.index("</div>")]
    assert not Operation.objects.exists()


def test_who_may_not_change_it_is_told_why(page, team, django_user_model):
    viewer = django_user_model.objects.create_user("vera", password=None)
    team.memberships.create(user=viewer, role="viewer")
    client = Client()
    client.force_login(viewer, backend="allauth.account.auth_backends.AuthenticationBackend")
    shown = client.get(reverse("containers:mounts", args=["web-1"])).content.decode()
    assert "<button class" not in shown[shown.index('id="given"') : shown.index('id="toasts"')]
    refused = client.post(reverse("containers:devices", args=["web-1"]), {"device": "fuse"})
    assert refused.status_code == 403 or b'role="alert"' in refused.content
    assert not Operation.objects.exists()


def test_the_host_page_lists_what_is_registered_and_who_uses_it(root, alice, charlie, team):
    host = local_host()
    host.facts = {
        **host.facts,
        "policy": {
            "shares": {
                "media": {"projects": ["team"], "read_only": True, "submounts": False},
                "vault": {"projects": ["other"], "read_only": False, "submounts": True},
            },
            "devices": {"kvm": {"projects": ["*"], "path": "/dev/kvm"}},
        },
    }
    host.save()
    mount = {"share": "media", "target": "/srv/media", "read_only": True}
    make_container(
        team, "web-1", mounts=[mount, {**mount, "share": "gone"}], devices=[{"device": "kvm", "path": "/dev/kvm"}]
    )

    def shown(user):
        browser = Client()
        browser.force_login(user)
        page = browser.get("/host/").content.decode()
        return page[page.index('id="granted"') : page.index('id="graphs"')]

    of_root = shown(root)
    for part in (
        "media",
        "read-only",
        "vault",
        "writable, with the host&#x27;s later mounts",
        "/dev/kvm",
        "every project",
    ):
        assert part in of_root
    assert ">web-1</a>" in of_root
    assert "not in policy.toml any more" in of_root
    assert "vault" not in shown(alice), "what is for others is nobody's business"
    assert ">web-1</a>" in shown(alice)
    assert "web-1" not in shown(charlie)
    assert "media" not in shown(charlie)
