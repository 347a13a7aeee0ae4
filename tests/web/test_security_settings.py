"""The security settings: through the API and the settings page, into the row, and from there to the runtime."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse

from containers.asking import services
from containers.bookkeeping import specs
from containers.core.model.security import Prlimit, Security
from containers.models import Container, Operation
from tests.web.api import Api, assert_error
from tests.web.world import CORE_HOST, actor, make_container, make_host, run

pytestmark = pytest.mark.django_db

DEFAULTS = {
    "nesting": False,
    "capabilities_drop": [],
    "capabilities_keep": None,
    "no_new_privs": False,
    "sysctls": {},
    "prlimits": {},
    "oom_score_adj": 0,
    "keyctl": False,
    "seccomp": "",
    "clock_offsets": {},
    "personality": "",
    "apparmor": "",
    "ids": 65536,
}
WANTED = {
    "capabilities_drop": ["CAP_NET_RAW"],
    "no_new_privs": True,
    "sysctls": {"net.ipv4.ip_forward": 1},
    "prlimits": {"nofile": {"soft": 512, "hard": 1024}, "core": "unlimited"},
    "oom_score_adj": 100,
    "seccomp": "tight",
    "clock_offsets": {"boottime": 60},
    "personality": "linux32",
}
SHOWN = {
    **DEFAULTS,
    "capabilities_drop": ["net_raw"],
    "no_new_privs": True,
    "sysctls": {"net.ipv4.ip_forward": "1"},
    "prlimits": {"nofile": {"soft": 512, "hard": 1024}, "core": {"soft": "unlimited", "hard": "unlimited"}},
    "oom_score_adj": 100,
    "seccomp": "tight",
    "clock_offsets": {"boottime": 60},
    "personality": "linux32",
}


@pytest.fixture(autouse=True)
def host():
    made = make_host()
    profiles = {"tight": {"projects": ["*"]}, "loose": {"projects": ["elsewhere"]}}
    made.facts = {**made.facts, "policy": {**made.facts.get("policy", {}), "seccomp": profiles}}
    made.save()
    return made


def row():
    return Container.objects.get(name="web-1")


def test_they_are_taken_at_creation_and_shown(alice, team, runtime):
    body = {"name": "web-1", "image": "busybox", "project": "team", "security": WANTED}
    status, answer = Api(alice).post("/containers", body)
    assert status == 202
    assert run(Operation.objects.get(pk=answer["id"]), runtime).status == "succeeded"
    assert Api(alice).get("/containers/web-1")[1]["security"] == SHOWN
    stored = runtime.specs[row().pk].security
    assert stored.prlimits["nofile"] == Prlimit(soft=512, hard=1024)
    assert specs.columns_of(runtime.specs[row().pk])["security"] == row().security


def test_a_container_that_says_nothing_is_like_every_other(alice, team):
    make_container(team)
    assert Api(alice).get("/containers/web-1")[1]["security"] == DEFAULTS
    assert specs.spec_of(row(), CORE_HOST).security == Security()


def test_a_change_is_of_the_named_fields_and_tells_when_it_counts(alice, team, runtime):
    make_container(team, runtime=runtime, status="running", security={"no_new_privs": True, "oom_score_adj": 5})
    status, answer = Api(alice).patch("/containers/web-1", {"security": {"sysctls": {"kernel.sem": "1 2 3 4"}}})
    assert status == 202
    done = run(Operation.objects.get(pk=answer["id"]), runtime)
    assert done.message == "Changed; part of it takes effect at the next start."
    assert row().security == {"no_new_privs": True, "oom_score_adj": 5, "sysctls": {"kernel.sem": "1 2 3 4"}}
    assert runtime.specs[row().pk].security.sysctls == {"kernel.sem": "1 2 3 4"}
    _status, answer = Api(alice).patch("/containers/web-1", {"security": {"sysctls": None, "no_new_privs": None}})
    run(Operation.objects.get(pk=answer["id"]), runtime)
    assert row().security == {"oom_score_adj": 5}


@pytest.mark.parametrize(
    ("security", "status", "code", "field"),
    [
        ({"nesting": True}, 403, "policy", "security.nesting"),
        ({"capabilities_keep": ["sys_time"]}, 403, "policy", "security.capabilities_keep"),
        ({"capabilities_keep": ["flying"]}, 422, "invalid-value", "security.capabilities_keep"),
        ({"sysctls": {"kernel.panic": "1"}}, 422, "invalid-value", "security.sysctls.kernel.panic"),
        ({"prlimits": {"nofile": 1}}, 422, "invalid-value", "security.prlimits.nofile"),
        ({"oom_score_adj": -1}, 422, "invalid-value", "security.oom_score_adj"),
        ({"oom_score_adj": "1"}, 400, "bad-request", "security.oom_score_adj"),
        ({"keyctl": True}, 403, "policy", "security.keyctl"),
        ({"seccomp": "loose"}, 403, "policy", "security.seccomp"),
        ({"seccomp": "never-heard-of"}, 403, "policy", "security.seccomp"),
        ({"seccomp": "../x"}, 422, "invalid-value", "security.seccomp"),
        ({"clock_offsets": {"realtime": 1}}, 422, "invalid-value", "security.clock_offsets.realtime"),
        ({"personality": "vax"}, 422, "invalid-value", "security.personality"),
        ({"apparmor": "lxc-web"}, 403, "policy", "security.apparmor"),
        ({"ids": 131072}, 403, "policy", "security.ids"),
        ({"ids": 5}, 422, "invalid-value", "security.ids"),
        ({"wings": 2}, 400, "bad-request", "security.wings"),
    ],
)
def test_what_is_refused_names_its_field(alice, team, security, status, code, field):
    make_container(team)
    assert_error(Api(alice).patch("/containers/web-1", {"security": security}), status, code, field)
    body = {"name": "web-2", "image": "busybox", "project": "team", "security": security}
    assert_error(Api(alice).post("/containers", body), status, code, field)
    assert not Operation.objects.exists()


def test_the_hosts_policy_allows_more(alice, team, host, runtime):
    host.facts = {
        **host.facts,
        "policy": {
            "nesting": True,
            "keyctl": True,
            "ids": 131072,
            "apparmor": ["lxc-web"],
            "capabilities": ["sys_time"],
        },
    }
    host.save()
    make_container(team, runtime=runtime)
    wanted = {
        "nesting": True,
        "ids": 131072,
        "keyctl": True,
        "apparmor": "lxc-web",
        "capabilities_keep": ["chown", "sys_time"],
    }
    _status, answer = Api(alice).patch("/containers/web-1", {"security": wanted})
    assert run(Operation.objects.get(pk=answer["id"]), runtime).status == "succeeded"
    assert runtime.specs[row().pk].security == Security(
        nesting=True, ids=131072, keyctl=True, apparmor="lxc-web", capabilities_keep=("chown", "sys_time")
    )


def test_a_clone_has_them_too(alice, team, runtime):
    make_container(team, runtime=runtime, security={"no_new_privs": True})
    run(services.act(actor(alice), "web-1", "clone", {"name": "web-2"}), runtime)
    assert runtime.specs[Container.objects.get(name="web-2").pk].security == Security(no_new_privs=True)


@pytest.fixture
def page(alice, team):
    make_container(team, security={"prlimits": {"core": {"soft": 0, "hard": "unlimited"}}})
    client = Client()
    client.force_login(alice, backend="allauth.account.auth_backends.AuthenticationBackend")
    where = reverse("containers:settings", args=["web-1"])

    def send(fields=None):
        if fields is None:
            return client.get(where)
        return client.post(where, fields, headers={"HX-Request": "true"})

    return send


def test_the_settings_page_shows_and_changes_them(page, runtime):
    shown = page().content.decode()
    assert "core=0:unlimited" in shown
    assert "Takes effect at the next start." in shown
    fields = {
        "security_no_new_privs_there": "1",
        "security_no_new_privs": "1",
        "security_capabilities_drop": "net_raw, CAP_MKNOD",
        "security_sysctls": "net.ipv4.ip_forward = 1\r\n\r\nkernel.sem=1 2 3 4\r\n",
        "security_prlimits": "nofile=512:1024\ncpu=60",
        "security_oom_score_adj": "7",
        "security_keyctl_there": "1",
        "security_seccomp": " tight ",
        "security_clock_offsets": "boottime=3600\r\nmonotonic = -0,5",
        "security_personality": "linux32",
        "security_apparmor": "generated",
    }
    assert page(fields).status_code == 204
    assert Operation.objects.get().arguments["changes"]["security"] == {
        "no_new_privs": True,
        "capabilities_drop": ["net_raw", "mknod"],
        "sysctls": {"net.ipv4.ip_forward": "1", "kernel.sem": "1 2 3 4"},
        "prlimits": {"nofile": {"soft": 512, "hard": 1024}, "cpu": {"soft": 60, "hard": 60}},
        "oom_score_adj": 7,
        "seccomp": "tight",
        "clock_offsets": {"boottime": 3600.0, "monotonic": -0.5},
        "personality": "linux32",
        "apparmor": "generated",
    }


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("sysctls", "kernel.panic=1"),
        ("sysctls", "no equals"),
        ("prlimits", "nofile=much"),
        ("capabilities_drop", "flying"),
        ("oom_score_adj", "high"),
        ("seccomp", "loose"),
        ("clock_offsets", "boottime=soon"),
        ("clock_offsets", "realtime=1"),
        ("personality", "vax"),
        ("ids", "many"),
        ("apparmor", "unnamed"),
    ],
)
def test_an_error_on_the_page_is_beside_its_field(page, name, text):
    shown = page({f"security_{name}": text}).content.decode()
    setting = shown.split(f'data-setting="security_{name}"')[1].split('<div class="setting" ')[0]
    assert "data-error" in setting
    assert shown.count("data-error") == 1
    assert not Operation.objects.exists()
