"""Disk limits: a writable layer in a file with a file system of its own, on this kernel."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from containers.core import failpoints
from containers.core.errors import HostUnsupported, InUse, InvalidTransition, SetupFailed, StorageFull
from containers.core.hoststore import store
from containers.core.kernel import disk_mount, files, spare_files
from containers.core.lifecycle import filing, leaks, reading, resizing, running, stored
from containers.core.model.limits import Limits
from containers.core.proc.records import RunFile
from containers.core.storage import disks, room

from . import answers
from .conftest import NoNetwork, make_layer, make_spec, unmount
from .patience import wait_until
from .test_storage import killed_at, read, recovered, twin_of
from .test_storage import run_to_end as console_of

MIB = 1024**2
SMALL = Limits(disk_bytes=32 * MIB)


def disk_of(host, container_id: str) -> Path:
    return disks.path(host, store.load_root(host, container_id).writable)


def freed(*paths: Path) -> None:
    """Wait until no loop device has a disk: the kernel takes it away with its last user."""
    for path in paths:
        wait_until(lambda path=path: disk_mount.device_of(str(path)) is None, what="the loop device is free")


def run_to_end(host, spec, script: str) -> str:
    """Run a script as the container's init and return what it printed, with a program's ends of lines."""
    return console_of(host, spec, script).replace("\r\n", "\n")


def limited(host, spec, limits: Limits):
    """Change a stopped container's limits as the worker does."""
    resizing.resize(host, spec.id, store.load(host, spec.id).limits, limits)
    store.save(host, dataclasses.replace(store.load(host, spec.id), limits=limits))


def test_bytes_and_inodes_hold_and_df_shows_them(host, container):
    spec = container(limits=Limits(disk_bytes=32 * MIB, disk_inodes=200))
    disk = disk_of(host, spec.id)
    assert disk.stat().st_size == 32 * MIB
    assert disk.stat().st_blocks * 512 < 4 * MIB
    told = run_to_end(
        host,
        spec,
        "set -- $(df -k / | tail -1) $(df -i / | tail -1); echo $2 $8;"
        "dd if=/dev/zero of=/big bs=1M count=64 2>&1 | grep -o 'No space left'; rm /big;"
        "i=0; while touch /f$i 2>/dev/null; do i=$((i+1)); done; rm /f*; echo $i;"
        "dd if=/dev/zero of=/kept bs=1M count=8 2>/dev/null && stat -c %s /kept",
    ).splitlines()
    kib, inodes = map(int, told[0].split())
    assert 24 * 1024 < kib <= 32 * 1024
    assert told[1] == "No space left"
    assert 200 <= inodes < 300
    assert 200 <= int(told[2]) < 300
    assert told[3] == str(8 * MIB)
    freed(disk)
    assert disk.stat().st_blocks * 512 >= 8 * MIB


@pytest.mark.parametrize("state", ["stopped", "running"])
def test_snapshots_clones_and_restores_of_a_limited_container(host, container, state):
    spec = container(limits=SMALL)
    disk = disk_of(host, spec.id)
    run_to_end(host, spec, "echo one > /a; mkdir /d; rm /etc/passwd; dd if=/dev/zero of=/d/z bs=1M count=4 2>/dev/null")
    store.save(host, dataclasses.replace(store.load(host, spec.id), init_command=("/sbin/idle",)))
    if state == "running":
        running.start(host, store.load(host, spec.id), network=NoNetwork())
    kept = stored.snapshot(host, spec.id, "snap0")
    assert kept.size_bytes >= 4 * MIB
    # what is in the snapshot stays on the disk, too, and counts on
    assert disk_of(host, spec.id) == disk
    assert not any(disks.there(host, layer) for layer in kept.layers)
    found, _ = answers.read(host, spec.id, "changes", after="snap0")
    assert found["entries"] == [] if "entries" in found else not found.get("total")
    twin = stored.clone(host, spec.id, twin_of(spec, limits=Limits(disk_bytes=48 * MIB)))
    assert disk_of(host, twin.id).stat().st_size == 48 * MIB
    assert (read(host, twin.id, "/a"), read(host, twin.id, "/etc/passwd")) == (b"one\n", None)
    if state == "running":
        running.stop(host, spec.id, kill=True)
    freed(disk)
    back = stored.restore(host, spec.id, kept.layers)
    assert back.limits == SMALL
    assert disk_of(host, spec.id) != disk
    assert not disk.exists()
    assert (
        run_to_end(host, back, "cat /a; df -k / | tail -1 | { read d s r; test $s -le 32768 && echo held; }")
        == "one\nheld\n"
    )
    freed(disk_of(host, spec.id), disk_of(host, twin.id))
    assert leaks.find(host) == []


