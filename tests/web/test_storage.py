"""What the host's storage holds, and who of it: page and API, to each what he may see."""

from __future__ import annotations

import re
import secrets
import shutil
from pathlib import Path

import pytest
from django.test import Client
from django.utils import timezone

from containers.models import Backup, Container, Image, Operation, Snapshot, Trashed, local_host
from containers.operations import runner
from containers.ticker.sampling import Tick
from containers.ticker.server import Server
from panel.accounts.models import Project
from tests.web.api import Api
from tests.web.world import CORE_HOST, FakeRuntime, make_container, make_host

pytestmark = pytest.mark.django_db
GIB = 1024**3
FINDINGS = [
    {"id": "overlay", "ok": True, "level": "required", "what": "Overlay works.", "why": "For layers.", "mend": ""},
    {"id": "disk-limits", "ok": False, "level": "recommended", "what": "No loop devices.", "why": "Limits.",
     "mend": "modprobe loop"},
    {"id": "kernel", "ok": True, "level": "required", "what": "Linux.", "why": "", "mend": ""},
]  # fmt: skip


@pytest.fixture
def ticker(settings):
    """The ticker's socket, and what it has measured of containers."""
    made = make_host()
    told = {"fast": {"projects": ["team"], "driver": "btrfs", "disk_bytes": None},
            "boxes": {"projects": ["others"], "driver": "loop", "disk_bytes": 3 * GIB}}  # fmt: skip
    made.facts = {
        **made.facts,
        "disk_limits": True,
        "doctor": FINDINGS,
        "policy": {**made.facts.get("policy", {}), "pools": told},
    }
    made.save()
    path = Path("/tmp") / f"bx{secrets.token_hex(4)}"  # short: the path of a socket ends at 107 bytes
    path.mkdir()
    settings.BOXROOM_RUN_DIR = path
    measured: dict[str, int] = {}
    room = {"kind": "ext4", "total_bytes": 100 * GIB, "used_bytes": 55 * GIB, "free_bytes": 40 * GIB}
    room |= {"inodes": 1000, "inodes_free": 400}
    server = Server(
        path / "ticker.sock", path / "events.sock", history=lambda *_: {}, recent=lambda *_: {}, limits=lambda _: {},
        cgroup_file=lambda *_: {}, latest=lambda _: Tick(0.0, {}, "{}"), on_event=lambda _: None,
        room=lambda: {**room, "containers": measured, "pools": [
            {"name": "default", "driver": "overlay", "room": room, "problem": ""},
            {"name": "boxes", "driver": "loop", "room": None, "problem": "It is not mounted."},
            {"name": "fast", "driver": "btrfs", "problem": "",
             "room": {**room, "kind": "btrfs", "free_bytes": 7 * GIB}},
        ]},
    )  # fmt: skip
    server.start()
    yield measured
    server.stop()
    server.join()
    shutil.rmtree(path)


def work(runtime) -> None:
    for operation in Operation.objects.filter(status="queued"):
        runner.run(operation.pk, runtime, CORE_HOST)


def page(user) -> str:
    browser = Client()
    browser.force_login(user, backend="allauth.account.auth_backends.AuthenticationBackend")
    return browser.get("/host/storage").content.decode()


