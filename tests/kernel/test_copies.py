"""Copies of what a running container wrote: exact at any depth, bounded in time and room, and thawed in every case."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from containers.core import cgroups
from containers.core.errors import SetupFailed, StorageFull, TimedOut
from containers.core.hoststore import store
from containers.core.kernel.tree_copy import copy_tree
from containers.core.lifecycle import holding, running, stored
from containers.core.model.states import Status
from containers.core.storage import overlay

from .conftest import NoNetwork, make_layer, make_spec, unmount

DEPTH = 150
NAME = "d" * 60
"""150 * 61 bytes: more than twice as long as a path may be (PATH_MAX, 4096)."""


def nest(top: Path) -> int:
    """Make a directory deeper than any path; return a descriptor of it, the caller's."""
    here_fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(DEPTH):
        os.mkdir(NAME, 0o750, dir_fd=here_fd)
        here_fd = enter(here_fd)
    return here_fd


def enter(here_fd: int) -> int:
    """Go one level down; here_fd is closed."""
    try:
        return os.open(NAME, os.O_RDONLY | os.O_DIRECTORY, dir_fd=here_fd)
    finally:
        os.close(here_fd)


def bottom(top: Path) -> int:
    """Return a descriptor of the deepest directory, the caller's."""
    here_fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(DEPTH):
        here_fd = enter(here_fd)
    return here_fd


def write(directory_fd: int, name: str, data: bytes) -> None:
    file_fd = os.open(name, os.O_WRONLY | os.O_CREAT, 0o640, dir_fd=directory_fd)
    os.write(file_fd, data)
    os.close(file_fd)


@pytest.fixture
def roomy(host):
    """The host's store on a small disk of its own: 40 MB."""
    image = host.state_dir / "disk"
    with image.open("wb") as file:
        file.truncate(40 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-O", "^has_journal", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, host.store_dir], check=True)
    (host.store_dir / "lost+found").rmdir()
    store.prepare(host)
    yield host
    for container_id in store.container_ids(host):
        running.stop(host, container_id, kill=True)
    unmount(host.store_dir)


def test_a_tree_too_deep_for_any_path_is_copied_exactly(host):
    source, target = host.tmp_dir / "source", host.tmp_dir / "target"
    source.mkdir()
    deep_fd = nest(source)
    write(deep_fd, "file", b"deep")
    os.link("file", source / "twin", src_dir_fd=deep_fd)
    os.symlink("nowhere", "link", dir_fd=deep_fd)
    os.mknod("gone", stat.S_IFCHR, os.makedev(0, 0), dir_fd=deep_fd)
    os.mkfifo("fifo", 0o601, dir_fd=deep_fd)
    os.chown("fifo", 7, 8, dir_fd=deep_fd)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(source / "socket"))
    write(deep_fd, "holes", b"x")
    os.truncate(f"/proc/self/fd/{deep_fd}/holes", 64 << 20)
    os.setxattr(f"/proc/self/fd/{deep_fd}/file", "user.note", b"kept")
    os.setxattr(deep_fd, "user.overlay.opaque", b"y")
    os.chown("file", 1000, 1001, dir_fd=deep_fd)
    os.chmod("file", 0o4711, dir_fd=deep_fd)
    os.utime("file", ns=(1, 123456789), dir_fd=deep_fd)
    os.utime(deep_fd, ns=(1, 987654321))
    os.close(deep_fd)

    copy_tree(source, target)

    copied_fd = bottom(target)
    assert sorted(os.listdir(copied_fd)) == ["fifo", "file", "gone", "holes", "link"]
    file = os.stat("file", dir_fd=copied_fd)
    assert (file.st_uid, file.st_gid, stat.S_IMODE(file.st_mode)) == (1000, 1001, 0o4711)
    assert (file.st_mtime_ns, file.st_size, file.st_nlink) == (123456789, 4, 2)
    assert file.st_ino == (target / "twin").stat().st_ino
    assert os.getxattr(f"/proc/self/fd/{copied_fd}/file", "user.note") == b"kept"
    assert os.getxattr(copied_fd, "user.overlay.opaque") == b"y"
    assert os.fstat(copied_fd).st_mtime_ns == 987654321
    assert stat.S_IMODE(os.fstat(copied_fd).st_mode) == 0o750
    assert os.readlink("link", dir_fd=copied_fd) == "nowhere"
    gone = os.stat("gone", dir_fd=copied_fd, follow_symlinks=False)
    assert (stat.S_ISCHR(gone.st_mode), gone.st_rdev) == (True, 0)
    fifo = os.stat("fifo", dir_fd=copied_fd)
    assert (stat.S_ISFIFO(fifo.st_mode), stat.S_IMODE(fifo.st_mode), fifo.st_uid, fifo.st_gid) == (True, 0o601, 7, 8)
    assert stat.S_ISSOCK((target / "socket").lstat().st_mode)
    holes = os.stat("holes", dir_fd=copied_fd)
    assert (holes.st_size, holes.st_blocks < 100) == (64 << 20, True)
    os.close(copied_fd)
    assert sorted(os.listdir(host.tmp_dir)) == ["source", "target"], "the walk leaves nothing beside its target"


