"""The files of a container above the seam: who may do what, what is refused at once, and what the audit trail says."""

from __future__ import annotations

import itertools
from urllib.parse import unquote

import pytest
from django.test import Client
from django.utils import translation

from containers.api.files import download
from containers.asking import filing as asking
from containers.asking import services
from containers.clients import filing as client
from containers.clients import reading
from containers.core.errors import Changed, NotFound, StorageFull
from containers.models import Operation
from containers.operations import runner
from containers.showing.sentences import message_of
from panel.accounts.models import AuditRecord
from tests.web.api import Api, assert_error
from tests.web.world import CORE_HOST, FakeRuntime, actor, make_container

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("host")]
FILES = "/containers/web-1/files"
ENTRY = {
    "name": "a", "path": "/a", "kind": "file", "size_bytes": 2, "mode": "0644", "uid": 0, "gid": 0, "user": "root",
    "group": "root", "modified_at": 0.0, "links": 1, "target": None, "leads_to": None,
}  # fmt: skip
CALLS = {
    "list": lambda api: api.get(f"{FILES}?path=/etc"),
    "entry": lambda api: api.get(f"{FILES}/entry?path=/a"),
    "text": lambda api: api.get(f"{FILES}/text?path=/a"),
    "write": lambda api: api.put(f"{FILES}/content?path=/a", raw=b"hi"),
    "make": lambda api: api.post(f"{FILES}/directory", {"path": "/d"}),
    "rename": lambda api: api.post(f"{FILES}/rename", {"path": "/a", "to": "/b"}),
    "attributes": lambda api: api.patch(FILES, {"path": "/a", "mode": "0600", "user": "alice"}),
    "remove": lambda api: api.delete(f"{FILES}?path=/a"),
}
CHANGES = {"write": "file.write", "make": "file.make", "rename": "file.rename", "attributes": "file.change"}
CHANGES |= {"remove": "file.delete"}


@pytest.fixture
def asked(monkeypatch):
    """What reaches the ticker, which is not there."""
    found = []

    def answer(container_id, verb, arguments, *, snapshot=""):
        found.append((verb, arguments, snapshot))
        if verb == "list":
            return {"items": [ENTRY], "total": 1, "complete": True, "directory": {**ENTRY, "path": arguments["path"]}}
        if verb == "text":
            return {"text": "<b>hi</b>\n", "etag": "e1", "line_ends": "lf", "reason": None, "entry": ENTRY}
        return {"entry": ENTRY}

    def write(container_id, arguments, pieces):
        found.append(("write", arguments, b"".join(pieces)))
        return {"entry": ENTRY, "etag": "e2"}

    monkeypatch.setattr(client, "ask", answer)
    monkeypatch.setattr(client, "write", write)
    return found


def test_who_may_do_what(team, alice, olga, bob, charlie, root, asked):
    make_container(team)
    users = {"administrator": alice, "operator": olga, "viewer": bob, "stranger": charlie, "host": root, "nobody": None}
    wanted = {"administrator": (200, 201, 204), "operator": (200, 201, 204), "host": (200, 201, 204)}
    wanted |= {"viewer": (403,), "stranger": (404,), "nobody": (401,)}
    for (role, user), (verb, call) in itertools.product(users.items(), CALLS.items()):
        asked.clear()
        status, body = call(Api(user))
        assert status in wanted[role], (role, verb, status, body)
        assert [one[0] for one in asked] == ([verb] if status < 300 else []), (role, verb)
    read_only = Api(alice, read_only=True)
    for verb, call in CALLS.items():
        assert call(read_only)[0] == 403, verb  # a file may hold what such a token is not for


def test_each_change_and_each_read_has_an_audit_record(team, alice, asked, monkeypatch):
    make_container(team)
    for verb, action in {**CHANGES, "text": "file.read"}.items():
        CALLS[verb](Api(alice))
        record = AuditRecord.objects.get(action=action)
        assert (record.outcome, record.object_name, record.project) == ("succeeded", "web-1", "team"), verb
        assert record.detail["path"] in ("/a", "/d")
    assert AuditRecord.objects.get(action="file.rename").detail == {"path": "/a", "to": "/b"}
    assert AuditRecord.objects.get(action="file.change").detail == {"path": "/a", "mode": "0600", "user": "alice"}

    def fail(*_args, **_more):
        raise Changed("The file has changed meanwhile.", field="path")

    monkeypatch.setattr(client, "write", fail)
    assert_error(CALLS["write"](Api(alice)), 412, "changed", "path")
    record = AuditRecord.objects.get(outcome="failed")
    assert (record.action, record.detail) == ("file.write", {"path": "/a", "size_bytes": 2, "code": "changed"})


