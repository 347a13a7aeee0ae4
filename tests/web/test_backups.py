"""Backups: who may do what, what of a configuration its importer gets, schedules, pages."""

from __future__ import annotations

import datetime as dt
import ipaddress
import re

import pytest
from django.db import transaction
from django.test import Client
from django.utils import timezone

from containers.asking import backups, fitting, nics, refitting, schedules
from containers.asking.resources import usable_network
from containers.core.backups import form
from containers.models import Backup, Container, Network, Operation, Schedule
from containers.upkeep.scheduling import Scheduler
from panel.accounts.models import Project
from tests.web.api import Api, assert_error
from tests.web.world import actor, make_container

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("host")]
START = dt.datetime(2026, 6, 1, 12, 30, tzinfo=dt.UTC)


@pytest.fixture
def web(team, runtime) -> Container:
    return make_container(team, "web", runtime=runtime)


def kept(host, project, name: str = "web", **values) -> Backup:
    number = Backup.objects.count()
    file = form.file_name(name, START, number)
    return Backup.objects.create(
        host=host, project=project, destination="local", file=file, container=name, size_bytes=1000, **values
    )


def statuses(users, call) -> list[int]:
    return [call(Api(user))[0] for user in users]


def ended() -> None:
    Operation.objects.all().delete()


def test_each_role_may_what_it_may_and_a_stranger_sees_nothing(host, team, web, make_user, alice, olga, bob, root):
    row, nobodys = kept(host, team), kept(host, None, "found")
    users = (root, alice, olga, bob, make_user("eve"))
    calls = {
        "list": (lambda api: (len(api.get("/backups")[1]["items"]), None), [2, 1, 1, 1, 0]),
        "see": (lambda api: api.get(f"/backups/{row.pk}"), [200, 200, 200, 200, 404]),
        "see nobody's": (lambda api: api.get(f"/backups/{nobodys.pk}"), [200, 404, 404, 404, 404]),
        "export": (lambda api: api.post("/containers/web/backups", {}), [202, 202, 202, 403, 404]),
        "verify": (lambda api: api.post(f"/backups/{row.pk}/verify"), [202, 202, 202, 403, 404]),
        "scan": (lambda api: api.post("/backups/scan", {"destination": "local"}), [202, 403, 403, 403, 403]),
        "in place": (
            lambda api: api.post("/containers/web/restore-backup", {"backup": row.pk}),
            [202, 202, 403, 403, 404],
        ),
        "new": (
            lambda api: api.post("/backups/restore", {"backup": row.pk, "name": "n", "project": team.name}),
            [202, 202, 403, 403, 404],
        ),
        "delete": (lambda api: api.delete(f"/backups/{row.pk}"), [202, 202, 403, 403, 404]),
    }
    for what, (call, expected) in calls.items():
        found = []
        for user in users:
            found.append(call(Api(user))[0])
            ended()
            Container.objects.filter(name="n").delete()
        assert found == expected, what


def test_what_cannot_be_is_refused_at_once(host, team, web, alice, root):
    row = kept(host, team)
    assert_error(Api(alice).post("/containers/web/backups", {"destination": "nas"}), 403, "policy", "destination")
    again = {"backup": row.pk, "name": "web", "project": team.name}
    assert_error(Api(alice).post("/backups/restore", again), 409, "already-exists", "name")
    assert_error(Api(alice).post("/backups/restore", {**again, "name": "No"}), 422, "invalid-value", "name")
    assert_error(Api(alice).post("/backups/restore", {"name": "n", "project": team.name}), 404, "not-found")
    asked = Api(alice).delete(f"/backups/{row.pk}")[1]
    assert_error(Api(alice).post(f"/backups/{row.pk}/verify"), 409, "busy")
    assert_error(Api(alice).post("/backups/restore", {**again, "name": "n"}), 409, "busy")
    assert asked["action"] == "backup-delete"
    assert Container.objects.count() == 1


