"""Backups on a real disk: bit for bit there and back, whoever is killed, and archives that somebody made to do harm."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import secrets
import subprocess
import tarfile

import pytest

from containers.core import failpoints
from containers.core.archives.unpacking import BadArchive
from containers.core.backups import form, places
from containers.core.backups.place import Place
from containers.core.errors import Cancelled, StorageFull
from containers.core.failpoints import MARKER
from containers.core.hoststore import pools, store
from containers.core.lifecycle import backing, running, snapshots, stored
from containers.core.model.security import Security

from . import answers
from .conftest import NoNetwork
from .test_exactness import but_its_own, fill, fingerprint
from .test_storage import sh, twin_of, upper

WATCHER = backing.Watcher()


def local(host) -> Place:
    return places.of(host, "local")


def exported(host, spec, *, with_points: bool = True) -> backing.Exported:
    return export(host, spec, WATCHER, with_points=with_points)


def export(host, spec, watcher: backing.Watcher, *, with_points: bool = True) -> backing.Exported:
    file = backing.free_name(local(host), spec.name)
    return backing.export(host, spec.id, local(host), file=file, with_points=with_points, watcher=watcher)


def imported(
    host, spec, file: str, *, devices: bool = True, watcher=WATCHER, place: Place | None = None, pool: str = "default"
):
    """Make a container of a backup, with its snapshots; return its spec."""
    with (
        (place or local(host)).reading(file) as fd,
        backing.unpacked(
            host,
            fd,
            devices=devices,
            begin=lambda _told: None,
            watcher=watcher,
            pool=pools.open_pool(host, pool),
        ) as (outcome, layers),
    ):
        manifest = outcome.manifest
        new = dataclasses.replace(twin_of(spec), layers=backing.stack_of(manifest, layers), pool=pool)
        kept = backing.snapshots_of(manifest, layers, {})
        return backing.create(host, new, kept, lineage=manifest.lineage, twin=False)


@pytest.mark.parametrize("live", [False, True])
def test_every_byte_and_attribute_comes_back(host, container, live):
    spec = container(init_command=sh("sleep 1000"))
    fill(upper(host, spec))
    stored.snapshot(host, spec.id, "one", "a note")
    (upper(host, spec) / "all").mkdir()
    os.mknod(upper(host, spec) / "all/file", 0o020000, 0)
    (upper(host, spec) / "later").write_text("two")
    if live:
        running.start(host, spec, network=NoNetwork())
    before = fingerprint(host, spec.id)
    made = exported(host, spec)
    assert fingerprint(host, spec.id) == before
    if live:
        assert running.observe_one(host, spec.id).status == "running"
    assert made.points == 1
    new = imported(host, spec, made.file)
    assert but_its_own(fingerprint(host, new.id)) == but_its_own(before)
    [point] = store.snapshots(host, new.id)
    assert (point.name, point.note) == ("one", "a note")
    # the snapshot shares its layers with what came after it, as it did
    assert set(point.layers) <= set(store.load_root(host, new.id).layers)
    if live:
        running.stop(host, spec.id, kill=True)
    stored.restore(host, spec.id, store.load_snapshot(host, spec.id, "one").layers)
    stored.restore(host, new.id, point.layers)
    assert but_its_own(fingerprint(host, new.id)) == but_its_own(fingerprint(host, spec.id))
    assert stored.orphans(host) == []


@pytest.mark.parametrize("privileged", [False, True])
def test_owners_beyond_the_usual_come_back_and_are_read(host, container, ids_of_root, monkeypatch, privileged):
    spec = container(privileged=True) if privileged else container(security=Security(ids=131072))
    most = 2**24 - 1 if privileged else 131071
    place = upper(host, spec) / "home"
    place.mkdir()
    for name, uid, gid in (("inner", 100000, 65536), ("last", most, most), ("own", 65535, 65535)):
        (place / name).write_text(name)
        os.chown(place / name, uid, gid)
        (place / name).chmod(0o600)
    os.chown(place, 100000, most)
    place.chmod(0o700)
    stored.snapshot(host, spec.id, "one")
    before = fingerprint(host, spec.id)
    made = exported(host, spec)
    with local(host).reading(made.file) as fd:
        assert backing.verify(host, fd, WATCHER).plain_bytes == made.plain_bytes
    new = imported(host, dataclasses.replace(spec), made.file)
    assert but_its_own(fingerprint(host, new.id)) == but_its_own(before)
    # a reader of the snapshot sees them, and may read what is theirs alone
    listed, _bytes = answers.read(host, spec.id, "list", after="one", path="/home")
    assert {(one["name"], one["uid"], one["gid"]) for one in listed["items"]} == {
        ("inner", 100000, 65536),
        ("last", most, most),
        ("own", 65535, 65535),
    }
    _told, data = answers.read(host, spec.id, "content", after="one", path="/home/last")
    assert data == b"last"
    # a manifest that gives its container fewer than its files have
    monkeypatch.setattr(form, "ids", lambda _manifest: most)
    with pytest.raises(BadArchive, match="owns an entry"):
        imported(host, spec, made.file)


# -- whoever is killed, and whatever fails ----------------------------------------------------------------------------


def act(host, what: str, container_id: str, file: str = "", pool: str = "default") -> None:
    """Do one thing, in a process that is to be killed."""
    spec = store.load(host, container_id)
    if what == "export":
        exported(host, spec)
    elif what == "import":
        imported(host, spec, file, pool=pool)
    else:
        replaced(host, spec, file)


def replaced(host, spec, file: str):
    """Take a container back to what a backup holds of it."""
    with (
        local(host).reading(file) as fd,
        backing.unpacked(host, fd, devices=True, begin=lambda _told: None, watcher=WATCHER) as (outcome, layers),
    ):
        stack = backing.stack_of(outcome.manifest, layers)
        return backing.replace(host, spec.id, stack, snapshots.Safety(name="before"))


def killed_at(host, point: str, *orders: str) -> None:
    """Do one thing in a process that is killed at a failpoint; what it started dies with it."""
    (host.state_dir / MARKER).touch(mode=0o600)
    child = os.fork()
    if child == 0:
        try:
            os.environ["BOXROOM_FAILPOINTS"] = f"{point}=kill9"
            failpoints._hits.clear()
            act(host, *orders)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -9, point


def test_a_killed_export_leaves_a_whole_backup_or_none(host, container):
    spec = container()
    (upper(host, spec) / "file").write_text("kept")
    before = fingerprint(host, spec.id)
    for number, point in enumerate(("point", "layer", "streamed", "written", "placed")):
        killed_at(host, f"export.{point}", "export", spec.id)
        stored.recover(host)
        assert stored.orphans(host) == []
        there = local(host).listed()
        assert len(there) == (1 if point == "placed" else 0), number
        assert fingerprint(host, spec.id) == before
    assert but_its_own(fingerprint(host, imported(host, spec, there[0].name).id)) == but_its_own(before)


def test_a_killed_import_leaves_a_whole_container_or_none(host, container):
    spec = container()
    (upper(host, spec) / "file").write_text("kept")
    before = fingerprint(host, spec.id)
    made = exported(host, spec)
    for point in ("import.layer", "import.checked", "import.published", "create.placed", "import.committed"):
        killed_at(host, point, "import", spec.id, made.file)
        stored.recover(host)
        assert stored.orphans(host) == []
        others = set(store.container_ids(host)) - {spec.id}
        assert len(others) == (1 if point == "import.committed" else 0), point
    assert but_its_own(fingerprint(host, others.pop())) == but_its_own(before)
    (upper(host, spec) / "file").write_text("spoilt")
    spoilt = fingerprint(host, spec.id)
    for point in ("import.published", "restore.safe", "restore.written", "restore.committed", "import.committed"):
        killed_at(host, point, "replace", spec.id, made.file)
        stored.recover(host)
        assert stored.orphans(host) == []
        assert fingerprint(host, spec.id) == (before if point.endswith("committed") else spoilt), point
    stored.restore(host, spec.id, store.load_snapshot(host, spec.id, "before").layers)
    assert fingerprint(host, spec.id) == spoilt


@pytest.mark.parametrize("number", ["ENOSPC", "EIO"])
def test_a_disk_that_is_full_or_broken_is_told_and_nothing_is_left(host, container, monkeypatch, number):
    spec = container()
    (upper(host, spec) / "file").write_text("kept")
    made = exported(host, spec)
    (host.state_dir / MARKER).touch(mode=0o600)
    kind = StorageFull if number == "ENOSPC" else OSError
    for point in ("export.layer", "export.written"):
        monkeypatch.setenv("BOXROOM_FAILPOINTS", f"{point}={number}")
        failpoints._hits.clear()
        with pytest.raises(kind):
            exported(host, spec)
    for point in ("import.layer", "import.published", "create.written"):
        monkeypatch.setenv("BOXROOM_FAILPOINTS", f"{point}={number}")
        failpoints._hits.clear()
        with pytest.raises(OSError, match=r"No space|Input/output"):
            imported(host, spec, made.file)
    assert store.container_ids(host) == [spec.id]
    assert [one.name for one in local(host).listed()] == [made.file]
    assert stored.orphans(host) == []


def test_who_deletes_collects_or_cancels_meanwhile_takes_nothing_away(host, container):
    spec = container()
    (upper(host, spec) / "file").write_text("kept")
    before = fingerprint(host, spec.id)

    def gone(_pct: int, _message: str) -> None:
        if store.exists(host, spec.id):
            stored.delete(host, spec.id)
            stored.collect(host)

    made = export(host, spec, backing.Watcher(progress=gone))
    assert not store.exists(host, spec.id)
    new = imported(host, spec, made.file)
    assert but_its_own(fingerprint(host, new.id)) == but_its_own(before)

    def stop() -> None:
        raise Cancelled("stop")

    with pytest.raises(Cancelled):
        export(host, new, backing.Watcher(check_cancelled=stop))
    with pytest.raises(Cancelled):
        imported(host, spec, made.file, watcher=backing.Watcher(check_cancelled=stop))
    assert [one.name for one in local(host).listed()] == [made.file]
    stored.delete(host, new.id)
    assert stored.orphans(host) == []


# -- archives that somebody made to do harm ---------------------------------------------------------------------------


def tar_of(*entries: tarfile.TarInfo) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for one in entries:
            archive.addfile(one, io.BytesIO(b"x" * one.size) if one.isreg() else None)
    return out.getvalue()


def entry(name: str, kind: bytes = tarfile.REGTYPE, **values: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode = kind, 0o755 if kind == tarfile.DIRTYPE else 0o644
    for key, value in values.items():
        setattr(info, key, value)
    return info


TOP = entry(".", tarfile.DIRTYPE)


def told(**changes: object) -> dict[str, object]:
    manifest = form.Manifest(
        made_at="2026-01-01T00:00:00+00:00", container={"name": "c"}, sizes=(1,), root=(0,), points=()
    )
    return {**json.loads(form.write_manifest(manifest)), **changes}


def member(name: str, data: bytes) -> bytes:
    return form.header(name, len(data)) + data + form.padding(len(data))


def crafted(
    host, layer: bytes, manifest: dict[str, object] | None = None, *, digest: str = "", tail: bytes = b""
) -> str:
    """Put a backup into the local place that is well-formed but for what is asked for; return its name."""
    head = json.dumps(manifest if manifest is not None else told()).encode()
    own = [(digest or hashlib.sha256(layer).hexdigest(), len(layer))]
    plain = member(form.MANIFEST, head) + member(form.piece_name(0, 0), layer)
    plain += member(form.DIGESTS, form.write_digests(hashlib.sha256(head).hexdigest(), own)) + form.END + tail
    return packed(host, plain)


def packed(host, plain: bytes) -> str:
    name = f"c_20260101T000000Z-{secrets.randbelow(1000)}{form.SUFFIX}"
    data = subprocess.run(["/usr/bin/zstd", "-q", "-c"], input=plain, capture_output=True, check=True).stdout
    host.backups_dir.mkdir(mode=0o700, exist_ok=True)
    (host.backups_dir / name).write_bytes(data)
    return name


def refused(host, file: str, *words: str) -> None:
    with (
        pytest.raises(BadArchive) as caught,
        local(host).reading(file) as fd,
        backing.unpacked(host, fd, devices=True, begin=lambda _told: None, watcher=WATCHER),
    ):
        pytest.fail("it was taken")
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert store.layer_ids(host) == set()
    assert stored.orphans(host) == []
    (host.backups_dir / file).unlink()


def test_what_is_damaged_or_no_backup_is_refused(host):
    good = tar_of(TOP, entry("a", size=3))
    refused(host, crafted(host, good, digest="0" * 64), "digest")
    refused(host, crafted(host, good, tail=b"more"), "follows")
    refused(host, crafted(host, good, told(version=2)), "version 2")
    refused(host, crafted(host, good, told(root={"layers": [1], "lineage": []})), "layer")
    refused(host, crafted(host, good, told(container={"name": "../x"})), "manifest")
    refused(host, crafted(host, good[:700]), "cut off")
    refused(host, packed(host, good), "no backup")
    refused(host, packed(host, member("a", b"x")), "first member")
    head = member(form.MANIFEST, json.dumps(told()).encode())
    refused(host, packed(host, head + member("layers/0001/00000000", good)), "follows")
    refused(host, packed(host, head + form.END), "too early")
    refused(host, packed(host, head), "cut off")
    whole = crafted(host, good)
    data = (host.backups_dir / whole).read_bytes()
    for spoilt in (data[:-3], data[:40] + bytes([data[40] ^ 1]) + data[41:], b"no zstd at all"):
        (host.backups_dir / whole).write_bytes(spoilt)
        refused(host, whole)
        (host.backups_dir / whole).touch()


def test_nothing_leads_out_of_a_layer_or_fills_the_disk(host):
    link = entry("a", tarfile.SYMTYPE, linkname="/etc")
    refused(host, crafted(host, tar_of(TOP, link, entry("a/passwd", size=3))), "below")
    refused(host, crafted(host, tar_of(TOP, entry("../a", size=3))), "leads out")
    refused(host, crafted(host, tar_of(TOP, entry("a", tarfile.LNKTYPE, linkname="../../etc/passwd"))), "leads out")
    refused(host, crafted(host, tar_of(TOP, entry("a", size=3, uid=70000))), "owns")
    host.policy_path.write_text("[backups]\nmax_bytes = 1000000\n")
    refused(host, crafted(host, tar_of(TOP, entry("a", size=2_000_000))), "more than 1000000")
    host.policy_path.unlink()


def test_devices_and_marks_of_a_layer_are_no_more_than_who_imports_it_may(host):
    marks = {"SCHILY.xattr.user.overlay.opaque": "y", "SCHILY.xattr.trusted.overlay.redirect": "/"}
    entries = (TOP, entry("disk", tarfile.BLKTYPE, devmajor=8), entry("d", tarfile.DIRTYPE, pax_headers=marks))
    file = crafted(host, tar_of(*entries))
    for devices in (False, True):
        with (
            local(host).reading(file) as fd,
            backing.unpacked(host, fd, devices=devices, begin=lambda _told: None, watcher=WATCHER) as (outcome, layers),
        ):
            tree = store.rootfs(host, layers[0])
            assert (tree / "disk").exists() is devices
            assert outcome.left_out["devices"] == (0 if devices else 1)
            assert outcome.left_out["xattrs"] == 2
            assert os.listxattr(tree / "d") == []
    assert stored.orphans(host) == []
    with local(host).reading(file) as fd:
        assert backing.verify(host, fd, WATCHER).plain_bytes == len(tar_of(*entries))
    with local(host).reading(file) as fd:
        assert backing.look(host, fd).name == "c"
