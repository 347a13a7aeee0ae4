"""Storage pools: what holds of containers in the store holds of those in a pool, too, and what else does.

The tests that are imported are those of the store itself: here their containers lie in a pool on a file system of its
own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from containers.core.errors import InUse, SetupFailed, StorageFull
from containers.core.host import Host
from containers.core.hoststore import every, pools, store
from containers.core.hoststore.pools import Pool
from containers.core.kernel import files, subvolumes
from containers.core.kernel.tree_copy import copy_tree
from containers.core.lifecycle import pooling, resizing, running, stored
from containers.core.model.limits import Limits
from containers.core.model.spec import Spec
from containers.core.model.states import Status
from containers.core.rules.pool_rules import PoolRule
from containers.core.storage import disks

from . import test_backups as on_backups
from . import test_storage as on_the_store
from .conftest import NoNetwork, make_spec
from .patience import wait_until
from .test_exactness import but_its_own, fingerprint
from .test_storage import (
    killed_at,
    read,
    recovered,
    run_to_end,
    sh,
    test_a_deep_stack_is_merged_and_looks_the_same_inside,
    test_a_restore_brings_back_deleted_changed_and_renamed_files,
    test_a_running_snapshot_keeps_owners_xattrs_links_holes_and_whiteouts,
    twin_of,
    upper,
)

__all__ = [
    "test_a_deep_stack_is_merged_and_looks_the_same_inside",
    "test_a_restore_brings_back_deleted_changed_and_renamed_files",
    "test_a_running_snapshot_keeps_owners_xattrs_links_holes_and_whiteouts",
]
SIZE_BYTES = {"btrfs": 128 << 20, "ext4": 128 << 20, "xfs": 320 << 20}


def attach(place: Path) -> None:
    subprocess.run(["mount", "-o", "loop", place.with_suffix(".img"), place], check=True)


@pytest.fixture
def mount(host: Host) -> Iterator[Callable[[str], Path]]:
    """Return a function that makes a file system of a kind and mounts it; containers are ended before it goes."""
    places: list[Path] = []

    def make(kind: str) -> Path:
        place = host.state_dir / kind
        with open(place.with_suffix(".img"), "xb") as file:
            file.truncate(SIZE_BYTES[kind])
        subprocess.run([f"mkfs.{kind}", "-q", place.with_suffix(".img")], check=True, capture_output=True)
        place.mkdir()
        attach(place)
        places.append(place)
        place.chmod(0o755)
        return place

    try:
        yield make
    finally:
        for container_id in store.container_ids(host):
            running.stop(host, container_id, kill=True)
        for place in filter(os.path.ismount, places):
            # whoever was ended a moment ago may still be on its way out of it
            wait_until(lambda place=place: not subprocess.run(["umount", place]).returncode, what="the unmount")


@pytest.fixture
def pool(host: Host, mount: Callable[[str], Path]) -> Pool:
    """A pool of subvolumes on btrfs."""
    return pools.settle(host, "fast", str(mount("btrfs")), "btrfs")


@pytest.fixture
def container(host: Host, layer: str, pool: Pool) -> Callable[..., Spec]:
    """Return a function that makes a container in the pool."""
    return lambda **changes: stored.create(host, make_spec(layer, pool=pool.name, **changes))


def empty(pool: Pool) -> bool:
    return not any(os.listdir(directory) for directory in (pool.layers_dir, pool.tmp_dir, pool.trash_dir))


# kill -9, a full disk


@pytest.mark.parametrize("point", ["copy.frozen", "copy.copied", "publish.renamed"])
def test_a_killed_snapshot_of_a_running_one_leaves_nothing_in_the_pool(host, pool, running_container, point):
    on_the_store.test_a_killed_snapshot_of_a_running_container_lets_it_run_on(host, running_container, point)
    assert os.listdir(pool.tmp_dir) == os.listdir(pool.trash_dir) == []


@pytest.mark.parametrize("point", ["restore.fresh", "restore.committed"])
def test_a_killed_restore_in_a_pool_is_done_or_not(host, pool, container, point):
    on_the_store.test_a_killed_restore_leaves_old_or_new_files_and_configuration_together(host, container, point)
    assert os.listdir(pool.tmp_dir) == os.listdir(pool.trash_dir) == []


def test_a_restore_that_fails_in_a_pool_changes_nothing(host, pool, container, monkeypatch):
    on_the_store.test_a_restore_that_fails_changes_nothing(host, container, monkeypatch, "restore.written", "ENOSPC")
    assert os.listdir(pool.tmp_dir) == os.listdir(pool.trash_dir) == []


@pytest.mark.parametrize("point", ["create.placed", "trash.moved"])
def test_a_killed_create_or_delete_leaves_nothing_in_the_pool(host, layer, container, pool, point):
    store.save_image(host, store.Image(name="b", source={}, layers=(layer,), size_bytes=0, defaults={}))
    if point.startswith("create"):
        spec = make_spec(layer, pool=pool.name)
        killed_at(host, point, "create", dataclasses.asdict(spec))
    else:
        spec = container()
        killed_at(host, point, "delete", spec.id)
    recovered(host)
    assert not store.exists(host, spec.id)
    assert empty(pool)
    assert store.layer_ids(host) == {layer}


def test_a_full_pool_refuses_and_keeps_what_is_in_it(host, layer, pool, container):
    spec = container()
    (upper(host, spec) / "f").write_text("kept")
    filler = pool.place / "filler"
    with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(os.urandom(1 << 20))

    def many() -> None:
        for _ in range(1000):
            stored.create(host, make_spec(layer, pool=pool.name))

    with pytest.raises((StorageFull, OSError)) as refused:
        many()
    assert isinstance(refused.value, StorageFull) or refused.value.errno == errno.ENOSPC
    filler.unlink()
    recovered(host)
    assert read(host, spec.id, "/f") == b"kept"
    assert stored.snapshot(host, spec.id, "now").layers


def test_what_a_backup_brings_lies_in_the_pool_or_is_gone(host, pool, container):
    stored.snapshot(host, container(name="one").id, "kept")
    spec = every.load_all(host)[0].popitem()[1]
    (upper(host, spec) / "f").write_text("kept")
    made = on_backups.exported(host, spec)
    before, alone = fingerprint(host, spec.id), set(os.listdir(pool.layers_dir))
    for point in ("import.layer", "import.published", "create.written"):
        on_backups.killed_at(host, point, "import", spec.id, made.file, "fast")
        recovered(host)
        assert store.container_ids(host) == [spec.id]
        assert set(os.listdir(pool.layers_dir)) == alone
    new = on_backups.imported(host, spec, made.file, pool="fast")
    root = store.load_root(host, new.id)
    assert {pools.name_of(host, layer) for layer in (*root.layers, root.writable)} == {"fast"}
    assert but_its_own(fingerprint(host, new.id)) == but_its_own(before)
    for one in (spec, new):
        stored.delete(host, one.id)
    assert empty(pool)
    assert stored.orphans(host) == []


def test_a_pool_is_tried_while_somebody_sweeps(host, pool):
    command = [os.path.realpath(sys.executable), "-I", "-S", str(pooling._PROBE), str(pool.tmp_dir), "overlay"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as probe:
        while probe.poll() is None:
            for path in store.abandoned(host):
                store.to_trash(host, path)
        assert json.loads(probe.stdout.read()) == {"overlay": None}


def fill(path: Path, *, step: int) -> None:
    """Leave less than step bytes free. What btrfs says is available cannot always be had at once."""

    def grow() -> None:
        for begin in range(0, 1 << 40, step):
            os.posix_fallocate(file.fileno(), begin, step)

    with open(path, "wb") as file, pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        grow()


def test_a_backup_that_a_pool_has_no_room_for_is_told_so(host, pool, container):
    spec = container(name="one")
    (upper(host, spec) / "f").write_bytes(os.urandom(8 << 20))
    made = on_backups.exported(host, spec)
    there = set(os.listdir(pool.layers_dir))
    fill(pool.place / "filler", step=4 << 20)
    with pytest.raises(StorageFull, match="no space left"):
        on_backups.imported(host, spec, made.file, pool="fast")
    assert store.container_ids(host) == [spec.id]
    assert set(os.listdir(pool.layers_dir)) == there
    assert stored.orphans(host) == []


# what a driver makes of it


def test_a_running_container_on_btrfs_is_copied_by_one_subvolume(host, pool, container):
    spec = container(init_command=sh("head -c 8000000 /dev/urandom > /big; touch /done; sleep 1000"))
    running.start(host, spec, network=NoNetwork())
    tree = upper(host, spec)
    wait_until((tree / "done").exists, what="the file")
    before = os.stat(tree / "big")
    kept = stored.snapshot(host, spec.id, "snap0")
    (layer,) = set(kept.layers) - set(spec.layers)
    copy = pools.directory(host, layer)
    assert copy.parent == pool.layers_dir
    assert subvolumes.is_one(copy)
    assert sorted(os.listdir(copy)) == ["layer.json", "rootfs"]
    found = os.stat(copy / "rootfs/big")
    # a copied subvolume keeps the numbers of its files: a walk would have made new ones
    assert (found.st_ino, found.st_size) == (before.st_ino, 8000000)
    assert found.st_dev != before.st_dev
    assert running.observe(host)[spec.id].status is Status.RUNNING
    # what is written from now on is its own
    (tree / "big").write_text("changed")
    assert os.stat(copy / "rootfs/big").st_size == 8000000
    running.stop(host, spec.id, kill=True)
    stored.delete(host, spec.id)
    assert empty(pool)
    assert stored.orphans(host) == []


@pytest.mark.lxc("A subvolume within a container's files is copied with them, and goes with it", "L#519")
def test_subvolumes_within_a_containers_files_go_with_it(host, pool, container):
    spec = container(init_command=sh("sleep 1000"))
    tree = upper(host, spec)
    for path in (tree / "data", tree / "data/deeper"):  # by the host's administrator: overlay has none made inside
        subvolumes.make(path)
        (path / "f").write_text("x")
    running.start(host, spec, network=NoNetwork())
    kept = stored.snapshot(host, spec.id, "snap0")
    made = stored.clone(host, spec.id, twin_of(spec), snapshot_layers=kept.layers)
    assert [read(host, made.id, name) for name in ("/data/f", "/data/deeper/f")] == [b"x", b"x"]
    running.stop(host, spec.id, kill=True)
    stored.delete(host, spec.id)
    stored.delete(host, made.id)
    assert empty(pool)
    assert stored.orphans(host) == []


def test_subvolumes_below_a_directory_are_told_from_those_beside_it(mount):
    place = mount("btrfs")
    for name in ("one/deep", "other"):
        (place / name).mkdir(parents=True)
    assert not subvolumes.nested(place)
    for number in range(300):  # the kernel tells of 255 at a time
        subvolumes.make(place / f"other/{number}")
    assert (subvolumes.nested(place), subvolumes.nested(place / "other")) == (True, True)
    assert not subvolumes.nested(place / "one")
    subvolumes.make(place / "one/deep/last")
    assert subvolumes.nested(place / "one")
    assert not subvolumes.nested(place / "one/deep/last")
    assert not any(subvolumes.nested(path) for path in (place / "nothing", place.with_suffix(".img"), Path("/proc")))


@pytest.mark.lxc("Copies and removals take subvolumes along, and nothing that is mounted", "L#519")
def test_copies_and_removals_take_subvolumes_along_and_no_mounts(mount):
    place = mount("btrfs")
    tree, copied = place / "tree", place / "copied"
    tree.mkdir()
    for path in (tree / "a", tree / "a/d/b"):
        path.parent.mkdir(exist_ok=True)
        subvolumes.make(path)
        (path / "f").write_text(path.name)
        os.link(path / "f", path / "g")  # files of the same number in each of them
    (tree / "mounted").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", tree / "mounted"], check=True)
    try:
        (tree / "mounted/precious").write_text("x")
        copy_tree(tree, copied)
        assert [(copied / name).read_text() for name in ("a/f", "a/d/b/f")] == ["a", "b"]
        assert [os.stat(copied / name).st_nlink for name in ("a/g", "a/d/b/g")] == [2, 2]
        assert not (copied / "mounted/precious").exists()
        with pytest.raises(InUse):
            files.remove_tree(tree)
        assert (tree / "mounted/precious").read_text() == "x"
    finally:
        subprocess.run(["umount", tree / "mounted"], check=True)
    for path in place.iterdir():  # what was on its way when it was given up lies beside it
        files.remove_tree(path)
    assert list(place.iterdir()) == []


def test_a_killed_create_by_a_copy_leaves_nothing_in_the_pool(host, layer, mount):
    store.save_image(host, store.Image(name="b", source={}, layers=(layer,), size_bytes=0, defaults={}))
    far, spec = pools.settle(host, "far", str(mount("ext4")), "dir"), make_spec(layer, pool="far")
    for point in ("merge.merged", "publish.renamed", "create.written"):
        killed_at(host, point, "create", dataclasses.asdict(spec))
        recovered(host)
        assert not store.exists(host, spec.id)
        assert empty(far)
    assert pools.name_of(host, stored.create(host, spec).layers[0]) == "far"
    with pytest.raises(SetupFailed, match="missing"):
        stored.create(host, make_spec("0" * 32, pool="far"))
    stored.delete(host, spec.id)
    assert empty(far)


@pytest.mark.parametrize("kind", ["xfs", "loop", "dir"])
def test_pools_of_other_drivers_hold_clones_and_snapshots_too(host, layer, mount, kind):
    """Between pools nothing is copied; a full clone shares nothing; each is deleted without the others."""
    store.save_image(host, store.Image(name="b", source={}, layers=(layer,), size_bytes=0, defaults={}))
    here = stored.create(host, make_spec(layer))
    run_to_end(host, here, "echo one > /a; rm /etc/passwd")
    place, driver = mount("ext4" if kind == "loop" else "xfs"), "overlay" if kind == "xfs" else kind
    far = pools.settle(host, "far", str(place), driver)
    limits = Limits(disk_bytes=24 << 20) if kind == "loop" else Limits()
    linked = stored.clone(host, here.id, twin_of(here, pool="far", limits=limits))
    full = stored.clone(host, here.id, twin_of(linked, pool="far", limits=limits), full=True)
    stored.delete(host, here.id)
    for spec in (linked, full):
        assert pools.of_layer(host, store.load_root(host, spec.id).writable) == far
        assert disks.there(host, store.load_root(host, spec.id).writable) == (kind == "loop")
        assert "one" in run_to_end(host, spec, "cat /a; ! ls /etc/passwd 2>/dev/null && echo two > /a")
        kept = stored.snapshot(host, spec.id, "kept")
        run_to_end(host, spec, "echo three > /a")
        assert read(host, spec.id, "/a") == b"three\n"
        stored.restore(host, spec.id, kept.layers)
        assert read(host, spec.id, "/a") == b"two\n"
        if kind == "loop":
            resizing.resize(host, spec.id, limits, Limits(disk_bytes=16 << 20))
            assert pools.of_layer(host, store.load_root(host, spec.id).writable) == far
    assert {pools.name_of(host, one) for one in full.layers} == {"far"}
    if kind == "dir":
        # nothing of it lies elsewhere, and a clone beside it shares what is there
        assert {pools.name_of(host, one) for one in store.load_root(host, linked.id).layers} == {"far"}
        running.start(host, store.load(host, linked.id), network=NoNetwork())
        away = stored.clone(host, linked.id, twin_of(linked, pool="default"), full=True)
        running.stop(host, linked.id, kill=True)
        assert stored.orphans(host) == []
        stored.delete(host, away.id)
        beside = stored.clone(host, linked.id, twin_of(linked))
        assert beside.layers == store.load(host, linked.id).layers
        made = stored.create(host, make_spec(layer, pool="far"))
        assert {pools.name_of(host, one) for one in made.layers} == {"far"}
        assert "x" in run_to_end(host, made, "ls -l /bin/busybox | cut -c4")
        # what comes from elsewhere by a restore is brought there
        assert {pools.name_of(host, one) for one in stored.restore(host, made.id, (layer,)).layers} == {"far"}
        for spec in (beside, made):
            stored.delete(host, spec.id)
    assert stored.orphans(host) == []
    for spec in (linked, full):
        stored.delete(host, spec.id)
    assert empty(far)


# what is there, and what is not


def test_a_pool_that_is_away_loses_nothing(host, layer, pool, container):
    spec, near = container(), stored.create(host, make_spec(layer))
    (upper(host, spec) / "f").write_text("kept")
    stored.snapshot(host, spec.id, "one")
    place = pool.place.parent
    rules = {"fast": PoolRule(path=str(place), driver="btrfs", projects=("*",))}
    assert pooling.best(host, rules, "default") == "fast"
    own, layers = store.load_root(host, near.id).writable, store.layer_ids(host)
    subprocess.run(["umount", place], check=True)
    for act in (
        lambda: running.start(host, spec, network=NoNetwork()),
        lambda: stored.snapshot(host, spec.id, "two"),
        lambda: stored.create(host, make_spec(layer, pool=pool.name)),
        lambda: pooling.settle(host, rules, "fast"),
    ):
        with pytest.raises(SetupFailed, match="mounted"):
            act()
    (seen,) = [one for one in pooling.seen(host, rules) if one.name == "fast"]
    assert "mounted" in seen.problem
    assert pooling.best(host, rules, "default") == "default"
    stored.delete(host, near.id)
    assert store.layer_ids(host) == layers - {own}
    stored.delete(host, spec.id)
    assert stored.orphans(host) == []
    assert list(place.iterdir()) == []
    attach(place)
    assert len(os.listdir(pool.layers_dir)) == 2
    stored.recover(host)
    recovered(host)
    assert empty(pool)


def test_what_is_no_pool_is_refused_with_the_reason(host, layer, tmp_path, mount):
    strange = tmp_path / "strange"
    strange.mkdir()
    strange.chmod(0o777)
    with pytest.raises(SetupFailed, match="only root may write"):
        pools.settle(host, "p", str(strange), "overlay")
    strange.chmod(0o755)
    place = mount("ext4")
    with pytest.raises(SetupFailed, match="not btrfs"):
        pools.settle(host, "p", str(place), "btrfs")
    with pytest.raises(SetupFailed, match="No such file"):
        pools.settle(host, "p", str(tmp_path / "none"), "overlay")
    made = pools.settle(host, "p", str(place), "overlay")
    spec = stored.create(host, make_spec(layer, pool="p"))
    with pytest.raises(SetupFailed, match="made with the driver overlay"):
        pools.settle(host, "p", str(place), "loop")
    with pytest.raises(SetupFailed, match="that of the pool p"):
        pools.settle(host, "q", str(place), "overlay")
    with pytest.raises(SetupFailed, match="not there"):
        pools.settle(host, "p", str(strange), "overlay")
    assert pools.settle(host, "p", str(place), "overlay") == made
    stored.delete(host, spec.id)
    assert empty(made)
