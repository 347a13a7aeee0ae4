"""What docs/api.md promises and nothing else asks: restarts, signals, close codes, policy, freezes, what is left."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import os
import platform
import signal
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed

from containers.core.host import Host
from containers.core.lifecycle import leaks

from .instance import Instance, call, wait_until
from .sockets import Socket, terminal
from .sockets import events as listening
from .test_robustness import DEAF, healthy, kill, let_go

MIB = 1024**2


@pytest.fixture(scope="module")
def box(instance: Instance) -> Iterator[str]:
    """A running container for questions that leave no trace."""
    with instance.client() as api:
        call(api, "POST", "/containers", {"name": "m-box", "image": "busybox", "start": True})
        yield "m-box"
        call(api, "DELETE", "/containers/m-box?force=true")


def make(api: httpx.Client, name: str, *init: str, **more: Any) -> dict[str, Any]:
    """Make a container and start it, and return what it is then."""
    command = {"init_command": list(init)} if init else {}
    call(api, "POST", "/containers", {"name": name, "image": "busybox", "start": True, **command, **more})
    return look(api, name)


def look(api: httpx.Client, name: str) -> dict[str, Any]:
    row: dict[str, Any] = api.get(f"/containers/{name}").json()
    return row


def run(api: httpx.Client, name: str, *command: str, **more: Any) -> dict[str, Any]:
    answer = api.post(f"/containers/{name}/exec", json={"command": list(command), **more})
    assert answer.status_code == 200, answer.text
    result: dict[str, Any] = answer.json()
    return result


# the restart policy


@pytest.mark.lxc("What restarts by itself does not after somebody stopped it", "I#3261")
def test_restarts_wait_longer_each_time_until_somebody_says_stop(api: httpx.Client, name: str) -> None:
    make(api, name, "/bin/sh", "-c", "echo dying; exit 7", restart="on-failure")
    row = wait_until(lambda: (r := look(api, name))["restart_count"] >= 2 and r["restart_at"] and r, "two restarts")
    assert (row["status"], row["status_reason"]) == ("stopped", "exit")
    assert (row["last_exit"]["reason"], row["last_exit"]["exit_code"]) == ("exit", 7)
    assert "dying" in row["last_exit"]["console"]
    died, again_at = (dt.datetime.fromisoformat(at) for at in (row["last_exit"]["at"], row["restart_at"]))
    assert (again_at - died).total_seconds() >= 2 ** row["restart_count"], "one second first, then twice that, …"
    asked = [(one["action"], one["actor"]) for one in api.get(f"/operations?container={name}").json()["items"]]
    assert asked.count(("start", "system")) >= row["restart_count"]
    wait_until(lambda: api.post(f"/containers/{name}/stop?wait=60").status_code == 200, "a stop between two starts")
    row = look(api, name)
    assert (row["status"], row["restart_at"], row["last_exit"]["reason"]) == ("stopped", None, "exit")
    again = api.post(f"/containers/{name}/stop")
    assert (again.status_code, again.json()["code"]) == (409, "invalid-transition")
    call(api, "PATCH", f"/containers/{name}", {"init_command": ["/bin/sleep", "1000"]})
    call(api, "POST", f"/containers/{name}/start")
    assert look(api, name)["restart_count"] == 0


# what init is, gets and hears


@pytest.mark.parametrize("halt", ["SIGWINCH", "SIGRTMIN+3"])
def test_init_is_the_command_with_its_environment_and_hears_the_halt_signal(
    halt: str, api: httpx.Client, name: str
) -> None:
    number = "WINCH" if halt == "SIGWINCH" else str(signal.SIGRTMIN + 3)
    script = f"trap 'exit 42' {number}; trap : TERM PWR USR1 USR2 INT; while :; do sleep 0.05; done"
    environment = {"GREETING": 'grüß "$HOME" \\ ', "EMPTY": ""}
    make(api, name, "/bin/sh", "-c", script, "zero", "one two", halt_signal=halt, environment=environment)
    seen = run(api, name, "cat", "/proc/1/cmdline")["stdout"].split("\0")
    assert seen == ["/bin/sh", "-c", script, "zero", "one two", ""]
    inherited = run(api, name, "cat", "/proc/1/environ")["stdout"].split("\0")
    assert [f"{key}={value}" for key, value in environment.items() if f"{key}={value}" not in inherited] == []
    call(api, "POST", f"/containers/{name}/stop", {"timeout": 20})
    last = look(api, name)["last_exit"]
    assert (last["reason"], last["exit_code"]) == ("stopped", 42)


def elf(code: bytes) -> bytes:
    """Return a program for x86-64 that is nothing but this code."""
    base, headers = 0x400000, 64 + 56
    size = headers + len(code)
    head = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 2, 62, 1, base + headers, 64, 0, 0, 64, 56, 1, 0, 0, 0
    )
    return head + struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 4096) + code


_EXIT = "f7d8 89c7 b83c000000 0f05"
"""neg eax; mov edi, eax; exit: the errno, where the call before failed."""
CLONE3 = bytes.fromhex(f"b8b3010000 31ff 31f6 0f05 {_EXIT}")
"""clone3(NULL, 0)."""
CLONE = bytes.fromhex(f"b838000000 bf11000000 31f6 31d2 4d31d2 4d31c0 0f05 85c0 7802 31c0 {_EXIT}")
"""clone(SIGCHLD, 0, NULL, NULL, 0): 0 for parent and child, the errno where it fails."""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the programs are for x86-64")
def test_clone3_is_not_implemented_and_clone_works(api: httpx.Client, box: str) -> None:
    for path, code, status in (("/tmp/clone3", CLONE3, 38), ("/tmp/clone", CLONE, 0)):
        data = base64.b64encode(elf(code)).decode()
        run(api, box, "sh", "-c", f"cat > {path}; chmod 755 {path}", stdin=data, encoding="base64")
        assert run(api, box, path)["exit_code"] == status


# the policy


@pytest.mark.lxc(
    "The policy counts for the final configuration, whichever way it came in",
    "CVE-2026-48751",
    "CVE-2026-55621",
    "CVE-2026-55622",
)
def test_privileged_is_what_the_policy_file_says(instance: Instance, api: httpx.Client, name: str) -> None:
    policy = instance.state_dir / "policy.toml"
    body = {"name": name, "image": "busybox", "privileged": True, "start": True}

    def refused(answer: httpx.Response) -> bool:
        """Whether the policy said no: at once, or when it was to be done."""
        said = answer.json() if answer.status_code == 403 else answer.json().get("error") or {}
        return (said.get("code"), said.get("field")) == ("policy", "privileged")

    assert refused(api.post("/containers", json=body))
    assert not policy.exists()
    policy.write_text("[containers]\nprivileged = true\n")
    try:
        made = wait_until(lambda: (r := api.post("/containers?wait=60", json=body)).status_code == 200 and r, "a yes")
        assert made.json()["status"] == "succeeded", made.text
        assert look(api, name)["privileged"] is True
        assert run(api, name, "cat", "/proc/self/uid_map")["stdout"].split() == ["0", "0", "4294967295"]
        call(api, "POST", f"/containers/{name}/snapshots", {"name": "s"})
        call(api, "POST", f"/containers/{name}/backups", {"snapshots": False})
    finally:
        policy.unlink()
    told = f"/containers/{name}/restart?wait=60"
    wait_until(lambda: (answer := api.post(told)).status_code == 403 and refused(answer), "a no")
    copies = ({"name": f"{name}-1"}, {"name": f"{name}-1", "full": True}, {"name": f"{name}-1", "snapshot": "s"})
    for copy in copies:
        assert refused(api.post(f"/containers/{name}/clone?wait=60", json=copy)), copy
    assert refused(api.post(f"/containers/{name}/snapshots/s/restore?wait=60", json={}))
    assert look(api, name)["status"] == "running"
    (kept,) = api.get(f"/backups?container={name}").json()["items"]
    call(api, "POST", "/backups/restore", {"backup": kept["id"], "name": f"{name}-2"})
    assert look(api, f"{name}-2")["privileged"] is False
    call(api, "DELETE", f"/containers/{name}-2?force=true")
    call(api, "POST", f"/containers/{name}/stop", {"force": True})
    wait_until(lambda: refused(api.post(f"/containers/{name}/start?wait=60")), "a no")
    call(api, "DELETE", f"/containers/{name}")
    (thrown,) = [one["id"] for one in api.get("/trash").json()["items"] if one["name"] == name]
    assert refused(api.post(f"/trash/{thrown}/restore?wait=60", json={}))


# commands


def test_a_large_standard_input_and_a_large_output(api: httpx.Client, box: str) -> None:
    text = "x" * (6 * MIB)
    assert run(api, box, "wc", "-c", stdin=text)["stdout"].strip() == str(len(text))
    assert run(api, box, "true", stdin=text)["exit_code"] == 0
    back = run(api, box, "cat", stdin=text, max_output_bytes=16 * MIB)
    assert (back["stdout"] == text, back["truncated"]) == (True, False)
    cut = run(api, box, "sh", "-c", "cat; echo done >&2; exit 9", stdin=text)
    assert (len(cut["stdout"]), cut["truncated"], cut["stderr"], cut["exit_code"]) == (4 * MIB, True, "done\n", 9)
    answer = api.post(f"/containers/{box}/exec", json={"command": ["true"], "stdin": "x" * (9 * MIB)})
    assert (answer.status_code, answer.json()["code"]) == (413, "too-large")


def test_codes_of_commands_by_the_hundred(api: httpx.Client, box: str) -> None:
    for code in (2, 63, 124, 125, 126, 127, 128, 254, 255):
        assert run(api, box, "sh", "-c", f"exit {code}")["exit_code"] == code
    for number in (signal.SIGHUP, signal.SIGABRT, signal.SIGUSR1, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGRTMIN):
        assert run(api, box, "sh", "-c", f"kill -{int(number)} $$")["exit_code"] == 128 + number


@pytest.mark.parametrize("force", [False, True])
def test_a_command_whose_container_stops_meanwhile(
    force: bool, instance: Instance, api: httpx.Client, name: str
) -> None:
    make(api, name)
    found: list[httpx.Response] = []
    script = {"command": ["sh", "-c", "echo begun; echo > /tmp/begun; trap 'exit 5' TERM; sleep 100 & wait"]}

    def ask() -> None:
        with instance.client() as own:
            found.append(own.post(f"/containers/{name}/exec", json=script))

    asking = threading.Thread(target=ask)
    asking.start()
    wait_until(lambda: run(api, name, "test", "-e", "/tmp/begun")["exit_code"] == 0, "the command's beginning")
    call(api, "POST", f"/containers/{name}/stop", {"force": force})
    asking.join(120)
    (answer,) = found
    if answer.status_code == 200:
        # by its own trap, or by the HUP, TERM or KILL of whoever ends what is left
        assert answer.json()["exit_code"] in (5, 129, 137, 143)
        assert answer.json()["stdout"] == "begun\n"
    else:
        assert (answer.status_code, answer.json()["code"]) == (409, "invalid-transition")
    stopped = api.post(f"/containers/{name}/exec", json=script)
    assert (stopped.status_code, stopped.json()["code"]) == (409, "invalid-transition")


# what is seen, whoever did it


@pytest.mark.parametrize("level", ["own", "whole"])
def test_a_freeze_from_outside_is_shown_at_once(level: str, instance: Instance, api: httpx.Client, name: str) -> None:
    group = cgroup_of(make(api, name)["pid"])
    file = (group if level == "own" else group.parent) / "cgroup.freeze"
    with listening(instance) as events:
        for value, status in (("1", "frozen"), ("0", "running"), ("1", "frozen")):
            events.messages.clear()
            file.write_text(value)
            events.message(type="container.changed", name=name, status=status)
            wait_until(lambda status=status: look(api, name)["status"] == status, status)
    call(api, "POST", f"/containers/{name}/unfreeze")
    assert file.read_text().strip() == "0"
    assert run(api, name, "echo", "runs")["stdout"] == "runs\n"


def cgroup_of(pid: int) -> Path:
    """Return a process's directory in the cgroup2 hierarchy."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    root = next(point for _device, point, kind, *_rest in mounts if kind == "cgroup2")
    path = next(line[3:] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines() if line.startswith("0::"))
    return Path(root + path)


