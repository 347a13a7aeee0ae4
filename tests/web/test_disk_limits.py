"""Disk limits as people ask for them: what is refused at once, with its field and reason, and what is done."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse

from containers.core.errors import InUse
from containers.models import Container, Operation
from containers.operations import runner
from tests.web.api import Api, assert_error
from tests.web.world import CORE_HOST, change_limits, make_container, make_host

pytestmark = pytest.mark.django_db
MIB = 1024**2
SIZE = {"disk_bytes": 64 * MIB}


@pytest.fixture(autouse=True)
def host():
    made = make_host()
    made.facts = {**made.facts, "disk_limits": True, "disk_growth": True}
    made.save()
    return made


def test_a_stopped_one_gets_any_size_and_a_running_one_a_larger_one(alice, team, runtime):
    row = make_container(team, runtime=runtime)
    for limits in (SIZE, {"disk_bytes": 32 * MIB, "disk_inodes": 500}, {"disk_bytes": None, "disk_inodes": None}, SIZE):
        assert change_limits(Api(alice), runtime, limits).status == "succeeded"
        assert runtime.sizes[row.pk] == limits["disk_bytes"]
        shown = Api(alice).get("/containers/web-1")[1]["limits"]
        assert {name: shown[name] for name in limits} == limits
    # what has nothing to do with it takes no copy
    runtime.calls.clear()
    change_limits(Api(alice), runtime, {"pids": 100})
    assert "resize" not in [verb for verb, _ in runtime.calls]
    runtime.run(row.pk)
    Container.objects.filter(pk=row.pk).update(status="running")
    assert change_limits(Api(alice), runtime, {"disk_bytes": 128 * MIB}).status == "succeeded"
    assert runtime.sizes[row.pk] == 128 * MIB


def test_what_fails_afterwards_takes_the_size_back(alice, team, runtime):
    row = make_container(team, runtime=runtime, limits=SIZE)

    def full():
        raise InUse("in use")

    runtime.before["save"] = full
    assert change_limits(Api(alice), runtime, {"disk_bytes": 32 * MIB}).error["code"] == "in-use"
    assert [verb for verb, _ in runtime.calls].count("resize") == 2
    assert runtime.sizes[row.pk] == 64 * MIB
    row.refresh_from_db()
    assert row.limits == SIZE


@pytest.mark.parametrize(
    ("limits", "status", "code", "field"),
    [
        ({"disk_bytes": 32 * MIB}, 409, "invalid-transition", "limits.disk_bytes"),
        ({"disk_bytes": None}, 409, "invalid-transition", "limits.disk_bytes"),
        ({"disk_inodes": 900}, 409, "invalid-transition", "limits.disk_inodes"),
        ({"disk_bytes": 15 * MIB}, 422, "invalid-value", "limits.disk_bytes"),
        ({"disk_inodes": 63}, 422, "invalid-value", "limits.disk_inodes"),
        ({"disk_inodes": 10**6}, 422, "invalid-value", "limits.disk_inodes"),
    ],
)
def test_what_cannot_be_done_to_a_running_one_is_refused_at_once(alice, team, limits, status, code, field):
    make_container(team, status="running", limits=SIZE)
    assert_error(Api(alice).patch("/containers/web-1", {"limits": limits}), status, code, field)
    assert not Operation.objects.exists()


def test_a_host_that_cannot_says_so(alice, team, host):
    make_container(team, status="running", limits=SIZE)
    host.facts = {**host.facts, "disk_growth": False}
    host.save()
    answer = Api(alice).patch("/containers/web-1", {"limits": {"disk_bytes": 128 * MIB}})
    assert_error(answer, 409, "invalid-transition", "limits.disk_bytes")
    host.facts = {**host.facts, "disk_limits": False}
    host.save()
    new = {"name": "web-2", "image": "busybox", "project": "team", "limits": SIZE}
    assert_error(Api(alice).post("/containers", new), 422, "invalid-value", "limits.disk_bytes")


def test_a_container_that_has_a_limit_starts_whatever_the_doctor_says_by_now(alice, team, host, runtime):
    make_container(team, runtime=runtime, limits=SIZE)
    host.facts = {**host.facts, "disk_limits": False}
    host.save()
    status, answer = Api(alice).post("/containers/web-1/start", {})
    assert status == 202
    assert runner.run(answer["id"], runtime, CORE_HOST)
    assert Operation.objects.get(pk=answer["id"]).status == "succeeded"
    # nor is any other setting of it out of reach
    assert Api(alice).patch("/containers/web-1", {"description": "kept", "limits": {"pids": 99}})[0] == 202


def test_the_settings_page_shows_changes_and_explains_it(alice, team, host):
    make_container(team, limits=SIZE)
    client = Client()
    client.force_login(alice, backend="allauth.account.auth_backends.AuthenticationBackend")
    where = reverse("containers:settings", args=["web-1"])
    shown = client.get(where).content.decode()
    assert 'name="disk" value="64"' in shown
    assert "Raised at once" in shown
    wrong = client.post(where, {"disk": "1"}, headers={"HX-Request": "true"}).content.decode()
    assert "data-error" in wrong.split('data-setting="disk"')[1].split('<div class="setting" ')[0]
    fields = {"disk": "1 GiB", "disk_inodes": "5000"}
    assert client.post(where, fields, headers={"HX-Request": "true"}).status_code == 204
    limits = Operation.objects.get().arguments["changes"]["limits"]
    assert limits == {"disk_bytes": 1024 * MIB, "disk_inodes": 5000}
    host.facts = {**host.facts, "disk_limits": False}
    host.save()
    assert "cannot hold a container to a size" in client.get(where).content.decode()
