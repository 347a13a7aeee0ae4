"""The pages that show how things stand: what needs attention, the list's rows and columns, limits, findings."""

import datetime as dt
import re
from html.parser import HTMLParser

import pytest
from django.conf import settings
from django.test import Client
from django.urls import reverse
from django.utils import timezone, translation

from containers.clients import history
from containers.core.host import Host as CoreHost
from containers.models import Event, Image, Network, Operation, local_host
from containers.showing import attention, present
from containers.showing.attention import Measured, concerns
from containers.showing.rowhtml import COLUMNS, SHOWN, RowWriter
from containers.showing.rows import listed, rows_of
from containers.views.listing import html_of
from panel.accounts.models import Project
from tests.web.world import make_container, make_host

pytestmark = pytest.mark.django_db
GIB = 2**30


@pytest.fixture
def host(tmp_path, settings, monkeypatch):
    settings.STATIC_ROOT = tmp_path
    monkeypatch.setattr(attention, "SILENT_SEC", 600)
    row = make_host()
    row.seen_at = timezone.now()
    row.save()
    return row


@pytest.fixture
def measured(monkeypatch):
    """What the ticker says; a test fills it."""
    found = Measured(
        {}, {"disk_used_bytes": GIB, "disk_free_bytes": 9 * GIB, "memory_bytes": 1, "memory_limit_bytes": 9}
    )
    monkeypatch.setattr(attention, "measure", lambda: found)
    return found


def signed_in(user) -> Client:
    client = Client()
    client.force_login(user, backend="allauth.account.auth_backends.AuthenticationBackend")
    return client


def told(user, project: str = "") -> dict[str, str]:
    return {concern.subject: concern.text for concern in concerns(user, local_host(), project)}


def last_exit(reason: str, exit_code: int | None = None) -> dict:
    return {"at": timezone.now().isoformat(), "reason": reason, "exit_code": exit_code, "signal": None, "console": ""}


def test_all_is_well(host, measured, team, bob):
    make_container(team, "web-1", status="running")
    make_container(team, "web-2", last_exit=last_exit("stopped"))
    make_container(team, "web-3", last_exit=last_exit("exit", 0))
    assert concerns(bob, host) == []
    assert "Nothing does." in signed_in(bob).get(reverse("pages:overview")).content.decode()


def test_crashes_errors_and_loops_need_attention_of_those_who_see_them(host, measured, team, bob, charlie):
    make_container(team, "crashed", last_exit=last_exit("exit", 3))
    make_container(team, "starved", last_exit=last_exit("oom"))
    make_container(team, "broken", status="error", status_reason="a mount is gone")
    make_container(team, "loops", status="running", restart_count=4, last_exit=last_exit("signal"))
    killed = make_container(team, "killed", status="running")
    Event.objects.create(container=killed, kind="oom")
    Event.objects.create(container=killed, kind="oom", at=timezone.now() - dt.timedelta(hours=2))
    found = told(bob)
    assert found["crashed"] == "its init ended (exit code 3)"
    assert found["starved"] == "it ran out of memory"
    assert found["broken"] == "a mount is gone"
    assert "4 times in a row" in found["loops"]
    assert found["killed"] == "the kernel ended a process for lack of memory in the last hour"
    assert told(charlie) == {}
    assert [concern.subject for concern in concerns(bob, host) if concern.grave][:1] != []


def test_limits_nearly_reached(host, measured, team, bob):
    near, far = (make_container(team, name, status="running") for name in ("near", "far"))
    measured.containers[near.pk] = {"memory_bytes": 95, "memory_limit_bytes": 100}
    measured.containers[far.pk] = {"memory_bytes": 50, "memory_limit_bytes": 100}
    measured.containers["0" * 12] = {"memory_bytes": 95, "memory_limit_bytes": 100}
    assert told(bob) == {"near": "95 % of its memory limit of 100 B is used"}
    measured.host.update(disk_used_bytes=98 * GIB, disk_free_bytes=2 * GIB)
    full = [concern for concern in concerns(bob, host) if concern.subject == host.name]
    assert [(concern.text, concern.grave) for concern in full] == [("its disk is 98 % full: 2 GiB free", True)]