def test_a_limit_comes_changes_and_goes_while_it_is_stopped_and_everything_stays(host, container):
    spec = container()
    script = (
        "dd if=/dev/urandom of=/d bs=1M count=20 2>/dev/null; ln /d /e; rm -r /etc/passwd; chown 7:8 /d; md5sum </d"
    )
    digest = run_to_end(host, spec, script)
    look = "md5sum </d; stat -c '%u %g %h' /e; test -e /etc/passwd || echo gone"
    for limits in (Limits(disk_bytes=64 * MIB), Limits(disk_bytes=40 * MIB, disk_inodes=500), Limits()):
        limited(host, spec, limits)
        layer = store.load_root(host, spec.id).writable
        assert disks.there(host, layer) == (limits.disk_bytes is not None)
        assert run_to_end(host, spec, look) == f"{digest}7 8 2\ngone\n"
    limited(host, spec, Limits(disk_bytes=64 * MIB))
    before = store.load_root(host, spec.id)
    with pytest.raises(InUse) as refused:
        limited(host, spec, Limits(disk_bytes=16 * MIB))
    assert refused.value.field == "limits.disk_bytes"
    assert store.load_root(host, spec.id) == before
    recovered(host)
    freed(disk_of(host, spec.id))


def test_while_it_runs_a_disk_grows_or_says_that_it_cannot(host, container):
    spec = container(limits=SMALL, init_command=("/sbin/idle",))
    disk = disk_of(host, spec.id)
    running.start(host, spec, network=NoNetwork())
    pid = running.observe(host)[spec.id].init_pid
    larger = Limits(disk_bytes=64 * MIB)

    def inside() -> int:
        room = os.statvfs(f"/proc/{pid}/root/")
        return room.f_blocks * room.f_frsize

    for unfit in (Limits(), Limits(disk_bytes=24 * MIB), Limits(disk_bytes=32 * MIB, disk_inodes=500)):
        with pytest.raises(InvalidTransition, match="Stop it first"):
            resizing.resize(host, spec.id, SMALL, unfit)
    small = inside()
    if disks.may_grow():
        resizing.resize(host, spec.id, SMALL, larger)
        assert inside() > small + 24 * MIB
        assert disks.holds(disk, disks.wanted(larger))
    else:  # a host whose root has no CAP_SYS_RESOURCE
        with pytest.raises(InvalidTransition, match="Stop it first"):
            resizing.resize(host, spec.id, SMALL, larger)
        assert inside() == small
        assert disk.stat().st_size == 32 * MIB
    resizing.resize(host, spec.id, *(larger,) * 2 if disks.may_grow() else (SMALL,) * 2)
    running.stop(host, spec.id, kill=True)
    freed(disk)


FILL = "(i=0; while true > /f$i; do i=$((i+1)); done) 2>/dev/null; df -i / | tail -1 | { read d s u f r; echo $f; }"


def test_one_that_has_no_file_left_to_make_starts_again_and_again(host, container):
    spec = container(limits=Limits(disk_bytes=32 * MIB, disk_inodes=200))
    assert run_to_end(host, spec, FILL) == "0\n"
    # what overlay needs is kept from it a second time
    assert run_to_end(host, spec, FILL) == "0\n"
    assert run_to_end(host, spec, "rm /f1? && touch /again && echo room") == "room\n"
    freed(disk_of(host, spec.id))


def test_a_worker_that_is_slower_than_the_container_finds_the_files_kept_all_the_same(host, container, monkeypatch):
    spec = container(limits=Limits(disk_bytes=32 * MIB, disk_inodes=200))
    assert run_to_end(host, spec, FILL) == "0\n"
    monkeypatch.setattr(spare_files, "keep", lambda top: None)  # of this process: as if it were late
    assert run_to_end(host, spec, FILL) == "0\n"
    assert run_to_end(host, spec, FILL) == "0\n"
    freed(disk_of(host, spec.id))


