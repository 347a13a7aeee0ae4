"""exec inside a real container, through the supervisor's socket."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from containers.clients import hostlink
from containers.core.cgroups import detect
from containers.core.errors import CoreError, InvalidTransition
from containers.core.host import Host
from containers.core.lifecycle import running
from containers.core.model.spec import Limits, Spec
from containers.core.proc.records import RunFile
from containers.core.protocol import control

from .conftest import NoNetwork
from .patience import patient, wait_until


def execute(container_id: str, command: list[str], **more: Any) -> hostlink.ExecResult:
    async def run() -> hostlink.ExecResult:
        try:
            return await hostlink.execute(container_id, command, **more)
        finally:
            # the transport closes its socket at the next turn of the loop
            await asyncio.sleep(0)

    return asyncio.run(run())


@pytest.fixture(autouse=True)
def instance_of_host(host: Host, settings: object) -> None:
    settings.BOXROOM_RUN_DIR = host.run_dir  # type: ignore[attr-defined]


@pytest.fixture
def sh(running_container: Spec) -> Callable[..., hostlink.ExecResult]:
    def run(script: str, **more: object) -> hostlink.ExecResult:
        return execute(running_container.id, ["sh", "-c", script], **more)  # type: ignore[arg-type]

    return run


Sh = Callable[..., hostlink.ExecResult]


@pytest.mark.lxc("A command's exit status is told exactly: 0 to 255, 128 + signal, 126, 127", "L#4203", "lxc-attach")
def test_exit_codes_are_exact(sh: Sh, running_container: Spec) -> None:
    for code in (0, 1, 2, 42, 126, 127, 128, 137, 254, 255):
        assert sh(f"exit {code}").exit_code == code
    for number in (1, 6, 9, 15, 11):
        assert sh(f"kill -{number} $$").exit_code == 128 + number
    missing = execute(running_container.id, ["/no/such/program"])
    assert missing.exit_code == 127
    assert b"/no/such/program" in missing.stderr
    assert execute(running_container.id, ["/etc/passwd"]).exit_code == 126
    assert execute(running_container.id, ["/tmp"]).exit_code == 126
    assert execute(running_container.id, ["no-such-program"]).exit_code == 127


def test_streams_are_apart_and_stdin_arrives(sh: Sh) -> None:
    found = sh("echo out; echo err >&2; cat", stdin=b"in")
    assert (found.stdout, found.stderr, found.exit_code) == (b"out\nin", b"err\n", 0)


@pytest.mark.lxc("100 MB through standard output arrive with the same hash", "lxc-attach")
def test_hundred_megabytes_arrive_unchanged(running_container: Spec) -> None:
    script = "head -c 104857600 /dev/urandom > /tmp/big; sha256sum /tmp/big >&2; cat /tmp/big"
    found = execute(running_container.id, ["sh", "-c", script], max_output_bytes=2**28, timeout_sec=500)
    assert len(found.stdout) == 100 * 2**20
    assert hashlib.sha256(found.stdout).hexdigest() == found.stderr.split()[0].decode()


def test_a_large_standard_input_arrives_unchanged(sh: Sh) -> None:
    data = os.urandom(10 * 2**20)
    found = sh("sha256sum", stdin=data)
    assert found.stdout.split()[0].decode() == hashlib.sha256(data).hexdigest()


def test_a_command_that_reads_nothing_does_not_hang_on_its_input(sh: Sh) -> None:
    assert sh("exit 3", stdin=b"x" * 10**6).exit_code == 3


@pytest.mark.lxc("What a command writes right before its end is not lost", "L#4546")
def test_output_just_before_the_end_is_never_lost(running_container: Spec) -> None:
    for _ in range(40):
        found = execute(running_container.id, ["sh", "-c", "printf %05000d 0; printf end >&2"])
        assert (len(found.stdout), found.stderr) == (5000, b"end")


@pytest.mark.lxc("A background child that keeps the streams open does not hold the call", "L#2302", "L#4507")
def test_a_background_child_does_not_hold_the_call(sh: Sh) -> None:
    found = sh("sleep 3000 & echo started")
    assert (found.stdout, found.exit_code, found.timed_out) == (b"started\n", 0, False)
    assert b"sleep 3000" in sh("ps -o args").stdout


def test_time_out_kills_everything(sh: Sh) -> None:
    found = sh("(setsid sleep 311 &) ; sleep 312", timeout_sec=0.5)
    assert (found.exit_code, found.timed_out) == (137, True)

    def none() -> bool:
        listed = sh("ps -o args").stdout
        return b"sleep 311" not in listed and b"sleep 312" not in listed

    wait_until(none, what="all end")


def test_a_client_that_goes_takes_its_command_along(sh: Sh, running_container: Spec) -> None:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(hostlink.supervisor_socket(running_container.id)))
    connection.sendall(control(cmd="exec", command=["sleep", "313"], environment={}))
    wait_until(lambda: b"sleep 313" in sh("ps -o args").stdout, what="the command runs")
    connection.close()
    wait_until(lambda: b"sleep 313" not in sh("ps -o args").stdout, what="the command is killed")


@pytest.mark.lxc(
    "Users, groups and environment are the container's; no group of the host is kept", "L#2591", "lxc-attach", "L#1704"
)
def test_users_groups_home_and_environment_are_the_containers(sh: Sh) -> None:
    assert sh("id -u; echo $HOME; pwd", user="alice").stdout == b"1000\n/tmp\n/tmp\n"
    assert sh("id -u; id -g", user="1000").stdout == b"1000\n1000\n"
    assert sh("id -u; id -g; id -G", user="7:8").stdout == b"7\n8\n8\n"
    sh("echo 'wheel:x:10:bob,alice' >> /etc/group")
    assert sh("id -G", user="alice").stdout == b"1000 10\n"
    names = {line.split("=")[0] for line in sh("env", environment={"MINE": "1"}).stdout.decode().splitlines()}
    expected = {"PATH", "TERM", "HOME", "USER", "LOGNAME", "SHELL", "MINE", "container", "container_uuid"}
    assert names - {"PWD", "SHLVL", "OLDPWD", "_"} == expected


def test_bad_requests_name_their_field(running_container: Spec) -> None:
    for field, more in (
        ("user", {"user": "nobody-here"}),
        ("user", {"user": "70000"}),
        ("user", {"user": ""}),
        ("cwd", {"cwd": "relative"}),
        ("cwd", {"cwd": "/does/not/exist"}),
        ("environment", {"environment": {"A=B": "x"}}),
        ("timeout", {"timeout_sec": 0}),
    ):
        with pytest.raises(hostlink.Refused) as caught:
            execute(running_container.id, ["true"], **more)  # type: ignore[arg-type]
        assert (caught.value.code, caught.value.field) == ("invalid-value", field), more
    with pytest.raises(hostlink.Refused):
        execute(running_container.id, [])
    with pytest.raises(hostlink.Refused):
        execute(running_container.id, ["a\0b"])


@pytest.mark.lxc(
    "What is started from outside has init's rights and limits, nothing inheritable, three descriptors",
    "CVE-2016-8649",
    "CVE-2022-29162",
    "L#399",
)
def test_rights_and_descriptors_are_those_of_init(sh: Sh, host: Host, running_container: Spec) -> None:
    inside = sh("cat /proc/self/status").stdout.decode()
    init = Path(f"/proc/{running.observe(host)[running_container.id].init_pid}/status").read_text()
    for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters"):
        pick = [
            next(line.split()[1] for line in text.splitlines() if line.startswith(f"{key}:")) for text in (inside, init)
        ]
        assert pick[0] == pick[1], key
    assert sh("ls /proc/self/fd").stdout.split() == [b"0", b"1", b"2", b"3"]  # 3: of ls itself
    assert sh("cat /proc/self/limits").stdout == sh("cat /proc/1/limits").stdout
    assert "00000000" in sh("grep CapEff /proc/self/status", user="alice").stdout.decode()
    for name in ("mnt", "pid", "net", "uts", "ipc", "user", "cgroup"):
        assert sh(f"test $(readlink /proc/self/ns/{name}) = $(readlink /proc/1/ns/{name})").exit_code == 0, name


@pytest.mark.lxc("No command that was run leaves a zombie, inside or outside", "D#8425")
def test_no_zombie_is_left(sh: Sh, host: Host) -> None:
    for _ in range(10):
        sh("(sleep 0.01 &) ; true")
    # inside they are init's, which needs a moment
    wait_until(lambda: b" Z " not in sh("ps -o stat,args").stdout.replace(b"\n", b" "), what="init has reaped them")
    out = subprocess.run(["ps", "-eo", "stat=,ppid=,args="], check=True, capture_output=True, text=True).stdout
    supervisors = [line.split()[0] for line in out.splitlines() if f"supervisor {host.instance} " in line]
    assert supervisors
    wait_until(lambda: not _zombies(host), what="zombies are reaped")


def _zombies(host: Host) -> list[str]:
    out = subprocess.run(["ps", "-eo", "pid=,ppid=,stat=,args="], check=True, capture_output=True, text=True).stdout
    rows = [line.split(None, 3) for line in out.splitlines()]
    pids = {row[0] for row in rows if len(row) > 3 and f"supervisor {host.instance} " in row[3]}
    return [" ".join(row) for row in rows if row[1] in pids and row[2].startswith("Z")]


@pytest.mark.lxc("Into a frozen container a command is refused, not held up", "lxc-attach")
def test_into_a_frozen_container_it_says_so(host: Host, running_container: Spec) -> None:
    running.freeze(host, running_container.id)
    try:
        with pytest.raises(hostlink.Refused, match="frozen"):
            execute(running_container.id, ["true"])
    finally:
        running.thaw(host, running_container.id)
    assert execute(running_container.id, ["true"]).exit_code == 0


@pytest.mark.lxc("A time-out kills a command in a container that was frozen meanwhile", "D#1752")
def test_frozen_while_it_runs_the_time_out_still_kills(sh: Sh, host: Host, running_container: Spec) -> None:
    results: list[hostlink.ExecResult] = []
    for timeout_sec in (2.0, 10.0, 60.0):  # it has to begin and to be frozen before its time is up, on any machine
        results.clear()
        words = ["sleep", "314"]
        thread = threading.Thread(
            target=lambda limit=timeout_sec, words=words: results.append(
                execute(running_container.id, words, timeout_sec=limit)
            )
        )
        thread.start()
        wait_until(lambda: results or b"sleep 314" in sh("ps -o args").stdout, what="the command runs")
        running.freeze(host, running_container.id)
        if not results:
            break
        thread.join()
        running.thaw(host, running_container.id)
    thread.join(patient(90))
    running.thaw(host, running_container.id)
    assert results
    assert (results[0].exit_code, results[0].timed_out) == (137, True)


def test_into_a_stopped_container_it_says_so(container: Callable[..., Spec]) -> None:
    with pytest.raises(InvalidTransition):
        execute(container().id, ["true"])


def test_output_over_the_maximum_is_cut_and_said(sh: Sh) -> None:
    found = sh("head -c 100000 /dev/zero", max_output_bytes=1000)
    assert (len(found.stdout), found.truncated, found.exit_code) == (1000, True, 0)


@pytest.mark.lxc("A passwd file that is a pipe, a device or a link holds nothing up", "CVE-2015-1334")
def test_hostile_passwd_files_hold_nothing_up(sh: Sh) -> None:
    sh("mkdir /s; mv /etc/passwd /s; mkfifo /etc/passwd")
    assert sh("readlink /proc/self").exit_code == 0
    sh("rm /etc/passwd; ln -s /dev/zero /etc/passwd")
    assert sh("grep ^Uid: /proc/self/status", user="7").stdout.split()[1:] == [b"7"] * 4
    with pytest.raises(hostlink.Refused):
        sh("true", user="alice")


@pytest.mark.lxc("A command's control group is gone with it", "L#145")
def test_the_commands_cgroup_is_gone_afterwards(sh: Sh, host: Host, running_container: Spec) -> None:
    sh("sleep 300 & true")
    tree = detect.open(host).namespace_dir(running_container.id) / ".attached"
    assert tree.is_dir()
    wait_until(lambda: not [p for p in tree.iterdir() if p.is_dir()], what="no cgroup of a command is left")


OWN_TREE = "mkdir -p /tmp/c; mount -t cgroup2 c /tmp/c; grep ^0: /proc/self/cgroup; "


@pytest.mark.lxc("systemd-run --scope and logins work in a terminal that was opened from outside", "lxc-attach")
def test_the_containers_init_may_take_a_command_over_into_a_scope_of_its_own(sh: Sh) -> None:
    """systemd-run --scope, and each login, in a terminal that was opened from outside."""
    found = sh(OWN_TREE + "mkdir /tmp/c/scope; echo $$ >/tmp/c/scope/cgroup.procs; grep ^0: /proc/self/cgroup")
    assert found.stderr == b""
    began, moved = found.stdout.split()
    assert began.startswith(b"0::/.attached/")
    assert moved == b"0::/scope"


def test_a_container_that_takes_the_commands_place_for_itself_gets_no_hold_of_them(
    sh: Sh, host: Host, running_container: Spec
) -> None:
    place = detect.open(host).namespace_dir(running_container.id) / ".attached"
    # it goes there until it has: as what a command left it is moved itself, at its own time
    squat = "until echo $$ >cgroup.procs; rmdir .attached; do usleep 5000; done; mkdir .attached"
    assert sh(f"{OWN_TREE} cd /tmp/c; sh -c '{squat}' >/dev/null 2>&1 &").exit_code == 0

    def its_own() -> bool:
        with contextlib.suppress(FileNotFoundError):
            return place.stat().st_uid != 0
        return False

    wait_until(its_own, what="its own directory")
    found = sh("grep ^0: /proc/self/cgroup; echo $$ >/tmp/c/.attached/cgroup.procs")
    assert found.stdout.startswith(b"0::/../attach/")
    assert found.stderr, "beside its tree, where it cannot move them from"


def test_a_container_that_makes_a_threaded_cgroup_can_be_entered_all_the_same(
    sh: Sh, host: Host, running_container: Spec
) -> None:
    tree = detect.open(host).namespace_dir(running_container.id)
    # only where nothing is left in its other cgroups does the kernel let it; as what a command left it is moved itself
    thread = "mkdir own; until echo $$ >cgroup.procs && echo threaded >own/cgroup.type; do usleep 5000; done"
    assert sh(f"{OWN_TREE} cd /tmp/c; sh -c '{thread}' >/dev/null 2>&1 &").exit_code == 0
    wait_until(lambda: (tree / "cgroup.type").read_text() == "domain threaded\n", what="the threaded cgroup")
    assert (tree / ".attached/cgroup.type").read_text() == "domain invalid\n"
    assert sh("grep ^0: /proc/self/cgroup").stdout.startswith(b"0::/../attach/")


@pytest.mark.lxc("Many commands at once do not wait for each other", "D#3371", "D#4472", "D#4468")
def test_many_at_once(running_container: Spec) -> None:
    codes: list[int] = []
    threads = [
        threading.Thread(
            target=lambda n=n: codes.append(  # type: ignore[misc]
                execute(running_container.id, ["sh", "-c", f"sleep 0.2; exit {n}"]).exit_code
            )
        )
        for n in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(patient(120))
    assert sorted(codes) == list(range(20))


def test_a_container_at_its_limit_of_processes_says_so(host: Host, container: Callable[..., Spec]) -> None:
    script = "for i in 1 2 3 4 5 6 7 8 9; do sleep 1000 & done; wait"
    spec = container(init_command=("/bin/sh", "-c", script), limits=Limits(pids=10))
    running.start(host, spec, network=NoNetwork())
    pids = Path(detect.open(host).stat_paths(spec.id).pids)
    wait_until(lambda: pids.read_text().strip() == "10", what="the limit is reached")
    with pytest.raises(CoreError, match="it runs as many processes as it may"):
        execute(spec.id, ["true"])
    running.stop(host, spec.id, timeout_sec=0)


@pytest.mark.parametrize("privileged", [False, True])
def test_what_enters_is_in_its_namespaces_and_the_supervisor_stays_in_its_own(
    host: Host, container: Callable[..., Spec], privileged: bool
) -> None:
    spec = container(privileged=privileged)
    running.start(host, spec, network=NoNetwork())
    run = RunFile.read(host.run_path(spec.id))
    assert run is not None

    def spaces(pid: int) -> dict[str, str]:
        return {name: os.readlink(f"/proc/{pid}/ns/{name}") for name in sorted(os.listdir(f"/proc/{pid}/ns"))}

    before, of_init = spaces(run.supervisor.pid), spaces(run.init.pid)
    script = (
        "cd /proc/$$/ns && for name in *; do echo $name $(readlink $name); done; cut -d' ' -f4,6 /proc/$$/stat; echo $$"
    )
    lines = execute(spec.id, ["sh", "-c", script]).stdout.decode().splitlines()
    assert dict(line.split() for line in lines[:-2]) == of_init
    # its parent is outside, and it leads a session of its own
    assert lines[-2].split() == ["0", lines[-1]]
    assert spaces(run.supervisor.pid) == before
    assert before["pid_for_children"] == before["pid"]
