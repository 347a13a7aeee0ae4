"""init, boot and console: through the API into the row and to the runtime, with what an image says beneath."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse

from containers.bookkeeping import specs
from containers.core.model.behaviour import Boot, Consoles, Init
from containers.models import Container, Image, Operation
from containers.operations import runner
from tests.web.api import Api, assert_error
from tests.web.world import CORE_HOST, make_container

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("host")]


def run(answer, runtime):
    assert runner.run(answer["id"], runtime, CORE_HOST)
    return Operation.objects.get(pk=answer["id"])


def row():
    return Container.objects.get(name="web-1")


def test_they_are_taken_at_creation_and_shown(alice, team, runtime):
    body = {
        "name": "web-1",
        "image": "busybox",
        "project": "team",
        "init_command": ["sleep"],
        "init": {"kind": "application", "arguments": ["60"], "user": "1000:1000"},
        "boot": {"groups": ["web"], "order": 2, "delay_sec": 3},
        "console": {"ttys": 4},
    }
    status, answer = Api(alice).post("/containers", body)
    assert status == 202
    assert run(answer, runtime).status == "succeeded"
    shown = Api(alice).get("/containers/web-1")[1]
    assert shown["init"] == {
        "kind": "application",
        "arguments": ["60"],
        "user": "1000:1000",
        "groups": None,
        "cwd": "/",
        "reboot_signal": None,
        "wait_for_all": False,
    }
    assert shown["boot"] == {"groups": ["web"], "order": 2, "delay_sec": 3}
    assert (shown["console"]["ttys"], shown["console"]["log_bytes"]) == (4, 1024**2)
    stored = runtime.specs[row().pk]
    assert stored.init == Init(kind="application", arguments=("60",), user="1000:1000")
    assert (stored.boot, stored.console) == (Boot(groups=("web",), order=2, delay_sec=3), Consoles(ttys=4))
    columns = specs.columns_of(stored)
    assert {name: columns[name] for name in ("init", "boot", "console")} == {
        name: getattr(row(), name) for name in ("init", "boot", "console")
    }


def test_an_image_says_what_nobody_said_otherwise(alice, team, runtime):
    defaults = {
        "init_command": ["nginx"],
        "init": {"kind": "application", "arguments": ["-g", "daemon off;"], "user": "www"},
        "console": {"ttys": 2},
    }
    Image.objects.filter(name="busybox").update(defaults=defaults)
    for name, wanted, command, arguments in (
        ("web-1", {"init": {"user": "0"}}, ["nginx"], ["-g", "daemon off;"]),
        ("web-2", {"init_command": ["sh"]}, ["sh"], []),
        ("web-3", {"init_command": ["sh"], "init": {"arguments": ["-c", "true"]}}, ["sh"], ["-c", "true"]),
    ):
        status, answer = Api(alice).post("/containers", {"name": name, "image": "busybox", "project": "team", **wanted})
        assert status == 202, answer
        assert run(answer, runtime).status == "succeeded"
        shown = Api(alice).get(f"/containers/{name}")[1]
        assert (shown["init_command"], shown["init"]["arguments"]) == (command, arguments)
        assert (shown["init"]["kind"], shown["console"]["ttys"]) == ("application", 2)
        assert shown["init"]["user"] == wanted.get("init", {}).get("user", "www")


def test_a_signal_for_an_images_init_is_none_for_an_application(alice, team, runtime):
    defaults = {"init_command": ["/sbin/init"], "halt_signal": "SIGINT", "init": {"reboot_signal": "SIGTERM"}}
    Image.objects.filter(name="busybox").update(defaults=defaults)
    for name, wanted, halt, reboot in (
        ("web-1", {"init_command": ["/bin/init"]}, "SIGINT", "SIGTERM"),
        ("web-2", {"init": {"kind": "application"}, "init_command": ["httpd"]}, None, None),
        ("web-3", {"init": {"kind": "application"}, "init_command": ["x"], "halt_signal": "SIGHUP"}, "SIGHUP", None),
    ):
        status, answer = Api(alice).post("/containers", {"name": name, "image": "busybox", "project": "team", **wanted})
        assert status == 202, answer
        assert run(answer, runtime).status == "succeeded"
        shown = Api(alice).get(f"/containers/{name}")[1]
        assert (shown["halt_signal"] or None, shown["init"]["reboot_signal"]) == (halt, reboot)


def test_a_change_is_of_the_named_fields_and_counts_from_the_next_start(alice, team, runtime):
    make_container(team, runtime=runtime, status="running", boot={"order": 5}, init={"user": "daemon"})
    _status, answer = Api(alice).patch("/containers/web-1", {"boot": {"delay_sec": 2}, "init": {"cwd": "/tmp"}})
    assert run(answer, runtime).message == "Changed; part of it takes effect at the next start."
    assert row().boot == {"order": 5, "delay_sec": 2}
    assert runtime.specs[row().pk].init == Init(user="daemon", cwd="/tmp")
    _status, answer = Api(alice).patch("/containers/web-1", {"boot": {"order": None}})
    assert run(answer, runtime).message == "Changed."
    assert row().boot == {"delay_sec": 2}


@pytest.mark.parametrize(
    ("changes", "status", "code", "field"),
    [
        ({"init": {"kind": "virtual"}}, 422, "invalid-value", "init.kind"),
        ({"init": {"user": "a b"}}, 422, "invalid-value", "init.user"),
        ({"init": {"reboot_signal": "SIGNONE"}}, 422, "invalid-value", "init.reboot_signal"),
        ({"init": {"cwd": "tmp"}}, 422, "invalid-value", "init.cwd"),
        ({"init": {"wings": 2}}, 400, "bad-request", "init.wings"),
        ({"boot": {"order": "first"}}, 400, "bad-request", "boot.order"),
        ({"boot": {"delay_sec": 3601}}, 422, "invalid-value", "boot.delay_sec"),
        ({"console": {"ttys": 13}}, 422, "invalid-value", "console.ttys"),
        ({"console": None}, 422, "invalid-value", "console"),
        ({"init_command": ["sh"]}, 422, "invalid-value", "init_command"),
    ],
)
def test_what_is_refused_names_its_field(alice, team, changes, status, code, field):
    make_container(team)
    assert_error(Api(alice).patch("/containers/web-1", changes), status, code, field)
    if None not in changes.values():
        body = {"name": "web-2", "image": "busybox", "project": "team", **changes}
        assert_error(Api(alice).post("/containers", body), status, code, field)
    assert not Container.objects.filter(name="web-2").exists()


def test_a_command_and_its_kind_go_together(alice, team, runtime):
    make_container(team, runtime=runtime, init_command=["sh"], init={"kind": "application"})
    assert_error(
        Api(alice).patch("/containers/web-1", {"init": {"kind": "system"}}), 422, "invalid-value", "init_command"
    )
    changes = {"init": {"kind": "system"}, "init_command": ["/bin/sh"]}
    _status, answer = Api(alice).patch("/containers/web-1", changes)
    assert run(answer, runtime).status == "succeeded"


def test_a_clone_has_them_too(alice, team, runtime):
    make_container(team, runtime=runtime, boot={"order": 5}, init={"user": "daemon"}, console={"ttys": 1})
    _status, answer = Api(alice).post("/containers/web-1/clone", {"name": "web-9"})
    assert run(answer, runtime).status == "succeeded"
    clone = Container.objects.get(name="web-9")
    assert (clone.boot, clone.init, clone.console) == ({"order": 5}, {"user": "daemon"}, {"ttys": 1})


def save(user, **fields):
    client = Client()
    client.force_login(user)
    return client.post(reverse("containers:settings", args=["web-1"]), fields)


def test_the_settings_page_shows_and_changes_them(alice, team, runtime):
    make_container(team, runtime=runtime, init_command=["/bin/app"], console={"ttys": 2})
    client = Client()
    client.force_login(alice)
    page = client.get(reverse("containers:settings", args=["web-1"])).content.decode()
    for name in ("boot__order", "init__user", "console__ttys", "init__application"):
        assert f'data-setting="{name}"' in page
    answer = save(
        alice,
        boot__order="-5",
        boot__delay_sec="3",
        boot__groups="web, db",
        init__application="1",
        init__application_there="1",
        init__arguments="-c 'a b'",
        init__user="daemon:adm",
        init__cwd="",
        console__ttys="",
        console__log_bytes="64 KiB",
        console__buffer_bytes="8",
        console__exclusive_there="1",
    )
    assert answer.status_code == 302, answer.content
    run({"id": Operation.objects.get().pk}, runtime)
    changed = row()
    assert changed.boot == {"groups": ["web", "db"], "order": -5, "delay_sec": 3}
    assert changed.init == {"kind": "application", "arguments": ["-c", "a b"], "user": "daemon:adm"}
    assert changed.console == {"log_bytes": 65536, "buffer_bytes": 8192}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("boot__order", "first"),
        ("boot__delay_sec", "-1"),
        ("init__user", "a b"),
        ("init__arguments", "'"),
        ("init__cwd", "tmp"),
        ("console__ttys", "13"),
        ("console__log_bytes", "1"),
        ("console__buffer_bytes", "lots"),
    ],
)
def test_an_error_stands_beside_its_field(alice, team, field, value):
    make_container(team)
    answer = save(alice, **{field: value})
    assert answer.status_code == 422
    page = answer.content.decode()
    beside = page.partition(f'data-setting="{field}"')[2].partition("data-setting=")[0]
    assert "data-error" in beside, field
    assert page.count("data-error") == 1


def test_the_terminal_tab_offers_the_consoles(alice, team, runtime):
    make_container(team, runtime=runtime, status="running", console={"ttys": 2})
    client = Client()
    client.force_login(alice)
    page = client.get(reverse("containers:terminal", args=["web-1"])).content.decode()
    assert 'data-consoles="console tty1 tty2"' in page


def test_a_restart_from_inside_is_the_inits_own(alice, team, runtime):
    there = make_container(team, runtime=runtime, status="running")
    before = runtime.observe([there.pk])[there.pk].init_pid
    status, answer = Api(alice).post("/containers/web-1/restart", {"inside": True, "timeout": 5})
    assert status == 202
    assert runner.run(answer["id"], runtime, CORE_HOST)
    assert (runtime.count("reboot"), runtime.count("stop"), runtime.count("start")) == (1, 0, 0)
    there.refresh_from_db()
    assert there.init_pid != before
    assert there.events.filter(kind="rebooted").count() == 1


def test_the_form_for_a_new_container_takes_them(alice, team, runtime):
    client = Client()
    client.force_login(alice)
    fields = {
        "name": "web-1",
        "image": "busybox",
        "project": "team",
        "network": "default",
        "init_command": "sleep 60",
        "init__application": "1",
        "init__application_there": "1",
        "init__user": "nobody",
        "boot__order": "4",
        "console__ttys": "2",
    }
    answer = client.post(reverse("containers:create"), fields)
    assert answer.status_code == 302, answer.content.decode()
    run({"id": Operation.objects.get().pk}, runtime)
    made = row()
    assert made.init_command == ["sleep", "60"]
    assert (made.init, made.boot, made.console) == (
        {"kind": "application", "user": "nobody"},
        {"order": 4},
        {"ttys": 2},
    )