BAD_PATHS = ["etc", "/../etc", "/a/../../etc", r"/a/\x2e\x2e/b", "/a%00b", r"/\x00", "/" + "x" * 300, r"/\z", ""]


@pytest.mark.lxc("A file's name becomes nothing else in the head of an answer", "CVE-2026-81500")
def test_a_file_s_name_stays_a_name_in_the_head_of_an_answer():
    name = 'a"; filename="b.html\r\nSet-Cookie: c=d; é'
    answer = download(reading.Stream({"name": name}, None, None), suffix=".tar")
    kind, value = answer.headers["Content-Disposition"].split("; ")
    assert (kind, unquote(value.removeprefix("filename*=UTF-8''"))) == ("attachment", f"{name}.tar")
    assert "Set-Cookie" not in answer.headers
    assert not set('";\r\n ') & set(value)


@pytest.mark.parametrize("path", BAD_PATHS)
def test_a_path_that_leads_out_is_refused_before_anybody_is_asked(team, alice, asked, path):
    make_container(team)
    api = Api(alice)
    plain = path.replace("%00", "\0")
    for answer in (
        api.get(f"{FILES}?path={path}"),
        api.get(f"{FILES}/text?path={path}"),
        api.get(f"{FILES}/content?path={path}"),
        api.put(f"{FILES}/content?path={path}", raw=b"x"),
        api.post(f"{FILES}/directory", {"path": plain}),
        api.post(f"{FILES}/rename", {"path": plain, "to": "/b"}),
        api.patch(FILES, {"path": plain, "mode": "0600"}),
        api.delete(f"{FILES}?path={path}"),
    ):
        assert_error(answer, 422, "invalid-value", "path")
    assert_error(api.post(f"{FILES}/rename", {"path": "/a", "to": plain}), 422, "invalid-value", "to")
    assert asked == []


def test_only_names_of_the_directory_itself_are_taken_of_it(team, alice, asked):
    make_container(team)
    for name in ("..", "a/b", "/a", "", "a%00b", "%5Cq"):
        assert_error(Api(alice).get(f"{FILES}/archive?path=/srv&only=a&only={name}"), 422, "invalid-value", "only")
    who, names = actor(alice), ["a", r"b\x0a", "a"]
    assert asking.prepare_archive(who, "web-1", "/srv", names)[1:] == ("/srv", ["a", "b\n"])
    assert AuditRecord.objects.latest("pk").detail == {"path": "/srv", "only": ["a", r"b\n"]}


def test_bad_input(team, alice, asked, settings, tmp_path):
    settings.WEB_DIR = tmp_path
    make_container(team)
    api = Api(alice)
    assert_error(api.get(f"{FILES}?sort=owner"), 422, "invalid-value", "sort")
    assert_error(api.get(f"{FILES}?limit=1001"), 422, "invalid-value", "limit")
    assert_error(api.get(f"{FILES}?snapshot=none"), 404, "not-found", "snapshot")
    assert_error(api.patch(FILES, {"path": "/a", "mode": "888"}), 422, "invalid-value", "mode")
    assert_error(api.patch(FILES, {"path": "/a", "mode": "77777"}), 422, "invalid-value", "mode")
    assert_error(api.patch(FILES, {"path": "/a", "user": "a\nb"}), 422, "invalid-value", "user")
    assert_error(api.post(f"{FILES}/rename", {"path": "/a"}), 400, "bad-request", "to")
    assert_error(api.post(f"{FILES}/directory", {"path": "/d", "host": "/"}), 400, "bad-request", "host")
    assert_error(api.put(f"{FILES}/content?path=/a", raw=b"x", if_none_match="abc"), 422, "invalid-value",
                 "If-None-Match")  # fmt: skip
    assert_error(api.post(f"{FILES}/upload", {"path": "/a", "upload": "0" * 32}), 404, "not-found")
    assert asked == []


def test_a_write_says_what_it_may_replace(team, alice, asked):
    make_container(team)
    api = Api(alice)
    api.put(f"{FILES}/content?path=/a", raw=b"x", if_match='"e1"')
    api.put(f"{FILES}/content?path=/a&mode=0600", raw=b"y", if_none_match="*")
    assert asked == [
        ("write", {"path": "/a", "size": 1, "etag": "e1", "replace": True, "mode": None}, b"x"),
        ("write", {"path": "/a", "size": 1, "etag": "", "replace": False, "mode": 0o600}, b"y"),
    ]


