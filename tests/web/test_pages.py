"""Every page, for every role: it renders, shows what one may see, and offers what one may do."""

import datetime as dt
import re
from pathlib import Path

import pytest
from django.test import Client
from django.urls import reverse

from containers.models import Container, Event, Image, Network, NetworkInterface, Operation, Snapshot, local_host
from containers.showing import order, rows
from panel.accounts import audit
from panel.accounts.actor import Actor
from panel.accounts.models import Project

pytestmark = pytest.mark.django_db
ROOT = Path(__file__).resolve().parents[2]
TABS = ("detail", "terminal", "graphs", "snapshots", "network", "settings", "log")
PAGES = ("overview", "images", "networks", "operations", "people", "host")


@pytest.fixture(autouse=True)
def _static_root(settings, tmp_path) -> None:
    """WhiteNoise warns where the directory of collected files is missing; `up` makes it."""
    settings.STATIC_ROOT = tmp_path


@pytest.fixture
def host():
    row = local_host()
    row.facts = {
        "memory_bytes": 8 * 2**30,
        "cpus": 2,
        "pids": 32768,
        "doctor": [{"id": "nft", "ok": False, "level": "required", "what": "nftables", "why": "NAT", "mend": "apt"}],
    }
    row.save()
    return row


@pytest.fixture
def make_container(host, team):
    image, _made = Image.objects.get_or_create(
        host=host, name="busybox", defaults={"state": "ready", "source": {"type": "busybox"}}
    )
    network, _made = Network.objects.get_or_create(
        host=host, name="default", defaults={"number": 0, "ipv4": "10.90.3.1/24"}
    )

    def make(name: str, status: str = "running", project: Project | None = None) -> Container:
        slot = Container.objects.count()
        row = Container.objects.create(
            host=host,
            project=project or team,
            name=name,
            slot=slot,
            image=image,
            image_name="busybox",
            status=status,
            machine_id="0" * 32,
            tags=["web"],
            limits={"memory_bytes": 2**28},
        )
        NetworkInterface.objects.create(
            container=row,
            network=network,
            mac=f"02:00:00:00:{slot // 256:02x}:{slot % 256:02x}",
            ipv4=f"10.90.{3 + slot // 200}.{slot % 200 + 2}",
        )
        Event.objects.create(container=row, kind="status", old="stopped", new=status)
        return row

    return make


@pytest.fixture
def browser():
    def signed_in(user) -> Client:
        client = Client()
        client.force_login(user, backend="allauth.account.auth_backends.AuthenticationBackend")
        return client

    return signed_in


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("role", ["viewer", "operator", "administrator", "host", "stranger"])
def test_every_page_renders_for_every_role(name, role, make_user, team, make_container, browser) -> None:
    make_container("web-1")
    user = make_user("someone", team if role not in ("host", "stranger") else None, role, host_admin=role == "host")
    answer = browser(user).get(reverse(f"pages:{name}"))
    assert answer.status_code == 200
    assert "web-1" not in answer.content.decode() or role != "stranger"


@pytest.mark.parametrize("tab", TABS)
def test_a_container_is_not_there_for_a_stranger(tab, make_user, make_container, browser, bob) -> None:
    make_container("web-1")
    where = reverse(f"containers:{tab}", args=["web-1"])
    assert browser(bob).get(where).status_code == 200
    assert browser(make_user("charlie")).get(where).status_code == 404
    assert Client().get(where).status_code == 302


def test_what_may_not_be_done_is_disabled_with_the_reason(make_container, browser, bob, olga, alice) -> None:
    make_container("web-1")
    where = reverse("containers:detail", args=["web-1"])
    act = f'hx-post="{reverse("containers:act", args=["web-1", "stop"])}"'
    delete = f'hx-get="{reverse("containers:dialog", args=["web-1", "delete"])}"'
    seen = {user.username: browser(user).get(where).content.decode() for user in (bob, olga, alice)}
    assert act not in seen["bob"]
    assert "Your role in this project does not allow it" in seen["bob"]
    assert act in seen["olga"]
    assert delete not in seen["olga"]
    assert delete in seen["alice"]


def test_start_of_a_running_container_is_not_offered_and_refused(make_container, browser, olga) -> None:
    make_container("web-1")
    client = browser(olga)
    assert "containers/web-1/start" not in client.get(reverse("containers:detail", args=["web-1"])).content.decode()
    answer = client.post(reverse("containers:act", args=["web-1", "start"]), headers={"HX-Request": "true"})
    assert answer.status_code == 409
    assert "boxroom:toast" in answer["HX-Trigger"]
    assert not Operation.objects.exists()


