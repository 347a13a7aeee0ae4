"""The trash above the seam: what goes into it, comes back, is purged and expires; rights; the page."""

from __future__ import annotations

import datetime as dt

import pytest
from django.test import Client
from django.utils import timezone

from containers.asking import basket, resources, services
from containers.core.errors import AlreadyExists, NotFound, SpecError
from containers.models import Container, Image, Operation, Snapshot, Trashed
from containers.operations import runner
from containers.operations.runtime import Built
from containers.upkeep import rebuild, reconcile
from containers.upkeep.scheduling import Scheduler
from panel.accounts.actor import Forbidden
from tests.web.api import Api, assert_error
from tests.web.world import CORE_HOST, FakeRuntime, actor, make_container, run

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("host")]
DEAD = {"boot_id": "another", "pid": 1, "start_time": 1}


@pytest.fixture
def runtime():
    made = FakeRuntime()
    made.made_images["busybox"] = Built(layers=("base",), size_bytes=1, defaults={})
    return made


@pytest.fixture
def ask(alice, runtime):
    def ask(action, arguments=None, name="web-1"):
        return run(services.act(actor(alice), name, action, arguments or {}), runtime)

    return ask


def test_a_container_comes_back_with_everything(alice, team, runtime, ask):
    row = make_container(team, runtime=runtime, limits={"pids": 64}, tags=["a"], description="d", autostart=True)
    before = row.interfaces.get()
    ask("snapshot", {"note": "n"})
    done = ask("delete")
    assert (done.status, done.message) == ("succeeded", "Moved to the trash.")
    assert not Container.objects.exists()
    assert_error(Api(alice).get("/containers/web-1"), 404, "not-found")
    kept = Trashed.objects.get()
    assert (kept.kind, kept.name, kept.project, kept.deleted_by) == ("container", "web-1", team, "alice")
    assert abs((kept.expires_at - timezone.now() - dt.timedelta(days=7)).total_seconds()) < 60
    assert run(basket.restore(actor(alice), kept.pk), runtime).status == "succeeded"
    back = Container.objects.get()
    same = ("pk", "name", "machine_id", "limits", "tags", "description", "autostart", "created_at", "next_snapshot")
    row.refresh_from_db()
    assert [getattr(back, name) for name in same] == [getattr(row, name) for name in same]
    nic = back.interfaces.get()
    assert (nic.mac, nic.ipv4, nic.ipv6) == (before.mac, before.ipv4, before.ipv6)
    assert [(one.name, one.note, one.created_by) for one in back.snapshots.all()] == [("snap0", "n", "alice")]
    assert (back.status, Trashed.objects.count()) == ("stopped", 0)
    assert runtime.specs[back.pk].nics[0].mac == before.mac
    assert rebuild.mend_rows(back.host, runtime, CORE_HOST) == []


def test_its_name_and_address_may_be_another_s_by_now(alice, team, runtime, ask):
    first = make_container(team, runtime=runtime)
    address = first.interfaces.get().ipv4
    ask("delete")
    second = make_container(team, runtime=runtime)
    second.interfaces.update(ipv4=address)
    with pytest.raises(AlreadyExists):
        basket.restore(actor(alice), first.pk)
    assert run(basket.restore(actor(alice), first.pk, "web-2"), runtime).status == "succeeded"
    back = Container.objects.get(name="web-2")
    assert back.interfaces.get().ipv4 not in (None, address)
    assert runtime.specs[back.pk].name == "web-2"