def test_a_configuration_gets_no_more_than_its_importer(host, team, web):
    host.facts = {**host.facts, "policy": {**host.facts.get("policy", {}), "privileged": True}}
    host.save()
    web.host = host
    told = {
        "name": "evil",
        "description": "kept",
        "tags": ["a"],
        "privileged": True,
        "limits": {"memory_bytes": 64 << 20, "cpus": -1.0, "no_such": 1, "pids": None},
        "security": {"nesting": True, "sysctls": {"kernel.core_pattern": "|/bin/sh"}},
        "mounts": [{"share": "secrets", "path": "/mnt"}],
        "devices": [{"device": "kvm"}, 7],
        "hooks": [{"point": "pre-start", "hook": "backup"}],
        "environment": {"A": "b"},
        "init_command": "no list",
        "restart": ["always"],
        "boot": "x",
        "nics": [{"name": "eth0", "type": "bridge"}, {"name": "eth1", "type": "phys", "parent": "eth0"}],
        "unheard_of": {"x": 1},
    }
    columns, left = fitting.columns(told, web, privileged=False)
    assert columns == {
        "description": "kept",
        "tags": ["a"],
        "limits": {"memory_bytes": 64 << 20},
        "environment": {"A": "b"},
    }
    assert {one.what for one in left} == {
        "privileged",
        "limits.cpus",
        "limits.no_such",
        "security.nesting",
        "security.sysctls",
        "mounts.secrets",
        "devices.kvm",
        "devices.1",
        "hooks.backup",
        "init_command",
        "restart",
        "boot",
    }
    assert fitting.columns(told, web, privileged=True)[0]["privileged"] is True
    for value in (None, 5, "x", [], [1], {"a": {}}, True):
        whole = dict.fromkeys((*told, "console", "halt_signal", "autostart"), value)
        found, _left = fitting.columns(whole, web, privileged=False)
        assert set(found) <= {"description", "tags", "halt_signal", "autostart", "environment", "init_command"}


def test_interfaces_are_as_they_were_with_addresses_of_their_own(host, team, web, alice):
    parent = {"projects": ["team"], "types": ["macvlan"], "vlans": [], "addresses": []}
    host.facts = {
        **host.facts,
        "policy": {**host.facts.get("policy", {}), "parents": {"lan": parent}},
    }
    host.save()
    web.host = host
    back = Network.objects.create(host=host, name="back", number=77, ipv4="10.77.0.1/24", project=team)
    others = Project.objects.create(name="others")
    Network.objects.create(host=host, name="theirs", number=78, ipv4="10.78.0.1/24", project=others)

    def find(name):
        return usable_network(actor(alice), name, team, host)

    bridged = {"type": "bridge", "bridge": "x", "host_link": "y", "mac": "02:00:00:00:00:01", "index": 3}
    told = [
        {**bridged, "name": "lan", "type": "macvlan", "parent": "lan", "mode": "bridge", "ipv4": "192.0.2.9/24"},
        {**bridged, "name": "up", "network": "gone", "ipv4": None, "mtu": 1400},
        {**bridged, "name": "db", "network": "back", "ipv4": "10.9.9.9/24", "egress_bytes_per_sec": 4096},
        {**bridged, "name": "bad", "network": "theirs"},
        {**bridged, "name": "none", "network": {"x": 1}, "mtu": -1},
        {"name": "card", "type": "phys", "parent": "eth0"},
        {"name": "all", "type": "host"},
        {"type": ["bridge"]},
        7,
    ]
    made, left = refitting.interfaces(told, web, "default", find)
    kept = [(one["name"], one["type"], one["network"], one["options"].get("mtu")) for one in made]
    assert kept == [("lan", "macvlan", None, None), ("up", "bridge", "default", 1400), ("db", "bridge", "back", None)]
    assert [one["index"] for one in made] == [0, 1, 2]
    assert made[0]["ipv4"] is None
    assert made[1]["ipv4"]  # another network: what that one gives
    assert ipaddress.ip_address(made[2]["ipv4"]) in ipaddress.ip_network(back.ipv4, strict=False)
    assert made[2]["options"]["egress_bytes_per_sec"] == 4096
    assert not {one["mac"] for one in made} & {"02:00:00:00:00:01", None}
    assert {one.what for one in left} == {
        "nics.lan.addresses",
        "nics.bad",
        "nics.none",
        "nics.card",
        "nics.all",
        "nics.7",
        "nics.8",
    }
    with transaction.atomic():
        nics.write(web, made)
    # whoever is resumed gets the same again
    assert refitting.interfaces(told, web, "default", find)[0] == made
    for told in (None, 5, [], [{"name": {}}], [{"type": "bridge", "name": "no such name at all"}]):
        (one,) = refitting.interfaces(told, web, "default", find)[0]
        assert (one["name"], one["network"]) == ("eth0", "default")


