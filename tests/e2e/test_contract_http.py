"""What docs/api.md promises of HTTP in general, of people and tokens, networks, images, uploads and the audit trail."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from .instance import PATIENCE_SEC, Instance, call, wait_until
from .test_robustness import DEAF, let_go

RFC3339_UTC = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)$"


def refused(answer: httpx.Response, status: int, code: str, field: str | None = None) -> dict[str, Any]:
    """Check an error's status and shape; return it."""
    assert answer.status_code == status, f"{answer.status_code} {answer.text}"
    error: dict[str, Any] = answer.json()
    assert error["code"] == code, error
    assert error["field"] == field, error
    assert isinstance(error["message"], str), error
    assert error["message"], error
    return error


def newest_operation(api: httpx.Client) -> list[str]:
    return [operation["id"] for operation in api.get("/operations?limit=1").json()["items"]]


@pytest.fixture(scope="module")
def sleeper(instance: Instance) -> Iterator[str]:
    """A stopped container that nobody starts."""
    with instance.client() as api:
        call(api, "POST", "/containers", {"name": "h-sleeper", "image": "busybox", "tags": ["red", "blue"]})
        yield "h-sleeper"
        call(api, "DELETE", "/containers/h-sleeper?force=true")


def test_healthz_is_ok(instance: Instance) -> None:
    answer = httpx.get(f"{instance.address}/healthz", timeout=PATIENCE_SEC)
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize(
    "path", ["/api/", "/api/v1/", "/api/v1/nothing", "/api/v2/containers", "/api/v1/containers/x/y/z"]
)
def test_an_unknown_path_has_the_shape_of_an_error(path: str, instance: Instance) -> None:
    headers = {"Authorization": f"Bearer {instance.token()}"}
    answer = httpx.get(f"{instance.address}{path}", headers=headers, timeout=PATIENCE_SEC)
    assert answer.headers["content-type"].startswith("application/json")
    assert {"code", "message", "field"} <= refused(answer, 404, "not-found").keys()


def test_each_kind_of_refusal_has_its_status(api: httpx.Client, instance: Instance, sleeper: str) -> None:
    refused(httpx.get(f"{instance.address}/api/v1/containers", timeout=PATIENCE_SEC), 401, "unauthenticated")
    refused(api.get("/containers", headers={"Authorization": "Bearer wrong"}), 401, "unauthenticated")
    refused(api.get("/containers/not-there"), 404, "not-found")
    refused(api.put(f"/containers/{sleeper}"), 405, "method-not-allowed")
    refused(api.post("/containers", content=b"{no json"), 400, "bad-request")
    refused(api.post("/containers", json={"name": 7, "image": "busybox"}), 400, "bad-request", "name")
    refused(api.post("/containers", json={"name": "x", "image": "busybox", "colour": 1}), 400, "bad-request", "colour")
    refused(api.post("/containers", json={"name": "a..b", "image": "busybox"}), 422, "invalid-value", "name")
    refused(api.post("/containers", json={"name": "x", "image": "none"}), 422, "invalid-value", "image")
    refused(api.post("/containers", json={"name": "x", "image": "busybox", "network": "none"}), 422, "invalid-value",
            "network")  # fmt: skip
    refused(api.post("/containers", json={"name": "x", "image": "busybox", "restart": "often"}), 422, "invalid-value",
            "restart")  # fmt: skip
    refused(api.post("/containers", json={"name": "x", "image": "busybox", "halt_signal": "SIGX"}), 422,
            "invalid-value", "halt_signal")  # fmt: skip
    refused(api.post("/containers", json={"name": sleeper, "image": "busybox"}), 409, "already-exists", "name")
    refused(api.post("/containers", json={"name": "x", "image": "busybox", "privileged": True}), 403, "policy",
            "privileged")  # fmt: skip
    assert api.get("/containers/x").status_code == 404
    refused(api.delete("/images/busybox"), 409, "in-use")


