"""Bugs that other runtimes had, each staged against ours: ways out of a container, mounts, control groups.

Tests are named after the bug. Those of one subject stand with that subject's tests; here are the others.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from containers.core.cgroups import detect
from containers.core.errors import CoreError, SetupFailed, SpecError, TimedOut
from containers.core.host import Host
from containers.core.hoststore import store
from containers.core.lifecycle import running
from containers.core.model.attachments import Device, Mount
from containers.core.model.limits import Limits
from containers.core.model.security import Security
from containers.core.model.spec import Spec
from containers.core.model.states import Status
from containers.core.proc.records import RunFile
from containers.core.rules import grants

from .conftest import NoNetwork
from .patience import wait_until
from .test_attachments import silent_fuse
from .test_exec_basics import execute

Make = Callable[..., Spec]
MIB = 1024**2


@pytest.fixture(autouse=True)
def instance_of_host(host: Host, settings: Any) -> None:
    settings.BOXROOM_RUN_DIR = host.run_dir


def run_of(host: Host, spec: Spec) -> RunFile:
    run = RunFile.read(host.run_path(spec.id))
    assert run is not None
    return run


def begin(host: Host, spec: Spec) -> Spec:
    running.start(host, spec, network=NoNetwork())
    return spec


def lines_of(path: Path) -> bytes:
    """Return what is in a file of the kernel's; nothing of what has gone meanwhile."""
    with contextlib.suppress(OSError):
        return path.read_bytes()
    return b""


def says(spec: Spec, script: str) -> str:
    done = execute(spec.id, ["sh", "-c", script])
    assert done.exit_code == 0, (done.stdout, done.stderr)
    return done.stdout.decode().strip()


# -- ways out


@pytest.mark.lxc("A link in the place of a lock leads nowhere", "CVE-2015-1331")
def test_cve_2015_1331_a_link_in_the_place_of_a_lock(host: Host, container: Make, tmp_path: Path) -> None:
    spec = container()
    victim = tmp_path / "victim"
    lock = host.locks_dir / f"container-{spec.id}"
    lock.unlink(missing_ok=True)
    lock.symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        running.start(host, spec, network=NoNetwork())
    assert not victim.exists()
    lock.unlink()


@pytest.mark.lxc("A /proc that the container made up fools nobody who enters it", "CVE-2015-1334")
def test_cve_2015_1334_a_proc_that_the_container_made_up(host: Host, container: Make) -> None:
    spec = begin(host, container(security=Security(capabilities_drop=("net_raw",), no_new_privs=True)))
    fake = "mkdir -p /fake/self/attr /fake/sys/kernel /fake/1; echo 'CapPrm: ffffffffffffffff' >/fake/self/status"
    says(
        spec, f"{fake}; echo 63 >/fake/sys/kernel/cap_last_cap; cp /fake/self/status /fake/1/; mount --bind /fake /proc"
    )
    assert says(spec, "cat /proc/self/status") == "CapPrm: ffffffffffffffff"
    tree = detect.open(host).container_tree(spec.id)
    process = subprocess.Popen(
        [sys.executable, "-c", _EXEC, str(host.run_dir), spec.id], cwd=Path(__file__).parents[2], stdout=subprocess.PIPE
    )
    try:
        init = run_of(host, spec).init.pid

        def sleeper() -> list[int]:
            pids = [int(pid) for path in tree.rglob("cgroup.procs") for pid in lines_of(path).split()]
            return [pid for pid in pids if lines_of(Path(f"/proc/{pid}/cmdline")).startswith(b"sleep\x0077")]

        wait_until(sleeper, what="the command runs")
        of = dict(line.split(":", 1) for line in Path(f"/proc/{sleeper()[0]}/status").read_text().splitlines())
        of_init = dict(line.split(":", 1) for line in Path(f"/proc/{init}/status").read_text().splitlines())
        for name in ("CapBnd", "CapEff", "CapPrm", "Seccomp", "NoNewPrivs"):
            assert of[name] == of_init[name], name
    finally:
        process.kill()
        process.communicate()


