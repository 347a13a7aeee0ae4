"""lxcfs, where it is installed: a container sees its own limits, and survives lxcfs."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from containers.core.host import Host
from containers.core.lifecycle import granting, lxcfs, running
from containers.core.lifecycle.lxcfs import Lxcfs
from containers.core.model.limits import Limits
from containers.core.model.spec import Spec
from containers.core.rules import policy, policy_file

from .conftest import NoNetwork
from .patience import patient, wait_until
from .test_exec_basics import execute

PROGRAM = shutil.which("lxcfs")
MIB = 1024**2


@pytest.fixture(autouse=True)
def instance_of_host(host: Host, settings: object) -> None:
    settings.BOXROOM_RUN_DIR = host.run_dir  # type: ignore[attr-defined]


class Mounted:
    """An lxcfs of a test's own."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert PROGRAM is not None
        self.process = subprocess.Popen(
            [PROGRAM, "-f", str(self.place)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_until(lambda: (self.place / "proc/uptime").exists(), what="lxcfs is mounted")

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def unmount(self) -> None:
        subprocess.run(["umount", "-l", str(self.place)], check=False, stderr=subprocess.DEVNULL)


@pytest.fixture
def mounted() -> Iterator[Mounted]:
    place = Path(tempfile.mkdtemp(prefix="boxroom-lxcfs-"))
    place.chmod(0o755)  # as /var/lib/lxcfs: the container's root binds from it
    found = Mounted(place)
    yield found
    if found.process is not None:
        found.kill()
    found.unmount()
    place.rmdir()


@pytest.fixture
def rules(mounted: Mounted, host: Host) -> policy.Policy:
    text = f'[containers]\nlxcfs = "{mounted.place}"\n'
    host.policy_path.write_text(text)
    return policy_file.parse(text)


def start(host: Host, spec: Spec, rules: policy.Policy) -> None:
    running.start(host, spec, network=NoNetwork(), extras=granting.extras(host, rules, spec))


def says(spec: Spec, command: str) -> str:
    done = execute(spec.id, ["sh", "-c", command])
    assert done.exit_code == 0, (done.stdout, done.stderr)
    return done.stdout.decode()


def total_kib(spec: Spec) -> int:
    return int(says(spec, "cat /proc/meminfo").split()[1])


def uptime() -> float:
    return float(Path("/proc/uptime").read_text().split()[0])


def host_kib() -> int:
    return int(Path("/proc/meminfo").read_text().split()[1])


def test_without_lxcfs_a_container_sees_the_hosts_and_the_start_asks_for_nothing(
    host: Host, container: Callable[..., Spec], rules: policy.Policy, mounted: Mounted
) -> None:
    spec = container(limits=Limits(memory_bytes=64 * MIB))
    assert granting.extras(host, rules, spec).lxcfs == ""
    assert granting.found_lxcfs("/nowhere/at/all") == ""
    assert granting.found_lxcfs("") == ""
    start(host, spec, rules)
    assert total_kib(spec) == host_kib()
    watch = Lxcfs(host)
    assert watch.look() == watch.look() == 0


@pytest.mark.lxc("lxcfs may end and come back while containers run", "lxcfs#187", "lxcfs#565", "lxcfs#504")
def test_lxcfs_187_a_container_sees_its_own_limits_and_outlives_lxcfs(
    host: Host, container: Callable[..., Spec], rules: policy.Policy, mounted: Mounted
) -> None:
    if PROGRAM is None:
        assert granting.extras(host, rules, container()).lxcfs == ""
        return
    mounted.start()
    spec = container(limits=Limits(memory_bytes=64 * MIB, swap_bytes=0, cpuset="0"))
    assert granting.extras(host, rules, spec).lxcfs == str(mounted.place)
    watch = Lxcfs(host)
    watch.look()
    before = uptime()
    start(host, spec, rules)
    assert total_kib(spec) == 64 * 1024
    assert says(spec, "free -m").split("\n")[1].split()[1] == "64"
    assert float(says(spec, "cat /proc/uptime").split()[0]) <= uptime() - before + 1, "since it was started"
    assert says(spec, "grep -c ^processor /proc/cpuinfo").strip() == "1"
    assert says(spec, "nproc").strip() == "1"
    # it dies: what it showed is an error, not a wait; the next look shows what lies beneath
    mounted.kill()
    assert execute(spec.id, ["cat", "/proc/meminfo"]).exit_code == 1
    assert says(spec, "echo in").strip() == "in"
    assert watch.look() == 1
    assert total_kib(spec) == host_kib()
    assert watch.look() == 0
    # a container that is started meanwhile starts, and sees the host's
    other = container(limits=Limits(memory_bytes=64 * MIB))
    start(host, other, rules)
    assert total_kib(other) == host_kib()
    # it comes back: so does what it shows, in containers that run
    mounted.unmount()
    mounted.start()
    assert watch.look() == 2
    assert total_kib(spec) == total_kib(other) == 64 * 1024


def test_a_container_that_could_not_follow_in_time_is_tried_again(
    host: Host, container: Callable[..., Spec], rules: policy.Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(host, container(), rules)
    watch = Lxcfs(host)
    monkeypatch.setattr(watch, "_seen", "1 /what/was/there/before")
    monkeypatch.setattr(lxcfs, "_HELPER_SEC", 0.0)
    assert watch.look() == 0
    monkeypatch.setattr(lxcfs, "_HELPER_SEC", patient(60))
    assert (watch.look(), watch.look()) == (1, 0)


@pytest.mark.lxc("A frozen container can be stopped though lxcfs died", "lxcfs#185")
def test_lxcfs_185_a_frozen_container_is_stopped_though_lxcfs_died(
    host: Host, container: Callable[..., Spec], rules: policy.Policy, mounted: Mounted
) -> None:
    if PROGRAM is not None:
        mounted.start()
    spec = container()
    start(host, spec, rules)
    running.freeze(host, spec.id)
    if PROGRAM is not None:
        mounted.kill()
    last = running.stop(host, spec.id, timeout_sec=patient(60), force=False)
    assert last is not None