def test_the_host_itself(host, measured, bob):
    host.seen_at = timezone.now() - dt.timedelta(hours=1)
    host.facts["doctor"] = [
        {"id": "a", "ok": False, "level": "required", "what": "No nft."},
        {"id": "b", "ok": False, "level": "recommended", "what": "Few keys."},
        {"id": "c", "ok": False, "level": "info", "what": "No IPv6."},
        {"id": "d", "ok": True, "level": "required", "what": "Root."},
    ]
    measured.host.clear()
    found = concerns(bob, host)
    assert [concern.text for concern in found] == [
        "its worker does not answer; what is asked for waits",
        "its measurements are not available",
        "No nft.",
        "Few keys.",
    ]
    assert [concern.grave for concern in found] == [True, True, True, False]


def test_a_failed_operation_is_told_until_the_next_one_succeeds(host, measured, team, bob):
    row = make_container(team, "web-1", last_exit=last_exit("start-failed"))
    common = {"host": host, "container": row, "object_name": "web-1", "project": team, "actor_name": "alice"}
    earlier = timezone.now() - dt.timedelta(hours=1)
    failed = Operation.objects.create(
        action="start", status="failed", error={"message": "no init"}, finished_at=earlier, **common
    )
    assert told(bob) == {"web-1": "Start: no init"}
    assert concerns(bob, host)[0].href == reverse("pages:operation", args=[failed.pk])
    row.last_exit = None
    row.save()
    Operation.objects.create(action="start", status="succeeded", finished_at=timezone.now(), **common)
    assert told(bob) == {}


@pytest.mark.parametrize("count", [3, 60])
def test_the_queries_of_the_overview_do_not_grow(count, host, measured, team, bob, django_assert_max_num_queries):
    for number in range(count):
        row = make_container(team, f"c{number}", last_exit=last_exit("oom"))
        measured.containers[row.pk] = {"memory_bytes": 95, "memory_limit_bytes": 100}
    client = signed_in(bob)
    with django_assert_max_num_queries(24):
        text = client.get(reverse("pages:overview")).content.decode()
    assert (f"and {count - attention.SHOWN_MAX} more" in text) == (count > attention.SHOWN_MAX)