_EXEC = """
import asyncio, sys
from pathlib import Path
import django
from django.conf import settings
settings.configure(BOXROOM_RUN_DIR=Path(sys.argv[1]))
from containers.clients import hostlink
asyncio.run(hostlink.execute(sys.argv[2], ["sleep", "77"], timeout_sec=60))
"""


@pytest.mark.lxc("Root inside cannot write to the program that entered its container", "CVE-2019-5736")
def test_cve_2019_5736_the_program_that_enters_is_not_to_be_written(host: Host, container: Make, layer: str) -> None:
    script = store.rootfs(host, layer) / "bin/again"
    script.write_text("#!/proc/self/exe\n")
    script.chmod(0o755)
    spec = begin(host, container())
    program = Path(f"/proc/{run_of(host, spec).supervisor.pid}/exe")
    before = os.stat(program)
    catch = "for n in $(seq 400); do for p in /proc/[0-9]*/exe; do (exec 9>>$p) 2>/dev/null && echo $p; done; done"
    watcher = ["sh", "-c", f"({catch}) >/caught 2>/dev/null & echo going"]
    assert execute(spec.id, watcher).stdout == b"going\n"
    for command in (["true"], ["/proc/self/exe", "-c", "x=1"], ["/bin/again"], ["true"]):
        execute(spec.id, command)
    caught = says(spec, "cat /caught").split()
    assert not [
        path for path in caught if "/1/" not in path and says(spec, f"readlink {path}||:") == os.readlink(program)
    ]
    after = os.stat(program)
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)