@pytest.mark.lxc("A clone has nothing of what proves who its source is", "L#2064")
def test_a_clone_has_nothing_of_what_proves_who_its_source_is(api: httpx.Client, name: str) -> None:
    make(api, name)
    keys = (
        "for k in rsa ed25519; do echo $k > /etc/ssh/ssh_host_${k}_key; echo p > /etc/ssh/ssh_host_${k}_key.pub; done"
    )
    run(api, name, "sh", "-c", f"mkdir -p /etc/ssh; echo mine > /etc/ssh/config; {keys}")
    clone = f"{name}-c"
    call(api, "POST", f"/containers/{name}/clone", {"name": clone})
    call(api, "POST", f"/containers/{clone}/start")
    ask = "cat /etc/machine-id; hostname; cat /etc/hostname; cat /sys/class/net/eth0/address; cat /proc/self/uid_map"
    seen = [run(api, one, "sh", "-c", ask)["stdout"].splitlines() for one in (name, clone)]
    assert [line for line in seen[0] if line in seen[1]] == []
    assert set(look(api, name)["addresses"]).isdisjoint(look(api, clone)["addresses"])
    assert run(api, clone, "sh", "-c", "ls /etc/ssh")["stdout"] == "config\n"
    assert "ssh_host_rsa_key" in run(api, name, "ls", "/etc/ssh")["stdout"]
    for lines, one in zip(seen, (name, clone), strict=True):
        assert lines[1:3] == [one, one]
        assert f"\t{one}\n" in run(api, one, "cat", "/etc/hosts")["stdout"]
    call(api, "DELETE", f"/containers/{clone}?force=true")


