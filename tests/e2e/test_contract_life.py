"""What docs/api.md promises of a container's life: how it ends, what is kept, what is changed, and by whom."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

import httpx
import pytest

from .instance import Instance, call, wait_until

MIB = 1024**2


def make(api: httpx.Client, name: str, **more: Any) -> dict[str, Any]:
    return call(api, "POST", "/containers", {"name": name, "image": "busybox", "start": True, **more})


def sh(api: httpx.Client, name: str, script: str) -> str:
    answer = api.post(f"/containers/{name}/exec", json={"command": ["sh", "-c", script]})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["stdout"])


def ended(api: httpx.Client, name: str) -> dict[str, Any]:
    """Wait for the container's end; return last_exit."""
    row = wait_until(lambda: (r := api.get(f"/containers/{name}").json())["status"] == "stopped" and r, "the end")
    last: dict[str, Any] = row["last_exit"]
    assert {"at", "reason", "exit_code", "signal", "console"} <= last.keys()
    return last


@pytest.mark.parametrize(("command", "wanted"), [
    (["/bin/sh", "-c", "echo last words; exit 3"], {"reason": "exit", "exit_code": 3, "signal": None}),
    (["/bin/sh", "-c", "poweroff -f"], {"reason": "poweroff"}),
    (["/bin/sh", "-c", "exec tail /dev/zero"], {"reason": "oom"}),
])  # fmt: skip
def test_init_s_end_is_told(command: list[str], wanted: dict[str, Any], api: httpx.Client, name: str) -> None:
    limits = {"memory_bytes": 24 * MIB}
    operation = api.post(
        "/containers?wait=60",
        json={"name": name, "image": "busybox", "start": True, "init_command": command, "limits": limits},
    ).json()
    last = ended(api, name)
    assert {key: last[key] for key in wanted} == wanted, operation
    if wanted["reason"] == "exit":
        assert "last words" in last["console"]


def test_a_stop_a_kill_and_a_failed_start_are_told_apart(api: httpx.Client, name: str, instance: Instance) -> None:
    make(api, name)
    call(api, "POST", f"/containers/{name}/stop")
    assert ended(api, name)["reason"] == "stopped"
    call(api, "POST", f"/containers/{name}/start")
    call(api, "POST", f"/containers/{name}/freeze")
    assert api.get(f"/containers/{name}").json()["status"] == "frozen"
    call(api, "POST", f"/containers/{name}/stop", {"force": True})
    assert ended(api, name)["reason"] == "killed"
    call(api, "PATCH", f"/containers/{name}", {"init_command": ["/no/such/init"]})
    failed = api.post(f"/containers/{name}/start?wait=60").json()
    assert failed["status"] == "failed"
    assert {"code", "message", "step", "path", "errno", "console"} <= failed["error"].keys()
    assert failed["error"]["path"] == "/no/such/init"
    assert api.get(f"/containers/{name}").json()["last_exit"]["reason"] == "start-failed"
    instance.nothing_left()


def test_a_killed_supervisor_ends_its_container_and_the_restart_policy_applies(
    api: httpx.Client, name: str, instance: Instance
) -> None:
    make(api, name, restart="always")
    before = api.get(f"/containers/{name}").json()["pid"]
    (supervisor,) = wait_until(lambda: len(found := instance.pids("supervisor", name)) == 1 and found, "a supervisor")
    os.kill(supervisor, signal.SIGKILL)
    row = wait_until(
        lambda: (r := api.get(f"/containers/{name}").json())["status"] == "running" and r["pid"] != before and r,
        "started again",
    )  # fmt: skip
    assert row["last_exit"]["reason"] == "supervisor-lost"
    wait_until(lambda: api.get(f"/containers/{name}").json()["operation"] is None, "the start's end")
    call(api, "POST", f"/containers/{name}/stop", {"force": True})
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        assert api.get(f"/containers/{name}").json()["status"] == "stopped"


def test_stop_may_fail_instead_of_killing(api: httpx.Client, name: str) -> None:
    deaf = "trap '' TERM PWR USR1 USR2 INT; echo > /tmp/deaf; while :; do sleep 1; done"
    make(api, name, init_command=["/bin/sh", "-c", deaf])
    wait_until(lambda: "deaf" in sh(api, name, "ls /tmp"), "the init's deafness")
    failed = api.post(f"/containers/{name}/stop?wait=60", json={"timeout": 1, "kill": False}).json()
    assert (failed["status"], failed["error"]["code"]) == ("failed", "timed-out")
    assert api.get(f"/containers/{name}").json()["status"] == "running"
    call(api, "POST", f"/containers/{name}/stop", {"timeout": 0})
    assert ended(api, name)["reason"] == "killed"


def test_what_does_not_fit_the_state_is_refused_at_once(api: httpx.Client, name: str) -> None:
    make(api, name)
    for action in ("start", "unfreeze"):
        answer = api.post(f"/containers/{name}/{action}")
        assert (answer.status_code, answer.json()["code"]) == (409, "invalid-transition")
    call(api, "POST", f"/containers/{name}/freeze")
    for action in ("start", "freeze"):
        assert api.post(f"/containers/{name}/{action}").status_code == 409
    call(api, "POST", f"/containers/{name}/unfreeze")
    assert api.delete(f"/containers/{name}").status_code == 409
    assert api.patch(f"/containers/{name}", json={"name": f"{name}-x"}).status_code == 409


