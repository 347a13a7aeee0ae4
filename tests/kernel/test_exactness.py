"""Content comes back bit for bit: through snapshots of stopped and of running containers, restores and clones."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import stat
import struct
from pathlib import Path
from typing import Any

import pytest

from containers.core.hoststore import store
from containers.core.kernel import files
from containers.core.lifecycle import running, snapshots, stored
from containers.core.reading.merged import Level, Merged

from .conftest import NoNetwork
from .test_storage import sh, twin_of, upper

ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", *entry)
    for entry in ((1, 6, 0xFFFFFFFF), (2, 4, 1000), (4, 4, 0xFFFFFFFF), (16, 6, 0xFFFFFFFF), (32, 0, 0xFFFFFFFF))
)
"""user::rw-, user:1000:r--, group::r--, mask::rw-, other::---. Source: include/uapi/linux/posix_acl_xattr.h."""
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
"""VFS_CAP_REVISION_2, effective: cap_net_bind_service. Source: include/uapi/linux/capability.h."""
ITS_OWN = ("/etc/hostname", "/etc/hosts", "/etc/machine-id")


def fill(tree: Path) -> None:
    """Make one of everything that a file system can hold."""
    top = tree / "all"
    top.mkdir()
    os.setxattr(top, "system.posix_acl_default", ACL)
    (top / "sticky").mkdir(mode=0o1777)
    (top / "sticky").chmod(0o3777)
    (top / "file").write_bytes(os.urandom(100_001))
    os.link(top / "file", top / "twin")
    os.link(top / "file", top / "sticky/triplet")
    (top / "setuid").write_text("s")
    os.chown(top / "setuid", 1000, 65534)
    (top / "setuid").chmod(0o6751)
    (top / "acl").write_text("a")
    os.setxattr(top / "acl", "system.posix_acl_access", ACL)
    (top / "attributes").write_text("x")
    os.setxattr(top / "attributes", "user.one", b"\0\xff")
    os.setxattr(top / "attributes", "user.empty", b"")
    os.setxattr(top / "attributes", "security.capability", CAPABILITY)
    with (top / "sparse").open("wb") as file:
        file.write(b"begin")
        file.truncate(4 << 20)
        file.seek(2 << 20)
        file.write(b"middle")
    (top / "empty").touch()
    (top / "link").symlink_to("/nowhere/at all")
    os.lchown(top / "link", 1, 2)
    for name, kind, number in (("null", stat.S_IFCHR, (1, 3)), ("disk", stat.S_IFBLK, (8, 0))):
        os.mknod(top / name, kind | 0o640, os.makedev(*number))
    os.mkfifo(top / "pipe")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(top / "socket"))
    (top / "\n odd ‽").touch()
    os.close(os.open(os.fsencode(top) + b"/\xff\xfe", os.O_CREAT, 0o600))
    for number, path in enumerate(sorted(top.rglob("*"), key=lambda path: -len(path.parts))):
        when = 1_000_000_000_123_456_789 + number * 1_000_000_007
        os.utime(path, ns=(when + 5, when), follow_symlinks=False)
    os.utime(top, ns=(7, 1_111_111_111_111_111_111))


def fingerprint(host, container_id: str) -> dict[str, Any]:
    """Return everything that can be told of a container's files by looking at them."""
    root = store.load_root(host, container_id)
    found: dict[str, Any] = {}
    links: dict[tuple[int, int], list[str]] = {}
    with contextlib.ExitStack() as held:
        trees = [store.rootfs(host, layer) for layer in (root.writable, *reversed(root.layers))]
        merged = Merged([held.enter_context(files.opened(tree)) for tree in trees])

        def walk(level: Level, path: str) -> None:
            for name in merged.names(level):
                entry, where = merged.look(level, name), f"{path}/{name}"
                assert entry is not None
                status = entry.status
                told: list[Any] = [status.st_mode, status.st_uid, status.st_gid, status.st_rdev, entry.xattrs()]
                if entry.is_directory:
                    with merged.below(level, name) as inner:
                        walk(inner, where)
                if not entry.is_directory or where.startswith("/all"):
                    told.append(status.st_mtime_ns)
                if stat.S_ISLNK(status.st_mode):
                    told.append(entry.target())
                if entry.is_file:
                    with entry.opened() as fd, open(fd, "rb", closefd=False) as file:
                        told += [status.st_size, hashlib.file_digest(file, "sha256").hexdigest()]
                    told.append(status.st_blocks * 512 < status.st_size // 2)
                    if status.st_nlink > 1:
                        links.setdefault((status.st_dev, status.st_ino), []).append(where)
                found[where] = told

        walk(merged.top, "")
    return {**found, "links": sorted(sorted(names) for names in links.values())}


def but_its_own(told: dict[str, Any]) -> dict[str, Any]:
    return {path: one for path, one in told.items() if path not in ITS_OWN}


@pytest.mark.parametrize("live", [False, True])
def test_every_byte_and_every_attribute_comes_back(host, container, live):
    spec = container(init_command=sh("sleep 1000"))
    fill(upper(host, spec))
    if live:
        running.start(host, spec, network=NoNetwork())
    before = fingerprint(host, spec.id)
    assert ["/all/file", "/all/sticky/triplet", "/all/twin"] in before["links"]
    assert before["/all/sparse"][-1] is True
    kept = stored.snapshot(host, spec.id, "a")
    assert fingerprint(host, spec.id) == before
    clone = stored.clone(host, spec.id, twin_of(spec))
    assert but_its_own(fingerprint(host, clone.id)) == but_its_own(before)
    later = stored.clone(host, spec.id, twin_of(spec), snapshot_layers=kept.layers)
    assert but_its_own(fingerprint(host, later.id)) == but_its_own(before)
    if live:
        running.stop(host, spec.id, kill=True)
    files.remove_tree(upper(host, spec) / "all") if (upper(host, spec) / "all").exists() else None
    (upper(host, spec) / "all").write_text("spoilt")
    spoilt = fingerprint(host, spec.id)
    stored.restore(host, spec.id, kept.layers, safety=snapshots.Safety(name="undo"))
    assert fingerprint(host, spec.id) == before
    # the undo of it is as exact, and so is going back once more
    stored.restore(host, spec.id, store.load_snapshot(host, spec.id, "undo").layers)
    assert fingerprint(host, spec.id) == spoilt
    stored.restore(host, spec.id, kept.layers)
    assert fingerprint(host, spec.id) == before
    for container_id in (clone.id, later.id):
        stored.delete(host, container_id)
    assert fingerprint(host, spec.id) == before
    assert stored.orphans(host) == []


def test_a_full_clone_shares_nothing_and_is_the_same(host, container):
    spec = container()
    fill(upper(host, spec))
    stored.snapshot(host, spec.id, "a")
    (upper(host, spec) / "etc").mkdir(exist_ok=True)
    os.mknod(upper(host, spec) / "etc/passwd", stat.S_IFCHR, 0)
    before = fingerprint(host, spec.id)
    assert "/etc/passwd" not in before
    made = stored.clone(host, spec.id, twin_of(spec), full=True)
    assert len(made.layers) == 1
    assert but_its_own(fingerprint(host, made.id)) == but_its_own(before)
    # whatever of the origin goes, in any order, the clone stays whole, and the other way round
    linked = stored.clone(host, spec.id, twin_of(spec))
    of_the_linked = stored.clone(host, linked.id, twin_of(spec))
    stored.delete_snapshot(host, spec.id, "a")
    for container_id in (spec.id, linked.id):
        stored.delete(host, container_id)
    for container_id in (made.id, of_the_linked.id):
        assert but_its_own(fingerprint(host, container_id)) == but_its_own(before)
    stored.delete(host, of_the_linked.id)
    assert but_its_own(fingerprint(host, made.id)) == but_its_own(before)
    assert store.layer_ids(host) == {*made.layers, store.load_root(host, made.id).writable}
    stored.delete(host, made.id)
    assert store.layer_ids(host) == set()
    assert stored.orphans(host) == []