def test_each_sees_his_own_and_an_administrator_everything(ticker, team, alice, charlie, root):
    mine = make_container(team, "web-1", limits={"disk_bytes": 2 * GIB})
    other = make_container(Project.objects.create(name="others"), "db-1")
    Snapshot.objects.create(container=mine, name="a", size_bytes=GIB)
    Snapshot.objects.create(container=mine, name="b", size_bytes=2 * GIB)
    Image.objects.filter(name="busybox").update(size_bytes=5 * GIB)
    day = timezone.now()
    Trashed.objects.create(id="0" * 12, host=mine.host, kind="container", name="gone", project=team,
                           size_bytes=GIB, deleted_at=day, expires_at=day)  # fmt: skip
    ticker |= {mine.pk: GIB, other.pk: 7 * GIB}
    status, found = Api(root).get("/storage")
    assert status == 200
    assert [(one["name"], one["bytes"]) for one in found["containers"]] == [("db-1", 7 * GIB), ("web-1", 4 * GIB)]
    assert (found["containers_bytes"], found["snapshots_bytes"], found["trash_bytes"]) == (8 * GIB, 3 * GIB, GIB)
    assert (found["driver"], found["filesystem"], found["free_bytes"]) == ("overlay", "ext4", 40 * GIB)
    assert [(one["id"], one["ok"]) for one in found["abilities"]] == [("overlay", True), ("disk-limits", False)]
    found = Api(alice).get("/storage")[1]
    assert found["containers"] == [
        {"name": "web-1", "project": "team", "own_bytes": GIB, "limit_bytes": 2 * GIB, "snapshots": 2,
         "snapshots_bytes": 3 * GIB, "bytes": 4 * GIB, "pool": "default"},
    ]  # fmt: skip
    assert (found["containers_bytes"], found["trash_bytes"], found["images_bytes"]) == (GIB, GIB, 5 * GIB)
    nobody = Api(charlie).get("/storage")[1]
    assert (nobody["containers"], nobody["snapshots_bytes"], nobody["trash_bytes"]) == ([], 0, 0)
    shown = page(alice)
    assert "55.0 GiB of 100 GiB" in shown or "55 GiB of 100 GiB" in shown
    assert "No loop devices." in shown
    assert "modprobe loop" in shown
    assert "web-1" in shown
    assert "db-1" not in shown


def test_each_sees_the_pools_that_are_his_with_his_own_containers_in_them(ticker, team, alice, root):
    mine = make_container(team, "web-1", pool="fast")
    other = make_container(Project.objects.create(name="others"), "db-1", pool="boxes")
    ticker |= {mine.pk: GIB, other.pk: 7 * GIB}
    found = Api(root).get("/storage")[1]["pools"]
    assert [(one["name"], one["ok"], one["containers_bytes"]) for one in found] == [
        ("default", True, 0), ("boxes", False, 7 * GIB), ("fast", True, GIB),
    ]  # fmt: skip
    assert (found[1]["problem"], found[1]["free_bytes"]) == ("It is not mounted.", None)
    assert "It is not mounted." in page(root)
    found = Api(alice).get("/storage")[1]["pools"]
    assert [one["name"] for one in found] == ["default", "fast"]
    assert (found[1]["filesystem"], found[1]["used_bytes"], found[1]["containers"]) == ("btrfs", 55 * GIB, 1)
    assert "boxes" not in page(alice)