def test_a_schedule_writes_backups_and_keeps_as_many_as_it_should(host, team, web, alice):
    row = schedules.create(
        actor(alice),
        {"name": "s", "container": "web", "when": "0 * * * *", "keep": {"last": 2}, "destination": "local"},
    )
    Schedule.objects.filter(pk=row.pk).update(next_at=schedules.next_of(row, START))
    tick = Scheduler(lambda: True)
    assert tick(START + dt.timedelta(hours=1)) == 1
    operation = Operation.objects.get()
    assert (operation.action, operation.container, operation.object_name) == ("backup-export", None, "web")
    assert (operation.arguments["schedule"], operation.actor_name) == ("s", "system")
    # the one before is not finished: no second
    assert tick(START + dt.timedelta(hours=2)) == 0
    ended()
    now = timezone.now()
    rows = [
        kept(host, team, container_id=web.pk, schedule="s", created_at=now - dt.timedelta(hours=age))
        for age in (5, 4, 3)
    ]
    by_hand = kept(host, team, container_id=web.pk, created_at=now - dt.timedelta(hours=9))
    damaged = kept(host, team, container_id=web.pk, schedule="s", created_at=now, problem="It is damaged.")
    assert tick(START + dt.timedelta(hours=2, minutes=1)) == 1
    assert Operation.objects.get().arguments == {"backup": rows[0].pk}
    # one that failed is not asked for at every turn
    Operation.objects.update(status="failed")
    assert tick(START + dt.timedelta(hours=2, minutes=2)) == 0
    assert {by_hand.pk, damaged.pk}.isdisjoint(Operation.objects.values_list("arguments__backup", flat=True))
    body = Api(alice).get(f"/schedules/{row.pk}")[1]
    assert (body["destination"], body["snapshots"]) == ("local", False)
    assert body["prune"] == [{"container": "web", "snapshots": sorted(one.file for one in rows[:2])}]
    assert_error(Api(alice).patch(f"/schedules/{row.pk}", {"destination": "nas"}), 403, "policy", "destination")


def test_a_cancelled_import_leaves_no_container(host, team, web, alice):
    row = kept(host, team)
    asked = Api(alice).post("/backups/restore", {"backup": row.pk, "name": "n", "project": team.name})[1]
    assert Container.objects.filter(name="n").exists()
    assert Api(alice).post(f"/operations/{asked['id']}/cancel")[0] == 202
    assert not Container.objects.filter(name="n").exists()


def test_the_pages_show_what_there_is_and_offer_what_one_may(host, team, web, alice, bob):
    row = kept(host, team, container_id=web.pk, sha256="ab" * 32, problem="It is damaged.")
    for user, may in ((alice, True), (bob, False)):
        client = Client()
        client.force_login(user)
        for path in ("/backups/", "/containers/web/backups"):
            page = client.get(path)
            assert page.status_code == 200
            assert row.container in page.content.decode()
            assert (f"/backups/{row.pk}/delete" in page.content.decode()) is may
        detail = client.get(f"/backups/{row.pk}").content.decode()
        assert "It is damaged." in detail
        assert ("Replace its files" in detail) is may
    client.force_login(alice)
    answer = client.post(f"/backups/{row.pk}", {"how": "new", "name": "web", "project": team.name})
    assert answer.status_code == 422
    assert "taken" in answer.content.decode()
    answer = client.post(f"/backups/{row.pk}", {"how": "in-place", "target": "web"})
    operation = Operation.objects.get()
    assert answer["Location"] == f"/operations/{operation.pk}"
    assert (operation.action, operation.container, operation.arguments["safety"]) == ("backup-restore", web, "undo0")
    assert client.post("/containers/web/_backup", {"destination": "local"}).status_code == 302
    assert backups.unfinished(row) == operation


def test_an_operation_leads_to_what_it_is_about_now(host, team, web, alice, client):
    client.force_login(alice, backend="allauth.account.auth_backends.AuthenticationBackend")
    row = kept(host, team, container_id=web.pk)
    export = Operation.objects.get(pk=Api(alice).post("/containers/web/backups", {})[1]["id"])
    verify = Operation.objects.get(pk=Api(alice).post(f"/backups/{row.pk}/verify")[1]["id"])
    common = {"host": host, "project": team, "actor_name": "alice", "object_name": "web", "status": "succeeded"}
    start = Operation.objects.create(action="start", container=web, **common)
    Container.objects.filter(pk=web.pk).update(name="shop")  # renamed since
    leads = {export: "/containers/shop/backups", verify: f"/backups/{row.pk}", start: "/containers/shop"}
    for operation, there in leads.items():
        assert f'<a class="btn" href="{there}">' in client.get(f"/operations/{operation.pk}").content.decode()
        for page in ("/operations/", "/"):
            assert f'href="{there}">web</a>' in client.get(page).content.decode(), (page, operation.action)
    Container.objects.filter(pk=web.pk).delete()
    row.delete()
    for operation in leads:
        page = client.get(f"/operations/{operation.pk}")
        assert page.status_code == 200
        assert not re.search(r'class="btn" href="/(containers|backups)/.', page.content.decode())
