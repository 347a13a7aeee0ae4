"""Projects that are renamed and deleted, users that are removed: who may, what goes with it, what stays."""

from __future__ import annotations

import pytest
from django.test import Client

from containers.core.host import Host as CoreHost
from containers.core.hoststore import store
from containers.models import Container
from containers.upkeep.projects import carry_names
from panel.accounts import services, tokens
from panel.accounts.actor import Actor
from panel.accounts.models import ApiToken, AuditRecord, Membership, Project, User
from tests.web.api import Api, assert_error
from tests.web.world import make_container, make_host

pytestmark = pytest.mark.django_db
HTMX = {"headers": {"HX-Request": "true"}}


@pytest.fixture
def host():
    return make_host()


@pytest.fixture
def browser(root):
    made = Client()
    made.force_login(root)
    return made


# -- projects ----------------------------------------------------------------------------------------------------


def test_an_empty_project_goes_with_its_roles(root, alice, bob, team):
    version = bob.roles_version
    assert Api(root).delete("/projects/team") == (204, None)
    assert not Membership.objects.exists()
    bob.refresh_from_db()
    assert bob.roles_version == version + 1, "his sockets look again"
    record = AuditRecord.objects.get(action="project.delete")
    assert (record.object_name, record.actor_name, record.outcome) == ("team", "root", "succeeded")
    assert_error(Api(root).delete("/projects/team"), 404, "not-found")


def test_a_project_with_containers_stays(host, root, team):
    make_container(team, "web-1")
    status, body = Api(root).delete("/projects/team")
    assert (status, body["code"], body["users"]) == (409, "in-use", ["web-1"])
    assert Project.objects.filter(name="team").exists()
    Container.objects.all().delete()
    assert Api(root).delete("/projects/team")[0] == 204


@pytest.mark.parametrize(("who", "code", "status"), [("alice", "forbidden", 403), ("charlie", "not-found", 404)])
def test_only_host_administrators_change_projects(request, who, code, status, team, alice):
    api = Api(request.getfixturevalue(who))
    assert_error(api.delete("/projects/team"), status, code)
    assert_error(api.patch("/projects/team", {"name": "gang"}), status, code)
    assert AuditRecord.objects.filter(outcome="denied", object_name="team").count() == (2 if who == "alice" else 0)


def test_the_default_project_stays(root):
    Project.objects.get_or_create(name="default")
    assert_error(Api(root).delete("/projects/default"), 409, "in-use", "name")
    assert_error(Api(root).patch("/projects/default", {"name": "first"}), 409, "in-use", "name")
    assert Api(root).patch("/projects/default", {"description": "Everybody's"})[1]["description"] == "Everybody's"


def test_a_project_is_renamed_with_all_that_it_has(host, root, alice, bob, team):
    make_container(team, "web-1")
    status, body = Api(root).patch("/projects/team", {"name": "crew"})
    assert (status, body["name"], len(body["members"])) == (200, "crew", 2)
    assert Api(bob).get("/containers/web-1")[1]["project"] == "crew"
    assert AuditRecord.objects.get(action="project.change").detail == {"name": "crew"}
    Project.objects.create(name="taken")
    assert_error(Api(root).patch("/projects/crew", {"name": "taken"}), 409, "already-exists", "name")
    assert_error(Api(root).patch("/projects/crew", {"name": "No"}), 422, "invalid-value", "name")


def test_the_hosts_store_follows_a_new_name(host, root, team, tmp_path, monkeypatch):
    from containers.bookkeeping.specs import spec_of

    row = make_container(team, "web-1")
    core = CoreHost(tmp_path, "test2")
    monkeypatch.setattr(CoreHost, "run_dir", property(lambda self: tmp_path / "run"))
    store.prepare(core)
    core.container_dir(row.pk).mkdir(parents=True)
    core.spec_path(row.pk).write_text(spec_of(row, core).to_json())
    store.save_root(core, row.pk, store.Root(layers=(), writable=store.new_layer_id()))
    assert carry_names(core) == 0
    services.change_project(Actor(root), "team", new_name="crew")
    assert carry_names(core) == 1
    assert store.load(core, row.pk).project == "crew"
    assert carry_names(core) == 0


