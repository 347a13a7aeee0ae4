"""Snapshot, restore, clone, delete on a real disk, with real overlay mounts made by real containers."""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import json
import os
import secrets
import stat
import struct
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from containers.core import cgroups, failpoints
from containers.core.errors import AlreadyExists, Busy, InvalidTransition, NotFound, SetupFailed, SpecError
from containers.core.failpoints import MARKER
from containers.core.hoststore import every, store
from containers.core.kernel import files
from containers.core.lifecycle import running, snapshots, stored
from containers.core.model.spec import Spec
from containers.core.model.states import Status
from containers.core.storage import merge, overlay
from containers.core.storage.stack import Stack

from .conftest import PROJECT, NoNetwork, make_spec
from .patience import wait_until


def upper(host, spec) -> Path:
    return Path(overlay.plan(host, spec).upper)


def read(host, container_id: str, path: str) -> bytes | None:
    with Stack(host, store.load_root(host, container_id)) as stack:
        return stack.read(path)


def sh(script: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", script)


def run_to_end(host, spec, script: str) -> str:
    """Run a script as the container's init and return what it printed."""
    store.save(host, dataclasses.replace(store.load(host, spec.id), init_command=sh(script)))
    running.start(host, store.load(host, spec.id), network=NoNetwork())
    wait_until(lambda: running.observe(host)[spec.id].status is Status.STOPPED, what="the script ends")
    last = running.observe(host)[spec.id].last_exit
    assert last is not None
    assert last.exit_code == 0, last
    return last.console or ""


def twin_of(spec: Spec, **changes: object) -> Spec:
    return dataclasses.replace(
        spec,
        id=secrets.token_hex(6),
        name=f"twin-{secrets.token_hex(3)}",
        slot=(spec.slot + 1) % 1024,
        machine_id=secrets.token_hex(16),
        **changes,
    )


# what there is


def test_every_spec_is_told_as_it_is_now_and_read_again_only_where_it_has_changed(host, container, monkeypatch):
    one, two = container(), container()
    read_again: list[str] = []

    def load(at, container_id):
        read_again.append(container_id)
        return real(at, container_id)

    real = store.load
    monkeypatch.setattr(store, "load", load)

    def settled() -> bool:
        """Whether all files are old enough to be believed."""
        read_again.clear()
        return every.load_all(host)[0].keys() >= {one.id, two.id} and not read_again

    wait_until(settled, what="nothing is read again")
    assert every.load_all(host) == ({one.id: real(host, one.id), two.id: real(host, two.id)}, {})
    store.save(host, dataclasses.replace(one, description="other"))
    assert every.load_all(host)[0][one.id].description == "other"
    assert set(read_again) == {one.id}
    # by hand and in place, to another of the same length
    path = host.spec_path(one.id)
    wait_until(settled, what="nothing is read again")
    path.write_text(path.read_text().replace('"other"', '"third"'))
    assert every.load_all(host)[0][one.id].description == "third"
    root = store.load_root(host, two.id)
    store.exchange(host, dataclasses.replace(two, description="by root.json"), root)
    assert every.load_all(host)[0][two.id].description == "by root.json"
    path.write_text("{")
    specs, damaged = every.load_all(host)
    assert (set(specs), set(damaged)) == ({two.id}, {one.id})
    path.unlink()
    assert every.load_all(host)[1] == {one.id: "spec.json is missing."}
    store.save(host, one)
    assert every.load_all(host)[0][one.id] == real(host, one.id)


# what a snapshot holds


def test_a_new_container_is_on_the_disk_before_it_appears_and_each_file_is_waited_for_once(host, layer, monkeypatch):
    waited: Counter[tuple[int, int]] = Counter()
    seen: dict[str, Counter[tuple[int, int]]] = {}
    real = os.fsync

    def fsync(fd: int) -> None:
        status = os.fstat(fd)
        waited[status.st_dev, status.st_ino] += 1
        real(fd)

    def told(_state_dir: Path, point: str) -> None:
        seen[point] = waited.copy()

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(stored, "failpoint", told)
    spec = stored.create(host, make_spec(layer))
    made = host.container_dir(spec.id)
    tree = upper(host, spec)
    assert {path.name for path in (tree / "etc").iterdir()} >= {"hostname", "machine-id"}
    for path in (made, *made.rglob("*"), tree, *tree.rglob("*")):
        status = path.stat()
        assert seen["create.placed"][status.st_dev, status.st_ino] == 1, path


def test_files_are_brought_to_the_disk_all_of_them_or_none_where_one_is_not_there(tmp_path, monkeypatch):
    sync, synced = os.fsync, []

    def told(fd: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))
        sync(fd)

    monkeypatch.setattr(os, "fsync", told)
    places = [tmp_path / "one", tmp_path / "two"]
    for place in places:
        place.write_bytes(b"x" * 5000)
    with pytest.raises(FileNotFoundError, match="gone"):
        files.sync_all(places[0], tmp_path / "gone", places[1])
    assert synced == []
    # the kernel has no fsync for either device; the first is the one that is told
    with pytest.raises(OSError, match="Invalid argument") as caught:
        files.sync_all("/dev/null", places[0], "/dev/zero", places[1])
    assert caught.value.errno == errno.EINVAL
    assert synced == ["/dev/null", str(places[0]), "/dev/zero", str(places[1])]


