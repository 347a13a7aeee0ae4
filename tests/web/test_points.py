"""Snapshots above the seam: what a restore brings back, its undo, the fields of a snapshot, and the tree."""

from __future__ import annotations

import datetime as dt

import pytest
from django.test import Client
from django.utils import timezone

from containers.asking import services
from containers.core.errors import AlreadyExists, InUse, PolicyDenied, SpecError
from containers.models import Container, Operation, Snapshot
from containers.operations import runner
from containers.operations.runtime import Built
from containers.showing import tree
from containers.upkeep import rebuild, reconcile
from tests.web.api import Api, assert_error
from tests.web.world import CORE_HOST, FakeRuntime, actor, make_container

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("host")]
DEAD = {"boot_id": "another", "pid": 1, "start_time": 1}
MIB = 1024**2


@pytest.fixture
def runtime():
    made = FakeRuntime()
    made.made_images["busybox"] = Built(layers=("base",), size_bytes=1, defaults={})
    return made


@pytest.fixture
def ask(alice, runtime):
    """Return a function that asks alice's web-1 for something and has it done."""

    def ask(action, arguments=None, name="web-1"):
        operation = services.act(actor(alice), name, action, arguments or {})
        assert runner.run(operation.pk, runtime, CORE_HOST)
        return Operation.objects.get(pk=operation.pk)

    return ask


def test_a_restore_brings_files_and_configuration_back_and_its_undo_both_again(team, runtime, ask):
    row = make_container(team, runtime=runtime, limits={"memory_bytes": 64 * MIB}, description="then", tags=["a"])
    mac = row.interfaces.get().mac
    ask("snapshot")
    ask("update", {"limits": {"memory_bytes": 128 * MIB}, "description": "now", "restart": "always"})
    done = ask("restore", {"snapshot": "snap0"})
    assert (done.status, done.message) == ("succeeded", "Restored to snap0; undo0 takes it back.")
    row.refresh_from_db()
    assert (row.limits, row.description, row.restart) == ({"memory_bytes": 64 * MIB}, "then", "no")
    assert row.layers == ["base", "layer-snap0"]
    stored = runtime.specs[row.pk]
    assert (stored.limits.memory_bytes, stored.generation, stored.nics[0].mac) == (64 * MIB, row.generation, mac)
    undo = Snapshot.objects.get(name="undo0")
    assert (undo.kind, undo.note, undo.created_by) == ("safety", "→ snap0", "alice")
    week = timezone.now() + dt.timedelta(days=7)
    assert abs((undo.expires_at - week).total_seconds()) < 60
    ask("restore", {"snapshot": "undo0"})
    row.refresh_from_db()
    assert (row.limits, row.description, row.layers[-1]) == ({"memory_bytes": 128 * MIB}, "now", "layer-undo0")
    assert Snapshot.objects.filter(name="undo1").exists()


def test_what_comes_back_is_chosen(team, runtime, ask):
    row = make_container(team, runtime=runtime, status="running", limits={"memory_bytes": 64 * MIB})
    ask("snapshot")
    ask("update", {"limits": {"memory_bytes": 128 * MIB}})
    runtime.calls.clear()
    assert ask("restore", {"snapshot": "snap0", "what": "configuration"}).status == "succeeded"
    # in force at once, and nothing was stopped
    assert [verb for verb, _ in runtime.calls] == ["keep_configuration", "apply_limits", "save"]
    row.refresh_from_db()
    assert (row.limits, row.layers, row.status) == ({"memory_bytes": 64 * MIB}, ["base"], "running")
    undo = Snapshot.objects.get(name="undo0")
    assert undo.holds == "configuration"
    with pytest.raises(SpecError, match="configuration only"):
        ask("restore", {"snapshot": "undo0", "what": "files"})
    ask("restore", {"snapshot": "undo0"})
    row.refresh_from_db()
    assert row.limits == {"memory_bytes": 128 * MIB}
    ask("restore", {"snapshot": "snap0", "what": "files"})
    row.refresh_from_db()
    assert (row.limits, row.layers) == ({"memory_bytes": 128 * MIB}, ["base", "layer-snap0"])


def test_what_makes_it_itself_and_what_would_remove_it_stays(team, runtime, ask):
    row = make_container(team, runtime=runtime, ephemeral=True)
    ask("snapshot")
    Container.objects.filter(pk=row.pk).update(ephemeral=False)
    ask("rename", {"name": "web-9"})
    before = Container.objects.get(pk=row.pk)
    ask("restore", {"snapshot": "snap0"}, name="web-9")
    after = Container.objects.get(pk=row.pk)
    same = ("name", "slot", "machine_id", "ephemeral", "image_name")
    assert [getattr(after, field) for field in same] == [getattr(before, field) for field in same]