class Tags(HTMLParser):
    """The start tags and texts of some HTML."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data) -> None:
        self.text += data


def test_a_row_escapes_all_that_people_wrote(host, team, root):
    evil = """<b onclick='x("y")'>&"""
    make_container(team, "web-1", description=evil, status_reason=evil, tags=[evil], status="stopped")
    team.name = evil
    Project.objects.filter(pk=team.pk).update(name=evil)
    Image.objects.filter(name="busybox").update(name="busybox")
    found = Tags(html_of(rows_of(root, listed(root)), RowWriter(tuple(COLUMNS), show_project=True)))
    assert "b" not in [tag for tag, _attributes in found.tags]
    assert not [name for _tag, attributes in found.tags for name in attributes if name.startswith("on")]
    titles = [attributes.get("title") for _tag, attributes in found.tags]
    assert {f"web-1: {evil}", evil} <= set(titles)
    assert found.text.count(evil) == 2


@pytest.mark.parametrize(
    ("status", "ended", "told"),
    [
        ("stopped", last_exit("start-failed"), "it did not start"),
        ("stopped", last_exit("exit", 1), "its init ended (exit code 1)"),
        ("stopped", last_exit("exit", 0), ""),
        ("stopped", last_exit("stopped"), ""),
        ("running", last_exit("oom"), ""),
    ],
)
def test_a_row_marks_what_ended_as_nobody_wanted(host, team, root, status, ended, told):
    make_container(team, "web-1", status=status, last_exit=ended)
    html = html_of(rows_of(root, listed(root)), RowWriter(SHOWN, show_project=False))
    assert ('class="trouble"' in html) == bool(told)
    assert told in html


def test_one_that_waits_to_be_started_again_says_so_and_can_be_stopped(host, team, root, olga):
    make_container(team, "loops", restart="always", last_exit=last_exit("exit", 1))
    make_container(team, "rests", restart="always", last_exit=last_exit("stopped"))
    loops, rests = rows_of(olga, listed(olga).order_by("name"))
    assert (loops.word, loops.power.action, loops.pause.action) == ("Restarting…", "start", "stop")
    assert not loops.pause.reason
    assert (rests.word, rests.power.action, rests.pause.action) == ("Stopped", "start", "freeze")
    assert rests.pause.reason
    assert signed_in(olga).post(reverse("containers:act", args=["loops", "stop"])).status_code == 302
    assert Operation.objects.get().action == "stop"


def test_a_row_speaks_the_viewers_language(host, team, root):
    make_container(team, "web-1")
    with translation.override("de"):
        html = html_of(rows_of(root, listed(root)), RowWriter(SHOWN, show_project=False))
    assert 'title="Starten"' in html


def test_columns_are_chosen_by_the_address_and_then_by_this_browser(host, team, bob):
    make_container(team, "web-1")
    client = signed_in(bob)
    where = reverse("containers:list")
    usual = client.get(where).content.decode()
    assert 'class="c-cpu live"' in usual
    assert 'class="c-disk' not in usual
    chosen = client.get(where + "?columns=disk.network.nonsense").content.decode()
    assert 'data-stat="disk_rate"' in chosen
    assert 'class="c-cpu' not in chosen
    client.cookies["boxroom_columns"] = "processes"
    assert 'data-stat="processes"' in client.get(where).content.decode()
    assert "c-cpu" not in client.get(reverse("containers:rows") + "?names=web-1").content.decode()
    assert 'class="c-age' not in client.get(where + "?columns=none").content.decode()


def test_what_an_image_or_a_network_is_used_by_leads_to_the_list(host, team, bob):
    make_container(team, "web-1")
    client = signed_in(bob)
    assert f"{reverse('containers:list')}?image=busybox" in client.get(reverse("pages:images")).content.decode()
    assert f"{reverse('containers:list')}?network=default" in client.get(reverse("pages:networks")).content.decode()
    for query, there in (
        ("image=busybox", True),
        ("image=other", False),
        ("network=default", True),
        ("network=x", False),
    ):
        text = client.get(reverse("containers:list") + f"?{query}").content.decode()
        assert ('id="row-web-1"' in text) is there
    assert Network.objects.get().name == "default"


def test_an_image_is_asked_for_with_its_release_init_and_extent(host, root):
    client = signed_in(root)
    page = client.get(reverse("pages:images")).content.decode()
    assert "Debian sid" in page
    assert "<option>sysvinit</option>" in page
    form = {"name": "old", "suite": "trixie", "init": "openrc", "variant": "minbase", "packages": "vim-tiny"}
    assert client.post(reverse("pages:images"), form).status_code == 302
    wanted = {"suite": "trixie", "init": "openrc", "variant": "minbase", "packages": ["vim-tiny"]}
    assert Image.objects.get(name="old").source == {"type": "debootstrap", **wanted}
    refused = client.post(reverse("pages:images"), {**form, "name": "other", "variant": "standard"})
    assert refused.status_code == 422
    text = refused.content.decode()
    assert "use the variant minbase" in text
    assert "<option selected>openrc</option>" in text


def test_settings_show_what_the_kernel_holds_it_to(host, team, alice, monkeypatch):
    make_container(team, "web-1", status="running", limits={"memory_bytes": 2**28, "cpus": 0.5})
    present = {"memory_bytes": 2**28, "cpus": 1.0, "pids": None}
    monkeypatch.setattr(history, "present_limits", lambda _container: present)
    text = signed_in(alice).get(reverse("containers:settings", args=["web-1"])).content.decode()
    assert text.count("kernel:") == 3
    assert text.count("kernel high") == 1


def test_the_last_lines_of_a_container_that_ended_by_itself(host, team, bob):
    lines = "\n".join(f"line {number}" for number in range(40))
    make_container(team, "web-1", last_exit=last_exit("exit", 3) | {"console": lines})
    text = signed_in(bob).get(reverse("containers:detail", args=["web-1"])).content.decode()
    assert "line 39" in text
    assert "line 27\n" not in text
    assert "its init ended (exit code 3)" in text


def test_findings_of_networks_are_on_their_page(host, bob):
    finding = {"ok": False, "level": "recommended", "why": "Cut off.", "mend": "nft add rule …"}
    host.facts["doctor"] = [
        {"id": "forward-drop-ip-filter-br0", "part": "network", "what": "The chain drops.", **finding},
        {"id": "disk-space", "what": "Little room.", **finding},
    ]
    host.save()
    text = signed_in(bob).get(reverse("pages:networks")).content.decode()
    assert "The chain drops." in text
    assert "nft add rule …" in text
    assert "Little room." not in text
    assert "Little room." in signed_in(bob).get(reverse("pages:host")).content.decode()


def test_a_network_tells_what_is_wrong_with_it(host, root):
    """Of what doctor found: what is about its own bridge, or about all."""
    own = present.network(Network.objects.select_related("host").get(name="default"))
    assert own["problems"] == []
    bridge = CoreHost(settings.STATE_DIR, settings.BOXROOM_INSTANCE).bridge_name(0)
    told = {"why": "Cut off.", "mend": "nft add rule …"}
    finding = {"ok": False, "level": "recommended", "part": "network", **told}
    host.facts["doctor"] = [
        {"id": "one", "what": "Drops.", "bridge": bridge, **finding},
        {"id": "two", "what": "Drops another's.", "bridge": f"{bridge}9", **finding},
        {"id": "three", "what": "Off.", **finding},
        {"id": "ipv6", "what": "None.", **finding, "level": "info"},
        {"id": "disk", "what": "Little room.", **finding, "part": "host"},
    ]
    host.save()
    problems = present.network(Network.objects.select_related("host").get(name="default"))["problems"]
    assert problems == [{"what": "Drops.", **told}, {"what": "Off.", **told}]


def test_nothing_asks_in_the_browsers_own_dialog(host, root):
    Image.objects.create(host=host, name="old", source={"type": "busybox"}, state="ready", size_bytes=1024)
    text = signed_in(root).get(reverse("pages:images")).content.decode()
    asking = [attributes for _tag, attributes in Tags(text).tags if "hx-confirm" in attributes]
    assert asking
    assert all(attributes.get("data-title") and attributes.get("data-do") for attributes in asking)


def test_a_network_is_changed_in_a_dialog(host, bob, alice, team):
    project_s = Network.objects.create(host=host, name="own", number=77, project=team, ipv4="10.92.0.1/24")
    address = reverse("pages:network-change", args=["own"])
    assert signed_in(bob).get(address).status_code in (403, 404)
    client = signed_in(alice)
    assert address in client.get(reverse("pages:networks")).content.decode()
    shown = client.get(address).content.decode()
    assert re.search(r'name="ipv4"\s+value="10.92.0.1/24"', shown)
    refused = client.post(address, {"ipv4": "nonsense", "nat": "1"}, headers={"HX-Request": "true"})
    assert refused["HX-Retarget"] == "#dialog-error"
    client.post(
        address, {"ipv4": "10.95.0.0/24", "ipv6": "none", "description": "ours"}, headers={"HX-Request": "true"}
    )
    asked = project_s.operations.get()
    assert asked.arguments["after"] == {"ipv4": "10.95.0.1/24", "ipv6": "", "nat": False, "description": "ours"}
    page = client.get(reverse("pages:networks"), headers={"Accept-Language": "de"}).content.decode()
    assert "Netz wird geändert…" in page


def test_a_refused_network_comes_back_as_it_was_filled_in(host, alice, team):
    client, form = signed_in(alice), {"name": "own", "project": "team", "ipv4": "nonsense", "ipv6": "none"}
    for nat in ({}, {"nat": "1"}):
        refused = client.post(reverse("pages:networks"), form | nat)
        assert refused.status_code == 422
        (box,) = (
            attributes for tag, attributes in Tags(refused.content.decode()).tags if attributes.get("id") == "n-nat"
        )
        assert ("checked" in box) is bool(nat)
    assert re.search(r'id="n-nat"[^>]* checked', client.get(reverse("pages:networks")).content.decode())
    foreign = client.post(reverse("pages:networks"), form | {"project": "nobodys", "ipv4": "auto"})
    place = foreign.content.decode().split('id="n-project"')[1]
    assert "aria-invalid" in place.split(">")[0]
    assert 'role="alert"' in place.split("</div>")[0]