def test_a_restore_brings_back_deleted_changed_and_renamed_files(host, container):
    spec = container()
    run_to_end(
        host, spec, "mkdir -p /data/sub; echo one > /data/a; ln /data/a /data/b; ln -s a /data/l; echo x > /etc/new"
    )
    kept = stored.snapshot(host, spec.id, "snap0", "before")
    assert kept.size_bytes > 0
    run_to_end(
        host,
        spec,
        "rm -r /data/sub /etc/passwd; echo two > /data/a; mv /data/l /data/m; mkdir /data/later; rm -r /bin/ls",
    )
    assert read(host, spec.id, "/etc/passwd") is None
    stored.restore(host, spec.id, kept.layers)
    assert read(host, spec.id, "/data/a") == b"one\n"
    assert read(host, spec.id, "/etc/passwd") is not None
    told = run_to_end(
        host, spec, "ls -d /data/sub /data/l /bin/ls && cat /data/b && ! ls -d /data/later /data/m 2>/dev/null"
    )
    assert "one" in told
    assert stored.orphans(host) == []


def test_a_stopped_snapshot_copies_nothing_and_a_second_one_adds_no_layer(host, container):
    spec = container()
    big = upper(host, spec) / "big"
    big.write_bytes(b"x" * (8 << 20))
    inode = big.stat().st_ino
    kept = stored.snapshot(host, spec.id, "snap0")
    assert (store.rootfs(host, kept.layers[-1]) / "big").stat().st_ino == inode
    again = stored.snapshot(host, spec.id, "snap1")
    assert (again.layers, again.size_bytes) == (kept.layers, 0)


def test_a_running_snapshot_keeps_owners_xattrs_links_holes_and_whiteouts(host, container):
    spec = container(
        init_command=sh("rm /etc/passwd; mkdir -p /d; echo hi > /d/f; ln /d/f /d/g; chown 1000:1000 /d/f; sleep 3600")
    )
    running.start(host, spec, network=NoNetwork())
    tree = upper(host, spec)
    wait_until(lambda: (tree / "d/g").exists() and (tree / "d/f").stat().st_uid == 1000, what="the files")
    os.setxattr(tree / "d/f", "user.note", b"kept")
    subprocess.run(["truncate", "-s", "64M", tree / "d/hole"], check=True)
    kept = stored.snapshot(host, spec.id, "snap0")
    copied = store.rootfs(host, kept.layers[-1])
    assert copied != tree
    assert (copied / "d/f").stat().st_ino == (copied / "d/g").stat().st_ino
    assert (copied / "d/f").stat().st_uid == 1000
    assert os.getxattr(copied / "d/f", "user.note") == b"kept"
    assert (copied / "d/hole").stat().st_blocks < 100
    gone = (copied / "etc/passwd").lstat()
    assert stat.S_ISCHR(gone.st_mode)
    assert gone.st_rdev == 0
    assert running.observe(host)[spec.id].status is Status.RUNNING


