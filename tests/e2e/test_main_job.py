"""The main job through the REST API: real worker, real containers."""

from __future__ import annotations

import httpx
import pytest

from .instance import Instance, call, wait_until


def run(api: httpx.Client, name: str, *command: str, **more: object) -> dict[str, object]:
    answer = api.post(f"/containers/{name}/exec", json={"command": list(command), **more})
    assert answer.status_code == 200, answer.text
    result: dict[str, object] = answer.json()
    return result


def status(api: httpx.Client, name: str) -> str:
    return str(api.get(f"/containers/{name}").json()["status"])


@pytest.fixture
def running(api: httpx.Client, name: str) -> str:
    call(api, "POST", "/containers", {"name": name, "image": "busybox", "start": True})
    return name


def test_create_and_start(api: httpx.Client, name: str) -> None:
    call(api, "POST", "/containers", {"name": name, "image": "busybox", "start": True, "description": "first"})
    row = api.get(f"/containers/{name}").json()
    assert row["status"] == "running"
    assert row["pid"] > 1
    assert row["addresses"]
    assert run(api, name, "hostname")["stdout"] == f"{name}\n"
    assert run(api, name, "id", "-u")["stdout"] == "0\n"
    assert run(api, name, "sh", "-c", "exit 7")["exit_code"] == 7


def test_it_takes_its_address_by_dhcp_and_reaches_another_by_name(api: httpx.Client, running: str) -> None:
    other = f"{running}-b"
    call(api, "POST", "/containers", {"name": other, "image": "busybox", "start": True})
    try:
        address = next(a for a in api.get(f"/containers/{running}").json()["addresses"] if "." in a).partition("/")[0]
        wait_until(lambda: address in str(run(api, running, "ip", "-4", "addr", "show", "eth0")["stdout"]), "DHCP")
        wait_until(lambda: run(api, other, "ping", "-c", "1", "-W", "1", running)["exit_code"] == 0, "ping by name")
    finally:
        call(api, "DELETE", f"/containers/{other}?force=true")


def test_snapshot_break_restore(api: httpx.Client, running: str) -> None:
    run(api, running, "sh", "-c", "echo precious > /root/file")
    call(api, "POST", f"/containers/{running}/snapshots", {"note": "before the accident"})
    run(api, running, "rm", "-rf", "/root/file", "/bin/hostname")
    (snapshot,) = api.get(f"/containers/{running}/snapshots").json()["items"]
    assert (snapshot["name"], snapshot["note"]) == ("snap0", "before the accident")
    before = api.get(f"/containers/{running}").json()
    call(api, "POST", f"/containers/{running}/snapshots/snap0/restore")
    after = api.get(f"/containers/{running}").json()
    assert after["status"] == "running"
    assert after["addresses"] == before["addresses"]
    assert run(api, running, "cat", "/root/file")["stdout"] == "precious\n"
    assert run(api, running, "hostname")["stdout"] == f"{running}\n"
    call(api, "DELETE", f"/containers/{running}/snapshots/snap0")
    call(api, "POST", f"/containers/{running}/snapshots", {})
    assert [s["name"] for s in api.get(f"/containers/{running}/snapshots").json()["items"]] == ["snap1"]


def test_clone_has_an_identity_of_its_own(api: httpx.Client, running: str) -> None:
    run(api, running, "sh", "-c", "echo shared > /root/file")
    clone = f"{running}-c"
    call(api, "POST", f"/containers/{running}/clone", {"name": clone})
    try:
        call(api, "POST", f"/containers/{clone}/start")
        assert run(api, clone, "cat", "/root/file")["stdout"] == "shared\n"
        assert run(api, clone, "hostname")["stdout"] == f"{clone}\n"
        for question in (("cat", "/sys/class/net/eth0/address"), ("cat", "/proc/self/uid_map")):
            assert run(api, clone, *question)["stdout"] != run(api, running, *question)["stdout"]
        run(api, clone, "sh", "-c", "echo changed > /root/file")
        assert run(api, running, "cat", "/root/file")["stdout"] == "shared\n"
    finally:
        call(api, "DELETE", f"/containers/{clone}?force=true")