def test_nothing_is_left_right_after_each_single_operation(instance: Instance, api: httpx.Client, name: str) -> None:
    """Looked at without the pause that fsck itself takes."""
    host = Host.open(instance.state_dir)

    def do(method: str, path: str, body: Any = None, *, status: str = "succeeded") -> None:
        answer = api.request(method, f"{path}{'&' if '?' in path else '?'}wait=60", json=body)
        found = leaks.find(host)
        assert (answer.status_code, answer.json()["status"], found) == (200, status, []), (method, path, answer.text)

    one, two, three = f"/containers/{name}", f"/containers/{name}-2", f"/containers/{name}-3"
    do("POST", "/containers", {"name": name, "image": "busybox"})
    do("POST", f"{one}/start")
    do("POST", f"{one}/freeze")
    do("POST", f"{one}/snapshots", {"name": "s0"})
    do("POST", f"{one}/unfreeze")
    do("POST", f"{one}/snapshots", {"name": "s1"})
    do("PATCH", one, {"limits": {"memory_bytes": 64 * MIB}})
    do("POST", f"{one}/snapshots/s0/restore")
    do("POST", f"{one}/clone", {"name": f"{name}-2"})
    do("POST", f"{two}/start")
    do("POST", f"{one}/restart")
    do("DELETE", f"{one}/snapshots/s0")
    do("POST", f"{one}/stop", {"timeout": 10})
    do("POST", f"{one}/snapshots", {"name": "s2"})
    do("PATCH", one, {"name": f"{name}-3"})
    do("POST", f"{three}/snapshots/s1/restore")
    do("DELETE", f"{two}?force=true")
    do("POST", f"{three}/clone", {"name": f"{name}-2", "snapshot": "s1"})
    do("PATCH", two, {"init_command": ["/no/such/init"]})
    do("POST", f"{two}/start", status="failed")
    do("DELETE", two)
    do("DELETE", three)
    do("POST", "/containers", {"name": name, "image": "busybox", "start": True, "init_command": ["/nope"]},
       status="failed")  # fmt: skip
    do("DELETE", one)