def test_a_snapshot_comes_back_and_what_was_not_asked_for_is_not_kept(alice, team, runtime, ask, host):
    container = make_container(team, runtime=runtime)
    ask("snapshot", {"note": "n", "pinned": False})
    assert "trash" in ask("snapshot-delete", {"snapshot": "snap0"}).message
    kept = Trashed.objects.get()
    assert (kept.kind, kept.container) == ("snapshot", "web-1")
    assert run(basket.restore(actor(alice), kept.pk), runtime).status == "succeeded"
    assert Snapshot.objects.get().created_by == "alice"
    ask("restore", {"snapshot": "snap0"})
    for arguments in ({"snapshot": "undo0"}, {"snapshot": "snap0", "keep_days": 0}):
        assert "trash" not in ask("snapshot-delete", arguments).message
    Container.objects.filter(pk=container.pk).update(ephemeral=True)
    assert ask("delete").message == "Deleted."
    make_container(team, "web-2", runtime=runtime)
    run(services.request_by_system(Container.objects.get(), "delete"), runtime)
    make_container(team, "web-3", runtime=runtime)
    assert ask("delete", {"keep_days": 0}, name="web-3").message == "Deleted."
    assert not Trashed.objects.exists()
    make_container(team, "web-4", runtime=runtime)
    with pytest.raises(SpecError):
        ask("delete", {"keep_days": 366}, name="web-4")


def test_an_image_comes_back_for_host_administrators(alice, root, runtime, host, settings, tmp_path):
    settings.STATE_DIR = tmp_path
    image = Image.objects.get(name="busybox")
    assert run(resources.delete_image(actor(root), "busybox"), runtime).message == "Moved to the trash."
    kept = Trashed.objects.get()
    assert (kept.kind, kept.project, list(runtime.made_images)) == ("image", None, [])
    assert Api(alice).get("/trash")[1]["items"] == []
    assert run(basket.restore(actor(root), kept.pk), runtime).status == "succeeded"
    back = Image.objects.get(name="busybox")
    assert (back.source, back.state, back.layers) == (image.source, "ready", ["base"])
    assert run(resources.delete_image(actor(root), "busybox"), runtime).status == "succeeded"
    Image.objects.create(host=host, name="busybox", source={}, state="ready")
    client = Client()
    client.force_login(root)
    assert "is taken by now" in client.get("/trash/").content.decode()
    entry = Trashed.objects.get()
    address = f"/trash/{entry.pk}/restore"
    assert client.post(address, headers={"hx-request": "true"}).status_code == 409
    assert client.post(address, headers={"hx-request": "true", "hx-prompt": "other"}).status_code == 204
    assert run(Operation.objects.get(status="queued"), runtime).status == "succeeded"
    assert Image.objects.get(name="other").layers == ["base"]
    runtime.made_images.setdefault("busybox", runtime.made_images["other"])
    with pytest.raises(SpecError):
        resources.delete_image(actor(root), "busybox", keep_days=366)
    assert run(resources.delete_image(actor(root), "busybox", keep_days=0), runtime).message == "Deleted."
    assert not Trashed.objects.filter(kind="image").exists()


def test_purge_and_expiry(alice, team, runtime, ask):
    for name in ("a", "b"):
        make_container(team, name, runtime=runtime)
        ask("delete", name=name)
    first, second = Trashed.objects.order_by("name")
    assert run(basket.purge(actor(alice), first), runtime).status == "succeeded"
    assert set(runtime.thrown) == {second.pk}
    tick = Scheduler(lambda: True)
    assert tick() == 0
    Trashed.objects.update(expires_at=timezone.now())
    assert Scheduler(lambda: False)() == 0
    assert tick() == 1
    assert tick() == 0
    for operation in Operation.objects.filter(status="queued"):
        run(operation, runtime)
    assert not Trashed.objects.exists()
    assert not runtime.thrown


def die():
    raise KeyboardInterrupt


@pytest.mark.parametrize("dies_in", ["delete", "take_back", "snapshots"])
def test_a_killed_worker_s_work_is_finished(alice, team, runtime, ask, host, dies_in):
    row = make_container(team, runtime=runtime)
    ask("snapshot")
    if dies_in == "delete":
        operation = services.act(actor(alice), "web-1", "delete", {})
    else:
        ask("delete")
        operation = basket.restore(actor(alice), row.pk)
    runtime.before[dies_in] = die
    if dies_in == "snapshots":
        runtime.before.clear()
        original = runtime.snapshots
        runtime.snapshots = lambda _id: die()
    with pytest.raises(KeyboardInterrupt):
        runner.run(operation.pk, runtime, CORE_HOST)
    runtime.before.clear()
    if dies_in == "snapshots":
        runtime.snapshots = original
    Operation.objects.filter(pk=operation.pk).update(owner=DEAD)
    reconcile.recover(host)
    assert run(operation, runtime).status == "succeeded"
    assert Container.objects.exists() == (dies_in != "delete")
    assert Trashed.objects.exists() == (dies_in == "delete")
    assert rebuild.mend_rows(host, runtime, CORE_HOST) == []


