"""What docs/api.md promises of exec, of what is measured, and of the fences around a container."""

from __future__ import annotations

import base64
import datetime as dt
import itertools
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from .instance import Instance, call, wait_until

MIB = 1024**2


@pytest.fixture(scope="module")
def box(instance: Instance) -> Iterator[str]:
    """A running container for questions that leave no trace."""
    with instance.client() as api:
        call(api, "POST", "/containers", {"name": "x-box", "image": "busybox", "start": True})
        yield "x-box"
        call(api, "DELETE", "/containers/x-box?force=true")


def run(api: httpx.Client, name: str, *command: str, **more: Any) -> dict[str, Any]:
    answer = api.post(f"/containers/{name}/exec", json={"command": list(command), **more})
    assert answer.status_code == 200, answer.text
    result: dict[str, Any] = answer.json()
    assert {"exit_code", "stdout", "stderr", "truncated", "timed_out"} <= result.keys()
    return result


def sh(api: httpx.Client, name: str, script: str, **more: Any) -> dict[str, Any]:
    return run(api, name, "sh", "-c", script, **more)


def test_streams_and_exit_code_are_told_apart(api: httpx.Client, box: str) -> None:
    assert sh(api, box, "echo out; echo err >&2; exit 3") == {
        "exit_code": 3, "stdout": "out\n", "stderr": "err\n", "truncated": False, "timed_out": False,
    }  # fmt: skip


@pytest.mark.parametrize(("command", "code"), [
    (["/no/such/program"], 127), (["no-such-program"], 127), (["/etc/passwd"], 126), (["/etc"], 126),
    (["sh", "-c", "kill -9 $$"], 137), (["sh", "-c", "kill -TERM $$"], 143), (["true"], 0), (["false"], 1),
])  # fmt: skip
def test_exit_codes_follow_the_shell(command: list[str], code: int, api: httpx.Client, box: str) -> None:
    assert run(api, box, *command)["exit_code"] == code


def test_bytes_travel_as_base64_or_as_text_with_replacements(api: httpx.Client, box: str) -> None:
    raw = bytes(range(256))
    sent = run(api, box, "cat", stdin=base64.b64encode(raw).decode(), encoding="base64")
    assert base64.b64decode(sent["stdout"]) == raw
    assert sh(api, box, r"printf 'a\377b'; printf '\376' >&2")["stdout"] == "a\ufffdb"
    assert run(api, box, "cat", stdin="grüße\n")["stdout"] == "grüße\n"
    assert run(api, box, "cat")["stdout"] == ""
    answer = api.post(f"/containers/{box}/exec", json={"command": ["cat"], "stdin": "%%", "encoding": "base64"})
    assert (answer.status_code, answer.json()["field"]) == (422, "stdin")


def test_user_cwd_and_environment(api: httpx.Client, box: str) -> None:
    sh(api, box, "grep -q ^joe: /etc/passwd || { echo joe:x:1500:1501::/home/joe:/bin/sh >> /etc/passwd;"
                 "echo joe:x:1501: >> /etc/group; echo club:x:1600:joe >> /etc/group; }")  # fmt: skip
    ask = "id -u; id -g; id -G; echo $HOME"
    assert sh(api, box, ask, user="joe")["stdout"].split("\n")[:4] == ["1500", "1501", "1501 1600", "/home/joe"]
    assert sh(api, box, ask, user="1500")["stdout"].split("\n")[:4] == ["1500", "1501", "1501 1600", "/home/joe"]
    assert sh(api, box, "id -u; id -g", user="1500:1600")["stdout"] == "1500\n1600\n"
    assert sh(api, box, "id -u; id -g", user="4000:4001")["stdout"] == "4000\n4001\n"
    assert sh(api, box, ask)["stdout"].split("\n")[0] == "0"
    assert run(api, box, "pwd", cwd="/etc")["stdout"] == "/etc\n"
    environment = sh(api, box, "env", environment={"COLOUR": "red\nblue"})["stdout"]
    assert "COLOUR=red\nblue\n" in environment
    assert "PATH=" in environment
    assert "BOXROOM" not in environment
    for bad in ({"user": "nobody-here"}, {"cwd": "relative"}, {"environment": {"A=B": "x"}}):
        answer = api.post(f"/containers/{box}/exec", json={"command": ["true"], **bad})
        assert answer.status_code == 422, (bad, answer.text)
        assert answer.json()["field"].partition(".")[0] in bad


def test_a_time_out_kills_everything_that_was_started(api: httpx.Client, box: str) -> None:
    result = sh(api, box, "echo before; setsid sleep 4242 & sleep 4243", timeout=5)
    assert (result["exit_code"], result["timed_out"], result["stdout"]) == (137, True, "before\n")
    wait_until(lambda: "sleep 424" not in run(api, box, "ps")["stdout"], "everything is gone")


def test_output_is_cut_at_its_limit(api: httpx.Client, box: str) -> None:
    cut = sh(api, box, "head -c 5000 /dev/zero | tr '\\0' x; echo e >&2", max_output_bytes=1000)
    assert (cut["exit_code"], cut["stdout"], cut["stderr"], cut["truncated"]) == (0, "x" * 1000, "e\n", True)
    whole = sh(api, box, f"head -c {4 * MIB} /dev/zero | tr '\\0' y")
    assert (len(whole["stdout"]), whole["truncated"]) == (4 * MIB, False)
    more = sh(api, box, f"head -c {4 * MIB + 1} /dev/zero | tr '\\0' y")
    assert (len(more["stdout"]), more["truncated"]) == (4 * MIB, True)
    answer = api.post(f"/containers/{box}/exec", json={"command": ["true"], "max_output_bytes": 16 * MIB + 1})
    assert (answer.status_code, answer.json()["field"]) == (422, "max_output_bytes")