# sockets: the codes of docs/api.md that others do not ask for, and what a loss of Redis leaves


def test_too_much_is_closed_with_4429(instance: Instance, api: httpx.Client, box: str) -> None:
    with contextlib.ExitStack() as held:
        shells = [held.enter_context(terminal(instance, box, command=["/bin/cat"])) for _ in range(8)]
        sessions = [shell.message(type="opened")["session"] for shell in shells]
        with terminal(instance, box) as ninth:
            assert ninth.closing() == ("too-many", 4429)
        watching = [held.enter_context(terminal(instance, box, session=sessions[0])) for _ in range(15)]
        for shell in watching:
            shell.message(type="opened")
        with terminal(instance, box, session=sessions[0]) as seventeenth:
            assert seventeenth.closing() == ("too-many", 4429)
        for session in sessions[1:]:
            assert api.delete(f"/containers/{box}/sessions/{session}").status_code == 204
        for shell in (*shells, *watching):  # a client that has not read what came does not hear the answer to its close
            with contextlib.suppress(ConnectionClosed):
                while shell.pump(0):
                    pass
    with terminal(instance, box, command=["/bin/sleep", "1000"]) as deaf:
        session = deaf.message(type="opened")["session"]
        with contextlib.suppress(ConnectionClosed):
            for _ in range(200):
                deaf.raw.send(bytes(16_000))
        assert deaf.closing() == ("too-many", 4429)
    for one in (sessions[0], session):
        api.delete(f"/containers/{box}/sessions/{one}")


