"""What docs/api.md promises of security settings, of swap and CPUs, and of cgroup files, on a whole instance."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from .instance import Instance, call

MIB = 1024**2
V1 = not Path("/sys/fs/cgroup/cgroup.controllers").exists()


@pytest.fixture(scope="module")
def box(instance: Instance) -> Iterator[str]:
    """A running container with rights and limits of its own."""
    wanted = {
        "name": "x-rights",
        "image": "busybox",
        "start": True,
        "limits": {"memory_bytes": 64 * MIB, "swap_bytes": 16 * MIB, "cpu_weight": 200, "cpuset": "0"},
        "security": {
            "capabilities_drop": ["CAP_NET_RAW"],
            "no_new_privs": True,
            "sysctls": {"net.ipv4.ip_forward": "1", "kernel.shmmax": "4711"},
            "prlimits": {"nofile": {"soft": 100, "hard": 200}},
            "oom_score_adj": 321,
        },
    }
    with instance.client() as api:
        call(api, "POST", "/containers", wanted)
        yield "x-rights"
        call(api, "DELETE", "/containers/x-rights?force=true")


def sh(api: httpx.Client, name: str, script: str) -> str:
    answer = api.post(f"/containers/{name}/exec", json={"command": ["sh", "-c", script]})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["stdout"])


def cgroup(api: httpx.Client, name: str, file: str) -> str:
    answer = api.get(f"/containers/{name}/cgroup", params={"file": file})
    assert answer.status_code == 200, answer.text
    assert answer.json()["file"] == file
    return str(answer.json()["value"]).strip()


def test_security_settings_hold_inside(api: httpx.Client, box: str) -> None:
    status = dict(line.split(":\t", 1) for line in sh(api, box, "cat /proc/self/status").splitlines())
    assert not int(status["CapBnd"], 16) >> 13 & 1
    assert status["NoNewPrivs"] == "1"
    files = "/proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmax /proc/self/oom_score_adj"
    assert sh(api, box, f"cat {files}; ulimit -n; ulimit -Hn").split() == ["1", "4711", "321", "100", "200"]


def test_swap_and_cpus_are_in_force_and_change_while_it_runs(api: httpx.Client, box: str) -> None:
    def now() -> list[str]:
        if V1:
            both = int(cgroup(api, box, "memory.memsw.limit_in_bytes"))
            swap = str(both - int(cgroup(api, box, "memory.limit_in_bytes")))
            return [swap, cgroup(api, box, "cpu.shares"), cgroup(api, box, "cpuset.cpus")]
        return [cgroup(api, box, file) for file in ("memory.swap.max", "cpu.weight", "cpuset.cpus")]

    assert now() == [str(16 * MIB), "2048" if V1 else "200", "0"]
    change = {"limits": {"swap_bytes": None, "cpu_weight": 50, "cpuset": "1"}}
    call(api, "PATCH", f"/containers/{box}", change)
    assert now() == ["0", "512" if V1 else "50", "1"]
    assert "Cpus_allowed_list:\t1" in sh(api, box, "cat /proc/self/status")


def test_security_changes_count_from_the_next_start_and_say_so(api: httpx.Client, box: str) -> None:
    done = call(api, "PATCH", f"/containers/{box}", {"security": {"oom_score_adj": 5}})
    assert "next start" in done["message"]
    assert sh(api, box, "cat /proc/self/oom_score_adj").strip() == "321"
    call(api, "POST", f"/containers/{box}/restart")
    assert sh(api, box, "cat /proc/self/oom_score_adj").strip() == "5"


@pytest.mark.parametrize(("file", "status"), [("memory.wings", 404), ("../memory.max", 422), ("cgroup.kill", 404)])
def test_cgroup_files_that_are_none(file: str, status: int, api: httpx.Client, box: str) -> None:
    answer = api.get(f"/containers/{box}/cgroup", params={"file": file})
    assert (answer.status_code, answer.json()["field"]) == (status, "file")