def test_the_dialogs_say_what_it_means(host, browser, team, alice):
    shown = browser.get("/people/project/team/_dialog/delete").content.decode()
    assert "Its 1 member loses the role" in shown
    make_container(team, "web-1")
    shown = browser.get("/people/project/team/_dialog/delete").content.decode()
    assert "It has 1 container." in shown
    assert "btn-danger" not in shown, "what is refused anyhow is not offered"
    refused = browser.post("/people/project/team/_dialog/delete", **HTMX)
    assert refused.headers["HX-Retarget"] == "#dialog-error"
    assert "delete them first (web-1)" in refused.content.decode()
    assert "keeps its name" not in browser.get("/people/project/team/_dialog/change").content.decode()


def test_the_dialogs_do_it(browser, team):
    done = browser.post("/people/project/team/_dialog/change", {"name": "crew", "description": "We"}, **HTMX)
    assert done.headers["HX-Redirect"] == "/people/?changed=crew#project-crew"
    assert Project.objects.get(name="crew").description == "We"
    assert browser.post("/people/project/crew/_dialog/delete", **HTMX).headers["HX-Redirect"] == "/people/"
    assert "The project crew is deleted." in browser.get("/people/").content.decode()


def test_who_is_in_no_project_is_said_to_do_nothing(host, browser, team, alice):
    assert "nothing: in no project" not in browser.get("/people/").content.decode(), "the host administrator does all"
    Membership.objects.filter(user=alice).delete()
    assert browser.get("/people/").content.decode().count("nothing: in no project") == 1


def test_others_have_no_such_dialogs(alice, bob, team):
    made = Client()
    made.force_login(alice)
    for where in ("/people/project/team/_dialog/delete", "/people/user/bob/_dialog"):
        assert made.get(where).status_code == 404
        assert made.post(where).status_code == 404
    assert "_dialog" not in made.get("/people/").content.decode()


# -- users -------------------------------------------------------------------------------------------------------


def test_a_removed_user_leaves_nothing_but_the_record(root, bob, team):
    his = Client()
    his.force_login(bob)
    assert his.get("/people/").status_code == 200
    _row, secret = tokens.issue(bob, name="ci")
    assert tokens.find(secret)
    assert Api(root).delete("/users/bob") == (204, None)
    assert not User.objects.filter(username="bob").exists()
    assert not ApiToken.objects.filter(name="ci").exists()
    assert tokens.find(secret) is None
    assert his.get("/people/").status_code == 302
    record = AuditRecord.objects.get(action="user.delete")
    assert (record.object_name, record.detail) == ("bob", {"projects": ["team"]})
    assert_error(Api(root).delete("/users/bob"), 404, "not-found")


def test_what_a_removed_user_did_keeps_the_name(host, root, alice, team):
    services.set_member(Actor(alice), "team", "root", "viewer")
    Api(root).delete("/users/alice")
    record = AuditRecord.objects.get(action="member.set")
    assert (record.actor, record.actor_name) == (None, "alice")


def test_somebody_must_remain(root, make_user):
    assert_error(Api(root).delete("/users/root"), 409, "in-use")
    other = make_user("other", host_admin=True)
    assert Api(other).delete("/users/root") == (204, None)
    make_user("out", host_admin=True)
    User.objects.filter(username="out").update(is_active=False)
    assert_error(Api(other).delete("/users/other"), 409, "in-use")
    assert Api(other).delete("/users/out") == (204, None)


def test_only_host_administrators_remove_users(alice, bob):
    assert_error(Api(alice).delete("/users/bob"), 403, "forbidden")
    assert User.objects.filter(username="bob").exists()


def test_the_users_dialog_counts_what_ends(browser, bob):
    tokens.issue(bob, name="ci")
    his = Client()
    his.force_login(bob)
    shown = browser.get("/people/user/bob/_dialog").content.decode()
    for part in ("1 session in a browser", "1 API token", "the roles in team", 'data-must-equal="bob"'):
        assert part in shown
    assert browser.post("/people/user/bob/_dialog", **HTMX).headers["HX-Redirect"] == "/people/"
    assert "The user bob is removed." in browser.get("/people/").content.decode()