def test_one_that_has_no_file_left_and_none_kept_says_whose_limit_it_is(host, container):
    spec = container(limits=Limits(disk_bytes=32 * MIB, disk_inodes=200))
    disk = disk_of(host, spec.id)
    with disks.opened(disk) as top:
        spare_files.give(top)
    assert run_to_end(host, spec, FILL) == "0\n"
    with pytest.raises(StorageFull, match="disk is full"):
        run_to_end(host, spec, "true")
    limited(host, spec, Limits(disk_bytes=32 * MIB, disk_inodes=400))
    assert run_to_end(host, store.load(host, spec.id), "rm /f1? && touch /again && echo room") == "room\n"
    freed(disk_of(host, spec.id), disk)
    assert leaks.find(host) == []


@pytest.mark.parametrize("who", ["init", "supervisor"])
def test_no_loop_device_outlives_a_killed_container(host, container, who):
    spec = container(limits=SMALL, init_command=("/sbin/idle",))
    running.start(host, spec, network=NoNetwork())
    disk = disk_of(host, spec.id)
    assert disk_mount.device_of(str(disk)) is not None
    assert str(host.state_dir) not in Path("/proc/self/mountinfo").read_text()
    run = RunFile.read(host.run_path(spec.id))
    os.kill(getattr(run, who).pid, signal.SIGKILL)
    freed(disk)
    wait_until(lambda: (running.sweep(host), running.observe(host)[spec.id].init_pid)[1] is None)
    stored.delete(host, spec.id)
    assert not disk.exists()
    wait_until(lambda: leaks.find(host) == [], what="the supervisor that told of the end has ended, too")


def test_files_of_a_limited_container_are_read_and_written(host, container):
    spec = container(limits=SMALL)

    def ask(verb: str, **asked) -> dict:
        read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
        with os.fdopen(read_fd) as pipe, filing.prepared(host, spec.id, verb, asked) as ready:
            process = filing.start(host, ready, write_fd)
            os.close(write_fd)
            answer = json.loads(pipe.readline())
            assert process.wait(60) == 0
        return filing.checked(answer)

    ask("make", path="/made", mode=None)
    listed = ask("list", path="/", offset=0, limit=100, sort="name", descending=False, match="")["items"]
    assert {"bin", "etc", "made"} <= {one["name"] for one in listed}
    found, _ = answers.read(host, spec.id, "list", after=reading.NOW)
    assert "made" in json.dumps(found)
    freed(disk_of(host, spec.id))


@pytest.mark.parametrize("point", ["fresh.disk", "resize.copied", "resize.committed"])
def test_a_killed_change_of_a_limit_is_done_or_not(host, container, point):
    spec = container()
    (store.rootfs(host, store.load_root(host, spec.id).writable) / "f").write_text("x")
    before = store.load_root(host, spec.id)
    killed_at(host, point, "resize", spec.id, dataclasses.asdict(SMALL))
    recovered(host)
    assert (store.load_root(host, spec.id) == before) == (point != "resize.committed")
    resizing.resize(host, spec.id, Limits(), SMALL)
    resizing.resize(host, spec.id, Limits(), SMALL)
    recovered(host)
    assert disk_of(host, spec.id).stat().st_size == 32 * MIB
    assert read(host, spec.id, "/f") == b"x"
    freed(disk_of(host, spec.id))


@pytest.mark.parametrize("fault", ["fresh.disk=ENOSPC", "resize.copied=EIO"])
def test_a_change_that_fails_leaves_everything_as_it_was(host, container, monkeypatch, fault):
    spec = container()
    before = store.load_root(host, spec.id)
    monkeypatch.setattr(failpoints, "_hits", {})
    monkeypatch.setenv("BOXROOM_FAILPOINTS", fault)
    (host.state_dir / failpoints.MARKER).touch(mode=0o600)
    with pytest.raises(OSError, match=r"No space|Input/output"):
        resizing.resize(host, spec.id, Limits(), SMALL)
    monkeypatch.delenv("BOXROOM_FAILPOINTS")
    assert store.load_root(host, spec.id) == before
    assert stored.orphans(host) == []
    assert stored.recover(host) == []
    freed(*host.layers_dir.glob("*/disk"), *host.trash_dir.glob("*/disk"))