def test_a_web_process_that_is_restarted_says_so_with_1013(instance: Instance, box: str) -> None:
    (web,) = instance.pids("daphne")
    with (
        listening(instance) as events,
        Socket(instance, "/ws/stats") as stats,
        terminal(instance, box, command=["/bin/cat"]) as shell,
    ):
        shell.message(type="opened")
        stats.say(type="subscribe", containers="all")
        stats.until(lambda: stats.messages)
        os.kill(web, signal.SIGTERM)
        for socket in (events, stats, shell):
            assert socket.closing() == ("unavailable", 1013)
    wait_until(lambda: (there := instance.pids("daphne")) and web not in there and healthy(instance), "another one")


def test_redis_is_lost_while_a_page_listens_and_an_operation_runs(
    instance: Instance, api: httpx.Client, name: str, box: str
) -> None:
    make(api, name, **DEAF)
    with listening(instance) as events:
        stopping = api.post(f"/containers/{name}/stop", json={"timeout": 900}).json()["id"]
        events.message(type="operation.changed", id=stopping, status="running")
        events.messages.clear()
        kill(instance.pids("redis-server"))
        events.message(type="resync")
        let_go(api, name)
        wait_until(lambda: api.get(f"/operations/{stopping}").json()["status"] == "succeeded", "it is stopped")
        wait_until(lambda: healthy(instance), "healthy")
        for action, status in (("freeze", "frozen"), ("unfreeze", "running")):
            done = call(api, "POST", f"/containers/{box}/{action}")
            events.message(type="operation.changed", id=done["id"], status="succeeded")
            events.message(type="container.changed", name=box, status=status)