def test_a_click_makes_one_operation_and_the_row_says_so(make_container, browser, olga, bob) -> None:
    make_container("web-1")
    answer = browser(olga).post(reverse("containers:act", args=["web-1", "stop"]), headers={"HX-Request": "true"})
    assert answer.status_code == 204
    assert "boxroom:changed" in answer["HX-Trigger"]
    assert [op.action for op in Operation.objects.all()] == ["stop"]
    rows = browser(bob).get(reverse("containers:rows") + "?names=web-1").content.decode()
    assert "Stopping…" in rows
    assert "by olga" in rows
    assert "by olga" not in browser(olga).get(reverse("containers:rows") + "?names=web-1").content.decode()


def test_a_viewer_who_posts_is_refused(make_container, browser, bob) -> None:
    make_container("web-1")
    answer = browser(bob).post(reverse("containers:act", args=["web-1", "stop"]), headers={"HX-Request": "true"})
    assert answer.status_code == 403
    assert not Operation.objects.exists()


def test_delete_asks_for_the_name_and_says_what_goes_with_it(make_container, browser, alice) -> None:
    row = make_container("web-1", status="stopped")
    Snapshot.objects.create(container=row, name="snap0")
    client = browser(alice)
    where = reverse("containers:dialog", args=["web-1", "delete"])
    dialog = client.get(where).content.decode()
    assert "1 snapshot" in dialog
    assert "10.90.3.2" in dialog
    wrong = client.post(where, {"confirm": "web-2"}, headers={"HX-Request": "true"})
    assert wrong["HX-Retarget"] == "#dialog-error"
    assert not Operation.objects.exists()
    assert client.post(where, {"confirm": "web-1"}, headers={"HX-Request": "true"}).status_code == 204
    assert Operation.objects.get().action == "delete"


def test_the_create_form_comes_back_as_it_was_with_the_error_at_its_field(make_container, browser, alice) -> None:
    make_container("web-1")
    form = {"name": "Web_1", "image": "busybox", "project": "team", "memory": "12x", "description": "kept text"}
    answer = browser(alice).post(reverse("containers:create"), form)
    text = answer.content.decode()
    assert answer.status_code == 422
    assert 'value="kept text"' in text
    assert re.search(r'id="e-memory"[^>]*>\s*<p class="error">Give a size', text)
    answer = browser(alice).post(reverse("containers:create"), form | {"memory": "64"})
    assert re.search(r'id="e-name"[^>]*>\s*<p class="error">', answer.content.decode())
    answer = browser(alice).post(reverse("containers:create"), form | {"memory": "64", "name": "web-1"})
    assert answer.status_code == 422
    assert Container.objects.count() == 1


def test_create_makes_the_row_at_once(make_container, browser, alice, team) -> None:
    make_container("web-1")
    form = {
        "name": "web-2",
        "image": "busybox",
        "project": "team",
        "memory": "64",
        "memory_unit": "MiB",
        "cpus": "0,5",
        "start": "1",
    }
    answer = browser(alice).post(reverse("containers:create"), form)
    assert answer.status_code == 302
    row = Container.objects.get(name="web-2")
    assert row.limits == {"memory_bytes": 64 * 2**20, "cpus": 0.5}
    assert "Creating…" in browser(alice).get(reverse("containers:list")).content.decode()


def test_settings_send_only_what_changed_and_name_the_field_at_fault(make_container, browser, alice, olga) -> None:
    make_container("web-1")
    where = reverse("containers:settings", args=["web-1"])
    wrong = browser(alice).post(where, {"memory": "1"}, headers={"HX-Request": "true"})
    assert "data-error" in wrong.content.decode()
    assert not Operation.objects.exists()
    assert browser(alice).post(where, {"memory": "512"}, headers={"HX-Request": "true"}).status_code == 204
    assert Operation.objects.get().action == "update"
    assert "data-pencil" not in browser(olga).get(where).content.decode()


def test_a_bulk_action_shows_its_plan_first(make_container, browser, olga) -> None:
    make_container("web-1")
    make_container("web-2")
    make_container("db-1", status="stopped")
    client = browser(olga)
    asked = {"action": "stop", "names": "web-1,web-2,db-1"}
    plan = client.post(reverse("containers:bulk"), asked, headers={"HX-Request": "true"}).content.decode()
    assert "web-1, web-2" in plan
    assert "It is not running." in plan
    assert not Operation.objects.exists()
    done = client.post(reverse("containers:bulk"), asked | {"confirmed": "1"}, headers={"HX-Request": "true"})
    assert done.status_code == 204
    assert sorted(Operation.objects.values_list("object_name", flat=True)) == ["web-1", "web-2"]