def test_a_configuration_that_the_policy_forbids_by_now_changes_and_stops_nothing(team, runtime, ask):
    row = make_container(team, runtime=runtime, status="running", description="then")
    ask("snapshot")
    ask("update", {"description": "now"})

    def forbid(spec):
        if spec.description == "then":
            raise PolicyDenied("No.", field="description")

    runtime.policy = forbid
    runtime.calls.clear()
    for what in ("all", "configuration"):
        done = ask("restore", {"snapshot": "snap0", "what": what})
        assert (done.status, done.error["code"]) == ("failed", "policy")
    assert {verb for verb, _ in runtime.calls} <= {"remove_snapshot"}
    row.refresh_from_db()
    assert (row.status, row.description) == ("running", "now")
    assert list(Snapshot.objects.values_list("name", flat=True)) == ["snap0"]
    assert ask("restore", {"snapshot": "snap0", "what": "files"}).status == "succeeded"


def test_network_interfaces_come_back_and_keep_who_they_are(team, alice, runtime, ask):
    row = make_container(team, runtime=runtime)
    first, before = row.interfaces.get(), runtime.specs[row.pk].nics
    ask("snapshot")
    wanted = [
        {"name": "eth0", "network": "default", "mtu": 1400, "ingress_bytes_per_sec": 1_000_000},
        {"name": "eth1", "network": "default"},
    ]
    assert ask("update", {"nics": wanted}).status == "succeeded"
    second = row.interfaces.get(name="eth1")
    done = ask("restore", {"snapshot": "snap0", "what": "configuration"})
    assert done.status == "succeeded", done.error
    back = row.interfaces.get()
    assert (back.name, back.mac, back.ipv4, back.ipv6) == ("eth0", first.mac, first.ipv4, first.ipv6)
    assert runtime.specs[row.pk].nics == before
    # the undo brings the other one back, with the address that it had
    done = ask("restore", {"snapshot": "undo0"})
    assert done.status == "succeeded", done.error
    again = row.interfaces.get(name="eth1")
    assert (again.mac, again.ipv4) == (second.mac, second.ipv4)
    assert row.interfaces.get(name="eth0").options["mtu"] == 1400
    # with the files too
    assert ask("restore", {"snapshot": "snap0"}).status == "succeeded"
    assert [nic.name for nic in runtime.specs[row.pk].nics] == ["eth0"]
    assert [nic.name for nic in row.interfaces.all()] == ["eth0"]


def die():
    raise KeyboardInterrupt


@pytest.mark.parametrize("dies_in", ["restore", "restored", "start"])
def test_a_restore_whose_worker_dies_is_resumed(team, alice, runtime, ask, dies_in):
    row = make_container(team, runtime=runtime, status="running", description="then")
    ask("snapshot")
    ask("update", {"description": "now"})
    operation = services.act(actor(alice), "web-1", "restore", {"snapshot": "snap0"})
    runtime.before[dies_in] = die
    with pytest.raises(KeyboardInterrupt):
        runner.run(operation.pk, runtime, CORE_HOST)
    Operation.objects.filter(pk=operation.pk).update(owner=DEAD)
    runtime.before.clear()
    reconcile.recover(row.host)
    assert runner.run(operation.pk, runtime, CORE_HOST)
    row.refresh_from_db()
    assert (row.status, row.description, row.layers) == ("running", "then", ["base", "layer-snap0"])
    assert runtime.taken[row.pk]["undo0"]["spec"]["description"] == "now"
    assert Snapshot.objects.get(name="undo0").spec["description"] == "now"
    assert rebuild.mend_rows(row.host, runtime, CORE_HOST) == []


def test_a_restore_that_kills_every_worker_says_what_the_host_says(team, alice, runtime, ask, host):
    row = make_container(team, runtime=runtime, status="running", description="then")
    ask("snapshot")
    ask("update", {"description": "now"})
    operation = services.act(actor(alice), "web-1", "restore", {"snapshot": "snap0"})
    runtime.before["restored"] = die
    for _attempt in range(runner.ATTEMPTS_MAX):
        with pytest.raises(KeyboardInterrupt):
            runner.run(operation.pk, runtime, CORE_HOST)
        Operation.objects.filter(pk=operation.pk).update(owner=DEAD)
        reconcile.recover(host)
    assert runner.run(operation.pk, runtime, CORE_HOST)
    row.refresh_from_db()
    assert (row.description, row.status) == ("then", "running")
    assert row.generation == runtime.specs[row.pk].generation
    assert Snapshot.objects.filter(name="undo0").exists()


