"""Bugs that other runtimes had, each staged against ours: life cycle, storage, attaching, signals.

Tests are named after the bug. Those of one subject stand with that subject's tests; here are the others.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from containers.core.errors import CoreError, SpecError
from containers.core.host import Host
from containers.core.hoststore import store
from containers.core.kernel import halt
from containers.core.lifecycle import running, stored
from containers.core.model.spec import Spec
from containers.core.model.states import Status
from containers.core.proc.records import RunFile

from .conftest import NoNetwork
from .patience import patient, wait_until
from .test_exec_basics import execute
from .test_sessions_terminal import Terminal

Make = Callable[..., Spec]


@pytest.fixture(autouse=True)
def instance_of_host(host: Host, settings: Any) -> None:
    settings.BOXROOM_RUN_DIR = host.run_dir


@pytest.fixture
def mounted() -> Iterator[Path]:
    """A file system of the host's, mounted on a directory of its own; unmounted afterwards if it still is."""
    place = Path(tempfile.mkdtemp(prefix="boxroom-host-"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "host", place], check=True)
    (place / "precious").write_text("the host's")
    yield place
    if place.is_mount():
        subprocess.run(["umount", place], check=True)
    place.rmdir()


# -- signals and states


@pytest.mark.lxc(
    "A pid that belongs to another process by now is left alone", "crun#1200", "conmon#659", "podman#25104"
)
def test_lxc_3254_a_number_that_is_another_processes_by_now_is_left_alone(host: Host, container: Make) -> None:
    """Also crun#1200, conmon#659: init and supervisor are gone, and their pids belong to somebody else."""
    spec = container()
    running.start(host, spec, network=NoNetwork())
    run = RunFile.read(host.run_path(spec.id))
    assert run is not None
    running.stop(host, spec.id, kill=True)
    with subprocess.Popen(["sleep", "60"]) as other:
        try:
            taken = dataclasses.replace(
                run,
                init=dataclasses.replace(run.init, pid=other.pid),
                supervisor=dataclasses.replace(run.supervisor, pid=other.pid),
            )
            taken.write(host)
            assert running.observe(host)[spec.id].status is Status.STOPPED
            running.stop(host, spec.id, kill=True)
            running.sweep(host)
            assert other.poll() is None
        finally:
            other.kill()
    assert not host.run_path(spec.id).exists()


@pytest.mark.lxc("A stop while init cannot hear it yet is heard later, and ends with the container", "L#2456")
def test_lxd_4102_a_stop_while_init_cannot_hear_it_yet_is_heard_later(host: Host, container: Make) -> None:
    """Also lxc#2456: the stop ends with the container, not with its time-out, which would be told as "killed"."""
    spec = container(init_command=("/bin/sh", "-c", late("PWR")))
    pid = running.start(host, spec, network=NoNetwork()).init_pid
    wait_until(lambda: deaf_to_sigint(pid), what="the shell, which catches SIGINT at first, ignores it")
    assert halt.choose_for(pid) is None, "a signal would be lost now"
    with heard_later(spec):
        ended = running.stop(host, spec.id, timeout_sec=patient(120))
    assert (ended.reason, ended.exit_code) == ("stopped", 7)