def test_a_disk_with_an_error_on_it_is_mended_before_the_next_start(host, container):
    spec = container(limits=SMALL)
    disk = disk_of(host, spec.id)
    run_to_end(host, spec, "echo kept > /f")
    freed(disk)
    assert not disks.mend(disk)
    subprocess.run(["/usr/sbin/debugfs", "-w", "-R", "ssv state 2", disk], check=True, capture_output=True)
    with disks.opened(disk):
        assert not disks.mend(disk)  # not while it is in use
    freed(disk)
    assert run_to_end(host, spec, "cat /f") == "kept\n"
    freed(disk)
    assert not disks.mend(disk)
    # what no file system is any more is told, and not started
    with open(disk, "r+b") as file:
        file.write(bytes(1024))
        file.write(b"\xff" * 4096)
    with pytest.raises(SetupFailed, match="disk"):
        run_to_end(host, spec, "cat /f")


@pytest.fixture(params=["btrfs", "xfs"])
def elsewhere(request, host, tmp_path):
    """An instance whose store is on another file system."""
    image = tmp_path / "image"
    image.touch()
    os.truncate(image, 400 * MIB)
    subprocess.run([f"/usr/sbin/mkfs.{request.param}", "-q", "-f", image], check=True)
    subprocess.run(["/usr/bin/mount", "-o", "loop", image, host.store_dir], check=True)
    store.prepare(host)
    yield host, request.param
    for container_id in store.container_ids(host):
        running.stop(host, container_id, kill=True)
    unmount(host.store_dir)


def test_layers_disks_and_snapshots_on_other_file_systems(elsewhere):
    host, kind = elsewhere
    layer = make_layer(host)
    assert room.of(host.layers_dir).kind == kind
    for limits in (Limits(), SMALL):
        spec = stored.create(host, make_spec(layer, limits=limits))
        run_to_end(host, spec, "echo one >/a; rm /etc/passwd; dd if=/dev/zero of=/z bs=1M count=4 2>/dev/null")
        kept = stored.snapshot(host, spec.id, "snap0")
        run_to_end(host, spec, "rm /a")
        stored.restore(host, spec.id, kept.layers)
        fill = "dd if=/dev/zero of=/big bs=1M count=64 2>&1 | grep -o 'No space left'; rm /big"
        look = f"cat /a; test -e /etc/passwd || {{ {fill}; }}; echo"
        held = "No space left\n" if limits.disk_bytes else ""
        assert run_to_end(host, spec, look) == f"one\n{held}\n"
        if limits.disk_bytes is None:
            run_to_end(host, spec, "dd if=/dev/zero of=/big bs=1M count=40 2>/dev/null")
            with pytest.raises(InUse):
                limited(host, spec, SMALL)
            run_to_end(host, spec, "rm /big")
        limited(host, spec, SMALL if limits == Limits() else Limits())
        assert run_to_end(host, spec, "cat /a") == "one\n"
        for one in host.layers_dir.glob("*/disk"):
            freed(one)


def test_the_room_of_a_file_system_and_its_kind(host):
    found = room.of(host.layers_dir)
    told = subprocess.run(["findmnt", "-n", "-b", "-o", "FSTYPE,SIZE", "-T", host.layers_dir],
                          capture_output=True, text=True, check=True).stdout.split()  # fmt: skip
    assert [found.kind, str(found.total_bytes)] == told
    assert 0 < found.free_bytes < found.total_bytes


def test_without_its_maker_a_limit_is_refused(host, container, monkeypatch):
    monkeypatch.setattr(disks, "MAKER", "mkfs.none")
    with pytest.raises(HostUnsupported) as refused:
        container(limits=SMALL)
    assert refused.value.field == "limits.disk_bytes"
    assert store.container_ids(host) == []
    recovered(host)


def test_two_who_mount_a_disk_share_one_loop_device_and_what_is_removed_is_given_back(host, container):
    disk = disk_of(host, container(limits=SMALL).id)
    with disks.opened(disk) as one, disks.opened(disk) as other:
        (one / "rootfs/x").write_text("seen")
        assert (other / "rootfs/x").read_text() == "seen"
        assert os.stat(one).st_dev == os.stat(other).st_dev
        (one / "rootfs/big").write_bytes(bytes(8 * MIB))
        files.sync_tree(one)
        assert disk.stat().st_blocks * 512 > 8 * MIB
        (other / "rootfs/big").unlink()
        files.sync_tree(one)
        wait_until(lambda: disk.stat().st_blocks * 512 < 4 * MIB, what="the room is the host's again")
        listed = subprocess.run(
            ["/usr/sbin/losetup", "-j", str(disk)], capture_output=True, text=True, check=True
        ).stdout
        assert len(listed.splitlines()) == 1
    freed(disk)