def test_name_note_pin_and_expiry(alice, team, runtime, ask):
    make_container(team, runtime=runtime)
    ask("snapshot", {"name": "a", "pinned": True})
    ask("snapshot", {"name": "b"})
    with pytest.raises(InUse):
        ask("snapshot-delete", {"snapshot": "a"})
    with pytest.raises(AlreadyExists):
        ask("snapshot-change", {"snapshot": "b", "name": "a"})
    for late in ("yesterday", "2020-01-01T00:00:00Z", "9999-01-01T00:00:00Z"):
        with pytest.raises(SpecError) as caught:
            ask("snapshot-change", {"snapshot": "b", "expires_at": late})
        assert caught.value.field == "expires_at"
    soon = timezone.now() + dt.timedelta(days=2)
    ask("snapshot-change", {"snapshot": "a", "name": "first", "note": "n", "pinned": False, "expires_at": soon})
    row = Snapshot.objects.get(name="first")
    assert (row.note, row.pinned, row.expires_at) == ("n", False, soon.replace(microsecond=0))
    # what is not named stays
    ask("snapshot-change", {"snapshot": "first", "note": "m"})
    row.refresh_from_db()
    assert (row.note, row.expires_at) == ("m", soon.replace(microsecond=0))
    ask("snapshot-change", {"snapshot": "first", "expires_at": None})
    row.refresh_from_db()
    assert row.expires_at is None


def test_the_store_has_the_last_word_on_a_snapshot(team, runtime, ask, host):
    container = make_container(team, runtime=runtime)
    ask("snapshot", {"name": "a", "note": "n"})
    runtime.taken[container.pk]["a"]["pinned"] = True
    assert len(rebuild.mend_rows(host, runtime, CORE_HOST)) == 1
    assert Snapshot.objects.get().pinned
    assert rebuild.mend_rows(host, runtime, CORE_HOST) == []


def test_the_api(alice, bob, team, runtime, ask):
    make_container(team, runtime=runtime)
    ask("snapshot", {"name": "a"})
    ask("restore", {"snapshot": "a"})
    api = Api(alice)
    assert [item["name"] for item in api.get("/containers/web-1/snapshots")[1]["items"]] == ["a"]
    found = {item["name"]: item for item in api.get("/containers/web-1/snapshots?safety=true")[1]["items"]}
    assert (found["undo0"]["kind"], found["undo0"]["parent"], found["undo0"]["holds"]) == ("safety", "a", "all")
    assert (found["a"]["kind"], found["a"]["parent"], found["a"]["expires_at"]) == ("manual", None, None)
    path = "/containers/web-1/snapshots/a"
    assert api.patch(path, {"note": "x", "expires_at": None})[0] == 202
    Operation.objects.all().update(status="succeeded")
    soon = (timezone.now() + dt.timedelta(days=1)).isoformat(timespec="seconds")
    for given in (soon, soon.replace("+00:00", "Z")):
        assert api.patch(path, {"expires_at": given})[0] == 202, given
        assert Operation.objects.get(status="queued").arguments["expires_at"] == soon
        Operation.objects.filter(status="queued").update(status="succeeded")
    for wrong in ("tomorrow", "2100-01-01T00:00:00", "9999-12-31T23:59:59-23:59", "2001-01-01T00:00:00Z"):
        assert_error(api.patch(path, {"expires_at": wrong}), 422, "invalid-value", "expires_at")
    assert api.patch(path, {"expires_at": 5})[0] == 400
    assert api.post("/containers/web-1/snapshots", {"name": "b", "expires_at": soon})[0] == 202
    Operation.objects.all().update(status="succeeded")
    assert api.post("/containers/web-1/clone", {"name": "twin", "expires_at": soon})[0] == 202
    Operation.objects.all().update(status="succeeded")
    assert api.patch(path, {"nonsense": 1})[0] == 400
    assert Api(bob).patch(path, {"note": "y"})[0] == 403
    Operation.objects.all().update(status="succeeded")
    assert api.post(f"{path}/restore", {"what": "nothing"})[0] == 422
    assert api.post(f"{path}/restore", {"what": "files"})[1]["action"] == "restore"
    assert Operation.objects.get(status="queued").arguments["what"] == "files"