@pytest.mark.lxc("What an image puts into /dev is neither used nor followed", "CVE-2025-31133", "CVE-2025-52565")
def test_cve_2025_31133_and_52565_links_in_the_images_dev(
    host: Host, container: Make, layer: str, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("the host's")
    dev = store.rootfs(host, layer) / "dev"
    for name in ("null", "console", "pts", "shm", "ptmx"):
        (dev / name).symlink_to(victim)
    spec = begin(host, container())
    assert says(spec, "test -c /dev/null -a -c /dev/console -a -d /dev/pts && echo so") == "so"
    masked = says(spec, "cat /proc/kcore /proc/keys 2>/dev/null | wc -c")
    assert masked == "0"
    assert victim.read_text() == "the host's"
    assert stat.S_ISREG(victim.lstat().st_mode)


@pytest.mark.lxc("Text of any length becomes no message to the kernel", "CVE-2021-43784")
def test_cve_2021_43784_text_that_is_longer_than_a_message(container: Make) -> None:
    spec = container()
    long = "/" + "a" * 70_000
    for changed in (
        {"mounts": (Mount(share="media", target=long),)},
        {"init_command": (long,)},
        {"environment": {"A" * 70_000: "x"}},
        {"hostname": "a" * 70_000},
        {"security": Security(sysctls={"net." + "a" * 70_000: "1"})},
        {"security": Security(sysctls={"net.ipv4.ip_forward": "1" * 70_000})},
        {"limits": Limits(cgroup={"memory.high": "1" * 70_000})},
        {"security": Security(apparmor="a" * 70_000)},
    ):
        with pytest.raises(SpecError):
            dataclasses.replace(spec, **changed).check()  # type: ignore[arg-type]


@pytest.mark.lxc("A value with a newline is refused, and so cannot become another setting", "CVE-2026-23953")
def test_cve_2026_23953_a_newline_in_a_value(container: Make) -> None:
    spec = container()
    for changed in (
        {"environment": {"A": "x\nlxc.hook.pre-start=/bin/sh"}},
        {"init_command": ("/bin/sh\nx",)},
        {"hostname": "a\nb"},
        {"security": Security(sysctls={"net.ipv4.ip_forward": "1\n2"})},
        {"security": Security(apparmor="a\nb")},
        {"limits": Limits(cgroup={"memory.high": "1\n2"})},
        {"mounts": (Mount(share="media", target="/a\nb"),)},
    ):
        with pytest.raises(SpecError):
            dataclasses.replace(spec, **changed).check()  # type: ignore[arg-type]


@pytest.mark.lxc("The host's control groups are neither seen nor written inside", "CVE-2023-25809")
def test_cve_2023_25809_the_hosts_control_groups_are_not_to_be_written(host: Host, container: Make) -> None:
    spec = begin(host, container())
    lines = says(spec, "cat /proc/self/mountinfo").splitlines()
    roots = {line.split()[3] for line in lines if " - cgroup2 " in line or " - cgroup " in line}
    assert roots <= {"/"}
    assert says(spec, "cat /proc/1/cgroup").splitlines()[-1] == "0::/"
    # another one of the same hierarchy begins at the container's own root, too
    again = says(spec, "mkdir /again && mount -t cgroup2 none /again && ls -d /again/boxroom* 2>/dev/null | wc -l")
    assert again == "0"
    outside = detect.open(host).container_tree(spec.id)
    assert (outside / "cgroup.procs").stat().st_uid == 0


@pytest.mark.lxc("Ports below 1024 can be opened to everybody inside", "runc#4972")
def test_runc_4972_unprivileged_ports(host: Host, container: Make) -> None:
    spec = begin(host, container(security=Security(sysctls={"net.ipv4.ip_unprivileged_port_start": "0"})))
    assert says(spec, "cat /proc/sys/net/ipv4/ip_unprivileged_port_start") == "0"
    assert (
        says(spec, "echo 80 >/proc/sys/net/ipv4/ip_unprivileged_port_start; cat $_ /dev/null 2>/dev/null; echo in")
        == "in"
    )
    assert Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text().strip() != "80"


# -- file systems that do not answer


@pytest.fixture
def stuck(host: Host, container: Make) -> Any:
    """A container with a process that waits for a file system which never answers."""
    spec = container(devices=(Device(device="fuse"),))
    given = grants.resolve({}, grants.DEFAULT_DEVICES, spec)
    running.start(host, spec, network=NoNetwork(), attachments=given)
    says(spec, "mkdir /slow")
    ready, until = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.close(until[1])
        os.close(ready[0])
        with contextlib.suppress(OSError):
            silent_fuse(run_of(host, spec).init.pid, "/slow", ready[1], until[0])
        os._exit(0)
    os.close(until[0])
    os.close(ready[1])
    assert os.read(ready[0], 80) == b"mounted"
    os.close(ready[0])
    says(spec, "ls /slow/x >/dev/null 2>&1 & echo $! >/waiting")
    yield spec
    with contextlib.suppress(OSError):
        os.close(until[1])
    os.waitpid(child, 0)


@pytest.mark.lxc("A process that waits for a disk holds no freeze up for ever", "L#3578")
def test_lxc_3578_a_freeze_gives_up_where_a_process_waits_in_the_kernel(
    host: Host, stuck: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "FREEZE_SEC", 0.3)
    with contextlib.suppress(TimedOut):
        running.freeze(host, stuck.id)  # comes back, though nobody lets that process go on
    running.thaw(host, stuck.id)
    assert running.observe(host)[stuck.id].status is Status.RUNNING
    assert says(stuck, "echo on") == "on"


@pytest.mark.lxc("A list is not held up by a container that does not answer", "L#1948", "D#11227")
def test_lxc_1948_a_container_that_does_not_answer_holds_up_no_list(host: Host, stuck: Spec, container: Make) -> None:
    other = begin(host, container())
    seen = running.observe(host)  # comes back, though nothing in there goes on
    assert {seen[stuck.id].status, seen[other.id].status} == {Status.RUNNING}


# -- control groups


@pytest.mark.lxc("The supervisor stands outside of its container's limits", "cri-o#3229")
def test_cri_o_3229_a_supervisor_is_not_in_its_containers_memory(host: Host, container: Make) -> None:
    spec = begin(host, container(limits=Limits(memory_bytes=32 * MIB)))
    run = run_of(host, spec)
    of_init, of_supervisor = (Path(f"/proc/{pid}/cgroup").read_text() for pid in (run.init.pid, run.supervisor.pid))
    assert f"c-{spec.id}" in of_init
    assert f"c-{spec.id}" not in of_supervisor
    groups = detect.open(host)
    assert groups.oom_kills(spec.id) == 0
    execute(spec.id, ["sh", "-c", "x=a; while :; do x=$x$x; done"])
    wait_until(lambda: groups.oom_kills(spec.id) > 0, what="the kernel ends what took too much")
    assert running.observe(host)[spec.id].status is Status.RUNNING


@pytest.mark.lxc("A limit that was changed while it ran holds after a reboot inside", "L#2779")
def test_lxc_2779_a_limit_that_was_changed_holds_after_a_reboot(host: Host, container: Make) -> None:
    spec = begin(host, container(limits=Limits(pids=100)))
    running.update_limits(host, spec.id, Limits(pids=77, memory_bytes=64 * MIB))
    first = run_of(host, spec).init.pid
    with contextlib.suppress(CoreError):
        execute(spec.id, ["reboot", "-f"])
    wait_until(lambda: (run := RunFile.read(host.run_path(spec.id))) and run.init.pid != first, what="another init")
    groups = detect.open(host)
    assert Path(groups.stat_paths(spec.id).pids).with_name("pids.max").read_text().strip() == "77"


@pytest.mark.lxc("A container of an empty list of CPUs, or of one that is offline, is told", "L#3443", "L#3108")
def test_lxc_3443_cpus_that_are_not_there(host: Host, container: Make) -> None:
    with pytest.raises(SpecError) as caught:
        Limits(cpuset="").check_types()
    assert caught.value.field == "limits.cpuset"
    spec = container(limits=Limits(cpuset="1000"))
    with pytest.raises(SetupFailed) as failed:
        running.start(host, spec, network=NoNetwork())
    assert "cpuset.cpus" in (failed.value.details["path"] or "")
    assert running.observe(host)[spec.id].status is Status.STOPPED
    assert spec.id not in detect.open(host).ids()


@pytest.mark.lxc("Memory and swap are raised and lowered in the order that the kernel takes", "L#453")
def test_lxc_453_memory_and_swap_up_and_down(host: Host, container: Make) -> None:
    spec = begin(host, container(limits=Limits(memory_bytes=64 * MIB)))
    for memory, swap in ((256, 0), (32, 512), (512, 16), (48, None)):
        limits = Limits(memory_bytes=memory * MIB, swap_bytes=None if swap is None else swap * MIB)
        running.update_limits(host, spec.id, limits)
        path = Path(detect.open(host).stat_paths(spec.id).memory_limit)
        assert path.read_text().strip() == str(memory * MIB)


@pytest.mark.lxc("A program of the host's is found by no container through its mounts", "CVE-2013-6441")
def test_cve_2013_6441_nothing_of_the_hosts_is_mounted_to_be_written(host: Host, container: Make) -> None:
    spec = begin(host, container())
    kinds = "overlay tmpfs proc sysfs devpts mqueue cgroup2 cgroup devtmpfs"
    allowed = {*kinds.split(), "fuse.lxcfs"}
    found = set()
    for line in says(spec, "cat /proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        kind, place, options = right.split()[0], left.split()[4], left.split()[5].split(",")
        found.add(kind)
        # of the host's own file systems nothing but six device nodes, and what masks files
        assert kind in allowed or place.startswith("/dev/"), line
        if place.startswith("/dev/") and kind not in allowed:
            assert "nodev" not in options
    assert "overlay" in found