@pytest.mark.lxc("A running container is thawed when its copy fails", "lxc-copy")
def test_a_frozen_container_stays_frozen_and_a_running_one_thaws_after_a_failure(host, running_container, monkeypatch):
    groups = cgroups.open(host)
    monkeypatch.setenv("BOXROOM_FAILPOINTS", "copy.frozen=ENOSPC")
    (host.state_dir / MARKER).touch(mode=0o600)
    with pytest.raises(OSError, match=r"copy\.frozen"):
        stored.snapshot(host, running_container.id, "snap0")
    assert not groups.frozen(running_container.id)
    monkeypatch.delenv("BOXROOM_FAILPOINTS")
    running.freeze(host, running_container.id)
    stored.snapshot(host, running_container.id, "snap0")
    assert groups.frozen(running_container.id)
    assert stored.orphans(host) == []


# clones


@pytest.mark.lxc("A clone has a machine id, a MAC address and keys of its own", "L#2064", "lxc-copy")
def test_a_clone_is_itself_and_its_source_is_untouched(host, container):
    spec = container(hostname="")
    tree = upper(host, spec)
    for path, text in {
        "etc/ssh/ssh_host_ed25519_key": "secret",
        "etc/hosts": "127.0.1.1 old\n",
        "var/lib/dhcp/dhclient.eth0.leases": "lease",
        "root/own": "data",
    }.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(text)
    made = stored.clone(host, spec.id, twin_of(spec))
    assert read(host, made.id, "/etc/hostname") == f"{made.name}\n".encode()
    assert read(host, made.id, "/etc/hosts") == f"127.0.1.1\t{made.name}\n".encode()
    assert read(host, made.id, "/etc/machine-id") == f"{made.machine_id}\n".encode()
    assert read(host, made.id, "/etc/ssh/ssh_host_ed25519_key") is None
    assert read(host, made.id, "/var/lib/dhcp/dhclient.eth0.leases") is None
    assert read(host, made.id, "/root/own") == b"data"
    assert read(host, spec.id, "/etc/ssh/ssh_host_ed25519_key") == b"secret"
    told = run_to_end(host, made, "ls /etc/ssh; cat /etc/hostname /root/own; ls -l /etc/ssh | wc -l")
    assert made.name in told
    assert "ssh_host" not in told


def test_a_clone_of_a_running_container_runs_beside_it(host, running_container):
    made = stored.clone(host, running_container.id, twin_of(running_container))
    running.start(host, made, network=NoNetwork())
    seen = running.observe(host)
    assert {seen[running_container.id].status, seen[made.id].status} == {Status.RUNNING}