def test_lxd_4102_a_script_is_not_ended_before_it_has_set_its_traps(
    host: Host, container: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shell catches SIGINT from the first, to end by it: what it is to do at its end, it says later."""
    monkeypatch.setattr(halt, "TRAPS_SEC", patient(60))
    script = "until [ -e /tmp/hear ]; do usleep 10000; done; trap 'exit 7' TERM; while :; do sleep 60 & wait $!; done"
    spec = container(init_command=("/bin/sh", "-c", script))
    pid = running.start(host, spec, network=NoNetwork()).init_pid
    wait_until(lambda: catches(pid, signal.SIGINT), what="the shell has begun")
    with heard_later(spec):
        ended = running.stop(host, spec.id, timeout_sec=patient(120))
    assert (ended.reason, ended.exit_code) == ("stopped", 7)


def catches(pid: int, number: int) -> int:
    caught = re.search(r"^SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(caught[1], 16) >> (number - 1) & 1 if caught else 0


def deaf_to_sigint(pid: int) -> int:
    ignored = re.search(r"^SigIgn:\s*(\w+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(ignored[1], 16) >> (signal.SIGINT - 1) & 1 if ignored else 0


def late(name: str) -> str:
    """Return the script of an init that hears a signal only once there is a file."""
    wait = f"until [ -e /tmp/hear ]; do usleep 10000; done; trap 'exit 7' {name}"
    return f"trap '' INT; {wait}; while :; do sleep 60 & wait $!; done"


@contextlib.contextmanager
def heard_later(spec: Spec) -> Iterator[None]:
    """Let that init hear a while after this has begun."""

    def hear() -> None:
        with contextlib.suppress(CoreError):  # the container's end may be the command's
            execute(spec.id, ["touch", "/tmp/hear"])

    timer = threading.Timer(0.3, hear)
    timer.start()
    yield
    timer.join()


@pytest.mark.lxc("So is a halt signal that was configured")
def test_lxd_4102_a_configured_signal_is_sent_until_init_can_hear_it(host: Host, container: Make) -> None:
    spec = container(init_command=("/bin/sh", "-c", late("USR1")), halt_signal="SIGUSR1")
    pid = running.start(host, spec, network=NoNetwork()).init_pid
    assert not halt.given_for(signal.SIGUSR1, pid).sure
    with heard_later(spec):
        ended = running.stop(host, spec.id, timeout_sec=patient(120))
    assert (ended.reason, ended.exit_code) == ("stopped", 7)


@pytest.mark.lxc("A container that hangs holds up neither the list nor the others", "D#11227", "D#1753", "L#1080")
def test_lxc_1948_one_that_hangs_holds_up_neither_the_list_nor_the_others(host: Host, container: Make) -> None:
    """Also lxd#11227: its supervisor answers nothing."""
    stuck, other = container(), container()
    for spec in (stuck, other):
        running.start(host, spec, network=NoNetwork())
    run = RunFile.read(host.run_path(stuck.id))
    assert run is not None
    os.kill(run.supervisor.pid, signal.SIGSTOP)
    try:
        # it does not go on before all of this has come to its end
        assert {seen.status for seen in running.observe(host).values()} == {Status.RUNNING}
        assert execute(other.id, ["true"]).exit_code == 0
        running.stop(host, other.id, kill=True)
        assert running.observe(host)[other.id].status is Status.STOPPED
    finally:
        os.kill(run.supervisor.pid, signal.SIGCONT)


@pytest.mark.lxc("A supervisor whose clients went away rests", "L#4364", "I#217")
def test_lxc_2228_a_supervisor_whose_client_went_away_rests(host: Host, running_container: Spec) -> None:
    """Also lxc#4364: none of it turns in circles once its clients are gone, however they went."""
    run = RunFile.read(host.run_path(running_container.id))
    assert run is not None
    for _ in range(3):
        client = Terminal(host.supervisor_socket(running_container.id))
        client.open(session="console")
        client.socket.sendall(b"\x00\x00")  # half of a frame
        client.socket.close()
    stat = Path(f"/proc/{run.supervisor.pid}/stat")

    def switches() -> int:
        text = (stat.parent / "status").read_text()
        return sum(int(line.split()[1]) for line in text.splitlines() if "ctxt_switches" in line)

    seen = [switches()]

    def rests() -> bool:
        seen.append(switches())
        return len(seen) > 25 and seen[-1] - seen[-21] < 10

    wait_until(rests, what="it wakes no more")


@pytest.mark.lxc("Terminals that were closed are given back", "L#1552", "L#1054")
def test_lxc_2746_terminals_that_were_closed_are_given_back(host: Host, running_container: Spec) -> None:
    """Also lxc#1552: the container's own devpts, whose number is bounded."""
    count = ["/bin/sh", "-c", "ls /dev/pts | grep -c [0-9]"]
    before = execute(running_container.id, count).stdout
    for _ in range(3):
        clients = [Terminal(host.supervisor_socket(running_container.id)) for _ in range(6)]
        for client in clients:
            client.open(command=["/bin/sh", "-c", "exit 0"])
        for client in clients:
            client.wait(lambda client=client: client.eof, what="its end")  # type: ignore[misc]
            client.socket.close()
    wait_until(lambda: execute(running_container.id, count).stdout == before, what="all were given back")


# -- locks


@pytest.mark.lxc("A lock that is a link by now is not followed")
def test_cve_2015_1331_a_lock_that_is_a_link_is_not_followed(host: Host, mounted: Path) -> None:
    host.locks_dir.mkdir(exist_ok=True)
    assert host.locks_dir.stat().st_mode & 0o077 == 0
    (host.locks_dir / "container-planted").symlink_to(mounted / "made")
    with pytest.raises(OSError, match="symbolic link"), store.lock(host, "container", "planted", wait_sec=0):
        pytest.fail("it was followed")
    assert not (mounted / "made").exists()


@pytest.mark.lxc("A lock is free when its holder was killed", "L#2245")
def test_lxc_395_a_lock_is_free_when_its_holder_was_killed(host: Host, container: Make) -> None:
    spec = container()
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        with store.lock(host, "container", spec.id):
            os.write(write_fd, b"x")
            signal.pause()
        os._exit(1)
    assert os.read(read_fd, 1) == b"x"
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    for fd in (read_fd, write_fd):
        os.close(fd)
    with store.lock(host, "container", spec.id, wait_sec=0):
        assert stored.rename(host, container().id, "free").name == "free"


# -- mounts and removal


@pytest.mark.lxc("What the host unmounts is held by no container", "runc#2404", "L#3580")
def test_lxc_2477_what_the_host_unmounts_is_held_by_no_container(host: Host, container: Make, mounted: Path) -> None:
    """Also runc#2404: the file system is really gone, not only its place."""
    spec = container()
    running.start(host, spec, network=NoNetwork())
    run = RunFile.read(host.run_path(spec.id))
    assert run is not None
    subprocess.run(["umount", mounted], check=True)
    for pid in (run.init.pid, run.supervisor.pid):
        assert str(mounted) not in Path(f"/proc/{pid}/mountinfo").read_text()


def test_lxc_3880_what_a_container_mounts_is_not_on_the_host(host: Host, running_container: Spec) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    script = "mkdir -p /m; mount -t tmpfs inner-one /m; mount --make-rshared /; mount -t tmpfs inner-two /tmp; mount"
    inside = execute(running_container.id, ["/bin/sh", "-c", script]).stdout
    assert b"inner-one" in inside
    assert b"inner-two" in inside
    assert "inner-" not in Path("/proc/self/mountinfo").read_text()
    assert "inner-" not in before


@pytest.mark.lxc("A removal does not follow what is mounted inside", "L#1051", "L#190", "L#449")
def test_lxd_1047_a_removal_does_not_follow_what_is_mounted_inside(host: Host, container: Make, mounted: Path) -> None:
    """Also lxc#1051: somebody bound a directory of the host's into the files of a stopped container."""
    spec = container()
    tree = store.rootfs(host, store.load_root(host, spec.id).writable)
    inside = tree / "mnt"
    inside.mkdir()
    subprocess.run(["mount", "--bind", mounted, inside], check=True)
    try:
        stored.delete(host, spec.id)
        assert (mounted / "precious").read_text() == "the host's"
    finally:
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            if (place := line.split()[4]).startswith(str(host.state_dir)):
                subprocess.run(["umount", place], check=True)
    stored.collect(host)
    store.empty_trash(host)
    assert not store.exists(host, spec.id)
    assert (mounted / "precious").exists()


def test_cve_2021_43784_what_is_too_long_is_refused_by_name(host: Host, container: Make) -> None:
    spec = container()
    for change in ({"name": "a" * 70_000}, {"machine_id": "0" * 70_000}, {"environment": {"A" * 70_000: ""}}):
        with pytest.raises(SpecError) as refused:
            dataclasses.replace(spec, **change).check()  # type: ignore[arg-type]
        assert refused.value.field == next(iter(change))


@pytest.mark.lxc("No set-user-id program of a container can be reached on the host")
def test_cve_2025_64507_nobody_on_the_host_reaches_a_containers_files(host: Host, running_container: Spec) -> None:
    made = execute(
        running_container.id, ["/bin/sh", "-c", "cp /bin/busybox /tmp/s; chmod 4755 /tmp/s; stat -c %a /tmp/s"]
    )
    assert made.stdout == b"4755\n"
    program = store.rootfs(host, store.load_root(host, running_container.id).writable) / "tmp/s"
    assert program.stat().st_uid == 0, "it is root's on the disk"
    nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "ls", str(program)]
    assert "Permission denied" in subprocess.run(nobody, capture_output=True, text=True, check=False).stderr


@pytest.mark.lxc("Sockets are named by ids: no name is cut, and no two are the same", "stacker#645")
def test_lxd_1144_a_sockets_name_is_whole_however_long_names_are(host: Host, container: Make) -> None:
    deep = Host(Path("/" + "d" * 200), host.instance)
    specs = [container(name=name) for name in ("a" * 63, "a" * 62 + "b")]
    for where in (host, deep):
        names = {str(where.supervisor_socket(spec.id)) for spec in specs}
        assert len(names) == 2
        assert max(map(len, names)) < 108


@pytest.mark.lxc("The console belongs to root and the group tty, and is nobody else's to read", "lxc-console")
def test_lxc_4088_the_console_is_roots(host: Host, running_container: Spec) -> None:
    told = execute(running_container.id, ["stat", "-c", "%u %g %a %F", "/dev/console"]).stdout.split()
    assert told[0] == b"0"
    assert int(told[2], 8) & 0o007 == 0
    assert b"character" in told
