"""Hooks: at LXC's points, in LXC's order, with LXC's variables; bounded in time, and never more than they should be."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from containers.core.errors import CoreError, PolicyDenied, SetupFailed
from containers.core.host import Host
from containers.core.hoststore import store
from containers.core.lifecycle import granting, hooking, running
from containers.core.model.hooks import ENDING, HOST_POINTS, Hook
from containers.core.model.security import Security
from containers.core.model.spec import Spec
from containers.core.model.states import Status
from containers.core.proc.records import RunFile
from containers.core.rules import policy, policy_file
from containers.core.rules.policy_values import Policy

from .conftest import NoNetwork
from .patience import wait_until
from .test_exec_basics import execute

RULES = """
[hooks.note]
projects = ["*"]
[hooks.bad]
projects = ["*"]
[hooks.slow]
projects = ["*"]
timeout_sec = 1
[hooks.mounting]
projects = ["*"]
points = ["pre-mount", "mount", "autodev"]
"""


@pytest.fixture(autouse=True)
def instance_of_host(host: Host, settings: object) -> None:
    settings.BOXROOM_RUN_DIR = host.run_dir  # type: ignore[attr-defined]


def register(host: Host, name: str, script: str) -> Path:
    host.hooks_dir.mkdir(exist_ok=True, mode=0o700)
    path = host.hooks_dir / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o700)
    return path


def rules(limit_sec: int = 1) -> Policy:
    return policy_file.parse(RULES.replace("timeout_sec = 1", f"timeout_sec = {limit_sec}"))


Start = Callable[..., Spec]


@pytest.fixture
def hooked(host: Host, container: Callable[..., Spec]) -> Start:
    """Start a container with these hooks."""

    def start(*hooks: Hook, limit_sec: int = 1, **more: object) -> Spec:
        spec = container(hooks=hooks, **more)
        extras = granting.extras(host, rules(limit_sec), spec)
        running.start(host, spec, network=NoNetwork(), extras=extras)
        return spec

    return start


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A directory that everybody on the host can reach: at the points of mounting a hook is nobody there."""
    path = Path(tempfile.mkdtemp(prefix="boxroom-hooks-"))
    path.chmod(0o777)
    yield path
    shutil.rmtree(path)


@pytest.mark.lxc("Hooks run at LXC's points, in its order, with its variables", "lxc.hook.pre-start", "lxc.hook.mount")
def test_each_runs_at_its_point_in_lxcs_order_with_lxcs_variables(host: Host, hooked: Start, reachable: Path) -> None:
    log = reachable / "log"
    log.touch()
    log.chmod(0o666)
    register(
        host, "note", f'echo "$3 $LXC_HOOK_TYPE $LXC_NAME $LXC_TARGET $(id -u)" >>{log}; env >>{log}.$3 2>/dev/null'
    )
    points = [point for point in HOST_POINTS if point not in ("clone", "destroy")]
    spec = hooked(
        *(Hook(point=point, hook="note") for point in reversed(points)),
        Hook(point="start", command=("/bin/sh", "-c", "env >/of-start; id -u >>/of-start")),
        name="hooked",
    )
    before = [point for point in points if point not in ENDING]
    assert [line.split()[:3] for line in lines(log)] == [[point, point, "hooked"] for point in before]
    assert all(line.endswith(" 0") for line in lines(log))
    values = dict(line.split("=", 1) for line in lines(Path(f"{log}.pre-start")) if "=" in line)
    assert values["LXC_ROOTFS_PATH"].startswith(str(host.layers_dir))
    assert values["LXC_CONFIG_FILE"] == str(host.spec_path(spec.id))
    assert values["LXC_HOOK_VERSION"] == "1"
    assert values["LXC_HOOK_SECTION"] == "lxc"
    assert not {"HOME", "BOXROOM_STATE_DIR", "DJANGO_SETTINGS_MODULE"} & values.keys()
    inside = execute(spec.id, ["cat", "/of-start"]).stdout.decode()
    assert "LXC_HOOK_TYPE=start" in inside
    assert "LXC_NAME=hooked" in inside
    running.stop(host, spec.id, kill=True)  # the supervisor ends after its last hook, and this after the supervisor
    assert [line.split()[1:4] for line in lines(log)[len(before) :]] == [
        ["stop", "hooked", "stop"],
        ["post-stop", "hooked", "stop"],
    ]


