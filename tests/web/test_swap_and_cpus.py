"""Swap, CPUs, disks, huge pages, other files of cgroups: through the API and the settings page to the runtime, live."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse

from containers.core.model.spec import Limits
from containers.models import Container, Operation
from tests.web.api import Api, assert_error
from tests.web.world import change_limits, make_container, make_host

pytestmark = pytest.mark.django_db
MIB = 1024**2


@pytest.fixture(autouse=True)
def host():
    made = make_host()
    made.facts = {**made.facts, "online": "0-1,3", "policy": {"cgroup_files": ["memory.high", "cpu.uclamp.*"]}}
    made.save()
    return made


def test_they_change_live_and_one_by_one(alice, team, runtime):
    row = make_container(team, runtime=runtime, status="running", limits={"memory_bytes": 64 * MIB, "pids": 50})
    done = change_limits(Api(alice), runtime, {"swap_bytes": 0, "cpu_weight": 300, "cpuset": "1,3"})
    assert (done.status, done.message) == ("succeeded", "Changed.")
    wanted = Limits(memory_bytes=64 * MIB, pids=50, swap_bytes=0, cpu_weight=300, cpuset="1,3")
    assert runtime.limits[row.pk] == runtime.specs[row.pk].limits == wanted
    shown = Api(alice).get("/containers/web-1")[1]["limits"]
    assert (shown["swap_bytes"], shown["cpu_weight"], shown["cpuset"]) == (0, 300, "1,3")
    change_limits(Api(alice), runtime, {"swap_bytes": None, "cpuset": None})
    assert runtime.limits[row.pk] == Limits(memory_bytes=64 * MIB, pids=50, cpu_weight=300)


def test_a_memory_limit_that_swap_needs_cannot_go_alone(alice, team):
    make_container(team, limits={"memory_bytes": 64 * MIB, "swap_bytes": MIB})
    answer = Api(alice).patch("/containers/web-1", {"limits": {"memory_bytes": None}})
    assert_error(answer, 422, "invalid-value", "limits.swap_bytes")


def test_a_cpu_that_is_offline_is_refused_with_what_there_is(alice, team):
    make_container(team)
    answer = Api(alice).patch("/containers/web-1", {"limits": {"cpuset": "0-3"}})
    assert_error(answer, 422, "invalid-value", "limits.cpuset")
    assert answer[1]["message"] == "This host has no CPU 2 online; it has 0-1,3."


def test_the_settings_page_shows_and_changes_them(alice, team):
    make_container(team, limits={"memory_bytes": 64 * MIB, "swap_bytes": 32 * MIB, "cpuset": "0"})
    client = Client()
    client.force_login(alice, backend="allauth.account.auth_backends.AuthenticationBackend")
    where = reverse("containers:settings", args=["web-1"])
    shown = client.get(where).content.decode()
    assert 'name="swap" value="32"' in shown
    assert 'name="cpuset" value="0"' in shown
    wrong = client.post(where, {"cpuset": "9"}, headers={"HX-Request": "true"}).content.decode()
    assert "data-error" in wrong.split('data-setting="cpuset"')[1].split('<div class="setting" ')[0]
    fields = {"swap": "1.5 GiB", "cpu_weight": "50", "cpuset": " 0-1 "}
    assert client.post(where, fields, headers={"HX-Request": "true"}).status_code == 204
    changes = Operation.objects.get().arguments["changes"]
    assert changes["limits"] == {
        "memory_bytes": 64 * MIB,
        "swap_bytes": 1536 * MIB,
        "cpu_weight": 50,
        "cpuset": "0-1",
    }
    assert Container.objects.get().limits["cpuset"] == "0"


MORE = {
    "io_read_bytes_per_sec": MIB,
    "io_write_ops_per_sec": 50,
    "io_weight": 300,
    "hugepages": {"2MB": 64 * MIB},
    "cgroup": {"memory.high": "512M", "cpu.uclamp.max": "50"},
}


def test_disks_huge_pages_and_files_change_live(alice, team, runtime):
    row = make_container(team, runtime=runtime, status="running")
    change_limits(Api(alice), runtime, MORE)
    assert runtime.limits[row.pk] == runtime.specs[row.pk].limits == Limits(**MORE)
    shown = Api(alice).get("/containers/web-1")[1]["limits"]
    assert {name: shown[name] for name in MORE} == MORE
    change_limits(Api(alice), runtime, {"cgroup": {"memory.high": "1G"}, "hugepages": None})
    assert runtime.limits[row.pk].cgroup == {"memory.high": "1G"}
    assert runtime.limits[row.pk].hugepages is None


@pytest.mark.parametrize(
    ("limits", "status", "code", "field"),
    [
        ({"cgroup": {"memory.low": "1G"}}, 403, "policy", "limits.cgroup.memory.low"),
        ({"cgroup": {"memory.max": "1G"}}, 422, "invalid-value", "limits.cgroup.memory.max"),
        ({"cgroup": {"../../x": "1"}}, 422, "invalid-value", "limits.cgroup.../../x"),
        ({"io_weight": 5000}, 422, "invalid-value", "limits.io_weight"),
        ({"hugepages": {"3 apples": 1}}, 422, "invalid-value", "limits.hugepages"),
        ({"hugepages": {"2MB": "much"}}, 400, "bad-request", "limits.hugepages.2MB"),
    ],
)
def test_what_is_refused_names_its_field(alice, team, limits, status, code, field):
    make_container(team)
    assert_error(Api(alice).patch("/containers/web-1", {"limits": limits}), status, code, field)
    assert not Operation.objects.exists()


def test_the_settings_page_has_them_too(alice, team):
    make_container(team, limits=MORE)
    client = Client()
    client.force_login(alice, backend="allauth.account.auth_backends.AuthenticationBackend")
    where = reverse("containers:settings", args=["web-1"])
    shown = client.get(where).content.decode()
    assert 'name="io_read" value="1"' in shown
    assert "memory.high=512M" in shown
    for name, text in (("cgroup", "memory.low=1"), ("hugepages", "2MB"), ("io_weight", "heavy")):
        wrong = client.post(where, {name: text}, headers={"HX-Request": "true"}).content.decode()
        assert "data-error" in wrong.split(f'data-setting="{name}"')[1].split('<div class="setting" ')[0]
    fields = {"io_read": "", "io_write": "2", "io_write_ops": "100", "io_weight": "", "hugepages": "2MB=1 GiB",
              "cgroup": "memory.high = 1G\r\n"}  # fmt: skip
    assert client.post(where, fields, headers={"HX-Request": "true"}).status_code == 204
    assert Operation.objects.get().arguments["changes"]["limits"] == {
        "io_write_bytes_per_sec": 2 * MIB,
        "io_write_ops_per_sec": 100,
        "hugepages": {"2MB": 1024 * MIB},
        "cgroup": {"memory.high": "1G"},
    }
