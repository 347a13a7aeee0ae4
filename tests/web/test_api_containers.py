"""/containers: what is taken, what is refused and how."""

from __future__ import annotations

from typing import Any

import pytest
from django.utils import timezone

from containers.core.model.states import Status
from containers.models import Container, Event, Image, Network, NetworkInterface, Operation, local_host
from tests.web.api import Api, assert_error

pytestmark = pytest.mark.django_db

GIB = 1024**3


@pytest.fixture
def host():
    row = local_host()
    row.facts = {"memory_bytes": 8 * GIB, "cpus": 4, "online": "0-3", "pids": 32768, "policy": {"privileged": False}}
    row.save()
    return row


@pytest.fixture
def image(host):
    return Image.objects.get_or_create(
        host=host, name="busybox", defaults={"source": {"type": "busybox"}, "state": Image.State.READY}
    )[0]


@pytest.fixture
def network(host):
    return Network.objects.get_or_create(
        host=host, name="default", defaults={"number": 0, "ipv4": "10.90.3.1/24", "ipv6": "fd00:90:3::1/64"}
    )[0]


@pytest.fixture
def make(host, image, network, alice):
    """Return a function that makes a container's row in the project of alice."""
    project = alice.memberships.get().project

    def make_row(name: str = "web-1", status: str = Status.STOPPED, **more: Any) -> Container:
        slot = Container.objects.count()
        row = Container.objects.create(
            host=host,
            project=project,
            name=name,
            slot=slot,
            image=image,
            image_name=image.name,
            status=status,
            machine_id="0" * 32,
            **more,
        )
        NetworkInterface.objects.create(
            container=row,
            network=network,
            mac=f"02:00:00:00:00:{slot:02x}",
            ipv4=f"10.90.3.{slot + 10}",
            ipv6=f"fd00:90:3::{slot + 10:x}",
        )
        return row

    return make_row


GOOD = {"name": "web-1", "image": "busybox"}


def test_making_one_answers_202_with_the_operation(alice, image, network):
    status, body = Api(alice).post("/containers", GOOD)
    assert status == 202
    assert {name: body[name] for name in ("action", "status", "container", "actor", "progress_pct", "error")} == {
        "action": "create",
        "status": "queued",
        "container": "web-1",
        "actor": "alice",
        "progress_pct": 0,
        "error": None,
    }
    assert body["created_at"].endswith("Z")
    assert body["finished_at"] is None
    status, row = Api(alice).get("/containers/web-1")
    assert (status, row["operation"]["id"]) == (200, body["id"])


def test_every_field_is_taken(alice, image, network):
    wanted = {
        **GOOD,
        "project": "team",
        "description": "a web server\nfor tests",
        "tags": ["blue", "web"],
        "limits": {"memory_bytes": 512 * 1024**2, "cpus": 0.5, "pids": 100, "disk_bytes": None},
        "network": "default",
        "privileged": False,
        "start": True,
        "ephemeral": True,
        "autostart": True,
        "init_command": ["/sbin/init", "-x"],
        "environment": {"LANG": "C.UTF-8"},
        "halt_signal": "SIGRTMIN+3",
        "restart": "on-failure",
    }
    assert Api(alice).post("/containers", wanted)[0] == 202
    _status, row = Api(alice).get("/containers/web-1")
    for name in set(wanted) - {"network", "start", "limits"}:
        assert row[name] == wanted[name], name
    assert {name: row["limits"][name] for name in wanted["limits"]} == wanted["limits"]
    assert row["addresses"]