@pytest.mark.lxc("Links in a container's files lead a copy nowhere", "CVE-2026-48749", "CVE-2026-48752")
def test_a_hostile_tree_leads_a_clone_nowhere(host, container, tmp_path):
    spec = container()
    tree = upper(host, spec)
    trap = tmp_path / "trap"
    (trap / "ssh").mkdir(parents=True)
    for name in ("hostname", "hosts", "machine-id", "ssh/ssh_host_rsa_key"):
        (trap / name).write_text("untouched")
    (tree / "var").mkdir(exist_ok=True)
    files.remove_tree(tree / "etc") if (tree / "etc").exists() else None
    (tree / "etc").symlink_to(trap)
    (tree / "var/lib").symlink_to("/")
    made = stored.clone(host, spec.id, twin_of(spec))
    assert {path.read_text() for path in trap.rglob("*") if path.is_file()} == {"untouched"}
    assert not (upper(host, made) / "etc").exists()
    files.remove_tree(tree / "etc")
    second = container()
    inner = upper(host, second)
    (inner / "etc").mkdir(exist_ok=True)
    for name in ("hostname", "hosts", "machine-id"):
        (inner / "etc" / name).unlink(missing_ok=True)
        (inner / "etc" / name).symlink_to(trap / name)
    os.mkfifo(inner / "etc/ssh_host_rsa_key")
    made = stored.clone(host, second.id, twin_of(second))
    assert {path.read_text() for path in trap.rglob("*") if path.is_file()} == {"untouched"}
    assert read(host, made.id, "/etc/hostname") == f"{made.name}\n".encode()


# deep stacks


def test_a_deep_stack_is_merged_and_looks_the_same_inside(host, container, monkeypatch):
    monkeypatch.setattr(overlay, "LAYERS_MAX", 4)
    spec = container()
    steps = [
        "mkdir -p /a/b; echo 1 > /a/b/f; echo 1 > /a/keep",
        "rm -r /a/b; mkdir /a/b; echo 2 > /a/b/g",
        "rm /a/keep /etc/passwd; mkdir /etc/passwd",
        "rmdir /etc/passwd; echo 4 > /a/keep; ln -s keep /a/link",
        "rm /a/b/g",
    ]
    for number, step in enumerate(steps):
        run_to_end(host, spec, step)
        stored.snapshot(host, spec.id, f"snap{number}")
    layers = store.load_root(host, spec.id).layers
    assert len(layers) <= 4
    told = run_to_end(
        host, spec, "cat /a/keep /a/link; ls -A /a/b | wc -l; [ ! -e /a/b/f ] && [ ! -e /etc/passwd ] && echo fine"
    )
    assert told.split() == ["4", "4", "0", "fine"]
    first = store.load_snapshot(host, spec.id, "snap0")
    stored.restore(host, spec.id, first.layers)
    assert read(host, spec.id, "/a/b/f") == b"1\n"


# removal


@pytest.mark.lxc("A removal that was interrupted is finished by the next", "L#877")
def test_delete_takes_what_nothing_else_uses_and_is_fine_twice(host, container):
    spec = container()
    (upper(host, spec) / "f").write_text("x")
    kept = stored.snapshot(host, spec.id, "snap0")
    made = stored.clone(host, spec.id, twin_of(spec), snapshot_layers=kept.layers)
    stored.delete(host, spec.id)
    stored.delete(host, spec.id)
    assert read(host, made.id, "/f") == b"x"
    assert set(kept.layers) <= store.layer_ids(host)
    stored.delete(host, made.id)
    assert store.layer_ids(host) == set()
    assert stored.orphans(host) == []


@pytest.mark.lxc("Immutable files and trees of any depth are removed", "L#3185")
def test_trees_too_deep_for_any_path_and_immutable_files_are_removed(host):
    top = host.trash_dir / "deep"
    top.mkdir()
    here_fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=here_fd)
        next_fd = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=here_fd)
        os.close(here_fd)
        here_fd = next_fd
    file_fd = os.open("stuck", os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=here_fd)
    fcntl.ioctl(file_fd, 0x40086602, struct.pack("i", 0x10))
    fcntl.ioctl(here_fd, 0x40086602, struct.pack("i", 0x10))
    os.close(file_fd)
    os.close(here_fd)
    store.empty_trash(host)
    assert os.listdir(host.trash_dir) == []


@pytest.mark.lxc("A removal follows no link out", "L#2766")
def test_removal_does_not_follow_links_out(host, tmp_path):
    (tmp_path / "precious").write_text("x")
    tree = host.trash_dir / "t"
    tree.mkdir()
    (tree / "dir").symlink_to(tmp_path)
    (tree / "file").symlink_to(tmp_path / "precious")
    store.empty_trash(host)
    assert (tmp_path / "precious").read_text() == "x"