@pytest.mark.parametrize(("limits", "field"), [
    ({"memory_bytes": 4 * 1024**2 - 1}, "limits.memory_bytes"), ({"memory_bytes": 2**60}, "limits.memory_bytes"),
    ({"memory_bytes": 0}, "limits.memory_bytes"), ({"memory_bytes": -1}, "limits.memory_bytes"),
    ({"cpus": 0.009}, "limits.cpus"), ({"cpus": 100000}, "limits.cpus"), ({"cpus": 0}, "limits.cpus"),
    ({"pids": 7}, "limits.pids"), ({"pids": 2**40}, "limits.pids"), ({"disk_bytes": 10**6}, "limits.disk_bytes"),
])  # fmt: skip
def test_a_limit_out_of_bounds_names_itself(limits: dict[str, Any], field: str, api: httpx.Client) -> None:
    refused(
        api.post("/containers", json={"name": "x", "image": "busybox", "limits": limits}), 422, "invalid-value", field
    )
    assert api.get("/containers/x").status_code == 404


def test_limits_at_their_lower_bounds_are_taken(api: httpx.Client, name: str) -> None:
    lowest = {"memory_bytes": 4 * 1024**2, "cpus": 0.01, "pids": 8}
    call(api, "POST", "/containers", {"name": name, "image": "busybox", "limits": lowest})
    assert {k: v for k, v in api.get(f"/containers/{name}").json()["limits"].items() if v is not None} == lowest


@pytest.mark.parametrize("bad", ["", "..", "a/b", "a" * 64, "a\n", "a\0", "A", "-a", "a-", "ä", "a_b", "a.b"])
def test_names_of_everything_follow_one_rule(bad: str, api: httpx.Client) -> None:
    before = newest_operation(api)
    for path, key, more in (
        ("/containers", "name", {"image": "busybox"}),
        ("/images", "name", {"source": {"type": "debootstrap", "suite": "bookworm"}}),
        ("/networks", "name", {"type": "bridge"}),
        ("/projects", "name", {}),
        ("/users", "username", {}),
    ):
        refused(api.post(path, json={key: bad, **more}), 422, "invalid-value", key)
    assert newest_operation(api) == before


def test_an_operation_is_answered_202_and_found_at_its_id(api: httpx.Client, name: str) -> None:
    answer = api.post("/containers", json={"name": name, "image": "busybox"})
    assert answer.status_code == 202
    operation = answer.json()
    assert operation["action"] == "create"
    assert operation["status"] in ("queued", "running")
    assert (operation["container"], operation["actor"]) == (name, "admin")
    assert operation["error"] is None
    assert operation["finished_at"] is None
    ended = api.get(f"/operations/{operation['id']}?wait=60").json()
    assert (ended["id"], ended["status"], ended["progress_pct"]) == (operation["id"], "succeeded", 100)
    for key in ("created_at", "finished_at"):
        assert dt.datetime.fromisoformat(ended[key]).utcoffset() == dt.timedelta(0)
    refused(api.post(f"/operations/{operation['id']}/cancel"), 409, "invalid-transition")
    call(api, "DELETE", f"/containers/{name}")
    assert api.get(f"/operations/{operation['id']}").json()["container"] == name
    assert api.get("/operations/no-such-id").status_code == 404
    actions = [o["action"] for o in api.get(f"/operations?container={name}&status=succeeded").json()["items"]]
    assert actions == ["delete", "create"]
    assert api.get(f"/operations?container={name}&status=failed").json()["items"] == []


@pytest.mark.parametrize(("wait", "status"), [("-5", 202), ("0", 202), ("1000", 200), ("30", 200)])
def test_wait_is_clamped(wait: str, status: int, api: httpx.Client, name: str) -> None:
    answer = api.post(f"/containers?wait={wait}", json={"name": name, "image": "busybox"})
    assert answer.status_code == status, answer.text
    api.get(f"/operations/{answer.json()['id']}?wait=60")


def test_wait_that_is_up_first_answers_202(api: httpx.Client, name: str) -> None:
    call(api, "POST", "/containers", {"name": name, "image": "busybox", "start": True, **DEAF})
    began = time.monotonic()
    answer = api.post(f"/containers/{name}/stop?wait=0.3", json={"timeout": 900})
    assert 0.25 < time.monotonic() - began < 60, "not when it has ended"
    assert answer.status_code == 202
    busy = refused(api.post(f"/containers/{name}/restart"), 409, "busy")
    assert answer.json()["id"] in str(busy["operation"])
    let_go(api, name)
    assert api.get(f"/operations/{answer.json()['id']}?wait=60").json()["status"] == "succeeded"