def test_a_running_container_with_a_tree_too_deep_is_kept_and_cloned(host, container):
    spec = container()
    os.close(nest(Path(overlay.plan(host, spec).upper)))
    running.start(host, spec, network=NoNetwork())
    kept = stored.snapshot(host, spec.id, "snap0")
    os.close(bottom(store.rootfs(host, kept.layers[-1])))
    assert running.observe(host)[spec.id].status is Status.RUNNING
    running.stop(host, spec.id, kill=True)
    stored.delete(host, spec.id)
    assert stored.orphans(host) == []


def test_a_copy_that_takes_too_long_is_given_up_and_the_container_runs_on(host, running_container, monkeypatch):
    # less than no time: a copy of next to nothing ends within no time
    monkeypatch.setattr(holding, "FROZEN_MAX_SEC", -1.0)
    with pytest.raises(TimedOut, match="could not be copied within -1 s") as late:
        stored.snapshot(host, running_container.id, "snap0")
    assert late.value.details["step"] == "copy"
    assert not cgroups.open(host).frozen(running_container.id)
    assert running.observe(host)[running_container.id].status is Status.RUNNING
    assert os.listdir(host.tmp_dir) == []
    assert stored.orphans(host) == []
    monkeypatch.undo()
    assert stored.snapshot(host, running_container.id, "snap0").layers


@pytest.mark.parametrize("deep", [False, True])
def test_a_disk_that_fills_up_during_the_copy_leaves_nothing_and_thaws(roomy, deep):
    host = roomy
    spec = stored.create(host, make_spec(make_layer(host)))
    upper = Path(overlay.plan(host, spec).upper)
    if deep:
        deep_fd = nest(upper)
        write(deep_fd, "big", os.urandom(20 << 20))
        os.close(deep_fd)
    else:
        (upper / "big").write_bytes(os.urandom(20 << 20))
    running.start(host, spec, network=NoNetwork())
    with pytest.raises(StorageFull) as full:
        stored.snapshot(host, spec.id, "snap0")
    assert full.value.details["step"] == "copy"
    assert not cgroups.open(host).frozen(spec.id)
    assert running.observe(host)[spec.id].status is Status.RUNNING
    assert os.listdir(host.tmp_dir) == os.listdir(host.trash_dir) == []
    assert stored.orphans(host) == []
    (upper / "big").unlink(missing_ok=True)


def test_a_copy_that_fails_tells_cps_words(host):
    with pytest.raises(SetupFailed, match="No such file") as failed:
        copy_tree(host.tmp_dir / "missing", host.tmp_dir / "target")
    assert failed.value.details["step"] == "copy"