def snap(name, lineage, minute):
    at = dt.datetime(2026, 1, 1, 0, minute, tzinfo=dt.UTC)
    return Snapshot(pk=minute, name=name, lineage=lineage, created_at=at)


def test_the_tree_shows_branches_and_where_now_stands():
    a, b, undo, c = snap("a", [], 1), snap("b", ["a"], 2), snap("undo", ["a", "b"], 3), snap("c", ["a"], 4)
    lines = tree.drawn([c, undo, b, a], ["a", "c"])
    assert [(line.snapshot and line.snapshot.name, line.depth) for line in lines] == [
        ("a", 0),
        ("b", 1),
        ("undo", 1),
        ("c", 0),
        (None, 0),
    ]
    # ancestors that are gone are skipped; one of the same name taken later is no ancestor
    again = snap("b", [], 9)
    assert tree.parents([undo, again, a])[3] == "a"
    assert tree.drawn([], ["gone"])[0].snapshot is None


# pages


@pytest.fixture
def browser(alice, settings, tmp_path):
    settings.STATIC_ROOT = tmp_path
    settings.BOXROOM_RUN_DIR = str(tmp_path)
    client = Client()
    client.force_login(alice, backend="allauth.account.auth_backends.AuthenticationBackend")
    return client


def test_the_page_shows_the_tree_and_what_can_be_done(team, runtime, ask, browser):
    make_container(team, runtime=runtime)
    ask("snapshot", {"name": "a", "note": "first", "pinned": True})
    ask("restore", {"snapshot": "a"})
    page = browser.get("/containers/web-1/snapshots").content.decode()
    for text in ("undo of a restore", "it stands here", "kept", "→ a", "What changed since"):
        assert text in page, text
    dialog = browser.get("/containers/web-1/_dialog/restore?snapshot=a").content.decode()
    assert "Settings only" in dialog
    assert "/containers/web-1/_changes?before=&amp;after=a" in dialog
    assert (
        "Change the snapshot a" in browser.get("/containers/web-1/_dialog/snapshot-change?snapshot=a").content.decode()
    )


def test_dialogs_ask_for_what_was_entered(team, runtime, ask, browser):
    make_container(team, runtime=runtime)
    ask("snapshot", {"name": "a"})
    tomorrow = (timezone.now() + dt.timedelta(days=2)).date().isoformat()
    form = {"snapshot": "a", "name": "b", "note": "n", "expires_at": tomorrow, "pinned": "1"}
    assert browser.post("/containers/web-1/_dialog/snapshot-change", form).status_code == 302
    asked = Operation.objects.get(status="queued")
    assert asked.arguments == {
        "snapshot": "a", "name": "b", "note": "n", "pinned": True, "expires_at": f"{tomorrow}T00:00:00+00:00"
    }  # fmt: skip
    Operation.objects.all().update(status="succeeded")
    browser.post("/containers/web-1/_dialog/restore", {"snapshot": "a", "what": "files"})
    assert Operation.objects.get(status="queued").arguments["what"] == "files"


def test_what_nobody_can_read_now_is_said(team, runtime, ask, browser, bob):
    make_container(team, runtime=runtime)
    ask("snapshot", {"name": "a"})
    for path in ("_changes?after=a", "_changes/text?after=a&path=/x"):
        page = browser.get(f"/containers/web-1/{path}")
        assert page.status_code == 200
        assert "cannot be read at the moment" in page.content.decode(), path
    assert "Now" in browser.get("/containers/web-1/compare?before=a").content.decode()
    assert Api(bob).get("/containers/web-1/snapshots/a/files")[0] == 403
    assert Api(bob).get("/containers/web-1/snapshots/a/content?path=/etc/passwd")[0] == 403


def test_differences_of_the_configuration(team, runtime, ask, alice, monkeypatch):
    make_container(team, runtime=runtime, limits={"memory_bytes": 64 * MIB})
    ask("snapshot", {"name": "a"})
    ask("update", {"limits": {"memory_bytes": None, "cpus": 1}, "tags": ["x"]})
    answer = {"items": [], **{one: {"count": 0, "size_bytes": 0} for one in ("added", "changed", "removed")}}
    monkeypatch.setattr("containers.clients.reading.ask", lambda *_a, **_k: dict(answer))
    told = Api(alice).get("/containers/web-1/snapshots/a/changes")[1]
    assert told["files"] == answer
    assert told["configuration"] == [
        {"field": "limits.cpus", "before": 1, "after": None},
        {"field": "limits.memory_bytes", "before": None, "after": 64 * MIB},
        {"field": "tags", "before": ["x"], "after": []},
    ]