def test_a_return_that_is_cancelled_or_fails_leaves_it_in_the_trash(alice, team, runtime, ask, host):
    make_container(team, runtime=runtime)
    ask("snapshot")
    ask("snapshot-delete", {"snapshot": "snap0"})
    snapshot = Trashed.objects.get()
    operation = basket.restore(actor(alice), snapshot.pk)
    services.cancel_operation(actor(alice), operation.pk)
    # the container that it would have gone back into is still there
    row = Container.objects.get()
    ask("delete")
    operation = basket.restore(actor(alice), row.pk)
    services.cancel_operation(actor(alice), operation.pk)
    assert not Container.objects.exists()
    runtime.policy = lambda _spec: (_ for _ in ()).throw(SpecError("no"))
    assert run(basket.restore(actor(alice), row.pk), runtime).status == "failed"
    assert not Container.objects.exists()
    assert set(Trashed.objects.values_list("kind", flat=True)) == {"container", "snapshot"}
    with pytest.raises(NotFound):
        basket.restore(actor(alice), snapshot.pk)


def test_the_rows_say_what_the_store_has(alice, team, runtime, ask, host):
    row = make_container(team, runtime=runtime)
    ask("delete")
    Trashed.objects.all().delete()
    assert rebuild.mend_rows(host, runtime, CORE_HOST) == ["trash: container web-1 was found"]
    assert Trashed.objects.get().pk == row.pk
    runtime.thrown.clear()
    assert rebuild.mend_rows(host, runtime, CORE_HOST) == ["trash: container web-1 is gone"]


def test_rights_the_api_and_the_page(alice, olga, bob, charlie, root, team, runtime, ask, settings, tmp_path):
    settings.STATIC_ROOT = settings.STATE_DIR = tmp_path
    row = make_container(team, runtime=runtime)
    ask("delete")
    assert Api(charlie).get("/trash")[1]["items"] == []
    told = Api(bob).get("/trash")[1]
    assert (told["items"][0]["name"], told["days"]) == ("web-1", 7)
    for user, status in ((charlie, 404), (olga, 403)):
        assert Api(user).post(f"/trash/{row.pk}/restore")[0] == status
        assert Api(user).delete(f"/trash/{row.pk}")[0] == status
    with pytest.raises(Forbidden):
        basket.set_days(actor(alice), row.host, 3)
    assert Api(root).patch("/trash", {"days": 3})[1] == {"days": 3}
    assert_error(Api(root).patch("/trash", {"days": 400}), 422, "invalid-value", "days")
    browser = Client()
    browser.force_login(alice, backend="allauth.account.auth_backends.AuthenticationBackend")
    page = browser.get("/trash/").content.decode()
    assert "web-1" in page
    assert "Put back" in page
    assert browser.post(f"/trash/{row.pk}/restore").status_code == 302
    assert Operation.objects.get(status="queued").action == "trash-restore"
    assert_error(Api(alice).post(f"/trash/{row.pk}/restore"), 409, "already-exists", "name")
    assert_error(Api(alice).post("/trash/none/restore"), 404, "not-found")


def test_the_dialog_says_that_it_can_be_had_back_or_deletes_for_good(alice, team, runtime, settings, tmp_path, host):
    settings.STATIC_ROOT = tmp_path
    make_container(team, runtime=runtime)
    browser = Client()
    browser.force_login(alice, backend="allauth.account.auth_backends.AuthenticationBackend")
    assert "from the trash for 7 days" in browser.get("/containers/web-1/_dialog/delete").content.decode()
    browser.post("/containers/web-1/_dialog/delete", {"confirm": "web-1", "for_good": "1"})
    assert Operation.objects.get().arguments == {"force": False, "keep_days": 0}