def test_an_upload_becomes_a_file_of_its_own_container_only(team, alice, olga, bob, root, asked, settings, tmp_path):
    settings.WEB_DIR = tmp_path
    make_container(team)
    make_container(team, name="web-2")
    api = Api(olga)
    begun = api.post("/uploads", {"size_bytes": 5, "container": "web-1"})
    assert begun[0] == 201
    upload = begun[1]["id"]
    body = {"path": "/big", "upload": upload}
    assert_error(api.post(f"{FILES}/upload", body), 422, "invalid-value", "upload")
    assert api.put(f"/uploads/{upload}?offset=0", raw=b"hello")[1]["complete"]
    assert_error(api.post("/containers/web-2/files/upload", body), 422, "invalid-value", "upload")
    assert_error(Api(alice).post(f"{FILES}/upload", body), 404, "not-found")
    assert api.post(f"{FILES}/upload", body)[0] == 200
    assert asked == [("write", {"path": "/big", "size": 5, "etag": "", "replace": False, "mode": None}, b"hello")]
    assert api.get(f"/uploads/{upload}")[0] == 404
    # who may not write there may not begin, nor may anybody begin what the policy does not take
    assert_error(Api(bob).post("/uploads", {"size_bytes": 5, "container": "web-1"}), 403, "forbidden")
    assert_error(api.post("/uploads", {"size_bytes": 2**35, "container": "web-1"}), 403, "policy", "size_bytes")
    assert api.post("/uploads", {"size_bytes": 5})[0] == 403
    half = 10 * 1024**3
    assert api.post("/uploads", {"size_bytes": half, "container": "web-1"})[0] in (201, 409)
    assert api.post("/uploads", {"size_bytes": half, "container": "web-2"})[0] in (409, 422)


@pytest.fixture
def browser(alice):
    made = Client()
    made.force_login(alice)
    return made


def test_the_page_and_its_dialogs(team, browser, asked):
    make_container(team)
    page = browser.get("/containers/web-1/files?path=/etc&q=a&sort=-size").content.decode()
    assert asked[0] == ("list", {"path": "/etc", "offset": 0, "limit": 200, "sort": "size", "descending": True,
                                 "match": "a"}, "")  # fmt: skip
    assert 'aria-sort="descending"' in page
    assert "/containers/web-1/files/edit?path=/a" in page
    editor = browser.get("/containers/web-1/files/edit?path=/a").content.decode()
    assert "&lt;b&gt;hi&lt;/b&gt;" in editor
    assert 'data-etag="e1"' in editor
    for action in ("file", "directory", "rename", "attributes", "delete"):
        assert browser.get(f"/containers/web-1/_files/{action}?path=/a").status_code == 200
    asked.clear()
    browser.post("/containers/web-1/_files/directory", {"path": "/srv", "name": "a\\b"})
    browser.post("/containers/web-1/_files/rename", {"path": "/srv/a", "to": "b c"})
    browser.post("/containers/web-1/_files/rename", {"path": "/srv/a", "to": "/tmp/x"})
    browser.post("/containers/web-1/_files/attributes", {"path": "/a", "mode": "600", "user": "www", "group": ""})
    browser.post("/containers/web-1/_files/delete", {"path": "/d", "recursive": "1"})
    created = browser.post("/containers/web-1/_files/file", {"path": "/", "name": "n"}, headers={"HX-Request": "true"})
    assert created["HX-Redirect"] == "/containers/web-1/files/edit?path=%2Fn"
    assert [(one[0], one[1]) for one in asked] == [
        ("make", {"path": "/srv/a\\b", "mode": None}),
        ("rename", {"path": "/srv/a", "to": "/srv/b c"}),
        ("rename", {"path": "/srv/a", "to": "/tmp/x"}),
        ("attributes", {"path": "/a", "mode": 0o600, "user": "www", "group": None, "recursive": False}),
        ("remove", {"path": "/d", "recursive": True}),
        ("write", {"path": "/n", "size": 0, "etag": "", "replace": False, "mode": None}),
    ]
    bad = browser.post("/containers/web-1/_files/directory", {"path": "/", "name": "../x"},
                       headers={"HX-Request": "true"})  # fmt: skip
    assert bad["HX-Retarget"] == "#dialog-error"
    assert browser.get("/containers/web-1/files?path=/../etc").status_code == 422


def test_a_viewer_is_told_and_a_page_without_ticker_says_so(team, bob, browser, monkeypatch):
    make_container(team)
    watcher = Client()
    watcher.force_login(bob)
    assert "Files are for operators" in watcher.get("/containers/web-1/files").content.decode()
    assert watcher.get("/containers/web-1/files/edit?path=/a").status_code == 403
    assert watcher.post("/containers/web-1/_files/delete", {"path": "/a"}).status_code in (302, 403)
    assert "cannot be read at the moment" in browser.get("/containers/web-1/files").content.decode()

    def gone(*_args, **_more):
        raise NotFound("There is no such file or directory.")

    monkeypatch.setattr(client, "ask", gone)
    assert browser.get("/containers/web-1/files?path=/none").status_code == 404
    assert browser.get("/containers/web-1/files/edit?path=/none").status_code == 404