def test_the_same_idempotency_key_gives_the_same_operation(api: httpx.Client, name: str) -> None:
    key = {"Idempotency-Key": f"make {name}"}
    body = {"name": name, "image": "busybox"}
    first = api.post("/containers?wait=60", json=body, headers=key).json()
    again = api.post("/containers?wait=60", json=body, headers=key)
    assert (again.status_code, again.json()["id"]) == (200, first["id"])
    stop = [api.post(f"/containers/{name}/start?wait=60", headers={"Idempotency-Key": f"go {name}"}) for _ in range(2)]
    assert stop[0].json()["id"] == stop[1].json()["id"] != first["id"]
    assert len(api.get(f"/operations?container={name}").json()["items"]) == 2


def test_lists_go_page_by_page(api: httpx.Client, instance: Instance, sleeper: str) -> None:
    def by_pages() -> list[str]:
        seen, path = [], "/api/v1/audit?limit=2"
        while path and len(seen) < 5:
            page = httpx.get(f"{instance.address}{path}", headers=api.headers, timeout=PATIENCE_SEC).json()
            assert len(page["items"]) <= 2
            seen += [r["at"] for r in page["items"]]
            path = page["next"]
        return seen[:5]

    # a record that is made between two questions is seen by the later one only
    wait_until(lambda: [r["at"] for r in api.get("/audit?limit=5").json()["items"]] == by_pages(), "the same records")
    assert api.get("/containers?limit=1000").json()["next"] is None
    for limit in ("0", "1001", "-1"):
        refused(api.get(f"/containers?limit={limit}"), 422, "invalid-value", "limit")


def test_containers_are_filtered(api: httpx.Client, sleeper: str) -> None:
    def names(query: str) -> list[str]:
        return [c["name"] for c in api.get(f"/containers?{query}").json()["items"]]

    assert sleeper in names("status=stopped&tag=red&project=default&q=sleep")
    for query in ("status=running", "tag=green", "project=none", "q=zzz"):
        assert sleeper not in names(query), query


def test_a_container_has_the_promised_shape(api: httpx.Client, sleeper: str) -> None:
    row = api.get(f"/containers/{sleeper}").json()
    created = dt.datetime.fromisoformat(row.pop("created_at"))
    assert abs((dt.datetime.now(dt.UTC) - created).total_seconds()) < 600
    wanted = {
        "name": sleeper, "project": "default", "status": "stopped", "image": "busybox", "description": "", "pid": None,
        "autostart": False, "privileged": False, "ephemeral": False, "operation": None, "last_exit": None,
    }  # fmt: skip
    assert {key: row[key] for key in wanted} == wanted
    assert sorted(row["tags"]) == ["blue", "red"]
    assert {"memory_bytes", "cpus", "pids", "disk_bytes"} <= row["limits"].keys()
    assert all(value is None for value in row["limits"].values())


def test_the_description_is_there(api: httpx.Client) -> None:
    paths = api.get("/openapi.json").json()["paths"]
    assert "/api/v1/containers/{name}/exec" in paths


def test_tokens_are_shown_once_expire_and_may_be_read_only(api: httpx.Client, instance: Instance, sleeper: str) -> None:
    soon = (dt.datetime.now(dt.UTC) + dt.timedelta(seconds=8)).isoformat()
    short = api.post("/tokens", json={"name": "short", "expires_at": soon}).json()
    reader = api.post("/tokens", json={"name": "reader", "read_only": True})
    assert reader.status_code == 201
    listed = {t["id"]: t for t in api.get("/tokens").json()["items"]}
    assert listed[reader.json()["id"]]["read_only"] is True
    assert not any("token" in t for t in listed.values())
    by_token = {"Authorization": f"Bearer {reader.json()['token']}"}
    with httpx.Client(base_url=api.base_url, headers=by_token, timeout=PATIENCE_SEC) as reading:
        assert reading.get(f"/containers/{sleeper}").status_code == 200
        refused(reading.post(f"/containers/{sleeper}/start"), 403, "forbidden")
        refused(reading.post(f"/containers/{sleeper}/exec", json={"command": ["id"]}), 403, "forbidden")
        refused(reading.delete(f"/containers/{sleeper}"), 403, "forbidden")
        refused(reading.post("/tokens", json={"name": "more"}), 403, "forbidden")
        assert api.delete(f"/tokens/{reader.json()['id']}").status_code == 204
        refused(reading.get("/containers"), 401, "unauthenticated")
    bearer = {"Authorization": f"Bearer {short['token']}"}
    wait_until(lambda: api.get("/containers", headers=bearer).status_code == 401, "the token's end")
    refused(api.delete("/tokens/999999"), 404, "not-found")