@pytest.mark.parametrize("count", [3, 120])
def test_the_queries_of_the_list_do_not_grow(
    count, make_container, browser, bob, django_assert_max_num_queries
) -> None:
    for number in range(count):
        make_container(f"web-{number}")
    client = browser(bob)
    with django_assert_max_num_queries(22):
        client.get(reverse("containers:list"))
    with django_assert_max_num_queries(12):
        client.get(reverse("containers:rows") + "?block=0")


def test_the_list_with_500_containers_is_small(make_container, browser, alice) -> None:
    for number in range(500):
        make_container(f"web-{number:03d}")
    text = browser(alice).get(reverse("containers:list")).content.decode()
    assert len(text) < 250_000
    assert len(re.findall(r"<[a-z]", text)) < 2600
    assert text.count('class="row"') == 20
    block = browser(alice).get(reverse("containers:rows") + "?block=24").content.decode()
    assert "row-web-499" in block


def test_filters_are_in_the_address(make_container, browser, bob) -> None:
    make_container("web-1")
    make_container("db-1", status="stopped")
    text = browser(bob).get(reverse("containers:list") + "?status=stopped&q=db").content.decode()
    assert "row-db-1" in text
    assert "row-web-1" not in text
    panel = browser(bob).get(reverse("containers:list") + "?panel=web-1").content.decode()
    assert 'id="panel-body" data-name="web-1"' in panel


def test_the_list_counts_snapshots_and_sorts_by_them(make_container, alice) -> None:
    for name, count in (("a", 0), ("b", 3), ("c", 1)):
        container = make_container(name)
        more = {"index": 1, "name": "eth1", "type": "macvlan", "ipv4": "10.91.0.2"}
        NetworkInterface.objects.create(container=container, **more)
        for number in range(count):
            container.snapshots.create(name=f"snap{number}")
    for q in ("", "10."):  # which looks at addresses, of which each has two
        filters = rows.Filters(q=q, sort="snapshots")
        fitting = filters.apply(rows.listed(alice))
        counted = dict(fitting.values_list("pk", "snapshot_count"))
        assert [counted[key] for key in order.in_order(fitting, filters.sort)] == [3, 1, 0]


@pytest.mark.parametrize(
    ("sort", "names", "column", "direction"),
    [
        ("name", ["c1", "c2", "c10", "web-2", "web-10"], "name", "ascending"),
        ("-name", ["web-10", "web-2", "c10", "c2", "c1"], "name", "descending"),
        ("status", ["c2", "web-2", "c1", "c10", "web-10"], "status", "ascending"),
        ("-status", ["c1", "c10", "web-10", "c2", "web-2"], "status", "descending"),
        ("created", ["web-10", "c1", "web-2", "c2", "c10"], "created", "ascending"),
        ("-created", ["c10", "c2", "web-2", "c1", "web-10"], "created", "descending"),
    ],
)
def test_names_sort_as_people_count_and_every_column_both_ways(
    sort, names, column, direction, make_container, browser, bob
) -> None:
    for name in ("c10", "c2", "web-2", "c1", "web-10"):  # the age: the last one made is the youngest
        make_container(name, status="running" if name in ("c2", "web-2") else "stopped")
    page = browser(bob).get(reverse("containers:list") + f"?sort={sort}").content.decode()
    assert re.findall(r'id="row-([a-z0-9-]+)"', page) == names
    heads = dict(re.findall(r'aria-sort="(\w+)">\s*<a href="[^"]*" data-sort="(\w+)"', page))
    assert heads == {direction: column}


@pytest.mark.parametrize(
    "query", ["?status=%00", "?q=%00", "?blocks=-1,x,99", "?sort=evil", "?project=%F0%9F%98%80", "?tag='"]
)
def test_a_bad_address_is_no_error(query, make_container, browser, bob) -> None:
    make_container("web-1")
    assert browser(bob).get(reverse("containers:list") + query).status_code == 200


def test_a_list_that_is_taken_anew_comes_with_its_chips(make_container, browser, bob) -> None:
    client = browser(bob)
    for name, status in (("a", "running"), ("b", "running"), ("c", "stopped")):
        make_container(name, status=status)
    headers = {"HX-Request": "true", "HX-Target": "list"}
    html = client.get(reverse("containers:list") + "?blocks=0&status=running", headers=headers).content.decode()
    assert "<html" not in html
    assert html.count('id="list"') == html.count('id="chips"') == 1
    assert ('id="row-a"' in html, 'id="row-c"' in html) == (True, False)
    chips = html.partition('id="chips"')[2]
    assert re.search(r'data-chip=""[^>]*>\s*All\s*<span class="n">3<', chips)
    assert re.search(r'aria-current="true"\s+data-chip="running".*?<span class="n">2<', chips, re.DOTALL)