# refusals


@pytest.mark.lxc("A create that fails leaves what was there", "L#2752")
def test_what_does_not_fit_is_refused_and_leaves_nothing(host, container, layer, running_container):
    spec = container()
    with pytest.raises(AlreadyExists):
        stored.create(host, spec)
    with pytest.raises(SetupFailed) as missing:
        stored.create(host, make_spec("0" * 32))
    assert missing.value.details["step"] == "find-layers"
    with pytest.raises(NotFound):
        stored.snapshot(host, "0" * 12, "snap0")
    stored.snapshot(host, spec.id, "snap0")
    with pytest.raises(AlreadyExists):
        stored.snapshot(host, spec.id, "snap0")
    with pytest.raises(SpecError):
        stored.snapshot(host, spec.id, "../x")
    for act in (stored.delete, lambda *of: stored.restore(*of, (layer,)), lambda *of: stored.rename(*of, "other")):
        with pytest.raises(InvalidTransition):
            act(host, running_container.id)
    with (
        store.lock(host, "container", spec.id),
        pytest.raises(Busy),
        store.lock(host, "container", spec.id, wait_sec=0),
    ):
        pass
    assert stored.orphans(host) == []


@pytest.mark.lxc("Restoring a snapshot that is not there harms nothing", "L#224", "lxc-snapshot")
def test_a_missing_snapshot_harms_nothing(host, container):
    spec = container()
    (upper(host, spec) / "f").write_text("x")
    with pytest.raises(SetupFailed):
        stored.restore(host, spec.id, (*store.load(host, spec.id).layers, "0" * 32))
    assert read(host, spec.id, "/f") == b"x"


# kill -9 anywhere

CHILD = """
import sys, json
sys.path.insert(0, sys.argv[1])
from containers.core.host import Host
from containers.core import images
from containers.core.hoststore import store
from containers.core.lifecycle import resizing, snapshots, stored
from containers.core.model.limits import Limits
from containers.core.model.spec import Spec
host = Host.open(sys.argv[2])
act, *rest = json.loads(sys.argv[3])
if act == "create": stored.create(host, Spec.from_dict(rest[0]))
elif act == "clone": stored.clone(host, rest[0], Spec.from_dict(rest[1]))
elif act == "full": stored.clone(host, rest[0], Spec.from_dict(rest[1]), full=True)
elif act == "snapshot": stored.snapshot(host, rest[0], "snap9")
elif act == "restore":
    wanted, safety = Spec.from_dict(rest[2]), snapshots.Safety(name=rest[3])
    stored.restore(host, rest[0], tuple(rest[1]), spec=wanted, safety=safety)
elif act == "change": snapshots.change_snapshot(host, rest[0], "a", new_name="z", note="", pinned=False, expires_at="")
elif act == "delete": stored.delete(host, rest[0])
elif act == "resize": resizing.resize(host, rest[0], Limits(), Limits(**rest[1]))
elif act == "rename": stored.rename(host, rest[0], "renamed")
elif act == "image": images.build(host, "busybox", {"type": "busybox"})
"""