def test_people_projects_and_roles(api: httpx.Client, instance: Instance, name: str) -> None:
    project, user = f"p-{name}", f"u-{name}"
    assert api.post("/projects", json={"name": project}).status_code == 201
    refused(api.post("/projects", json={"name": project}), 409, "already-exists", "name")
    made = api.post("/users", json={"username": user})
    assert made.status_code == 201
    assert (made.json()["username"], made.json()["host_admin"], made.json()["active"]) == (user, False, True)
    assert user in [u["username"] for u in api.get("/users").json()["items"]]
    call(api, "POST", "/containers", {"name": name, "image": "busybox", "project": project})
    with instance.client(user) as his:
        refused(his.get(f"/containers/{name}"), 404, "not-found")
        for role, start, clone in (("viewer", 403, 403), ("operator", 200, 403), ("administrator", 200, 200)):
            member = api.put(f"/projects/{project}/members/{user}", json={"role": role})
            assert member.status_code == 200
            assert his.get(f"/containers/{name}").json()["project"] == project
            assert his.post(f"/containers/{name}/start?wait=60").status_code == start
            assert his.post(f"/containers/{name}/clone?wait=60", json={"name": f"{name}-c"}).status_code == clone
            if start == 200:
                call(his, "POST", f"/containers/{name}/stop", {"force": True})
        call(his, "DELETE", f"/containers/{name}-c")
        refused(his.post("/projects", json={"name": "mine"}), 403, "forbidden")
        refused(his.post("/users", json={"username": "mine"}), 403, "forbidden")
        assert project in [p["name"] for p in his.get("/projects").json()["items"]]
        assert api.delete(f"/projects/{project}/members/{user}").status_code == 204
        refused(his.get(f"/containers/{name}"), 404, "not-found")
        refused(api.put(f"/projects/{project}/members/{user}", json={"role": "king"}), 422, "invalid-value", "role")
        refused(api.put(f"/projects/{project}/members/nobody", json={"role": "viewer"}), 404, "not-found")
        assert api.patch(f"/users/{user}", json={"active": False}).json()["active"] is False
        refused(his.get("/containers"), 401, "unauthenticated")


def test_networks_with_addresses_of_ones_own(api: httpx.Client, name: str) -> None:
    made = call(api, "POST", "/networks", {
        "name": f"n-{name}", "type": "bridge", "ipv4": "10.213.77.1/24", "ipv6": "none", "nat": False
    })  # fmt: skip
    assert made["container"] is None
    network = api.get(f"/networks/n-{name}").json()
    assert (network["type"], network["ipv4"], network["ipv6"], network["nat"]) == (
        "bridge",
        "10.213.77.1/24",
        None,
        False,
    )
    assert {"default", f"n-{name}"} <= {n["name"] for n in api.get("/networks").json()["items"]}
    call(api, "POST", "/containers", {"name": name, "image": "busybox", "network": f"n-{name}", "start": True})
    (address,) = api.get(f"/containers/{name}").json()["addresses"]
    assert address.startswith("10.213.77.")
    shows = {"command": ["ip", "addr", "show", "eth0"]}
    wait_until(lambda: address in api.post(f"/containers/{name}/exec", json=shows).json()["stdout"], "DHCP")
    error = refused(api.delete(f"/networks/n-{name}"), 409, "in-use")
    assert name in str(error)
    call(api, "DELETE", f"/containers/{name}?force=true")
    call(api, "DELETE", f"/networks/n-{name}")
    refused(api.get(f"/networks/n-{name}"), 404, "not-found")