def test_freeze_restart_stop(api: httpx.Client, running: str) -> None:
    call(api, "POST", f"/containers/{running}/freeze")
    assert status(api, running) == "frozen"
    refused = api.post(f"/containers/{running}/exec", json={"command": ["true"]})
    assert refused.status_code == 409
    assert api.post(f"/containers/{running}/freeze").status_code == 409
    call(api, "POST", f"/containers/{running}/unfreeze")
    call(api, "POST", f"/containers/{running}/restart")
    assert status(api, running) == "running"
    call(api, "POST", f"/containers/{running}/stop", {"timeout": 300})
    assert status(api, running) == "stopped"
    assert api.get(f"/containers/{running}").json()["last_exit"]["reason"] == "stopped"
    assert api.post(f"/containers/{running}/stop").status_code == 409


def test_poweroff_and_reboot_inside(api: httpx.Client, running: str) -> None:
    first = api.get(f"/containers/{running}").json()["pid"]
    run(api, running, "sh", "-c", "reboot")
    wait_until(lambda: api.get(f"/containers/{running}").json()["pid"] not in (first, None), "a new init")
    assert status(api, running) == "running"
    wait_until(
        lambda: api.post(f"/containers/{running}/exec", json={"command": ["true"]}).status_code == 200, "exec again"
    )
    run(api, running, "sh", "-c", "poweroff")
    wait_until(lambda: status(api, running) == "stopped", "stopped")
    assert api.get(f"/containers/{running}").json()["last_exit"]["reason"] == "poweroff"


def test_limits_change_live_and_stay(api: httpx.Client, running: str) -> None:
    call(api, "PATCH", f"/containers/{running}", {"limits": {"memory_bytes": 64 * 1024**2, "pids": 20, "cpus": 0.5}})
    out = run(api, running, "sh", "-c", "for i in $(seq 40); do sleep 5 & done 2>&1; wait", timeout=300)
    assert "fork" in str(out["stdout"]) + str(out["stderr"])
    call(api, "POST", f"/containers/{running}/restart")
    assert api.get(f"/containers/{running}").json()["limits"]["memory_bytes"] == 64 * 1024**2
    sample = wait_until(
        lambda: (lambda s: s if s.get("memory_limit_bytes") == 64 * 1024**2 else None)(
            api.get(f"/containers/{running}/stats").json()
        ),
        "the limit in the samples",
    )
    assert sample["processes"] >= 1


def test_two_clicks_on_start_make_one_start(api: httpx.Client, name: str) -> None:
    call(api, "POST", "/containers", {"name": name, "image": "busybox"})
    first = api.post(f"/containers/{name}/start")
    second = api.post(f"/containers/{name}/start")
    assert first.status_code == 202
    assert second.status_code == 409
    assert second.json()["code"] in ("busy", "invalid-transition")
    wait_until(lambda: status(api, name) == "running", "running")


def test_an_init_that_is_not_there_is_told_in_words(api: httpx.Client, name: str, instance: Instance) -> None:
    call(api, "POST", "/containers", {"name": name, "image": "busybox", "init_command": ["/sbin/missing"]})
    answer = api.post(f"/containers/{name}/start?wait=60").json()
    assert answer["status"] == "failed"
    assert "/sbin/missing" in answer["error"]["message"]
    assert answer["error"]["step"]
    assert answer["error"]["errno"] == 2
    assert status(api, name) == "stopped"
    instance.nothing_left()


def test_nothing_is_left_when_it_is_deleted(api: httpx.Client, name: str, instance: Instance) -> None:
    call(api, "POST", "/containers", {"name": name, "image": "busybox", "start": True})
    assert api.delete(f"/containers/{name}").status_code == 409
    call(api, "DELETE", f"/containers/{name}?force=true")
    assert api.get(f"/containers/{name}").status_code == 404
    instance.nothing_left()