def test_everything_is_changed_by_patch(api: httpx.Client, name: str) -> None:
    make(api, name, environment={"COLOUR": "red"})
    assert "COLOUR=red" in sh(api, name, "tr '\\0' '\\n' < /proc/1/environ")
    changes = {
        "description": "changed", "tags": ["new"], "autostart": True, "restart": "on-failure",
        "limits": {"memory_bytes": 64 * MIB, "pids": 77, "cpus": 0.5},
    }  # fmt: skip
    call(api, "PATCH", f"/containers/{name}", changes)
    row = api.get(f"/containers/{name}").json()
    assert {key: row[key] for key in changes if key != "limits"} == {k: v for k, v in changes.items() if k != "limits"}
    assert {key: row["limits"][key] for key in ("memory_bytes", "pids", "cpus")} == changes["limits"]
    wait_until(lambda: api.get(f"/containers/{name}/stats").json()["memory_limit_bytes"] == 64 * MIB, "the live limit")
    api.post(f"/containers/{name}/exec", json={"command": ["sh", "-c", "head -c 40000000 /dev/zero > /dev/shm/held"]})
    refused = api.patch(f"/containers/{name}?wait=60", json={"limits": {"memory_bytes": 8 * MIB}})
    error = refused.json() if refused.status_code == 409 else refused.json()["error"]
    assert error["code"] == "in-use", refused.text
    assert api.get(f"/containers/{name}").json()["limits"]["memory_bytes"] == 64 * MIB
    call(api, "PATCH", f"/containers/{name}", {"autostart": False, "limits": {"memory_bytes": None}})
    call(api, "POST", f"/containers/{name}/stop", {"force": True})
    call(api, "PATCH", f"/containers/{name}", {"name": f"{name}-n", "environment": {"COLOUR": "blue"}})
    assert api.get(f"/containers/{name}").status_code == 404
    call(api, "POST", f"/containers/{name}-n/start")
    told = sh(api, f"{name}-n", "hostname; tr '\\0' '\\n' < /proc/1/environ | grep COLOUR")
    assert told == f"{name}-n\nCOLOUR=blue\n"
    call(api, "DELETE", f"/containers/{name}-n?force=true")


@pytest.mark.lxc("An ephemeral container is gone after its end, not after a reboot", "lxc.ephemeral")
def test_an_ephemeral_container_is_gone_after_its_end_but_not_after_a_reboot(api: httpx.Client, name: str) -> None:
    make(api, name, ephemeral=True)
    before = api.get(f"/containers/{name}").json()["pid"]
    sh(api, name, "reboot")
    wait_until(
        lambda: (r := api.get(f"/containers/{name}").json()).get("status") == "running" and r["pid"] != before,
        "the reboot",
    )  # fmt: skip
    call(api, "POST", f"/containers/{name}/stop")
    wait_until(lambda: api.get(f"/containers/{name}").status_code == 404, "it is gone")


@pytest.mark.lxc("Names of snapshots are never used again", "L#2443")
def test_a_clone_of_a_snapshot_and_names_that_are_never_reused(api: httpx.Client, name: str) -> None:
    make(api, name)
    sh(api, name, "echo one > /root/file")
    call(api, "POST", f"/containers/{name}/snapshots", {"name": "first"})
    sh(api, name, "echo two > /root/file")
    call(api, "POST", f"/containers/{name}/snapshots")
    call(api, "DELETE", f"/containers/{name}/snapshots/snap0")
    call(api, "POST", f"/containers/{name}/snapshots", {"note": "again"})
    items = {item["name"]: item for item in api.get(f"/containers/{name}/snapshots").json()["items"]}
    assert items.keys() == {"first", "snap1"}
    assert {"name", "note", "created_at", "size_bytes", "pinned"} <= items["snap1"].keys()
    assert items["snap1"]["note"] == "again"
    call(api, "POST", f"/containers/{name}/clone", {"name": f"{name}-c", "snapshot": "first"})
    call(api, "POST", f"/containers/{name}-c/start")
    assert sh(api, f"{name}-c", "cat /root/file") == "one\n"
    call(api, "DELETE", f"/containers/{name}-c?force=true")


def test_each_process_says_what_it_is(api: httpx.Client, name: str, instance: Instance) -> None:
    make(api, name)
    for role in ("daphne", "celery", "redis-server", "ticker", "supervisor"):
        wait_until(lambda role=role: instance.pids(role), role)
    again = instance.manage("up", "--state-dir", str(instance.state_dir))
    assert instance.address in again.stdout
    token = instance.manage("token", "admin").stdout.strip().splitlines()[-1]
    assert token.isprintable()
    assert " " not in token
    link = instance.manage("user", "add", f"u-{name}", "--project", "default", "--role", "viewer").stdout
    assert instance.address in link
    with instance.client(f"u-{name}") as viewer:
        assert viewer.get(f"/containers/{name}").status_code == 200
        assert viewer.post(f"/containers/{name}/restart").status_code == 403
    found = json.loads(instance.manage("doctor", "--json", check=False).stdout)
    assert found
    assert json.loads(instance.manage("fsck", "--json", "--repair").stdout) == []
