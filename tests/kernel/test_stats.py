"""Samples of real processes, and the whole ticker over its real socket."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from containers.core import cgroups
from containers.core.cgroups import Cgroups
from containers.core.host import Host
from containers.core.kernel.stats import Gone, Sampler, present_limits, public_host, sample_host
from containers.core.model.spec import Limits, Nic, Spec
from containers.core.plans.samples import Sample, rates
from containers.core.protocol import Decoder, Kind, control, parse_control
from containers.ticker.cards import Cards
from containers.ticker.chores import Chore
from containers.ticker.disk import measure
from containers.ticker.sampling import Samples
from containers.ticker.service import Ticker

from .patience import patient, wait_until

ID = "0123456789ab"
MIB = 1024**2


@pytest.fixture
def host() -> Iterator[Host]:
    state = Path(tempfile.mkdtemp(prefix="bx"))
    made = Host(state, secrets.token_hex(3)[:5])
    (made.containers_dir / ID / "upper").mkdir(parents=True)
    made.run_dir.mkdir(parents=True)
    yield made
    shutil.rmtree(state)
    shutil.rmtree(made.run_dir)


@pytest.fixture
def groups(host: Host) -> Iterator[Cgroups]:
    opened = cgroups.open(host)
    yield opened
    for container_id in opened.ids():
        opened.kill(container_id)
        opened.remove(container_id)
    opened.remove_instance()


@pytest.fixture
def run(groups: Cgroups) -> Iterator[Callable[[str], subprocess.Popen[bytes]]]:
    """Run Python code in the container's cgroups."""
    started: list[subprocess.Popen[bytes]] = []

    def start(code: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.stdin.readline(); exec({code!r})"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        started.append(process)
        cgroups.join(process.pid, groups.joined(ID).init_procs)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"go\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"up\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def sampler(groups: Cgroups) -> Iterator[Sampler]:
    made = Sampler(groups.stat_paths, lambda _id: ())
    yield made
    made.close()


def create(groups: Cgroups, limits: Limits | None = None) -> None:
    groups.create(ID, limits=limits or Limits(), owner_uid=3_000_000_000, privileged=False)


def one(sampler: Sampler) -> Sample:
    return sampler.sample([ID])[ID]


def test_memory_processes_and_limits(groups: Cgroups, sampler: Sampler, run: Any) -> None:
    create(groups, Limits(memory_bytes=128 * MIB, cpus=0.5))
    before = one(sampler)
    assert (before.processes, before.memory_limit_bytes, before.cpu_limit_cores) == (0, 128 * MIB, 0.5)
    run("held = bytearray(50 * 2**20); print('up', flush=True); import time; time.sleep(600)")
    after = one(sampler)
    assert after.processes == 1
    assert 50 * MIB <= after.memory_bytes - before.memory_bytes < 100 * MIB
    groups.apply(ID, Limits())
    assert (one(sampler).memory_limit_bytes, one(sampler).cpu_limit_cores) == (None, None)


def test_a_change_is_in_the_next_sample_however_long_nothing_happened(
    groups: Cgroups, sampler: Sampler, run: Any
) -> None:
    create(groups)
    run("print('up', flush=True); import time; time.sleep(600)")
    wait_until(lambda: _rests(sampler))
    second = run("print('up', flush=True); import time; time.sleep(600)")
    assert one(sampler).processes == 2
    wait_until(lambda: _rests(sampler))
    second.kill()
    second.wait()
    assert one(sampler).processes == 1
    groups.apply(ID, Limits(memory_bytes=96 * MIB, cpus=0.25))
    assert (one(sampler).memory_limit_bytes, one(sampler).cpu_limit_cores) == (96 * MIB, 0.25)


def _rests(sampler: Sampler) -> bool:
    """Say whether three samples in a row tell of no CPU time: what stays as it is then is not read."""
    return len({(one(sampler).cpu_usage_usec, one(sampler).memory_bytes) for _ in range(3)}) == 1


def test_the_limits_that_the_kernel_holds_it_to(groups: Cgroups) -> None:
    create(groups, Limits(memory_bytes=96 * MIB, cpus=0.25, pids=77))
    assert present_limits(groups.stat_paths(ID)) == {"memory_bytes": 96 * MIB, "cpus": 0.25, "pids": 77}
    groups.apply(ID, Limits())
    assert present_limits(groups.stat_paths(ID)) == {"memory_bytes": None, "cpus": None, "pids": None}
    with pytest.raises(Gone):
        present_limits(groups.stat_paths("0" * 12))


def test_cpu_is_a_counter_whose_rate_is_cores(groups: Cgroups, sampler: Sampler, run: Any) -> None:
    create(groups, Limits(cpus=0.3))
    run("print('up', flush=True)\nwhile True: pass")
    begun = time.monotonic()
    begin = last = one(sampler)
    seen = 0.0

    def held() -> bool:
        """Take a sample; whether it has come near to its limit, and was held to it."""
        nonlocal last, seen
        time.sleep(0.5)
        now = one(sampler)
        rate = rates(last, now)
        assert rate is not None
        seen, last = max(seen, rate.cpu_cores), now
        # one thread is on one core at most: by our clock, which was read before the first sample and after this one
        assert now.cpu_usage_usec - begin.cpu_usage_usec < 1_000_000 * (time.monotonic() - begun) + 100_000
        return seen >= 0.15 and last.cpu_throttled_usec > begin.cpu_throttled_usec

    wait_until(held)


def test_what_is_written_to_a_disk_is_counted(groups: Cgroups, sampler: Sampler, run: Any, host: Host) -> None:
    if os.major(os.stat(host.state_dir).st_dev) == 0:
        pytest.skip("the state directory is on no disk")
    create(groups)
    code = f"""
import mmap, os
fd = os.open({str(host.state_dir / "big")!r}, os.O_CREAT | os.O_WRONLY | os.O_DIRECT)
block = mmap.mmap(-1, 2**20)
for _ in range(8): os.write(fd, block)
print('up', flush=True)
"""
    before = one(sampler)
    run(code)
    assert one(sampler).disk_write_bytes - before.disk_write_bytes >= 8 * MIB
    # the counter is not read while nothing can change it
    wait_until(lambda: _rests(sampler))
    before = one(sampler)
    run(code)
    assert one(sampler).disk_write_bytes - before.disk_write_bytes >= 8 * MIB


def test_what_rests_costs_a_read_of_cpu_time_memory_and_limits(
    groups: Cgroups, sampler: Sampler, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(groups)
    run("print('up', flush=True); import time; time.sleep(600)")
    paths = groups.stat_paths(ID)
    least = 4 + (paths.swap is not None)
    reads: list[int] = []
    pread = os.pread

    def counted(fd: int, size: int, offset: int) -> bytes:
        reads.append(fd)
        return pread(fd, size, offset)

    def all_ten() -> list[int]:
        """Return how many files each of ten samples has read."""
        found = []
        for _ in range(10):
            reads.clear()
            one(sampler)
            found.append(len(reads))
        return sorted(found)

    monkeypatch.setattr(os, "pread", counted)
    wait_until(lambda: all_ten()[:9] == [least] * 9)


def test_a_container_that_ends_and_comes_back(groups: Cgroups, sampler: Sampler) -> None:
    create(groups)
    one(sampler)
    groups.remove(ID)
    assert sampler.sample([ID]) == {}
    create(groups)
    assert one(sampler).processes == 0
    groups.remove(ID)
    create(groups)
    assert one(sampler).processes == 0, "opened anew within one call"


def test_network_from_the_containers_view(groups: Cgroups) -> None:
    """What the host's end of a veth pair sends, the container receives."""
    name = f"bxt{secrets.token_hex(3)}"
    netns = f"bxt{secrets.token_hex(3)}"
    subprocess.run(["ip", "netns", "add", netns], check=True)
    try:
        pair = ["type", "veth", "peer", "name", "eth0", "netns", netns]
        subprocess.run(["ip", "link", "add", name, *pair], check=True)
        for command in (
            ["ip", "address", "add", "198.18.77.1/30", "dev", name],
            ["ip", "link", "set", name, "up"],
            ["ip", "-n", netns, "address", "add", "198.18.77.2/30", "dev", "eth0"],
            ["ip", "-n", netns, "link", "set", "eth0", "up"],
        ):
            subprocess.run(command, check=True)
        create(groups)
        sampler = Sampler(groups.stat_paths, lambda _id: (name,))
        before = one(sampler)
        # one-way traffic to the container: nothing listens, nothing answers but one ICMP error a second; and nothing
        # of it arrives before the kernel has found time to bring the links up
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:

            def arrived() -> bool:
                for _ in range(20):
                    with contextlib.suppress(OSError):
                        sender.sendto(bytes(1000), ("198.18.77.2", 9))
                return one(sampler).network_rx_bytes - before.network_rx_bytes >= 50_000

            wait_until(arrived)
        after = one(sampler)
        sampler.close()
        received = after.network_rx_bytes - before.network_rx_bytes
        sent = after.network_tx_bytes - before.network_tx_bytes
        assert sent < received / 2
    finally:
        subprocess.run(["ip", "link", "delete", name], check=False)
        subprocess.run(["ip", "netns", "delete", netns], check=True)


def test_the_host_as_a_whole(host: Host) -> None:
    old = sample_host(host.state_dir)
    time.sleep(0.2)
    found = public_host(old, sample_host(host.state_dir))
    assert 0 <= found["cpu_pct"] <= 100
    assert 0 < found["memory_bytes"] < found["memory_limit_bytes"]
    assert 0 < found["disk_used_bytes"] <= found["disk_total_bytes"]


def test_disk_used_counts_blocks_and_follows_no_link(host: Host) -> None:
    upper = host.container_dir(ID) / "upper"
    (upper / "file").write_bytes(bytes(3 * MIB))
    (upper / "out").symlink_to("/usr")
    used = measure(upper)
    assert used is not None
    assert 3 * MIB <= used < 4 * MIB
    assert measure(upper / "gone") is None


class Client:
    """A client of the ticker's socket."""

    def __init__(self, path: Path) -> None:
        self.link = socket.socket(socket.AF_UNIX)
        self.link.settimeout(patient(30))
        self.link.connect(str(path))
        self.decoder = Decoder()
        self.frames: list[tuple[Kind, bytes]] = []

    def send(self, **message: Any) -> None:
        self.link.sendall(control(**message))

    def frame(self) -> tuple[Kind, bytes]:
        while not self.frames:
            data = self.link.recv(65536)
            assert data
            self.frames.extend(self.decoder.feed(data))
        return self.frames.pop(0)

    def answer(self) -> dict[str, Any]:
        head = parse_control(self.frame()[1])
        if head["type"] == "error":
            return head
        body = b""
        while len(body) < head["bytes"]:
            body += self.frame()[1]
        found: dict[str, Any] = json.loads(body)
        return found


def spec() -> Spec:
    return Spec(
        id=ID,
        name="web-1",
        project="p",
        slot=1,
        image="busybox",
        layers=("x",),
        machine_id="0" * 32,
        created_at="2026-01-01T00:00:00Z",
        nics=(Nic(name="eth0", network="n", bridge="b", host_link="lo", mac="00:00:00:00:00:01"),),
    )


def test_the_ticker_samples_on_beside_a_chore_that_takes_long(host: Host, groups: Cgroups) -> None:
    create(groups)
    host.spec_path(ID).write_text(spec().to_json())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(bytes(100), ("127.0.0.1", 9))
    events: list[dict[str, Any]] = []
    begun, release, ended = threading.Event(), threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        release.wait()
        ended.set()

    ticker = Ticker(host, chores=[Chore("slow", 3600.0, slow)], on_events=events.extend)
    ticker.start()
    try:
        assert begun.wait(patient(30))
        client = Client(host.ticker_socket)
        client.send(cmd="subscribe", containers=[ID])
        # the chore lasts until these are there: a ticker that waited for it would send none of them
        times: list[float] = []
        while len({int(at) for at in times}) < 4:
            seen = client.answer()
            times += [seen["at"]] if seen["at"] else []
        assert set(seen["containers"]) == {ID}
        assert seen["containers"][ID]["network_rx_bytes"] > 0, "the host link of its spec"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as news:
            news.sendto(b'{"id": "x", "event": "oom"}', str(host.events_socket))
            news.sendto(b"nonsense", str(host.events_socket))
        client.send(cmd="history", container=ID, **{"from": int(min(times)), "to": int(max(times)) + 1}, points=2000)
        while "series" not in (history := client.answer()):
            pass
        assert len([value for value in history["series"]["processes"] if value is not None]) >= 4
        assert not events, "handed on after the chore"
        client.link.close()
        release.set()
        wait_until(lambda: events, what="the news")
    finally:
        release.set()
        ticker.stop(patient(30))
    assert events == [{"id": "x", "event": "oom"}]
    assert ended.is_set()
    assert not host.ticker_socket.exists()
    assert (host.stats_dir.stat().st_mode & 0o777, host.stats_dir.stat().st_uid) == (0o700, 0)


def test_history_outlives_the_ticker_and_goes_with_its_container(host: Host, groups: Cgroups) -> None:
    create(groups)

    def samples() -> Samples:
        return Samples(host, groups, disk_used=lambda _id: None, publish=lambda _tick: None)

    first = samples()
    first.tick()
    first.close()
    path = host.stats_dir / f"{ID}.rings"
    now = int(time.time())
    second = samples()
    history = second.history(ID, now - 90, now + 1, 100)
    assert [value for value in history["series"]["processes"] if value is not None] == [0]
    groups.remove(ID)
    shutil.rmtree(host.container_dir(ID))
    second.tick()
    assert not path.exists()
    second.close()


@pytest.mark.parametrize(
    "message",
    [
        {"cmd": "nothing"},
        {"cmd": "history", "container": "../../etc/passwd", "from": 0, "to": 1, "points": 1},
        {"cmd": "history", "container": ID, "from": -1, "to": 1, "points": 1},
        {"cmd": "subscribe", "containers": 7},
    ],
)
def test_nonsense_is_refused_and_the_others_are_served(host: Host, message: dict[str, Any]) -> None:
    ticker = Ticker(host)
    ticker.start()
    try:
        bad = Client(host.ticker_socket)
        bad.send(**message)
        assert bad.answer()["code"] == "bad-request"
        bad.link.close()
        good = Client(host.ticker_socket)
        good.send(cmd="latest", containers="all")
        assert good.answer()["containers"] == {}
        good.link.close()
    finally:
        ticker.stop()


def test_a_stranger_gets_nothing(host: Host) -> None:
    ticker = Ticker(host)
    ticker.start()
    try:
        os.chmod(host.ticker_socket, 0o666)
        os.chmod(host.run_dir, 0o755)
        code = (
            "import os, socket, sys; os.setgid(12345); os.setuid(12345); s = socket.socket(socket.AF_UNIX); "
            "s.connect(sys.argv[1]); print(s.recv(1000)[5:].decode())"
        )
        command = [sys.executable, "-I", "-S", "-c", code, str(host.ticker_socket)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=patient(60), check=True)
        assert json.loads(done.stdout)["type"] == "error"
    finally:
        ticker.stop()


def test_a_nic_that_is_plugged_in_later_is_counted(host: Host) -> None:
    host.spec_path(ID).write_text(spec().to_json())
    links = Cards(host).links(ID)
    assert "lo" in links
    assert {host.veth_name(1, index) for index in range(16)} <= set(links)
    assert host.veth_name(2, 0) not in links