def test_exec_does_not_fit_what_is_stopped_or_frozen(api: httpx.Client, name: str) -> None:
    call(api, "POST", "/containers", {"name": name, "image": "busybox"})
    answer = api.post(f"/containers/{name}/exec", json={"command": ["true"]})
    assert (answer.status_code, answer.json()["code"]) == (409, "invalid-transition")
    call(api, "POST", f"/containers/{name}/start")
    call(api, "POST", f"/containers/{name}/freeze")
    answer = api.post(f"/containers/{name}/exec", json={"command": ["true"]})
    assert (answer.status_code, answer.json()["code"]) == (409, "invalid-transition")


def test_nesting_is_off(api: httpx.Client, box: str) -> None:
    made = run(api, box, "unshare", "-U", "true")
    assert made["exit_code"] != 0
    assert "Operation not permitted" in made["stderr"]
    assert "Seccomp:\t2" in run(api, box, "cat", "/proc/self/status")["stdout"]


def test_cpu_pct_is_the_share_of_a_core_that_was_burnt(api: httpx.Client, name: str) -> None:
    call(api, "POST", "/containers", {"name": name, "image": "busybox", "start": True, "limits": {"cpus": 0.2}})
    sh(api, name, "while :; do :; done >/dev/null 2>&1 &")
    samples: list[dict[str, Any]] = []

    def agreeing() -> list[float]:
        """What was used between two samples that follow each other, where that is what the later one says."""
        sample = api.get(f"/containers/{name}/stats").json()
        if not samples or sample["at"] != samples[-1]["at"]:
            samples.append(sample)
        found = []
        for one, next_one in itertools.pairwise(samples):  # where one in between was not seen, they need not agree
            taken = [dt.datetime.fromisoformat(sample["at"]) for sample in (one, next_one)]
            seconds = (taken[1] - taken[0]).total_seconds()
            used_pct = (next_one["cpu_usage_usec"] - one["cpu_usage_usec"]) / 1e4 / seconds
            if used_pct > 1 and next_one["cpu_pct"] == pytest.approx(used_pct, rel=0.2):
                found.append(used_pct)
        return found

    wait_until(lambda: len(agreeing()) >= 4, "samples that say what was used")
    whole = (dt.datetime.fromisoformat(samples[-1]["at"]) - dt.datetime.fromisoformat(samples[0]["at"])).total_seconds()
    assert samples[-1]["cpu_usage_usec"] - samples[0]["cpu_usage_usec"] < 0.26e6 * (whole + 1)


def test_stats_have_every_field_and_measure_what_happens_inside(api: httpx.Client, name: str, box: str) -> None:
    call(api, "POST", "/containers", {
        "name": name, "image": "busybox", "start": True, "limits": {"memory_bytes": 128 * MIB, "pids": 100}
    })  # fmt: skip
    sample = lambda: api.get(f"/containers/{name}/stats").json()  # noqa: E731
    before = wait_until(
        lambda: (s := sample())["cpu_pct"] is not None and s["disk_used_bytes"] is not None and s, "a whole sample"
    )
    assert before["memory_limit_bytes"] == 128 * MIB
    assert {
        "at", "cpu_usage_usec", "cpu_pct", "memory_bytes", "memory_limit_bytes", "swap_bytes", "processes",
        "network_rx_bytes", "network_tx_bytes", "disk_read_bytes", "disk_write_bytes", "disk_used_bytes", "oom_kills",
    } <= before.keys()  # fmt: skip
    assert [key for key, value in before.items() if value is None and "limit" not in key] == []
    sh(api, name, "dd if=/dev/zero of=/root/file bs=1M count=12 conv=fsync; (sleep 300; true) & sleep 301 &")
    sh(api, name, "sleep 302 | nc -l -p 7000 > /dev/null 2>&1 &")
    address = next(a for a in api.get(f"/containers/{name}").json()["addresses"] if "." in a).partition("/")[0]
    wait_until(
        lambda: sh(api, box, f"head -c 3000000 /dev/zero | nc -w 60 {address} 7000")["exit_code"] == 0, "sending in"
    )
    after = wait_until(
        lambda: (s := sample())["disk_write_bytes"] - before["disk_write_bytes"] >= 12 * MIB
        and s["network_rx_bytes"] - before["network_rx_bytes"] > 3_000_000
        and s["processes"] >= before["processes"] + 2
        and s, "the samples' growth"
    )  # fmt: skip
    assert after["network_tx_bytes"] - before["network_tx_bytes"] < 1_000_000
    wait_until(lambda: sample()["disk_used_bytes"] - before["disk_used_bytes"] >= 12 * MIB, "disk_used_bytes")
    assert after["memory_bytes"] <= 128 * MIB
    assert after["oom_kills"] == 0
    call(api, "POST", f"/containers/{name}/stop", {"force": True})
    assert api.get(f"/containers/{name}/stats").status_code == 409