def test_audit_shows_ones_own_and_to_administrators_their_projects(browser, bob, alice, team) -> None:
    audit.record(Actor(bob, "192.0.2.7"), "token.create", "token", "his-own")
    audit.record(Actor(alice, "192.0.2.8"), "container.start", "container", "hers", project=team.name)
    his, hers = (browser(one).get(reverse("pages:audit")).content.decode() for one in (bob, alice))
    assert ("his-own" in his, "192.0.2.8" in his) == (True, False)
    assert ("his-own" in hers, "192.0.2.8" in hers) == (False, True)


def test_an_invitation_shows_its_link_once(browser, make_user, team) -> None:
    client = browser(make_user("root", host_admin=True))
    client.post(reverse("pages:people"), {"what": "user", "username": "new", "project": "team", "role": "operator"})
    first = client.get(reverse("pages:people")).content.decode()
    assert "/sign-in/link/" in first
    assert "/sign-in/link/" not in client.get(reverse("pages:people")).content.decode()
    assert team.memberships.get(user__username="new").role == "operator"


def test_the_palette_holds_only_what_may_be_done(make_container, browser, bob, olga) -> None:
    make_container("web-1")
    texts = {
        u.username: [i["text"] for i in browser(u).get(reverse("pages:palette")).json()["items"]] for u in (bob, olga)
    }
    assert "web-1" in texts["bob"]
    assert "Stop web-1" not in texts["bob"]
    assert "Stop web-1" in texts["olga"]


def test_others_doings_and_own_failures_are_told(make_container, browser, alice, bob, host) -> None:
    row = make_container("web-1")
    now = dt.datetime.now(dt.UTC)
    common = {"host": host, "container": row, "object_name": "web-1", "project": row.project, "finished_at": now}
    good = Operation.objects.create(action="stop", actor=alice, actor_name="alice", status="succeeded", **common)
    bad = Operation.objects.create(
        action="start", actor=alice, actor_name="alice", status="failed", error={"message": "no init"}, **common
    )
    query = f"?ids={good.pk},{bad.pk},rubbish"
    for_bob = browser(bob).get(reverse("pages:ended") + query).json()["items"]
    for_alice = browser(alice).get(reverse("pages:ended") + query).json()["items"]
    assert len(for_bob) == 2
    assert [item["level"] for item in for_alice] == ["error"]
    assert "no init" in for_alice[0]["text"]


def test_what_the_page_does_not_show_by_itself_is_told(make_container, browser, alice, host) -> None:
    row = make_container("web-1")
    common = {"host": host, "container": row, "object_name": "web-1", "project": row.project, "actor": alice}
    common |= {"actor_name": "alice", "finished_at": dt.datetime.now(dt.UTC)}
    made = [
        Operation.objects.create(action=action, status=status, **common)
        for action, status in (("restore", "succeeded"), ("snapshot", "cancelled"), ("freeze", "succeeded"))
    ]
    query = "?ids=" + ",".join(str(operation.pk) for operation in made)
    items = browser(alice).get(reverse("pages:ended") + query).json()["items"]
    assert {item["level"]: item["text"] for item in items} == {
        "ok": "web-1 is restored.",
        "info": "Take snapshot, web-1: cancelled, and rolled back",
    }


def test_the_numbers_beside_the_menu(make_container, browser, alice) -> None:
    project = make_container("web-1").project.name
    make_container("web-2")
    shown = browser(alice).get(reverse("pages:running-count") + f"?project={project}").content.decode()
    assert re.search(r'id="container-count"[^>]*>2<', shown)
    assert re.search(r'id="running-count"[^>]*><', shown)


@pytest.mark.parametrize(("psi", "shown"), [(True, True), (False, False), (None, True)])
def test_pressure_is_shown_where_the_kernel_tells_of_it(psi, shown, host, root, make_container):
    make_container("web-1")
    if psi is not None:
        finding = {"id": "psi", "ok": psi, "level": "info", "what": "", "why": "", "mend": "Boot with psi=1."}
        host.facts = {**host.facts, "doctor": [*host.facts["doctor"], finding]}
        host.save()
    client = Client()
    client.force_login(root)
    page = client.get(reverse("pages:overview")).content.decode()
    assert ("psi_memory_pct" in page) == shown
    assert 'data-day="cpu_cores"' in page
