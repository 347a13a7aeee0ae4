"""Trees of LXC's taken over: owners shifted back by the kernel, overlays merged, nothing lost, nothing half done."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import stat
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from containers.core.errors import Cancelled, InvalidTransition, NotFound, SpecError
from containers.core.failpoints import MARKER
from containers.core.hoststore import store
from containers.core.lifecycle import importing, running, stored
from containers.core.lxc import finding
from containers.core.lxc.source import Source
from containers.core.model.idmap import IdMap
from containers.core.model.spec import Spec
from containers.core.model.states import Status

from .conftest import BUSYBOX, PROJECT, NoNetwork, make_spec
from .patience import wait_until

pytestmark = pytest.mark.kernel
BASE = 1_000_000
SHIFTED = (IdMap(0, BASE, 65536),)
CAP_NET_RAW = 1 << 13


def file_capability(version: int, root: int = 0) -> bytes:
    """Return security.capability: cap_net_raw, permitted and effective. Source: linux/capability.h, vfs_cap_data."""
    return struct.pack("<IIIII", version << 24 | 1, CAP_NET_RAW, 0, 0, 0) + (struct.pack("<I", root) * (version == 3))


def acl(user: int | None) -> bytes:
    """Return system.posix_acl_access: rw for one more user. Source: linux/posix_acl_xattr.h."""
    none = 0xFFFFFFFF
    named = () if user is None else ((2, 6, user),)
    entries = ((1, 6, none), *named, (4, 4, none), (0x10, 6, none), (0x20, 4, none))
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


@pytest.fixture
def lxc() -> Iterator[Path]:
    """An LXC directory of its own."""
    path = Path(tempfile.mkdtemp(prefix="lxc-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def make_tree(rootfs: Path, base: int) -> None:
    """Fill a root file system with whatever a container's may hold, its owners shifted by base."""
    for name in ("bin", "sbin", "etc", "proc", "sys", "dev", "tmp", "root", "run", "srv"):
        (rootfs / name).mkdir(parents=True)
    shutil.copy2(BUSYBOX, rootfs / "bin/busybox")
    for name in ("sh", "sleep", "id", "stat"):
        (rootfs / "bin" / name).symlink_to("busybox")
    (rootfs / "sbin/init").symlink_to("/bin/busybox")
    (rootfs / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/tmp:/bin/sh\n")
    (rootfs / "etc/inittab").write_text("::respawn:/bin/sleep 1000\n")
    (rootfs / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    for name in ("alice", "nobodys", "cap", "acl", "one", "setuid", "marked"):
        (rootfs / "srv" / name).write_text(name)
    os.link(rootfs / "srv/one", rootfs / "etc/two")
    os.mkfifo(rootfs / "srv/pipe")
    (rootfs / "srv/dangling").symlink_to("/nowhere")
    with (rootfs / "srv/sparse").open("wb") as sparse:
        sparse.seek(64 << 20)
        sparse.write(b"end")
    os.setxattr(rootfs / "srv/marked", "user.note", b"kept")
    for path in (rootfs, *rootfs.rglob("*")):
        os.chown(path, base, base, follow_symlinks=False)
    for path in ("srv/alice", "srv/dangling"):
        os.chown(rootfs / path, base + 1000, base + 1001, follow_symlinks=False)
    if base:
        os.chown(rootfs / "srv/nobodys", 0, 5)
        (rootfs / "srv/hosts").write_text("a capability of the host's root, of none here")
        os.setxattr(rootfs / "srv/hosts", "security.capability", file_capability(2))
    (rootfs / "srv/setuid").chmod(0o4755)
    os.setxattr(rootfs / "srv/cap", "security.capability", file_capability(3, base) if base else file_capability(2))
    os.setxattr(rootfs / "srv/acl", "system.posix_acl_access", acl(base + 1000))


def check_tree(rootfs: Path, *, shifted: bool) -> None:
    """Fail unless a layer holds what make_tree made, with the owners that the container sees."""

    def owner(name: str) -> tuple[int, int]:
        status = os.lstat(rootfs / name)
        return status.st_uid, status.st_gid

    assert owner(".") == owner("etc") == owner("bin/sh") == (0, 0)
    assert owner("srv/alice") == owner("srv/dangling") == (1000, 1001)
    assert owner("srv/nobodys") == ((65534, 65534) if shifted else (0, 0))
    assert os.getxattr(rootfs / "srv/cap", "security.capability") == file_capability(2)
    if shifted:
        assert "security.capability" not in os.listxattr(rootfs / "srv/hosts")
    assert os.getxattr(rootfs / "srv/acl", "system.posix_acl_access") == acl(1000)
    assert os.getxattr(rootfs / "srv/marked", "user.note") == b"kept"
    assert os.lstat(rootfs / "srv/one").st_ino == os.lstat(rootfs / "etc/two").st_ino
    assert stat.S_ISFIFO(os.lstat(rootfs / "srv/pipe").st_mode)
    assert os.lstat(rootfs / "srv/setuid").st_mode == stat.S_IFREG | 0o4755
    sparse = os.lstat(rootfs / "srv/sparse")
    assert sparse.st_size == (64 << 20) + 3
    assert sparse.st_blocks * 512 < 1 << 20


def take(host, source: Source, **changes: object) -> Spec:
    """Import as the worker does."""
    spec = make_spec("", **{"layers": (), "init_command": ("/sbin/init",), **changes})
    importing.order(host, spec.id, source)
    with importing.copied(host, spec, progress=lambda *_told: None, cancelled=lambda: False) as directory:
        made = stored.create_from(host, spec, directory)
    assert importing.finish(host, spec.id) == ""
    return made


def source_of(lxc: Path, name: str = "c1", **changes: object) -> Source:
    values = {"path": str(lxc), "name": name, "layers": (str(lxc / name / "rootfs"),), **changes}
    return Source(**values)  # type: ignore[arg-type]


def layer_of(host, spec: Spec) -> Path:
    (layer,) = store.load(host, spec.id).layers
    return store.rootfs(host, layer)


@pytest.mark.lxc("A root file system of LXC's is copied whole and boots", "lxc.rootfs.path")
@pytest.mark.parametrize("shifted", [False, True], ids=["privileged", "idmapped"])
def test_a_tree_is_copied_whole_and_boots(host, lxc, shifted):
    make_tree(lxc / "c1/rootfs", BASE if shifted else 0)
    maps = {"uids": SHIFTED, "gids": SHIFTED} if shifted else {}
    spec = take(host, source_of(lxc, **maps))
    check_tree(layer_of(host, spec), shifted=shifted)
    running.start(host, spec, network=NoNetwork())
    assert running.observe(host)[spec.id].status is Status.RUNNING
    assert (lxc / "c1/rootfs/etc/passwd").exists(), "a copy leaves LXC's own alone"
    assert stored.orphans(host) == []


@pytest.mark.lxc("Owners that an id map shifted are shifted back", "lxc.idmap")
def test_ranges_that_have_holes_are_shifted_each(host, lxc):
    make_tree(lxc / "c1/rootfs", BASE)
    os.chown(lxc / "c1/rootfs/srv/alice", 1000, 1000)
    maps = (IdMap(0, BASE, 1000), IdMap(1000, 1000, 1), IdMap(1001, BASE + 1001, 64535))
    layer = layer_of(host, take(host, source_of(lxc, uids=maps, gids=maps)))
    status = os.lstat(layer / "srv/alice")
    assert (status.st_uid, status.st_gid) == (1000, 1000)
    assert os.lstat(layer / "etc/two").st_uid == 0
    # the ACL is for an id that the container does not have
    assert os.getxattr(layer / "srv/acl", "system.posix_acl_access") == acl(None)
    assert os.getxattr(layer / "srv/cap", "security.capability") == file_capability(2)
    assert "security.capability" not in os.listxattr(layer / "srv/hosts")
    assert os.lstat(layer / "srv/one").st_ino == os.lstat(layer / "etc/two").st_ino


@pytest.mark.parametrize("shifted", [False, True], ids=["privileged", "idmapped"])
def test_an_overlay_is_merged(host, lxc, shifted):
    base = BASE if shifted else 0
    # a name that would be two options of a mount
    low, up = lxc / "low,a", lxc / "c1/delta"
    make_tree(low, base)
    (low / "gone").mkdir()
    (low / "gone/file").write_text("")
    (up / "etc").mkdir(parents=True)
    (up / "srv").mkdir()
    (up / "etc/passwd").write_text("new")
    os.mknod(up / "gone", stat.S_IFCHR, 0)
    os.setxattr(up / "srv", "user.overlay.opaque" if shifted else "trusted.overlay.opaque", b"y")
    for path in (up, *up.rglob("*")):
        os.chown(path, base, base)
    maps = {"uids": SHIFTED, "gids": SHIFTED} if shifted else {}
    here = os.getcwd()
    layer = layer_of(host, take(host, source_of(lxc, layers=(str(low), str(up)), **maps)))
    assert os.getcwd() == here
    mounts = Path("/proc/self/mountinfo").read_text()
    assert lxc.name not in mounts, "nothing is mounted where others see it"
    assert host.state_dir.name not in mounts
    assert (layer / "etc/passwd").read_text() == "new"
    assert (layer / "etc/inittab").exists()
    assert not (layer / "gone").exists()
    assert list((layer / "srv").iterdir()) == []
    assert os.lstat(layer / "bin/busybox").st_uid == 0
    assert not [name for name in os.listxattr(layer / "srv") if "overlay" in name]


def test_a_move_leaves_nothing_of_lxcs(host, lxc):
    make_tree(lxc / "c1/rootfs", 0)
    (lxc / "c1/config").write_text("lxc.rootfs.path = x\n")
    number = os.lstat(lxc / "c1/rootfs/srv/alice").st_ino
    spec = take(host, source_of(lxc, move=True))
    assert list(lxc.iterdir()) == []
    check_tree(layer_of(host, spec), shifted=False)
    moved = os.lstat(layer_of(host, spec) / "srv/alice")
    assert moved.st_ino == number, "on one file system nothing is copied"
    assert moved.st_nlink == 1


def test_a_move_takes_no_more_than_the_container(host, lxc):
    make_tree(lxc / "c1/rootfs", 0)
    shared = lxc / "shared"
    shared.mkdir()
    for source in (
        source_of(lxc, layers=(str(shared),), move=True),
        source_of(lxc, layers=(str(lxc / "c1"),), move=True),
    ):
        with pytest.raises(SpecError, match="does not lie in"):
            take(host, source)
    (lxc / "c1/snaps/snap0").mkdir(parents=True)
    with pytest.raises(SpecError, match="snapshots or clones"):
        take(host, source_of(lxc, move=True))
    assert (lxc / "c1/rootfs/bin/sh").is_symlink()
    assert stored.orphans(host) == []


@pytest.mark.lxc("What still runs under LXC is not taken over")
def test_what_runs_is_refused_by_its_monitors_socket_and_by_its_processes(host, lxc):
    make_tree(lxc / "c1/rootfs", 0)
    source = source_of(lxc)
    for path in (str(lxc), "/" + "p" * 200):
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.bind(finding.command_socket(path, "c1"))
            monitor.listen()
            with pytest.raises(InvalidTransition, match=r"lxc-stop -P .* -n c1"):
                finding.check(source_of(lxc, path=path))
    finding.check(source)
    with subprocess.Popen(["chroot", str(lxc / "c1/rootfs"), "/bin/sleep", "3600"]) as inside:
        wait_until(lambda: finding.alive(source), what="a process is seen in it")
        with pytest.raises(InvalidTransition, match=f"process {inside.pid}"):
            take(host, source)
        inside.kill()
        inside.wait()
    finding.check(source)
    assert stored.orphans(host) == []


def test_rows_alone_import_nothing(host):
    spec = make_spec("", layers=())
    with (
        pytest.raises(NotFound, match="import-lxc"),
        importing.copied(host, spec, progress=lambda *_told: None, cancelled=lambda: False),
    ):
        pass


def test_a_copy_can_be_cancelled(host, lxc, monkeypatch):
    make_tree(lxc / "c1/rootfs", 0)
    monkeypatch.setattr("containers.core.kernel.tree_copy._LOOK_EVERY_SEC", 0.0)
    spec = make_spec("", layers=())
    importing.order(host, spec.id, source_of(lxc))
    with (
        pytest.raises(Cancelled),
        importing.copied(host, spec, progress=lambda *_told: None, cancelled=lambda: True),
    ):
        pass
    assert stored.orphans(host) == []


IMPORT = """
import sys
from containers.core.host import Host
from containers.core.lifecycle import importing, stored
from containers.core.model.spec import Spec
host = Host.open(sys.argv[1])
spec = Spec.from_json(sys.argv[2])
if not host.container_dir(spec.id).exists():
    with importing.copied(host, spec, progress=lambda *_told: None, cancelled=lambda: False) as directory:
        stored.create_from(host, spec, directory)
assert importing.finish(host, spec.id) == ""
"""


@pytest.mark.lxc("An import that is killed is done or not done")
@pytest.mark.parametrize(
    ("point", "there"),
    [("import.copied", False), ("import.published", False), ("create.written", False), ("create.placed", False),
     ("create.committed", True), ("import.away", True)],
)  # fmt: skip
def test_a_killed_import_is_done_or_not_done_and_can_be_done_again(host, lxc, point, there):
    (host.state_dir / MARKER).touch(mode=0o600)
    make_tree(lxc / "c1/rootfs", BASE)
    (lxc / "c1/config").write_text("")
    spec = make_spec("", layers=(), id=secrets.token_hex(6))
    importing.order(host, spec.id, source_of(lxc, uids=SHIFTED, gids=SHIFTED, move=True))

    def run(**environment: str) -> int:
        command = [sys.executable, "-c", IMPORT, str(host.state_dir), spec.to_json()]
        return subprocess.run(
            command, cwd=PROJECT, env={"PATH": os.environ["PATH"], **environment}, check=False
        ).returncode

    assert run(BOXROOM_FAILPOINTS=f"{point}=kill9") == -9
    stored.recover(host)
    assert store.exists(host, spec.id) is there
    assert (lxc / "c1/rootfs/etc/passwd").exists() is (point != "import.away")
    assert stored.orphans(host) == []
    assert run() == 0
    assert list(lxc.iterdir()) == []
    check_tree(layer_of(host, spec), shifted=True)
    assert stored.orphans(host) == []


def test_a_failed_write_leaves_nothing(host, lxc, monkeypatch):
    (host.state_dir / MARKER).touch(mode=0o600)
    make_tree(lxc / "c1/rootfs", 0)
    for point in ("import.copied", "import.published", "create.written"):
        monkeypatch.setenv("BOXROOM_FAILPOINTS", f"{point}=EIO")
        with pytest.raises(OSError, match="Input/output error"):
            take(host, source_of(lxc))
        assert store.container_ids(host) == []
        assert stored.orphans(host) == []


def test_what_is_no_directory_is_told_before_anything_begins(host, lxc):
    (lxc / "c1").mkdir()
    (lxc / "c1/rootfs").write_text("a disk")
    with pytest.raises(SpecError, match="mount it"):
        take(host, source_of(lxc))
    (lxc / "c1/rootfs").unlink()
    (lxc / "c1/rootfs").mkdir()
    (lxc / "c1/partial").touch()
    with pytest.raises(InvalidTransition, match="half made"):
        take(host, source_of(lxc))
    with pytest.raises(NotFound, match="Mount it"):
        take(host, source_of(lxc, name="c2"))


def test_machine_ids_are_read_without_being_led_away(lxc):
    make_tree(lxc / "c1/rootfs", 0)
    assert finding.machine_id(source_of(lxc)) == "0123456789abcdef0123456789abcdef"
    (lxc / "c1/rootfs/etc/machine-id").unlink()
    (lxc / "c1/rootfs/etc/machine-id").symlink_to("/etc/machine-id")
    assert finding.machine_id(source_of(lxc)) == ""
    shutil.rmtree(lxc / "c1/rootfs/etc")
    (lxc / "c1/rootfs/etc").symlink_to("/etc")
    assert finding.machine_id(source_of(lxc)) == ""


def test_a_removal_that_fails_is_told_and_the_container_stays(host, lxc):
    make_tree(lxc / "c1/rootfs", 0)
    stuck = lxc / "c1/rootfs/srv/stuck"
    stuck.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "stuck", str(stuck)], check=True)
    try:
        spec = make_spec("", layers=())
        importing.order(host, spec.id, source_of(lxc, move=True))
        with importing.copied(host, spec, progress=lambda *_told: None, cancelled=lambda: False) as directory:
            stored.create_from(host, spec, directory)
        assert "could not be removed" in importing.finish(host, spec.id)
    finally:
        (left,) = lxc.glob(".c1.moved-*/rootfs/srv/stuck")
        subprocess.run(["umount", str(left)], check=True)
    assert store.exists(host, spec.id)