def killed_at(host, point: str, *orders: object, child: str = CHILD) -> None:
    """Run an action in a process of its own that is killed at a failpoint; fails the test where it is not reached."""
    (host.state_dir / MARKER).touch(mode=0o600)
    done = subprocess.run(
        [sys.executable, "-c", child, str(PROJECT), str(host.state_dir), json.dumps(orders)],
        env={"BOXROOM_FAILPOINTS": f"{point}=kill9", "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
    )
    assert done.returncode == -9, f"{point}: {done.returncode} {done.stderr}"


def recovered(host) -> None:
    """Recover, and see that nothing is left to mend."""
    stored.recover(host)
    assert stored.recover(host) == []
    assert stored.orphans(host) == []


@pytest.mark.lxc("A create that is killed is done or not done", "lxc-create")
@pytest.mark.parametrize("point", ["create.fresh", "create.written", "create.placed", "create.committed"])
def test_a_killed_create_is_done_or_not(host, layer, point):
    store.save_image(host, store.Image(name="b", source={}, layers=(layer,), size_bytes=0, defaults={}))
    spec = make_spec(layer)
    killed_at(host, point, "create", dataclasses.asdict(spec))
    recovered(host)
    assert store.exists(host, spec.id) == (point == "create.committed")
    if point != "create.committed":
        stored.create(host, spec)
    overlay.plan(host, spec)


@pytest.mark.parametrize(
    "point", ["clone.layers", "create.fresh", "create.written", "create.placed", "seal.fresh", "seal.committed"]
)
def test_a_killed_clone_harms_nobody(host, container, point):
    spec = container()
    (upper(host, spec) / "f").write_text("x")
    twin = twin_of(spec)
    killed_at(host, point, "clone", spec.id, dataclasses.asdict(twin))
    recovered(host)
    assert not store.exists(host, twin.id)
    assert read(host, spec.id, "/f") == b"x"
    stored.clone(host, spec.id, twin)
    assert read(host, twin.id, "/f") == b"x"


@pytest.mark.parametrize("point", ["seal.fresh", "seal.committed", "snapshot.layers", "snapshot.committed"])
def test_a_killed_snapshot_changes_nothing_inside(host, container, point):
    spec = container()
    (upper(host, spec) / "f").write_text("x")
    killed_at(host, point, "snapshot", spec.id)
    recovered(host)
    assert read(host, spec.id, "/f") == b"x"
    assert len(store.snapshots(host, spec.id)) == (point == "snapshot.committed")


@pytest.mark.parametrize("point", ["copy.frozen", "copy.copied"])
def test_a_killed_snapshot_of_a_running_container_lets_it_run_on(host, running_container, point):
    killed_at(host, point, "snapshot", running_container.id)
    recovered(host)
    assert not cgroups.open(host).frozen(running_container.id)
    assert stored.snapshot(host, running_container.id, "snap9").layers


@pytest.mark.lxc("A restore that is killed leaves the old state or the new one, whole", "L#131", "lxc-snapshot")
@pytest.mark.parametrize(
    "point",
    [
        "seal.fresh",
        "seal.committed",
        "snapshot.layers",
        "snapshot.committed",
        "restore.safe",
        "restore.fresh",
        "restore.written",
        "restore.committed",
        "restore.settled",
    ],
)
def test_a_killed_restore_leaves_old_or_new_files_and_configuration_together(host, container, point):
    spec = container(description="old")
    (upper(host, spec) / "f").write_text("old")
    kept = stored.snapshot(host, spec.id, "snap0")
    (upper(host, spec) / "f").write_text("new")
    store.save(host, dataclasses.replace(spec, description="new"))
    wanted = dataclasses.replace(store.load(host, spec.id), description="old", generation=2)
    killed_at(host, point, "restore", spec.id, kept.layers, dataclasses.asdict(wanted), "undo")
    done = point in ("restore.committed", "restore.settled")
    # what a reader sees before anything was recovered
    assert store.load(host, spec.id).description == ("old" if done else "new")
    recovered(host)
    assert read(host, spec.id, "/f") == (b"old" if done else b"new")
    now = store.load(host, spec.id)
    assert (now.description, now.generation) == (("old", 2) if done else ("new", 1))
    assert Spec.from_json(host.spec_path(spec.id).read_text()).description == now.description
    # the attempt that follows gets to the end, and its undo leads back to what was there before the first
    again = ("restore", spec.id, kept.layers, dataclasses.asdict(wanted), "undo")
    killed_at(host, "restore.settled", *again)
    recovered(host)
    stored.restore(host, spec.id, store.load_snapshot(host, spec.id, "undo").layers)
    assert read(host, spec.id, "/f") == b"new"
    assert store.load_snapshot(host, spec.id, "undo").spec["description"] == "new"


def test_a_spec_saved_after_a_killed_restore_is_the_one_that_counts(host, container):
    spec = container()
    kept = stored.snapshot(host, spec.id, "snap0")
    wanted = dataclasses.replace(spec, description="restored")
    killed_at(host, "restore.committed", "restore", spec.id, kept.layers, dataclasses.asdict(wanted), "undo")
    store.save(host, dataclasses.replace(wanted, description="later"))
    assert store.load(host, spec.id).description == "later"
    recovered(host)
    assert store.load(host, spec.id).description == "later"


def test_lineage_tells_where_a_container_stands(host, container):
    spec = container()
    for name in ("a", "b", "c"):
        stored.snapshot(host, spec.id, name)
        (upper(host, spec) / "f").write_text(name)
    a = store.load_snapshot(host, spec.id, "a")
    stored.restore(host, spec.id, a.layers, lineage=(*a.lineage, "a"), safety=snapshots.Safety(name="undo"))
    stored.snapshot(host, spec.id, "d")
    snapshots.change_snapshot(host, spec.id, "a", new_name="first", note="n", pinned=True, expires_at="")
    stored.delete_snapshot(host, spec.id, "b")
    assert {one.name: one.lineage for one in store.snapshots(host, spec.id)} == {
        "first": (),
        "c": ("first", "b"),
        "undo": ("first", "b", "c"),
        "d": ("first",),
    }
    assert store.load_root(host, spec.id).lineage == ("first", "d")
    assert store.load_snapshot(host, spec.id, "first").pinned
    with pytest.raises(AlreadyExists):
        snapshots.change_snapshot(host, spec.id, "c", new_name="d", note="", pinned=False, expires_at="")


@pytest.mark.parametrize("point", ["snapshot-change.lineage"])
def test_a_killed_change_of_a_snapshot_keeps_it(host, container, point):
    spec = container()
    kept = stored.snapshot(host, spec.id, "a")
    stored.snapshot(host, spec.id, "b")
    killed_at(host, point, "change", spec.id)
    recovered(host)
    assert store.load_snapshot(host, spec.id, "a").layers == kept.layers
    snapshots.change_snapshot(host, spec.id, "a", new_name="z", note="", pinned=False, expires_at="")
    snapshots.change_snapshot(host, spec.id, "a", new_name="z", note="", pinned=False, expires_at="")
    assert [one.name for one in store.snapshots(host, spec.id)] == ["z", "b"]


@pytest.mark.parametrize("point", ["delete.before", "delete.committed", "collect.trashed"])
def test_a_killed_delete_is_done_or_not(host, container, point):
    spec = container()
    killed_at(host, point, "delete", spec.id)
    recovered(host)
    assert store.exists(host, spec.id) == (point == "delete.before")


@pytest.mark.lxc("A rename that is killed is done or not done", "L#3696")
def test_a_killed_rename_is_done_or_not(host, container):
    spec = container()
    killed_at(host, "rename.inside", "rename", spec.id)
    recovered(host)
    assert store.load(host, spec.id).name == spec.name
    stored.rename(host, spec.id, "renamed")
    assert read(host, spec.id, "/etc/hostname") == b"renamed\n"


@pytest.mark.parametrize("point", ["image.built", "image.published", "image.committed"])
def test_a_killed_image_build_leaves_nothing(host, point):
    killed_at(host, point, "image")
    recovered(host)
    assert ("busybox" in store.images(host)) == (point == "image.committed")
    assert bool(store.layer_ids(host)) == (point == "image.committed")


def test_failpoints_need_the_marker(host, monkeypatch):
    monkeypatch.setenv("BOXROOM_FAILPOINTS", "*=ENOSPC")
    spec = make_spec("0" * 32)
    with pytest.raises(SetupFailed):
        stored.create(host, spec)


def test_merge_of_a_shallow_stack_is_the_stack(host, layer):
    assert merge.bounded(host, (layer,), made_for="x") == (layer,)


def test_a_container_deleted_while_another_is_tidied_up_after_is_no_hindrance(host, container, monkeypatch):
    first, second = container(), container()
    load_root = store.load_root

    def late(host, container_id):
        if container_id == second.id and store.exists(host, second.id):
            store.to_trash(host, host.container_dir(second.id))
        return load_root(host, container_id)

    monkeypatch.setattr(store, "load_root", late)
    stored.delete(host, first.id)
    assert not store.exists(host, first.id)
    assert not store.exists(host, second.id)


def test_a_damaged_container_keeps_every_layer(host, container):
    first, second = container(), container()
    store.root_path(host, second.id).unlink()
    layers = store.layer_ids(host)
    stored.delete(host, first.id)
    assert not store.exists(host, first.id)
    assert store.layer_ids(host) == layers


def test_a_clone_has_no_static_address_of_its_origin(host, container):
    spec = container()
    tree = upper(host, spec)
    for path, text in {
        "etc/network/interfaces": "auto eth0\niface eth0 inet static\n  address 10.0.0.5/24\n",
        "etc/network/interfaces.d/more": "iface eth1 inet static\n  address 10.0.1.5/24\n",
        "etc/systemd/network/eth0.network": "[Match]\nName=eth0\n[Network]\nAddress=10.0.0.5/24\n",
    }.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(text)
    made = stored.clone(host, spec.id, twin_of(spec))
    assert read(host, made.id, "/etc/network/interfaces") == b"auto eth0\niface eth0 inet dhcp\n"
    assert read(host, made.id, "/etc/network/interfaces.d/more") == b"iface eth1 inet dhcp\n"
    assert read(host, made.id, "/etc/systemd/network/eth0.network") == b"[Match]\nName=eth0\n[Network]\nDHCP=yes\n"
    assert b"10.0.0.5" in (read(host, spec.id, "/etc/network/interfaces") or b"")


def test_a_killed_full_clone_leaves_nothing(host, container):
    spec = container()
    (upper(host, spec) / "f").write_text("x")
    twin = twin_of(spec)
    killed_at(host, "merge.merged", "full", spec.id, dataclasses.asdict(twin))
    recovered(host)
    assert not store.exists(host, twin.id)
    made = stored.clone(host, spec.id, twin, full=True)
    assert read(host, made.id, "/f") == b"x"


@pytest.mark.parametrize("errno_name", ["ENOSPC", "EIO"])
@pytest.mark.parametrize("point", ["seal.fresh", "snapshot.layers", "restore.safe", "restore.fresh", "restore.written"])
def test_a_restore_that_fails_changes_nothing(host, container, monkeypatch, point, errno_name):
    spec = container(description="old")
    (upper(host, spec) / "f").write_text("old")
    kept = stored.snapshot(host, spec.id, "snap0")
    (upper(host, spec) / "f").write_text("new")
    (host.state_dir / MARKER).touch(mode=0o600)
    monkeypatch.setattr(failpoints, "_hits", {})
    monkeypatch.setenv("BOXROOM_FAILPOINTS", f"{point}={errno_name}")
    wanted = dataclasses.replace(spec, description="new")
    with pytest.raises(OSError, match=point):
        stored.restore(host, spec.id, kept.layers, spec=wanted, safety=snapshots.Safety(name="undo"))
    monkeypatch.delenv("BOXROOM_FAILPOINTS")
    recovered(host)
    assert read(host, spec.id, "/f") == b"new"
    assert store.load(host, spec.id).description == "old"
    stored.restore(host, spec.id, kept.layers, spec=wanted, safety=snapshots.Safety(name="undo"))
    assert (read(host, spec.id, "/f"), store.load(host, spec.id).description) == (b"old", "new")