def test_between_a_hook_is_the_containers_root_and_no_more(host: Host, hooked: Start, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    secret.chmod(0o600)
    script = f"""
    cat {secret} && exit 3
    test -d "$LXC_ROOTFS_MOUNT/bin" || exit 4
    mkdir "$LXC_ROOTFS_MOUNT/made" || exit 5
    mount -t tmpfs none "$LXC_ROOTFS_MOUNT/made" && echo hello >"$LXC_ROOTFS_MOUNT/made/file" || exit 6
    mknod /tmp/node c 1 1 && exit 7
    exit 0
    """
    register(host, "mounting", script)
    spec = hooked(Hook(point="mount", hook="mounting"))
    assert execute(spec.id, ["cat", "/made/file"]).stdout == b"hello\n"
    assert "/made" not in Path("/proc/self/mountinfo").read_text()
    seen = execute(spec.id, ["stat", "-c", "%u", "/made"]).stdout.strip()
    assert seen == b"0"


@pytest.mark.parametrize("point", ["pre-start", "mount", "start-host"])
def test_a_hook_that_fails_fails_the_start_and_says_why(host: Host, hooked: Start, tmp_path: Path, point: str) -> None:
    register(host, "bad", "echo to stdout; echo to stderr >&2; exit 7")
    log = tmp_path / "log"
    register(host, "note", f"echo $3 >>{log}")
    with pytest.raises(SetupFailed) as caught:
        hooked(Hook(point=point, hook="bad"), Hook(point="post-stop", hook="note"))
    assert "exit status 7: to stdout\nto stderr" in caught.value.message
    assert caught.value.details["step"] == f"run the hook bad ({point})"
    assert caught.value.details["path"] == str(host.hooks_dir / "bad")
    assert [seen.status for seen in running.observe(host).values()] == [Status.STOPPED]
    assert lines(log) == ["post-stop"]


def test_a_hook_inside_that_fails_fails_the_start_and_says_why(host: Host, hooked: Start) -> None:
    with pytest.raises(SetupFailed) as caught:
        hooked(Hook(point="start", command=("/bin/sh", "-c", "echo not today; exit 9")))
    assert "exit status 9: not today" in caught.value.message
    assert caught.value.details["step"] == "run the hook /bin/sh (start)"
    with pytest.raises(SetupFailed, match="No such file"):
        hooked(Hook(point="start", command=("/bin/nothing",)))


@pytest.mark.lxc("A hook that hangs is ended with all that it started", "lxc.hook.pre-start")
def test_a_hook_whose_time_is_up_is_ended_with_all_that_it_started(host: Host, hooked: Start, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"setsid sleep 600 & echo $! >>{pids}; echo $$ >>{pids}; trap '' TERM; echo begun; sleep 600"
    register(host, "slow", script)
    began = time.monotonic()
    says_so(lambda limit: hooked(Hook(point="pre-start", hook="slow"), limit_sec=limit), "begun")
    assert time.monotonic() - began >= 1
    assert len(lines(pids)) >= 2
    wait_until(lambda: not any(alive(int(pid)) for pid in lines(pids)), what="nothing of it is left")


def says_so(act: Callable[[int], object], words: str) -> None:
    """Do what a hook holds up that says something and goes on; a second may be over before it has said it."""
    for limit in (1, 4, 16, 64):
        with pytest.raises(SetupFailed, match=f"longer than {limit} s") as caught:
            act(limit)
        if f"longer than {limit} s: {words}" in caught.value.message:
            return
    pytest.fail(caught.value.message)


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def test_a_hook_leaves_no_process_behind(host: Host, hooked: Start, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    register(host, "note", f"setsid sleep 600 >/dev/null 2>&1 & echo $! >{pids}")
    hooked(Hook(point="pre-start", hook="note"))
    wait_until(lambda: not alive(int(pids.read_text())), what="what it left is gone")


def init_pid(host: Host, spec: Spec) -> int:
    run = RunFile.read(host.run_path(spec.id))
    return run.init.pid if run else 0


def test_a_reboot_runs_them_again_and_one_that_fails_then_ends_it(host: Host, hooked: Start, tmp_path: Path) -> None:
    log, fail = tmp_path / "log", tmp_path / "fail"
    register(host, "note", f"echo $3 $LXC_TARGET >>{log}; test $3 != post-stop -o ! -e {fail}")
    spec = hooked(*(Hook(point=point, hook="note") for point in ("pre-start", "stop", "post-stop")))
    first = init_pid(host, spec)
    with contextlib.suppress(CoreError):
        execute(spec.id, ["reboot", "-f"])
    wait_until(lambda: init_pid(host, spec) not in (0, first), what="another init")
    assert lines(log) == ["pre-start", "stop reboot", "post-stop reboot", "pre-start"]
    fail.touch()

    def ended() -> bool:
        with contextlib.suppress(CoreError):  # nobody can enter before it is all there again
            execute(spec.id, ["reboot", "-f"])
        return running.observe(host)[spec.id].status is Status.STOPPED

    wait_until(ended, what="it has not been started again")
    assert lines(log)[4:] == ["stop reboot", "post-stop reboot"]
    last = running.observe(host)[spec.id].last_exit
    assert last is not None
    assert "post-stop" in (last.console or "")


@pytest.mark.lxc("A hook of the end finds the container's namespaces by LXC's variables", "lxc.hook.stop")
def test_a_hook_of_the_end_finds_the_namespaces_of_what_has_ended(host: Host, hooked: Start, tmp_path: Path) -> None:
    kinds = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")
    log, seen = tmp_path / "log", tmp_path / "seen"
    script = f"""
    for kind in {" ".join(kind.upper() for kind in kinds)}; do
        eval path=\\$LXC_${{kind}}_NS
        echo "$kind $(stat -L -c %i "$path")"
    done >{log}.new
    nsenter --mount="$LXC_MNT_NS" cat /left-here >{seen}
    mv {log}.new {log}
    """
    register(host, "note", script)
    spec = hooked(Hook(point="stop", hook="note"), security=Security(clock_offsets={"boottime": 60.0}))

    def theirs() -> list[str]:
        place = Path(f"/proc/{init_pid(host, spec)}/ns")
        return [f"{kind.upper()} {(place / kind).stat().st_ino}" for kind in kinds]

    execute(spec.id, ["sh", "-c", "echo first >/left-here"])
    first, before = init_pid(host, spec), theirs()
    with contextlib.suppress(CoreError):
        execute(spec.id, ["reboot", "-f"])
    wait_until(lambda: init_pid(host, spec) not in (0, first), what="another init")
    assert lines(log) == before
    assert lines(seen) == ["first"]

    def ready() -> bool:
        with contextlib.suppress(CoreError):
            return execute(spec.id, ["sh", "-c", "echo again >/left-here"]).exit_code == 0
        return False

    # its number is told before it has all its namespaces: until then nothing runs in it
    wait_until(ready, what="the second boot")
    before = theirs()
    running.stop(host, spec.id, kill=True)
    assert lines(log) == before
    assert lines(seen) == ["again"]


def test_what_is_not_roots_alone_is_not_run(host: Host, hooked: Start) -> None:
    path = register(host, "note", "true")
    for mode, words in ((0o722, "Others than root"), (0o600, "not executable")):
        path.chmod(mode)
        with pytest.raises(SetupFailed, match=words):
            hooked(Hook(point="pre-start", hook="note"))
    path.unlink()
    path.symlink_to("/bin/true")
    with pytest.raises(SetupFailed) as caught:
        hooked(Hook(point="pre-start", hook="note"))
    assert caught.value.details["path"] == str(path)
    path.unlink()
    register(host, "note", "true")
    host.hooks_dir.chmod(0o777)
    with pytest.raises(SetupFailed, match="this directory"):
        hooked(Hook(point="pre-start", hook="note"))


def test_a_hook_is_given_by_name_for_a_project_and_for_points(host: Host, container: Callable[..., Spec]) -> None:
    given = policy_file.parse('[hooks.note]\nprojects = ["other"]\n[hooks.late]\nprojects = ["*"]\npoints = ["stop"]\n')
    for name, point in (("note", "stop"), ("late", "pre-start"), ("none", "stop")):
        spec = container(hooks=(Hook(point=point, hook=name),))
        with pytest.raises(PolicyDenied) as caught:
            policy.check(given, spec)
        assert caught.value.field == "hooks.0.hook"
    policy.check(given, container(hooks=(Hook(point="stop", hook="late"),)))


def test_a_clone_and_a_removal_are_told(host: Host, container: Callable[..., Spec], tmp_path: Path) -> None:
    log = tmp_path / "log"
    register(host, "note", f'echo "$LXC_HOOK_TYPE $LXC_NAME $LXC_SRC_NAME $(ls -d $LXC_ROOTFS_PATH)" >>{log}')
    register(host, "slow", "setsid sleep 600 & echo no; sleep 600")
    spec = container(hooks=(Hook(point="clone", hook="note"), Hook(point="destroy", hook="slow")))
    own = str(store.rootfs(host, store.load_root(host, spec.id).writable))
    hooking.run(host, rules(), spec, "clone", rootfs=own, SRC_NAME="first")
    assert lines(log) == [f"clone {spec.name} first {own}"]
    says_so(lambda limit: hooking.run(host, rules(limit), spec, "destroy", rootfs=own), "no")
    # one that the policy has withdrawn is in nobody's way
    hooking.run(host, policy.DEFAULT, spec, "destroy", rootfs=own)