@pytest.mark.parametrize(("more", "status", "field"), [
    ({"type": "macvlan"}, 422, "type"), ({"type": "bridge", "ipv4": "10.0.0.300/24"}, 422, "ipv4"),
    ({"type": "bridge", "ipv4": 7}, 400, "ipv4"), ({"type": "bridge", "ipv6": "fd00::/200"}, 422, "ipv6"),
    ({"type": "bridge", "nat": "perhaps"}, 400, "nat"), ({"type": "bridge", "ipv4": "8.8.8.0/33"}, 422, "ipv4"),
])  # fmt: skip
def test_bad_networks(more: dict[str, Any], status: int, field: str, api: httpx.Client) -> None:
    refused(
        api.post("/networks", json={"name": "bad", **more}),
        status,
        "bad-request" if status == 400 else "invalid-value",
        field,
    )
    assert api.get("/networks/bad").status_code == 404


@pytest.mark.parametrize(("source", "status"), [
    ({"type": "debootstrap", "suite": "bookworm", "mirror": "http://127.0.0.1/debian"}, (403, 422)),
    ({"type": "url", "url": "http://10.0.0.1/root.tar.xz"}, (403, 422)),
    ({"type": "simplestreams", "server": "https://192.168.1.1", "alias": "x"}, (403, 422)),
    ({"type": "container", "container": "not-there"}, (404, 422)),
    ({"type": "upload", "upload": "0" * 32}, (404, 422)),
    ({"type": "floppy"}, (422,)),
    ({"type": "debootstrap"}, (400,)),
])  # fmt: skip
def test_sources_that_are_refused_at_once(source: dict[str, Any], status: tuple[int, ...], api: httpx.Client) -> None:
    before = newest_operation(api)
    answer = api.post("/images", json={"name": "bad", "source": source})
    assert answer.status_code in status, answer.text
    assert {"code", "message", "field"} <= answer.json().keys()
    assert newest_operation(api) == before
    assert api.get("/images/bad").status_code == 404


def test_busybox_is_there_from_the_start(api: httpx.Client) -> None:
    assert "busybox" in [i["name"] for i in api.get("/images").json()["items"]]
    assert api.get("/images/busybox").json()["name"] == "busybox"


def test_archives_are_sent_in_pieces(api: httpx.Client) -> None:
    made = api.post("/uploads", json={"size_bytes": 9 * 1024**2})
    assert made.status_code == 201
    upload = made.json()["id"]
    assert api.put(f"/uploads/{upload}?offset=0", content=b"x" * 8 * 1024**2).status_code < 300
    refused(api.put(f"/uploads/{upload}?offset=0", content=b"x" * (8 * 1024**2 + 1)), 413, "too-large")
    assert api.put(f"/uploads/{upload}?offset={8 * 1024**2}", content=b"x" * 1024**2).status_code < 300
    assert api.put(f"/uploads/{upload}?offset={9 * 1024**2}", content=b"x").status_code in (409, 422)
    refused(api.put(f"/uploads/{'0' * 32}?offset=0", content=b"x"), 404, "not-found")


def test_the_audit_trail_tells_who_did_what_and_how_it_ended(api: httpx.Client, name: str) -> None:
    operation = call(api, "POST", "/containers", {"name": name, "image": "busybox"})
    asked = {"operation": operation["id"], "outcome": "succeeded"}
    (record,) = wait_until(lambda: api.get("/audit", params=asked).json()["items"], "the record of its end")
    wanted = {"actor": "admin", "object": name, "project": "default", "source_ip": "127.0.0.1", "outcome": "succeeded"}
    assert {key: record[key] for key in wanted} == wanted
    assert record["operation"] == operation["id"]
    assert "create" in record["action"]
    for key, value in {**wanted, "action": record["action"], "at": record["at"]}.items():
        found = api.get("/audit", params={key: value, "object": name}).json()["items"]
        assert record in found, key
    assert api.get("/audit", params={"actor": "nobody-at-all"}).json()["items"] == []
