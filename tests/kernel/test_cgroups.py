"""Real cgroups, of whichever version this host has; tests/vm runs the same on the other."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from containers.core import cgroups
from containers.core.cgroups import Cgroups, places, raw, v1, v2
from containers.core.cgroups.blockdev import disk_of
from containers.core.errors import AlreadyExists, HostUnsupported, InUse, NotFound, SetupFailed, SpecError, TimedOut
from containers.core.model.spec import Limits

from .patience import patient, wait_until

pytestmark = pytest.mark.kernel

MIB = 1024**2
OWNER = 3_000_000_000
ID = "0123456789ab"
Run = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def groups(tmp_path: Path) -> Iterator[Cgroups]:
    opened = cgroups.open_named(f"boxroom-t{secrets.token_hex(3)}", tmp_path)
    yield opened
    for container_id in opened.ids():
        opened.kill(container_id)
        opened.remove(container_id)
    opened.remove_instance()
    assert not opened.tree.exists()
    assert not list(Path("/sys/fs/cgroup").glob(f"*/{opened.name}"))


@pytest.fixture
def run(groups: Cgroups) -> Iterator[Run]:
    """Start Python code as a process inside of the container's cgroups."""
    started: list[subprocess.Popen[bytes]] = []

    def start(code: str, *, attach: bool = False, container_id: str = ID) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", "import sys; sys.stdin.readline(); " + code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        started.append(process)
        joined = groups.joined(container_id)
        cgroups.join(process.pid, joined.attach_procs if attach else joined.init_procs)
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        process.stdin.flush()
        return process

    yield start
    for container_id in groups.ids():
        groups.kill(container_id)
    for process in started:
        process.kill()
        process.communicate()


SLEEP = "import time; print('up', flush=True); time.sleep(600)"


def create(groups: Cgroups, limits: Limits | None = None, *, privileged: bool = False) -> cgroups.Joined:
    return groups.create(ID, limits=limits or Limits(), owner_uid=OWNER, privileged=privileged)