def test_a_container_lies_in_a_pool_that_is_given_to_its_project(ticker, team, alice, root):
    runtime = FakeRuntime()
    Project.objects.create(name="others")
    body = {"image": "busybox", "project": "team"}
    status, refused = Api(alice).post("/containers", {**body, "name": "a", "pool": "boxes"})
    assert (status, refused["code"], refused["field"]) == (403, "policy", "pool")
    assert Api(alice).post("/containers", {**body, "name": "b", "pool": "fast"})[0] == 202
    assert Api(alice).post("/containers", {**body, "name": "c", "pool": "best"})[0] == 202
    # where every container has a disk, one that asks for none gets the pool's, and keeps one
    body = {"image": "busybox", "project": "others"}
    assert Api(root).post("/containers", {**body, "name": "d", "pool": "boxes"})[0] == 202
    work(runtime)
    assert {name: Api(root).get(f"/containers/{name}")[1]["pool"] for name in "bcd"} == {
        "b": "fast", "c": "best-of-team", "d": "boxes",
    }  # fmt: skip
    assert Api(root).get("/containers/d")[1]["limits"]["disk_bytes"] == 3 * GIB
    status, refused = Api(root).patch("/containers/d", {"limits": {"disk_bytes": None}})
    assert (status, refused["field"]) == (422, "limits.disk_bytes")
    # a clone lies with its origin, or where it is asked to
    assert Api(alice).post("/containers/b/clone", {"name": "e"})[0] == 202
    work(runtime)
    assert Api(alice).post("/containers/b/clone", {"name": "f", "pool": "default"})[0] == 202
    assert Api(alice).post("/containers/b/clone", {"name": "g", "pool": "boxes"})[0] in (403, 409)
    work(runtime)
    assert [Api(alice).get(f"/containers/{name}")[1]["pool"] for name in "ef"] == ["fast", "default"]
    browser = Client()
    browser.force_login(alice, backend="allauth.account.auth_backends.AuthenticationBackend")
    form = browser.get("/containers/_create?pool=fast").content.decode()
    assert '<option value="fast" selected>' in form
    assert '<option value="best">' in form
    assert "boxes" not in form
    form = browser.get("/containers/b/_dialog/clone").content.decode()
    assert re.search(r'<option value="">\s*fast, as its origin', form)
    assert [name in form for name in ('value="default"', 'value="best"', 'value="fast"', "boxes")] == [
        True, True, False, False,
    ]  # fmt: skip
    assert browser.post("/containers/b/_dialog/clone", {"name": "h", "pool": "default"}).status_code == 302
    work(runtime)
    assert Api(alice).get("/containers/h")[1]["pool"] == "default"


def test_a_backup_is_restored_into_a_pool_that_is_given_to_the_project(ticker, team, alice, root):
    file = "web_20260102T030405Z.boxroom.tar.zst"
    row = Backup.objects.create(host=local_host(), project=team, destination="local", file=file, container="web")
    browser = Client()
    browser.force_login(alice, backend="allauth.account.auth_backends.AuthenticationBackend")
    assert '<option value="fast">' in browser.get(f"/backups/{row.pk}").content.decode()
    answer = browser.post(f"/backups/{row.pk}", {"how": "new", "name": "a", "project": "team", "pool": "boxes"})
    assert (answer.status_code, "no storage pool boxes" in answer.content.decode()) == (422, True)
    browser.post(f"/backups/{row.pk}", {"how": "new", "name": "b", "project": "team", "pool": "best"})
    asked = {"backup": row.pk, "project": "team"}
    assert Api(alice).post("/backups/restore", {**asked, "name": "c", "pool": "fast"})[0] == 202
    assert Api(alice).post("/backups/restore", {**asked, "name": "d"})[0] == 202
    assert dict(Container.objects.values_list("name", "pool")) == {"b": "best", "c": "fast", "d": "default"}
    status, refused = Api(alice).post("/backups/restore", {**asked, "name": "e", "pool": "boxes"})
    assert (status, refused["code"], refused["field"]) == (403, "policy", "pool")


def test_what_the_doctor_says_is_said_in_the_readers_language(ticker, root):
    host = local_host()
    host.facts["doctor"] = [{**FINDINGS[0], "what": "SELinux is off.", "why": "Containers are connected by them."}]
    host.save()
    browser = Client()
    browser.force_login(root, backend="allauth.account.auth_backends.AuthenticationBackend")
    for where in ("/host/", "/host/storage"):
        shown = browser.get(where, headers={"Accept-Language": "de"}).content.decode()
        assert "SELinux ist aus." in shown
        assert "Sie verbinden die Container." in shown


def test_what_was_never_measured_is_no_zero(ticker, team, alice):
    make_container(team, "web-1")
    assert Api(alice).get("/storage")[1]["containers"][0]["own_bytes"] is None


def test_without_the_ticker_page_and_api_say_so(team, alice, settings, tmp_path):
    make_host()
    settings.BOXROOM_RUN_DIR = tmp_path
    assert Api(alice).get("/storage")[0] == 503
    assert "not available at the moment" in page(alice)
