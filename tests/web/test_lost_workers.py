"""Operations whose workers are lost again and again tell at their end what is true on the host."""

from __future__ import annotations

import pytest
from django.test import Client
from django.utils import timezone

from containers.asking import backups as asking_backups
from containers.asking import basket, resources, services
from containers.bookkeeping import points
from containers.core.backups.directories import Directory
from containers.core.lifecycle import backing
from containers.models import Backup, Container, Image, Network, Operation, Snapshot, Trashed
from containers.operations import backups, runner
from containers.upkeep import reconcile
from tests.web.world import CORE_HOST, actor, make_container, run

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("host")]
DEAD = {"boot_id": "another", "pid": 1, "start_time": 1}


def die(*_arguments, **_more):
    """End as a killed process does: nothing of ours catches it."""
    raise KeyboardInterrupt


def lose(operation, runtime, host, times=1):
    """Have the operation begun by so many workers that are lost on the way."""
    for _attempt in range(times):
        with pytest.raises(KeyboardInterrupt):
            runner.run(operation.pk, runtime, CORE_HOST)
        Operation.objects.filter(pk=operation.pk).update(owner=DEAD)
        reconcile.recover(host, runtime)


def test_a_delete_that_had_forgotten_its_container_has_succeeded(alice, team, runtime, host, monkeypatch):
    make_container(team, runtime=runtime)
    operation = services.act(actor(alice), "web-1", "delete", {"keep_days": 7})
    with monkeypatch.context() as patched:
        patched.setattr(runner, "_end", die)
        lose(operation, runtime, host)
    assert not Container.objects.exists()
    done = run(operation, runtime)
    assert (done.status, done.error, done.container_name) == ("succeeded", None, "web-1")
    assert done.message.startswith("Moved to the trash. (Its worker was lost")


def test_a_backup_that_was_written_is_one_backup(alice, team, runtime, host, monkeypatch, tmp_path):
    row = make_container(team, runtime=runtime)
    place = Directory(CORE_HOST, "local", tmp_path)
    monkeypatch.setattr(backups.places, "of", lambda _host, _name: place)

    def write(_host, _container_id, _place, *, file, **_more):
        (place.path / file).write_bytes(b"whole")
        return backing.Exported(file=file, size_bytes=5, sha256="", plain_bytes=5, points=0, made_at="")

    monkeypatch.setattr(backing, "export", write)
    operation = asking_backups.export(actor(alice), "web-1")
    with monkeypatch.context() as patched:
        patched.setattr(backups.records, "add_event", die)
        lose(operation, runtime, host)
    found = next(iter(place.listed())).name
    Backup.objects.create(host=host, destination="local", file=found, container="web-1")
    with monkeypatch.context() as patched:
        patched.setattr(runner, "_end", die)
        lose(operation, runtime, host)
    assert run(operation, runtime).status == "succeeded"
    kept = Backup.objects.get()
    assert (kept.container_id, [one.name for one in place.listed()]) == (row.pk, [kept.file])


def take_snapshot(alice, runtime):
    run(services.act(actor(alice), "web-1", "snapshot", {"name": "old"}), runtime)


def begin(what, alice, runtime):
    """Ask for an operation; return it, and the runtime's verb that does it."""
    if what == "delete":
        return services.act(actor(alice), "web-1", "delete", {"keep_days": 7}), "delete"
    if what == "snapshot":
        return services.act(actor(alice), "web-1", "snapshot", {"name": "new"}), "snapshot"
    if what == "snapshot-delete":
        take_snapshot(alice, runtime)
        return services.act(
            actor(alice), "web-1", "snapshot-delete", {"snapshot": "old", "keep_days": 7}
        ), "remove_snapshot"
    if what == "image-delete":
        alice.host_admin = True
        alice.save()
        return resources.delete_image(actor(alice), "debian-12", keep_days=7), "remove_image"
    take_snapshot(alice, runtime)
    run(services.act(actor(alice), "web-1", "delete", {"keep_days": 7}), runtime)
    if what == "trash-restore":
        return basket.restore(actor(alice), Trashed.objects.get().pk), "take_back"
    return basket.purge(actor(alice), Trashed.objects.get()), "purge"


def rows(what):
    """Tell whether the rows are as if the operation had been done."""
    return {
        "delete": not Container.objects.exists() and Trashed.objects.filter(kind="container").exists(),
        "snapshot": Snapshot.objects.filter(name="new").exists(),
        "snapshot-delete": not Snapshot.objects.exists() and Trashed.objects.filter(kind="snapshot").exists(),
        "image-delete": not Image.objects.filter(name="debian-12").exists(),
        "trash-restore": Snapshot.objects.filter(name="old").exists() and not Trashed.objects.exists(),
        "trash-purge": not Trashed.objects.exists(),
    }[what]


@pytest.mark.parametrize("given_up", [False, True], ids=["rolled-back", "given-up"])
@pytest.mark.parametrize("done", [False, True], ids=["not-done", "done"])
@pytest.mark.parametrize(
    "what", ["delete", "snapshot", "snapshot-delete", "image-delete", "trash-purge", "trash-restore"]
)
def test_what_is_done_on_the_host_has_succeeded_however_often_its_worker_was_lost(
    alice, team, runtime, host, monkeypatch, what, done, given_up
):
    make_container(team, runtime=runtime)
    runtime.build_image("debian-12", {}, lambda *_: None, lambda *_: None, lambda: False)
    Image.objects.filter(name="debian-12").update(state="ready")
    operation, verb = begin(what, alice, runtime)
    really = getattr(runtime, verb)

    def do_and_die(*arguments, **more):
        if done:
            really(*arguments, **more)
        die()

    with monkeypatch.context() as patched:
        patched.setattr(runtime, verb, do_and_die)
        patched.setattr(points, "take", die)
        lose(operation, runtime, host, runner.ATTEMPTS_MAX)
    if given_up:
        with monkeypatch.context() as patched:
            patched.setattr(runner, "_done", die)
            lose(operation, runtime, host)
            with pytest.raises(KeyboardInterrupt):
                runner.run(operation.pk, runtime, CORE_HOST)
            Operation.objects.filter(pk=operation.pk).update(owner=DEAD)
        reconcile.recover(host, runtime)
    else:
        runner.run(operation.pk, runtime, CORE_HOST)
    ended = Operation.objects.get(pk=operation.pk)
    assert (ended.status, rows(what)) == (("succeeded", True) if done else ("failed", False))