def up(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"


def hold(mebibytes: int) -> str:
    return f"held = bytearray({mebibytes} * 2**20); " + SLEEP


def limit_files(groups: Cgroups) -> dict[str, str]:
    """Return what the kernel says of the limits, in the same words for both versions."""
    paths = groups.stat_paths(ID)
    memory = Path(paths.memory_limit).read_text().strip()
    pids = (Path(paths.pids).parent / "pids.max").read_text().strip()
    cpu = Path(paths.cpu_limit).read_text().split()[0]
    unlimited = memory == "max" or int(memory) > 2**62
    return {"memory": "max" if unlimited else memory, "pids": pids, "cpu": "max" if cpu == "-1" else cpu}


@pytest.mark.lxc("Limits are in force before init's first instruction", "lxc-cgroup")
def test_limits_are_in_force_before_anything_runs(groups: Cgroups) -> None:
    create(groups, Limits(memory_bytes=64 * MIB, cpus=0.5, pids=20))
    assert limit_files(groups) == {"memory": str(64 * MIB), "pids": "20", "cpu": "50000"}
    assert not groups.populated(ID)


def test_limits_change_live_and_go_away(groups: Cgroups, run: Run) -> None:
    create(groups)
    assert limit_files(groups) == {"memory": "max", "pids": "max", "cpu": "max"}
    up(run(SLEEP))
    for mebibytes in (128, 64, 256):
        groups.apply(ID, Limits(memory_bytes=mebibytes * MIB, cpus=1.0, pids=30))
        assert limit_files(groups) == {"memory": str(mebibytes * MIB), "pids": "30", "cpu": "100000"}
    groups.apply(ID, Limits())
    assert limit_files(groups) == {"memory": "max", "pids": "max", "cpu": "max"}


@pytest.mark.lxc("A memory limit below what is in use is refused and kills nobody", "lxc-cgroup")
def test_a_limit_that_cannot_be_reclaimed_to_is_refused_and_kills_nobody(groups: Cgroups, run: Run) -> None:
    before = Limits(memory_bytes=200 * MIB, cpus=0.5, pids=40)
    create(groups, before)
    process = run(hold(100))
    up(process)
    with pytest.raises(InUse) as refused:
        groups.apply(ID, Limits(memory_bytes=50 * MIB, cpus=1.0, pids=10))
    assert refused.value.field == "limits.memory_bytes"
    assert limit_files(groups) == {"memory": str(200 * MIB), "pids": "40", "cpu": "50000"}
    assert process.poll() is None
    assert groups.oom_kills(ID) == 0
    high = groups.container_tree(ID) / "memory.high"
    assert not high.exists() or high.read_text() == "max\n"


def test_page_cache_is_reclaimed_for_a_lower_limit(groups: Cgroups, run: Run, tmp_path: Path) -> None:
    create(groups, Limits(memory_bytes=200 * MIB))
    code = (
        f"f = open({str(tmp_path / 'big')!r}, 'wb'); [f.write(bytes(2**20)) for _ in range(100)]; f.flush(); "
        "import os; os.fsync(f.fileno()); "
    )
    up(run(code + SLEEP))
    groups.apply(ID, Limits(memory_bytes=40 * MIB))
    assert limit_files(groups)["memory"] == str(40 * MIB)
    assert groups.oom_kills(ID) == 0


def test_too_much_memory_kills_inside_and_is_counted(groups: Cgroups, run: Run) -> None:
    create(groups, Limits(memory_bytes=32 * MIB))
    quiet = run(SLEEP)
    up(quiet)
    greedy = run(hold(100))
    assert greedy.wait(patient(60)) == -signal.SIGKILL
    assert groups.oom_kills(ID) >= 1
    assert quiet.poll() is None, "one process too many must not end the whole container"


def test_no_more_processes_than_allowed(groups: Cgroups, run: Run) -> None:
    create(groups, Limits(pids=8))
    code = """
import os, time
made = 0
try:
    for _ in range(20):
        if os.fork() == 0:
            time.sleep(600)
        made += 1
except BlockingIOError:
    pass
print(made, flush=True)
time.sleep(600)
"""
    process = run(f"exec({code!r})")
    assert process.stdout is not None
    assert int(process.stdout.readline()) == 7


def test_cpu_is_held_to_its_share(groups: Cgroups, run: Run) -> None:
    # so little that it gets more even where twenty others want these processors: who gets less is held by nothing
    create(groups, Limits(cpus=0.03))
    path = groups.stat_paths(ID)
    # while an emulated machine stands still its clocks go on, and the time is on the account of who runs: it is paid
    # back later, so that over some more seconds the share holds all the same; without a limit it never would. And it
    # has to be the limit that holds it, and not a host that has no more to give: that comes, too, in the end
    code = f"""
import re, time
used, begun = time.process_time(), time.monotonic()
def throttled():
    with open({path.throttled or path.cpu!r}) as file:
        return int(re.search(r"^nr_throttled (\\d+)", file.read(), re.MULTILINE)[1]) > 0
while True:
    share = (time.process_time() - used) / (time.monotonic() - begun + 1e-9)
    if time.monotonic() - begun > 1 and share < 0.45 and throttled(): break
print(share, flush=True)
time.sleep(600)
"""
    process = run(f"exec({code!r})")
    assert process.stdout is not None
    assert select.select([process.stdout], [], [], patient(60))[0], "it never was held to its share"


@pytest.mark.lxc("Freezing stops everything, and thawing lets it run", "lxc-freeze", "lxc-unfreeze", "runc#2774")
def test_freeze_stops_everything_and_thaw_lets_it_run(groups: Cgroups, run: Run) -> None:
    create(groups)
    code = "import time\nwhile True: print('tick', flush=True); time.sleep(0.01)"
    process = run(f"exec({code!r})")
    attached = run(f"exec({code!r})", attach=True)
    for each in (process, attached):
        assert each.stdout is not None
        each.stdout.readline()
    groups.freeze(ID, patient(60))
    assert groups.frozen(ID)
    # who was the last to stop may be on its way off its CPU still, for as long as others are on that; where it was not
    # stopped, something would be used every 10 ms
    wait_until(lambda: same_cpu(groups, 0.2), what="nothing more is used")
    before = groups_cpu(groups)
    groups.thaw(ID)
    assert not groups.frozen(ID)
    wait_until(lambda: groups_cpu(groups) > before)


@pytest.mark.parametrize("inner", [False, True])
def test_a_freeze_from_outside_is_seen_heard_and_ended(groups: Cgroups, run: Run, *, inner: bool) -> None:
    create(groups)
    up(run(SLEEP))
    path = groups.namespace_dir(ID) if inner else groups.container_tree(ID)
    watch = groups.watch_frozen(ID)
    try:
        assert watch.changed() is None
        assert not heard(watch.fileno(), 0)
        (path / "cgroup.freeze").write_text("1")
        assert heard(watch.fileno(), patient(60))
        wait_until(watch.changed)
        assert groups.frozen(ID)
        assert groups.frozen(ID, inner=False) is not inner
        groups.thaw(ID)
        assert not groups.frozen(ID)
        assert heard(watch.fileno(), patient(60))
        assert watch.changed() is False
        # of several files each may be told of by itself, 10 ms apart: none of it is news
        wait_until(lambda: watch.changed() is None and not heard(watch.fileno(), 0), what="it is quiet again")
    finally:
        watch.close()
        watch.close()


def heard(fd: int, timeout_sec: float) -> bool:
    return bool(select.select([fd], [], [], timeout_sec)[0])


def same_cpu(groups: Cgroups, seconds: float) -> bool:
    before = groups_cpu(groups)
    time.sleep(seconds)
    return groups_cpu(groups) == before


def groups_cpu(groups: Cgroups) -> int:
    text = Path(groups.stat_paths(ID).cpu).read_text()
    return int(text.split()[1])


@pytest.mark.lxc("Killing takes frozen processes and those that fork", "runc#2105", "runc#2753")
def test_kill_takes_frozen_and_forking_processes(groups: Cgroups, run: Run) -> None:
    create(groups)
    bomb = run("exec('import os, time\\nfor _ in range(4): os.fork()\\nwhile True: time.sleep(1)')")
    up(run(SLEEP))
    wait_until(lambda: int(Path(groups.stat_paths(ID).pids).read_text()) == 17)
    groups.freeze(ID, patient(60))
    groups.kill(ID)
    assert groups.wait_empty(ID, patient(60))
    assert bomb.wait(patient(60)) == -signal.SIGKILL


@pytest.mark.lxc("Of control groups only the container's own are removed, nested ones too", "L#145", "D#3561")
def test_remove_takes_what_the_container_made_and_nothing_else(groups: Cgroups, run: Run) -> None:
    create(groups)
    groups.create("ba9876543210", limits=Limits(), owner_uid=OWNER, privileged=False)
    nested = groups.namespace_dir(ID) / "system.slice" / "some.service"
    nested.mkdir(parents=True)
    (groups.namespace_dir(ID) / "init.scope").mkdir()
    process = run(SLEEP)
    up(process)
    (nested / "cgroup.procs").write_text(str(process.pid))
    groups.kill(ID)
    groups.remove(ID)
    assert not groups.container_tree(ID).exists()
    assert groups.ids() == {"ba9876543210"}
    groups.remove(ID)


@pytest.mark.lxc("A control group whose last process is still dying is waited for", "L#1557", "L#1726")
def test_remove_waits_and_then_says_so(groups: Cgroups, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    create(groups)
    up(run(SLEEP))
    monkeypatch.setattr("containers.core.cgroups.base.REMOVE_TIMEOUT_SEC", 0.2)
    with pytest.raises(TimedOut):
        groups.remove(ID)


def test_create_again_after_a_crash(groups: Cgroups, run: Run) -> None:
    create(groups, Limits(pids=20))
    create(groups, Limits(pids=30))
    assert limit_files(groups)["pids"] == "30"
    up(run(SLEEP))
    with pytest.raises(AlreadyExists):
        create(groups)


@pytest.mark.lxc("Limits that were changed meanwhile are kept over a reboot inside", "L#2779")
def test_clean_keeps_limits_for_the_next_boot(groups: Cgroups) -> None:
    create(groups, Limits(memory_bytes=64 * MIB))
    (groups.namespace_dir(ID) / "a" / "b").mkdir(parents=True)
    groups.clean(ID, owner_uid=OWNER)
    assert not (groups.namespace_dir(ID) / "a").exists()
    assert limit_files(groups)["memory"] == str(64 * MIB)
    assert groups.namespace_dir(ID).stat().st_uid == OWNER


def test_orphans(groups: Cgroups) -> None:
    create(groups)
    assert groups.orphans([ID]) == ()
    assert groups.orphans([]) == (ID,)


def test_what_does_not_run_is_not_found(groups: Cgroups) -> None:
    groups.prepare()
    for ask in (lambda: groups.freeze(ID, 1), lambda: groups.thaw(ID), lambda: groups.apply(ID, Limits())):
        with pytest.raises(NotFound):
            ask()
    groups.kill(ID)
    assert not groups.frozen(ID)
    assert not groups.populated(ID)
    assert groups.wait_empty(ID, 0.1)
    assert groups.oom_kills(ID) == 0


def as_container_root(work: Callable[[], None]) -> int:
    """Do work in a child with the container root's ids, no capability, and no group; returns 0 where it succeeded."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setgroups([])
            os.setresgid(OWNER, OWNER, OWNER)
            os.setresuid(OWNER, OWNER, OWNER)
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.lxc("A container makes control groups of its own", "L#3242", "L#3404")
def test_the_container_has_its_own_tree(groups: Cgroups) -> None:
    create(groups)
    root = groups.namespace_dir(ID)

    def work() -> None:
        (root / "user.slice" / "deep").mkdir(parents=True)
        (root / "cgroup.subtree_control").write_text("")
        (root / "user.slice" / "deep").rmdir()
        (root / "user.slice").rmdir()

    assert as_container_root(work) == 0


@pytest.mark.lxc("A container cannot change its own limits", "CVE-2023-25809")
def test_the_container_cannot_change_its_limits(groups: Cgroups) -> None:
    joined = create(groups, Limits(memory_bytes=64 * MIB, cpus=0.5, pids=20))
    paths = groups.stat_paths(ID)
    files = [
        paths.memory_limit,
        paths.cpu_limit,
        str(Path(paths.pids).parent / "pids.max"),
        f"{groups.container_tree(ID)}/cgroup.procs",
        f"{groups.container_tree(ID)}/cgroup.freeze",
        f"{groups.container_tree(ID)}/cgroup.max.descendants",
        f"{groups.namespace_dir(ID)}/memory.max",
        *joined.supervisor_procs,
    ]

    def work() -> None:
        for file in files:
            if os.path.exists(file):
                try:
                    os.close(os.open(file, os.O_WRONLY))
                except PermissionError:
                    continue
                raise AssertionError(file)

    assert as_container_root(work) == 0


def test_the_container_cannot_make_cgroups_without_bound(groups: Cgroups) -> None:
    create(groups)
    root = groups.namespace_dir(ID)

    def work() -> None:
        made = 0
        with contextlib.suppress(BlockingIOError):
            for made in range(2000):
                (root / str(made)).mkdir()
        if made < 100 or made > 600:
            raise AssertionError(made)

    assert as_container_root(work) == 0


OPEN = """
import os, sys
for path in ("/dev/null", "/dev/zero", "/dev/mem", "/dev/kmsg", "/dev/port"):
    try:
        os.close(os.open(path, os.O_RDONLY)); print(path, "open")
    except OSError as error:
        print(path, error.errno)
sys.stdout.flush()
"""


@pytest.mark.parametrize("privileged", [False, True])
def test_only_listed_devices_open(groups: Cgroups, run: Run, *, privileged: bool) -> None:
    create(groups, privileged=privileged)
    for attach in (False, True):
        process = run(f"exec({OPEN!r})", attach=attach)
        output = process.stdout
        assert output is not None
        found = dict(line.decode().split() for line in output)
        assert found["/dev/null"] == found["/dev/zero"] == "open"
        for path in ("/dev/mem", "/dev/kmsg", "/dev/port"):
            assert found[path] in (str(errno.EPERM), str(errno.ENOENT))
        assert found["/dev/kmsg"] == str(errno.EPERM)


def test_a_privileged_container_begins_below_its_limits(groups: Cgroups, run: Run) -> None:
    create(groups, Limits(memory_bytes=64 * MIB), privileged=True)
    process = run(SLEEP)
    up(process)
    for line in Path(f"/proc/{process.pid}/cgroup").read_text().splitlines():
        assert line.endswith(f"/{groups.name}/c-{ID}/ns"), line


def test_attached_processes_stand_beside_the_container_tree(groups: Cgroups, run: Run) -> None:
    """systemd inside needs its root free of processes: on v2 those and children with controllers exclude each other."""
    create(groups)
    process = run(SLEEP, attach=True)
    up(process)
    assert (groups.namespace_dir(ID) / "cgroup.procs").read_text() == ""
    assert groups.populated(ID)


@pytest.mark.lxc("The supervisor is not in its container's memory limit", "cri-o#3229")
def test_who_stands_in_a_namespaces_root_makes_room_for_controllers(groups: Cgroups) -> None:
    """As in a container of another runtime, where the root of the tree is not the kernel's own."""
    groups.prepare()
    top, name = groups.tree.parent, "memory" if groups.version == 2 else "hugetlb"
    had = name in (top / "cgroup.subtree_control").read_text().split()
    places.write_file(f"{top}/cgroup.subtree_control", f"+{name}")
    root = top / f"test-{groups.name}"
    root.mkdir()
    process = subprocess.Popen(["sleep", "600"])
    try:
        cgroups.join(process.pid, [f"{root}/cgroup.procs"])
        with pytest.raises(OSError, match="busy"):
            places.write_file(f"{root}/cgroup.subtree_control", f"+{name}")
        places.offer(root, f"+{name}")
        assert (root / "cgroup.subtree_control").read_text().split() == [name]
        assert f"{root.name}/{places.BESIDE}\n" in Path(f"/proc/{process.pid}/cgroup").read_text()
    finally:
        process.kill()
        process.wait()
        places.remove_tree(root, time.monotonic() + patient(30))
        if not had:
            with contextlib.suppress(OSError):  # somebody else's by now
                places.write_file(f"{top}/cgroup.subtree_control", f"-{name}")


def test_a_supervisor_is_nobody_elses_neighbour(groups: Cgroups) -> None:
    process = subprocess.Popen(["sleep", "600"])
    try:
        cgroups.join(process.pid, groups.supervisor_procs())
        places = Path(f"/proc/{process.pid}/cgroup").read_text().splitlines()
        assert all(f"/{groups.name}" in place for place in places if not place.startswith("0::/..")), places
    finally:
        process.kill()
        process.wait()


def test_io_limits_where_there_is_a_disk(groups: Cgroups) -> None:
    device = disk_of(groups.state_dir)
    if device is None:
        with pytest.raises(HostUnsupported):
            create(groups, Limits(io_write_bytes_per_sec=MIB))
        return
    create(groups, Limits(io_write_bytes_per_sec=MIB))
    io = groups.stat_paths(ID).io
    assert io is not None
    names = ("io.max", "blkio.throttle.write_bps_device")
    text = next((Path(io).parent / name).read_text() for name in names if (Path(io).parent / name).exists())
    assert device in text
    assert str(MIB) in text
    groups.apply(ID, Limits())
    with contextlib.suppress(StopIteration):
        text = next((Path(io).parent / name).read_text() for name in names if (Path(io).parent / name).exists())
        assert device not in text


def share_files(groups: Cgroups) -> dict[str, str]:
    """Return what the kernel says of weight, CPUs and swap, in the same words for both versions."""
    weight = raw.read(groups, ID, "cpu.weight" if groups.version == 2 else "cpu.shares").strip()
    cpus = raw.read(groups, ID, "cpuset.cpus" if groups.version == 1 else "cpuset.cpus.effective").strip()
    if groups.version == 2:
        swap = raw.read(groups, ID, "memory.swap.max").strip()
    else:
        both = int(raw.read(groups, ID, "memory.memsw.limit_in_bytes"))
        swap = "max" if both > 2**62 else str(both - int(raw.read(groups, ID, "memory.limit_in_bytes")))
    return {"weight": weight, "cpus": cpus, "swap": swap}


def everything(groups: Cgroups) -> dict[str, str]:
    """Return what a container has that is given neither weight nor CPUs nor swap."""
    cpus = raw.read(groups, ID, "cpuset.effective_cpus" if groups.version == 1 else "cpuset.cpus.effective").strip()
    return {"weight": "1024" if groups.version == 1 else "100", "cpus": cpus, "swap": "max"}


@pytest.mark.lxc("Memory and swap change in the order that the kernel takes", "L#453")
@pytest.mark.parametrize("privileged", [False, True])
def test_weight_cpus_and_swap_are_in_force_change_live_and_go_away(groups: Cgroups, run: Run, privileged: bool) -> None:
    create(
        groups, Limits(memory_bytes=64 * MIB, swap_bytes=16 * MIB, cpu_weight=200, cpuset="0"), privileged=privileged
    )
    weight = {1: "2048", 2: "200"}[groups.version]
    assert share_files(groups) == {"weight": weight, "cpus": "0", "swap": str(16 * MIB)}
    process = run(
        "import os; print('up', flush=True); sys.stdin.readline(); print(sorted(os.sched_getaffinity(0)), flush=True)"
    )
    up(process)
    assert os.sched_getaffinity(process.pid) == {0}
    for swap in (32, 8, 0):
        groups.apply(ID, Limits(memory_bytes=48 * MIB, swap_bytes=swap * MIB, cpu_weight=50, cpuset="1"))
        weight = {1: "512", 2: "50"}[groups.version]
        assert share_files(groups) == {"weight": weight, "cpus": "1", "swap": str(swap * MIB)}
    assert os.sched_getaffinity(process.pid) == {1}
    groups.apply(ID, Limits())
    assert share_files(groups) == everything(groups)
    if groups.version == 2:  # CPUs that the host gets later are its own too: all that there can be are in the list
        possible = Path("/sys/devices/system/cpu/possible").read_text().strip()
        assert raw.read(groups, ID, "cpuset.cpus").strip() == possible
    assert len(os.sched_getaffinity(process.pid)) >= 2


def test_a_change_that_fails_half_way_leaves_all_of_it_as_it_was(groups: Cgroups, run: Run) -> None:
    create(groups)
    before = share_files(groups)
    process = run(hold(100))
    up(process)
    # v2 writes memory first, v1 too: the container's own cgroup holds more than that
    with pytest.raises(InUse):
        groups.apply(ID, Limits(memory_bytes=8 * MIB, swap_bytes=MIB, cpu_weight=7, cpuset="0"))
    assert share_files(groups) == before == everything(groups)
    assert process.poll() is None


def test_a_change_that_fails_at_its_end_leaves_the_speed_of_disks_as_it_was(groups: Cgroups) -> None:
    if disk_of(groups.state_dir) is None:
        return  # then there is no such limit, as another test has it
    file = "io.max" if groups.version == 2 else "blkio.throttle.write_bps_device"
    create(groups)
    for limits in (Limits(), Limits(io_write_bytes_per_sec=MIB)):
        groups.apply(ID, limits)
        before = raw.read(groups, ID, file)
        with pytest.raises(SpecError):
            groups.apply(ID, Limits(io_write_bytes_per_sec=3 * MIB, cgroup={"memory.wings": "2"}))
        assert raw.read(groups, ID, file) == before
    assert str(MIB) in before


@pytest.mark.lxc("A CPU that is not there is told, and nothing is left of the start", "L#3443", "L#2953")
def test_a_cpu_that_is_not_there_is_told_and_leaves_nothing(groups: Cgroups) -> None:
    with pytest.raises(SetupFailed) as failed:
        create(groups, Limits(cpuset="4000"))
    assert "cpuset.cpus" in str(failed.value.details["path"])
    assert not groups.ids()


@pytest.mark.parametrize("limits", [Limits(pids=7), Limits(cgroup={"pids.max": "7"})], ids=["limit", "own file"])
def test_a_container_that_ends_while_its_limits_are_changed_does_not_run(
    groups: Cgroups, monkeypatch: pytest.MonkeyPatch, limits: Limits
) -> None:
    create(groups, Limits(pids=77))
    plan = groups._plan  # type: ignore[attr-defined]

    def late(*arguments: object, **options: object) -> object:
        found = plan(*arguments, **options)
        groups.remove(ID)
        return found

    monkeypatch.setattr(groups, "_plan", late)
    with pytest.raises(NotFound):
        groups.apply(ID, limits)
    groups.lift_pids(ID, 10)


def test_any_file_of_the_containers_own_cgroup_can_be_read(groups: Cgroups) -> None:
    create(groups, Limits(pids=77, memory_bytes=64 * MIB))
    memory = "memory.limit_in_bytes" if groups.version == 1 else "memory.max"
    assert raw.read(groups, ID, "pids.max") == "77\n"
    assert raw.read(groups, ID, memory) == f"{64 * MIB}\n"
    assert "populated 0" in raw.read(groups, ID, "cgroup.events")
    for missing in ("memory.no_such_file", "wings.max", "cgroup.kill"):
        with pytest.raises(NotFound) as caught:
            raw.read(groups, ID, missing)
        assert caught.value.field == "file"
    groups.remove(ID)
    with pytest.raises(NotFound) as caught:
        raw.read(groups, ID, "pids.max")
    assert caught.value.field is None


def test_operations_and_shares_of_disks_are_in_force_and_go_away(groups: Cgroups) -> None:
    create(groups)
    names = ("io.weight", "io.bfq.weight") if groups.version == 2 else ("blkio.bfq.weight", "blkio.weight")
    places = [place / name for name in names for place in groups.places(ID, name.split(".")[0])]
    there = [path for path in places if path.exists()]
    if there:
        groups.apply(ID, Limits(io_weight=300))
        assert "300" in there[0].read_text()
        groups.apply(ID, Limits())
        assert "300" not in there[0].read_text()
    else:
        with pytest.raises(HostUnsupported) as caught:
            groups.apply(ID, Limits(io_weight=300))
        assert caught.value.field == "limits.io_weight"
    if disk_of(groups.state_dir) is None:
        with pytest.raises(HostUnsupported) as caught:
            groups.apply(ID, Limits(io_read_ops_per_sec=100))
        assert caught.value.field == "limits.io_read_ops_per_sec"
        return
    file = "io.max" if groups.version == 2 else "blkio.throttle.read_iops_device"
    groups.apply(ID, Limits(io_read_ops_per_sec=100))
    assert "100" in raw.read(groups, ID, file)
    groups.apply(ID, Limits())
    assert "100" not in raw.read(groups, ID, file)


def test_huge_pages_are_limited_where_the_host_counts_them(groups: Cgroups) -> None:
    if groups.version == 2:
        offers = "hugetlb" in (groups.tree.parent / "cgroup.controllers").read_text().split()
    else:
        offers = any("hugetlb" in line.split()[3] for line in Path("/proc/mounts").read_text().splitlines())
    if not offers:
        with pytest.raises(HostUnsupported) as caught:
            create(groups, Limits(hugepages={"2MB": 4 * MIB}))
        assert caught.value.field == "limits.hugepages"
        return
    file = "hugetlb.2MB.max" if groups.version == 2 else "hugetlb.2MB.limit_in_bytes"
    create(groups, Limits(hugepages={"2MB": 4 * MIB}))
    assert raw.read(groups, ID, file).strip() == str(4 * MIB)
    groups.apply(ID, Limits(hugepages={"2MB": 2 * MIB}))
    assert raw.read(groups, ID, file).strip() == str(2 * MIB)
    groups.apply(ID, Limits())
    assert raw.read(groups, ID, file).strip() in ("max", "9223372036854771712")


def test_a_cpuset_controller_that_only_the_group_above_lacks_is_not_said_to_be_the_kernels_lack(tmp_path: Path) -> None:
    """As in a container of another runtime, or in a systemd unit without Delegate=."""
    given = v2.CgroupsV2("given-nothing", tmp_path, tmp_path)
    given.container_tree(ID).mkdir(parents=True)
    unmounted = v1.CgroupsV1("without-cpuset", tmp_path, tmp_path, {tmp_path: frozenset({"memory"})})
    (tmp_path / "without-cpuset" / f"c-{ID}").mkdir(parents=True)
    (tmp_path / "without-cpuset" / f"c-{ID}" / "memory.limit_in_bytes").write_text("4096\n")
    for groups, told in ((given, f"group {tmp_path} was not given it"), (unmounted, "hierarchy is not mounted here")):
        with pytest.raises(HostUnsupported, match=told) as caught:
            groups.apply(ID, Limits(cpuset="0"))
        assert caught.value.details["feature"] == "cpuset"


def test_any_file_is_written_at_start_and_live_and_a_bad_value_changes_nothing(groups: Cgroups) -> None:
    file, other = ("memory.high", "cpu.max.burst") if groups.version == 2 else ("memory.swappiness", "cpu.cfs_burst_us")
    create(groups, Limits(cgroup={file: "40960" if groups.version == 2 else "17"}))
    first = raw.read(groups, ID, file).strip()
    assert first in ("40960", "17")
    second = "81920" if groups.version == 2 else "18"
    groups.apply(ID, Limits(cgroup={file: second}))
    assert raw.read(groups, ID, file).strip() == second
    with pytest.raises(SpecError) as caught:
        groups.apply(ID, Limits(pids=77, cgroup={file: first, other: "much"}))
    assert caught.value.field == f"limits.cgroup.{other}"
    assert raw.read(groups, ID, file).strip() == second
    assert raw.read(groups, ID, "pids.max").strip() == "max"
    if groups.version == 1:  # a file of several lines, too
        with pytest.raises(SpecError):
            groups.apply(ID, Limits(cgroup={"memory.oom_control": "1", other: "much"}))
        assert "oom_kill_disable 0" in raw.read(groups, ID, "memory.oom_control")
    with pytest.raises(SpecError, match="no such file"):
        groups.apply(ID, Limits(cgroup={"memory.wings": "2"}))