BAD_NAMES = ["", ".", "..", "/", "a/b", "a" * 64, "a\n", "a\0", "Web", ".web", "-web", "web-", "wéb", "web 1", "ｗeb"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_bad_name_is_422_naming_the_field_and_makes_nothing(name, alice, image, network):
    assert_error(Api(alice).post("/containers", {**GOOD, "name": name}), 422, "invalid-value", "name")
    assert not Container.objects.exists()
    assert not Operation.objects.exists()


@pytest.mark.parametrize("name", [1, None, True, ["a"], {"a": 1}, 1.5])
def test_a_name_of_a_wrong_type_is_400(name, alice, image, network):
    assert_error(Api(alice).post("/containers", {**GOOD, "name": name}), 400, "bad-request", "name")


def test_a_missing_name_is_400(alice, image, network):
    assert_error(Api(alice).post("/containers", {"image": "busybox"}), 400, "bad-request", "name")


@pytest.mark.parametrize(
    ("limits", "field"),
    [
        ({"memory_bytes": 0}, "memory_bytes"),
        ({"memory_bytes": -1}, "memory_bytes"),
        ({"memory_bytes": 4 * 1024**2 - 1}, "memory_bytes"),
        ({"memory_bytes": 9 * GIB}, "memory_bytes"),
        ({"memory_bytes": 10**30}, "memory_bytes"),
        ({"cpus": 0}, "cpus"),
        ({"cpus": -1}, "cpus"),
        ({"cpus": 0.009}, "cpus"),
        ({"cpus": 5}, "cpus"),
        ({"pids": 0}, "pids"),
        ({"pids": 7}, "pids"),
        ({"pids": 10**9}, "pids"),
        ({"disk_bytes": 10 * GIB}, "disk_bytes"),
        ({"disk_inodes": 100}, "disk_inodes"),
        ({"swap_bytes": GIB}, "swap_bytes"),
        ({"swap_bytes": -1, "memory_bytes": GIB}, "swap_bytes"),
        ({"cpu_weight": 0}, "cpu_weight"),
        ({"cpu_weight": 10_001}, "cpu_weight"),
        ({"cpuset": ""}, "cpuset"),
        ({"cpuset": "none"}, "cpuset"),
        ({"cpuset": "0-4"}, "cpuset"),
    ],
)
def test_a_limit_out_of_range_is_422(limits, field, alice, image, network):
    answer = Api(alice).post("/containers", {**GOOD, "limits": limits})
    assert_error(answer, 422, "invalid-value", f"limits.{field}")
    assert not Container.objects.exists()


@pytest.mark.parametrize(
    ("limits", "field"),
    [
        ({"memory_bytes": "512M"}, "memory_bytes"),
        ({"memory_bytes": True}, "memory_bytes"),
        ({"memory_bytes": 1.5}, "memory_bytes"),
        ({"cpus": "1"}, "cpus"),
        ({"pids": [1]}, "pids"),
        ({"cpuset": [0, 1]}, "cpuset"),
        ({"cpu_weight": 1.5}, "cpu_weight"),
        ({"memory": 1}, "memory"),
    ],
)
def test_a_limit_of_a_wrong_type_or_an_unknown_one_is_400(limits, field, alice, image, network):
    assert_error(Api(alice).post("/containers", {**GOOD, "limits": limits}), 400, "bad-request", f"limits.{field}")


@pytest.mark.parametrize(
    ("more", "status", "code", "field"),
    [
        ({"image": "nothing"}, 422, "invalid-value", "image"),
        ({"image": "../x"}, 422, "invalid-value", "image"),
        ({"network": "nothing"}, 422, "invalid-value", "network"),
        ({"restart": "sometimes"}, 422, "invalid-value", "restart"),
        ({"halt_signal": "SIGNOTHING"}, 422, "invalid-value", "halt_signal"),
        ({"init_command": []}, 422, "invalid-value", "init_command"),
        ({"init_command": ["sbin/init"]}, 422, "invalid-value", "init_command"),
        ({"init_command": "/sbin/init"}, 400, "bad-request", "init_command"),
        ({"environment": {"a b": "c"}}, 422, "invalid-value", "environment"),
        ({"environment": {"A": 1}}, 400, "bad-request", "environment.A"),
        ({"description": "x" * 501}, 422, "invalid-value", "description"),
        ({"description": "a\x1b[2J"}, 422, "invalid-value", "description"),
        ({"tags": ["Blue"]}, 422, "invalid-value", "tags.0"),
        ({"tags": "blue"}, 400, "bad-request", "tags"),
        ({"start": "yes"}, 400, "bad-request", "start"),
        ({"unknown": 1}, 400, "bad-request", "unknown"),
        ({"privileged": True}, 403, "policy", "privileged"),
        ({"description": "\ud800"}, 422, "invalid-value", "description"),
    ],
)
def test_other_bad_values(more, status, code, field, alice, image, network):
    assert_error(Api(alice).post("/containers", {**GOOD, **more}), status, code, field)
    assert not Container.objects.exists()
    assert not Operation.objects.exists()


def test_a_name_that_is_taken_is_409(make, alice):
    make("web-1")
    status, body = Api(alice).post("/containers", GOOD)
    assert (status, body["code"]) == (409, "already-exists")


def test_a_project_that_is_not_ones_own_is_404(alice, image, network):
    from panel.accounts.models import Project

    Project.objects.create(name="secret")
    assert_error(Api(alice).post("/containers", {**GOOD, "project": "secret"}), 404, "not-found", "project")


def test_the_same_idempotency_key_gives_the_same_operation(alice, image, network):
    api = Api(alice)
    first = api.post("/containers", GOOD, Idempotency_Key="key-1")
    assert api.post("/containers", GOOD, Idempotency_Key="key-1") == first
    assert Operation.objects.count() == 1


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_a_bad_idempotency_key_is_422(key, alice, image, network):
    answer = Api(alice).post("/containers", GOOD, Idempotency_Key=key)
    assert_error(answer, 422, "invalid-value", "Idempotency-Key")


def test_a_container_has_the_shape_of_the_contract(make, alice):
    exit_record = {"at": "2026-01-01T00:00:00Z", "reason": "exit", "exit_code": 1, "signal": None, "console": "gone"}
    make("web-1", Status.RUNNING, init_pid=42, limits={"cpus": 0.5}, last_exit=exit_record)
    _status, row = Api(alice).get("/containers/web-1")
    assert row["limits"] == {
        "memory_bytes": None,
        "swap_bytes": None,
        "cpus": 0.5,
        "cpu_weight": None,
        "cpuset": None,
        "pids": None,
        "disk_bytes": None,
        "disk_inodes": None,
        "io_read_bytes_per_sec": None,
        "io_write_bytes_per_sec": None,
        "io_read_ops_per_sec": None,
        "io_write_ops_per_sec": None,
        "io_weight": None,
        "hugepages": None,
        "cgroup": None,
    }
    assert row["addresses"] == ["10.90.3.10", "fd00:90:3::a"]
    assert (row["status"], row["pid"], row["operation"]) == ("running", 42, None)
    assert row["last_exit"] == exit_record
    assert (row["project"], row["image"], row["tags"]) == ("team", "busybox", [])
    for name in ("description", "created_at", "autostart", "privileged", "ephemeral"):
        assert name in row


def test_a_container_that_is_being_made_counts_as_stopped(make, alice):
    make("web-1", Status.ABSENT)
    assert Api(alice).get("/containers/web-1")[1]["status"] == "stopped"


ACTION_CALLS: dict[str, tuple[str, str, Any]] = {
    "view": ("GET", "", None),
    "start": ("POST", "/start", None),
    "stop": ("POST", "/stop", {}),
    "restart": ("POST", "/restart", None),
    "freeze": ("POST", "/freeze", None),
    "unfreeze": ("POST", "/unfreeze", None),
    "snapshot": ("POST", "/snapshots", {}),
    "restore": ("POST", "/snapshots/s1/restore", None),
    "snapshot-delete": ("DELETE", "/snapshots/s1", None),
    "clone": ("POST", "/clone", {"name": "copy"}),
    "update": ("PATCH", "", {"description": "new"}),
    "rename": ("PATCH", "", {"name": "new-name"}),
    "delete": ("DELETE", "", None),
}
FITTING = {
    "start": Status.STOPPED,
    "delete": Status.STOPPED,
    "rename": Status.STOPPED,
    "unfreeze": Status.FROZEN,
}
MAY = {
    "bob": {"view"},
    "olga": {"view", "start", "stop", "restart", "freeze", "unfreeze", "snapshot", "snapshot-delete", "restore"},
    "alice": set(ACTION_CALLS),
    "root": set(ACTION_CALLS),
}


@pytest.mark.parametrize("action", ACTION_CALLS)
@pytest.mark.parametrize("who", ["alice", "olga", "bob", "charlie", "root"])
def test_roles_and_actions(who, action, make, request):
    """Seen and allowed: 2xx. Seen, not allowed: 403 and an audit record. Not seen: 404, as if it were not there."""
    from panel.accounts.models import AuditRecord

    row = make("web-1", FITTING.get(action, Status.RUNNING))
    row.snapshots.create(name="s1")
    method, path, body = ACTION_CALLS[action]
    status, answer = Api(request.getfixturevalue(who)).call(method, f"/containers/web-1{path}", body)
    if who == "charlie":
        assert (status, answer["code"]) == (404, "not-found")
        assert answer == Api(request.getfixturevalue(who)).call(method, f"/containers/nothing{path}", body)[1]
    elif action in MAY[who]:
        assert status == (200 if action == "view" else 202), answer
    else:
        assert (status, answer["code"]) == (403, "forbidden")
        assert AuditRecord.objects.filter(actor_name=who, outcome="denied").count() == 1
    if status != 202:
        assert not Operation.objects.exists()


@pytest.mark.parametrize(
    ("present", "action"),
    [
        (Status.RUNNING, "start"),
        (Status.FROZEN, "start"),
        (Status.STOPPED, "stop"),
        (Status.STOPPED, "restart"),
        (Status.STOPPED, "freeze"),
        (Status.FROZEN, "freeze"),
        (Status.RUNNING, "unfreeze"),
        (Status.RUNNING, "rename"),
        (Status.RUNNING, "delete"),
    ],
)
def test_what_does_not_fit_the_state_is_409(present, action, make, alice):
    make("web-1", present)
    method, path, body = ACTION_CALLS[action]
    assert_error(Api(alice).call(method, f"/containers/web-1{path}", body), 409, "invalid-transition")


def test_delete_of_a_running_one_with_force_is_taken(make, alice):
    make("web-1", Status.RUNNING)
    assert Api(alice).delete("/containers/web-1?force=true")[0] == 202


def test_a_second_operation_is_409_busy_with_the_first_ones_id(make, alice):
    make("web-1", Status.STOPPED)
    _status, first = Api(alice).post("/containers/web-1/start")
    status, body = Api(alice).post("/containers/web-1/start")
    assert (status, body["code"], body["operation"]) == (409, "busy", first["id"])


@pytest.mark.parametrize("timeout", [-1, 3601, 10**12])
def test_a_stop_timeout_out_of_range_is_422(timeout, make, alice):
    make("web-1", Status.RUNNING)
    answer = Api(alice).post("/containers/web-1/stop", {"timeout": timeout})
    assert_error(answer, 422, "invalid-value", "timeout")


def test_fields_of_actions_are_strict(make, alice):
    make("web-1", Status.RUNNING)
    api = Api(alice)
    assert_error(api.post("/containers/web-1/stop", {"force": 1}), 400, "bad-request", "force")
    assert_error(api.post("/containers/web-1/freeze", {"x": 1}), 400, "bad-request", "x")
    assert_error(api.post("/containers/web-1/clone", {}), 400, "bad-request", "name")
    assert_error(api.post("/containers/web-1/clone", {"name": "A"}), 422, "invalid-value", "name")
    assert_error(api.patch("/containers/web-1", {"image": "x"}), 400, "bad-request", "image")
    assert_error(api.patch("/containers/web-1", {"limits": {"pids": 1}}), 422, "invalid-value", "limits.pids")
    assert_error(api.patch("/containers/web-1", {"autostart": None}), 422, "invalid-value", "autostart")
    assert not Operation.objects.exists()


def test_stop_without_a_body_takes_the_defaults(make, alice):
    make("web-1", Status.RUNNING)
    _status, body = Api(alice).post("/containers/web-1/stop")
    assert Operation.objects.get(pk=body["id"]).arguments == {"timeout": 60, "force": False, "kill": True}


def test_the_list_is_in_pages(make, alice):
    for number in range(5):
        make(f"c{number}")
    api = Api(alice)
    _status, page = api.get("/containers?limit=2&status=stopped")
    names = [row["name"] for row in page["items"]]
    while page["next"]:
        assert "status=stopped" in page["next"]
        _status, page = api.get(page["next"])
        names += [row["name"] for row in page["items"]]
    assert names == ["c0", "c1", "c2", "c3", "c4"]


def test_the_list_tells_of_each_what_is_told_of_it_alone(make, host, image, alice):
    make("plain", tags=["a"], description="ü 😀 \u2028 </script>")
    make("runs", Status.RUNNING, init_pid=42, started_at=timezone.now(), limits={"cpus": 0.5}, autostart=True)
    make("fell", restart="always", restart_at=timezone.now(), restart_count=2, last_exit={"reason": "exit"})
    make("rests", restart_at=timezone.now(), last_exit={"reason": "stopped", "exit_code": 0})
    make("strict", security={"no_new_privs": True}, init={"cwd": "/srv"}, console={"ttys": 2}, halt_signal="SIGTERM")
    many = make("many", mounts=[{"source": "/srv", "path": "/srv"}], environment={"A": "b"}, init_command=["/run"])
    options = {"parent": "eth9", "ipv4": "10.1.0.2/24", "ipv4_gateway": "10.1.0.1", "routes": ["10.2.0.0/16"]}
    NetworkInterface.objects.create(
        container=many, index=1, name="eth1", type="macvlan", ipv4="10.1.0.2", options=options
    )
    make("none").interfaces.all().delete()
    source, twin, held = make("source"), make("twin", Status.ABSENT), make("held")
    common = {"host": host, "actor": alice, "actor_name": "alice", "project": source.project}
    Operation.objects.create(action="clone", container=source, target=twin, object_name="source", **common)
    Operation.objects.create(action="start", container=held, object_name="held", status="running", **common)
    Operation.objects.create(action="stop", container=many, object_name="many", status="succeeded", **common)
    listed = Api(alice).get("/containers")[1]["items"]
    assert [row["name"] for row in listed] == sorted(row.name for row in Container.objects.all())
    assert listed == [Api(alice).get(f"/containers/{row['name']}")[1] for row in listed]
    operations = {row["name"]: row["operation"]["action"] for row in listed if row["operation"]}
    assert operations == {"source": "clone", "twin": "clone", "held": "start"}


def test_the_list_costs_the_same_queries_for_one_and_for_many(make, alice, django_assert_max_num_queries):
    api = Api(alice)
    for number in range(20):
        make(f"c{number}")
    with django_assert_max_num_queries(10):
        assert len(api.get("/containers")[1]["items"]) == 20


def test_filters(make, alice):
    make("web-1", Status.RUNNING, tags=["blue"], description="shop")
    make("web-2", Status.STOPPED, tags=["blueish"])
    make("db-1", Status.FROZEN)
    api = Api(alice)

    def names(query: str) -> list[str]:
        return [row["name"] for row in api.get(f"/containers?{query}")[1]["items"]]

    assert names("status=running") == ["web-1"]
    assert names("q=web") == ["web-1", "web-2"]
    assert names("q=SHOP") == ["web-1"]
    assert names("q=10.90.3.12") == ["db-1"]
    assert names("tag=blue") == ["web-1"]
    assert names("tag=%22") == []
    assert names("project=team") == ["db-1", "web-1", "web-2"]
    assert names("project=other") == []
    assert_error(api.get("/containers?status=sleeping"), 422, "invalid-value", "status")
    assert_error(api.get("/containers?q=%00"), 422, "invalid-value", "q")


def test_strangers_see_an_empty_list(make, charlie):
    make("web-1")
    assert Api(charlie).get("/containers")[1] == {"items": [], "next": None}


def test_snapshots_have_the_shape_of_the_contract(make, alice):
    row = make("web-1")
    row.snapshots.create(name="snap0", note="before", size_bytes=7)
    _status, body = Api(alice).get("/containers/web-1/snapshots")
    (item,) = body["items"]
    assert {name: item[name] for name in ("name", "note", "size_bytes", "pinned")} == {
        "name": "snap0",
        "note": "before",
        "size_bytes": 7,
        "pinned": False,
    }
    assert item["created_at"].endswith("Z")


def test_an_unknown_snapshot_is_404(make, alice):
    make("web-1")
    assert_error(Api(alice).post("/containers/web-1/snapshots/none/restore"), 404, "not-found", "snapshot")
    assert_error(Api(alice).delete("/containers/web-1/snapshots/none"), 404, "not-found", "snapshot")


def test_events_are_told(make, alice):
    row = make("web-1")
    Event.objects.create(container=row, kind="oom", at=timezone.now())
    _status, body = Api(alice).get("/containers/web-1/events")
    assert [event["event"] for event in body["items"]] == ["oom"]