def test_one_that_cannot_even_be_looked_at_ends(alice, team, runtime, host, monkeypatch):
    make_container(team, runtime=runtime)
    operation = services.act(actor(alice), "web-1", "snapshot", {"name": "new"})
    Operation.objects.filter(pk=operation.pk).update(
        status="running", attempts=runner.ATTEMPTS_MAX + 2, owner=DEAD, started_at=timezone.now()
    )
    monkeypatch.setattr(runtime, "snapshots", lambda _id: 1 / 0)
    reconcile.recover(host, runtime)
    assert Operation.objects.get(pk=operation.pk).error["code"] == "interrupted"


@pytest.mark.parametrize("chosen", [False, True], ids=["without-subnets", "with-subnets"])
def test_a_network_that_is_given_up_is_made_where_its_subnets_are_chosen(alice, team, runtime, host, chosen):
    operation = services.create_network(actor(alice), "lab", project="team")
    if chosen:
        runtime.before["ensure_network"] = die
        lose(operation, runtime, host)
    Operation.objects.filter(pk=operation.pk).update(
        status="running", attempts=runner.ATTEMPTS_MAX + 2, owner=DEAD, started_at=timezone.now()
    )
    reconcile.recover(host, runtime)
    ended = Operation.objects.get(pk=operation.pk)
    there = Network.objects.filter(name="lab").exists()
    assert (ended.status, there, 1 in runtime.networks) == (
        ("succeeded", True, True) if chosen else ("failed", False, False)
    )


def test_a_restore_that_got_through_is_not_called_rolled_back(alice, team, runtime, host, monkeypatch):
    row = make_container(team, runtime=runtime, status="running")
    take_snapshot(alice, runtime)
    operation = services.act(actor(alice), "web-1", "restore", {"snapshot": "old"})
    runtime.before["restored"] = die
    lose(operation, runtime, host, runner.ATTEMPTS_MAX)
    runtime.before.clear()
    done = run(operation, runtime)
    safety = operation.arguments["safety"]
    assert (done.status, done.message) == ("succeeded", f"Restored to old; {safety} takes it back.")
    assert Snapshot.objects.filter(name=safety).exists()
    row.refresh_from_db()
    assert (row.status, row.lineage) == ("running", ["old"])


def test_a_restore_that_did_not_begin_leaves_no_safety_point(alice, team, runtime, host):
    make_container(team, runtime=runtime)
    take_snapshot(alice, runtime)
    operation = services.act(actor(alice), "web-1", "restore", {"snapshot": "old"})
    runtime.before["restore"] = die
    lose(operation, runtime, host, runner.ATTEMPTS_MAX)
    done = run(operation, runtime)
    assert (done.status, done.message.endswith("Rolled back.")) == ("failed", True)
    assert [one.name for one in Snapshot.objects.all()] == ["old"]


def test_clones_that_were_made_before_the_rest_failed_are_named(alice, team, runtime, host):
    make_container(team, runtime=runtime)
    operation = services.act(actor(alice), "web-1", "clone", {"name": "twin", "count": 3})

    def die_at_the_third():
        if runtime.count("clone") > 2:
            die()

    runtime.before["clone"] = die_at_the_third
    lose(operation, runtime, host, runner.ATTEMPTS_MAX)
    done = run(operation, runtime)
    assert done.status == "failed"
    assert done.message.endswith("Made before that, and kept: twin-1, twin-2.")
    client = Client()
    client.force_login(alice)
    assert "and kept: twin-1, twin-2." in client.get(f"/operations/{operation.pk}").content.decode()
    page = client.get(f"/operations/{operation.pk}", headers={"accept-language": "de"}).content.decode()
    assert "Vorher gemacht und behalten: twin-1, twin-2." in page
    assert sorted(row.name for row in Container.objects.all()) == ["twin-1", "twin-2", "web-1"]


def test_clones_that_are_given_up_half_way_through_the_roll_back_leave_no_rows(alice, team, runtime, host):
    make_container(team, runtime=runtime)
    operation = services.act(actor(alice), "web-1", "clone", {"name": "twin", "count": 3})
    runtime.before["clone"] = die
    lose(operation, runtime, host, runner.ATTEMPTS_MAX)

    def die_at_the_second():
        if runtime.count("delete") > 1:
            die()

    runtime.before["delete"] = die_at_the_second
    lose(operation, runtime, host, 2)
    assert Operation.objects.get(pk=operation.pk).error["code"] == "interrupted"
    assert [row.name for row in Container.objects.all()] == ["web-1"]


def test_a_create_that_only_did_not_start_is_not_called_rolled_back(alice, team, runtime, host):
    operation = services.create_container(
        actor(alice), services.ContainerRequest(name="web-1", image="busybox", project="team", start=True)
    )
    runtime.before["start"] = die
    lose(operation, runtime, host, runner.ATTEMPTS_MAX)
    done = run(operation, runtime)
    assert (done.status, done.message) == ("failed", f"Its worker was lost {runner.ATTEMPTS_MAX} times.")
    assert Container.objects.get().status == "stopped"