def test_nothing_changes_without_a_csrf_token(team, alice, asked):
    make_container(team)
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(alice)
    assert strict.put(f"/api/v1{FILES}/content?path=/a", b"x").status_code == 403
    assert strict.delete(f"/api/v1{FILES}?path=/a").status_code == 403
    assert strict.post("/containers/web-1/_files/delete", {"path": "/a"}).status_code == 403
    assert asked == []


def test_files_are_put_back_after_a_safety_point_and_by_whoever_is_resumed(team, alice, olga, bob):
    runtime = FakeRuntime()
    row = make_container(team, runtime=runtime, status="running")
    act = services.act(actor(olga), "web-1", "snapshot", {"name": "a"})
    assert runner.run(act.pk, runtime, CORE_HOST)
    api, path = Api(olga), "/containers/web-1/snapshots/a/put-back"
    status, operation = api.post(path, {"paths": ["/etc/motd", r"/bad\xff"], "exact": True})
    assert (status, operation["action"]) == (202, "put-back")
    runtime.calls.clear()
    runner.run(operation["id"], runtime, CORE_HOST)
    done = Operation.objects.get(pk=operation["id"])
    assert done.status == "succeeded"
    assert done.message.startswith("2 put back, 1 removed; undo0 has what was there before. Device nodes left out: 1;")
    with translation.override("de"):
        assert message_of(done).startswith("2 zurückgelegt, 1 entfernt; was vorher da war, hat undo0.")
    assert Api(olga).get(f"/operations/{done.pk}")[1]["message"] == done.message
    assert runtime.put == [("a", ["/etc/motd", r"/bad\xff"], True)]
    assert [verb for verb, _ in runtime.calls if verb in ("snapshot", "put_back", "stop")] == ["snapshot", "put_back"]
    undo = row.snapshots.get(name="undo0")
    assert (undo.kind, undo.note) == ("safety", "→ a: /etc/motd …")
    assert "null" in done.log
    assert AuditRecord.objects.get(action="file.put-back").outcome == "succeeded"
    # what fails says where the state before is, and a resumed one does not make a second safety point

    def full() -> None:
        raise StorageFull("The disk is full. Nothing was changed.", step="files")

    runtime.before["put_back"] = full
    status, operation = api.post(path, {"paths": ["/a"]})
    runner.run(operation["id"], runtime, CORE_HOST)
    failed = Operation.objects.get(pk=operation["id"])
    assert (failed.status, failed.error["code"]) == ("failed", "storage-full")
    assert "undo1 has what was there before." in failed.message
    for paths, code in ((["/"], 422), (["../x"], 422), ([], 422), (["/a/../b"], 422)):
        assert api.post(path, {"paths": paths})[0] == code, paths
    assert Api(bob).post(path, {"paths": ["/a"]})[0] == 403
    assert Api(bob).get(f"{path}/changes?path=/a")[0] == 403
    assert_error(api.post("/containers/web-1/snapshots/none/put-back", {"paths": ["/a"]}), 404, "not-found", "snapshot")


def test_what_putting_back_changes_is_shown_first(team, alice, browser, monkeypatch):
    runtime = FakeRuntime()
    make_container(team, runtime=runtime)
    assert runner.run(services.act(actor(alice), "web-1", "snapshot", {"name": "a"}).pk, runtime, CORE_HOST)
    both = [{"path": f"/d/{name}", "change": change, "kind": "file", "before_bytes": 1, "after_bytes": 2, "what": []}
            for name, change in (("x", "changed"), ("y", "removed"))]  # fmt: skip
    count = {"count": 1, "size_bytes": 2}
    told = {"items": both, "added": {"count": 0, "size_bytes": 0}, "changed": count, "removed": count}
    asked = []

    def ask(container_id, verb, **more):
        asked.append((verb, more))
        return {**told, "complete": True, "all_listed": True}

    monkeypatch.setattr("containers.clients.reading.ask", ask)
    page = browser.get("/containers/web-1/_put-back/a?path=/d")
    assert "Put d back?" in page.content.decode()
    shown = browser.get("/containers/web-1/_put-back/a?path=/d&part=1").content.decode()
    assert ("/d/x" in shown, "/d/y" in shown) == (True, False)
    assert "/d/y" in browser.get("/containers/web-1/_put-back/a?path=/d&part=1&exact=1").content.decode()
    assert asked[0] == ("changes", {"before": "", "after": "a", "path": "/d"})
    browser.post("/containers/web-1/_put-back/a", {"path": "/d", "exact": "1"})
    assert Operation.objects.get(action="put-back").arguments["exact"] is True
