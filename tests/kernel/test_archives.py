"""Archives taken apart by the real, confined processes; and archives that somebody made to do harm."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import stat
import struct
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from containers.core import cgroups
from containers.core.archives import confinement, formats, rules, tree, unpacking
from containers.core.archives.unpacking import BadArchive, unpack
from containers.core.cgroups import Cgroups, cages
from containers.core.errors import Cancelled, HostUnsupported, StorageFull
from containers.core.model import capabilities, idmap

from .conftest import unmount
from .patience import wait_until


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that only root may enter; the container ids of what is unpacked are on disk there as they are."""
    with tempfile.TemporaryDirectory(prefix="boxroom-archives-") as directory:
        yield Path(directory)
        groups(Path(directory)).remove_instance()
    assert not groups(Path(directory)).tree.exists()


def groups(place: Path) -> Cgroups:
    return cgroups.open_named(f"boxroom-t{place.name.rpartition('-')[2]}", place)


def entry(name: str, kind: bytes = tarfile.REGTYPE, **values: object) -> tuple[tarfile.TarInfo, bytes]:
    data = values.pop("data", b"")
    assert isinstance(data, bytes)
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.mtime = kind, 0o755 if kind == tarfile.DIRTYPE else 0o644, 1_700_000_000
    info.size = len(data)
    for key, value in values.items():
        setattr(info, key, value)
    return info, data


def tar(path: Path, *entries: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as archive:
        for info, data in entries:
            archive.addfile(info, io.BytesIO(data))
    return path


def made(place: Path, archive: Path, **options: object) -> tuple[Path, unpacking.Unpacked]:
    rootfs = place / f"rootfs-{time.monotonic_ns()}"
    rootfs.mkdir(mode=0o755)
    found = formats.detect(archive.read_bytes()[: formats.HEAD_BYTES])
    assert found is not None
    return rootfs, unpack(archive, found, rootfs, groups=groups(place), **options)  # type: ignore[arg-type]


def refused(place: Path, *entries: tuple[tarfile.TarInfo, bytes], **options: object) -> BadArchive:
    with pytest.raises(BadArchive) as error:
        made(place, tar(place / "bad.tar", *entries), **options)
    assert error.value.field == "source"
    return error.value


def seen(path: Path) -> tuple[str, int, int, int]:
    status = os.lstat(path)
    return stat.filemode(status.st_mode), status.st_uid, status.st_gid, int(status.st_mtime)


CAP = struct.pack("<IIIIII", 0x03000001, 1 << 13, 0, 0, 0, 100)


def full(place: Path) -> Path:
    """An archive that has one of everything that is taken."""
    return tar(
        place / "full.tar",
        entry("./", tarfile.DIRTYPE, mode=0o755),
        entry("./etc", tarfile.DIRTYPE, mode=0o2750, uid=3, gid=4),
        entry("./etc/hosts", data=b"127.0.0.1\n", mode=0o4711, uid=1000, gid=65534),
        entry("./etc/link", tarfile.SYMTYPE, linkname="/etc/shadow", uid=5),
        entry("./etc/same", tarfile.LNKTYPE, linkname="./etc/hosts"),
        entry("./ping", data=b"x", pax_headers={"SCHILY.xattr.security.capability": CAP.decode("latin-1")}),
        entry("./note", data=b"x", pax_headers={"SCHILY.xattr.user.a": "b", "SCHILY.xattr.trusted.x": "y"}),
        entry("./fifo", tarfile.FIFOTYPE, mode=0o600),
        entry("./dev/sda", tarfile.BLKTYPE, devmajor=8, devminor=0),
        entry("./dev/null", tarfile.CHRTYPE, devmajor=1, devminor=3),
    )


def test_everything_that_is_taken_comes_out_as_it_was(place):
    rootfs, told = made(place, full(place))
    assert seen(rootfs / "etc") == ("drwxr-s---", 3, 4, 1_700_000_000)
    assert seen(rootfs / "etc/hosts") == ("-rws--x--x", 1000, 65534, 1_700_000_000)
    assert (rootfs / "etc/hosts").read_bytes() == b"127.0.0.1\n"
    assert os.readlink(rootfs / "etc/link") == "/etc/shadow"
    assert os.stat(rootfs / "etc/same").st_ino == os.stat(rootfs / "etc/hosts").st_ino
    assert stat.S_ISFIFO(os.lstat(rootfs / "fifo").st_mode)
    assert os.listxattr(rootfs / "note") == ["user.a"]
    # belongs to the root of whatever user namespace mounts it, not to one of the host's
    assert os.getxattr(rootfs / "ping", "security.capability")[20:] in (b"", b"\0\0\0\0")
    assert not (rootfs / "dev").exists(), "no device is made, and nothing asked for the directory"
    assert told.left_out == {"devices": 2, "xattrs": 1}
    assert told.diff_id == hashlib.sha256((place / "full.tar").read_bytes()).hexdigest()


@pytest.mark.parametrize("program", ["gzip", "xz", "zstd"])
def test_compressed_archives_come_to_the_same(place, program):
    archive = full(place)
    packed = place / "packed"
    packed.write_bytes(subprocess.run([program, "-c", archive], check=True, capture_output=True).stdout)
    rootfs, told = made(place, packed)
    assert seen(rootfs / "etc/hosts")[1] == 1000
    assert told.diff_id == hashlib.sha256(archive.read_bytes()).hexdigest()
    packed.write_bytes(packed.read_bytes()[:-9])
    with pytest.raises(BadArchive, match="damaged"):
        made(place, packed)


def test_a_squashfs_is_read_without_being_mounted(place):
    source, _told = made(place, full(place))
    source.chmod(0o711)
    subprocess.run(
        ["mksquashfs", source, place / "x.squashfs", "-quiet", "-no-progress"], check=True, stdout=subprocess.DEVNULL
    )
    rootfs, _told = made(place, place / "x.squashfs")
    for name in ("", "etc", "etc/hosts", "etc/link", "note", "ping"):
        assert seen(rootfs / name) == seen(source / name), name
    assert os.getxattr(rootfs / "note", "user.a") == b"b"


# what is hostile


def test_names_and_links_that_lead_out_are_refused(place):
    outside = entry("out", tarfile.SYMTYPE, linkname="/etc")
    for bad in (
        [entry("../x", data=b"x")],
        [entry("a/../../x", data=b"x")],
        [outside, entry("out/passwd", data=b"x")],
        [outside, entry("out", tarfile.DIRTYPE), outside, entry("out/x/y", data=b"")],
        [entry("up", tarfile.SYMTYPE, linkname=".."), entry("up/x", data=b"x")],
        [entry("h", tarfile.LNKTYPE, linkname="../../etc/passwd")],
        [entry("h", tarfile.LNKTYPE, linkname="/etc/passwd")],
        [outside, entry("h", tarfile.LNKTYPE, linkname="out/passwd")],
        [entry("a", data=b"x"), entry("a/b", data=b"x")],
        [entry("d", tarfile.DIRTYPE), entry("h", tarfile.LNKTYPE, linkname="d")],
        [entry("h", tarfile.LNKTYPE, linkname=".")],
        [entry(".", tarfile.SYMTYPE, linkname="/")],
        [entry("x", data=b"", uid=65536)],
        [entry("x", b"M", data=b"")],
    ):
        assert refused(place, *bad).details["entry"] is not None
    assert os.listdir("/etc"), "the host is as it was"


def test_a_hard_link_to_a_symbolic_link_is_one_to_the_link_itself(place):
    """CVE-2026-11940: followed, the second name would be a file of the host's, to be written through."""
    rootfs, _told = made(
        place,
        tar(
            place / "x.tar",
            entry("deep/er/link", tarfile.SYMTYPE, linkname="/etc/hostname"),
            entry("name", tarfile.LNKTYPE, linkname="deep/er/link"),
            entry("name", data=b"mine"),
        ),
    )
    assert (rootfs / "name").read_bytes() == b"mine"
    assert os.readlink(rootfs / "deep/er/link") == "/etc/hostname"


def test_too_much_is_refused_naming_the_limit(place):
    zeros = place / "zeros.tar"
    tar(zeros, entry("zeros", data=b"\0" * (20 << 20)))
    bomb = place / "bomb"
    bomb.write_bytes(subprocess.run(["zstd", "-c", zeros], check=True, capture_output=True).stdout)
    with pytest.raises(BadArchive) as error:
        made(place, bomb)
    assert error.value.details["limit"] == "ratio"
    few = rules.Limits(entries=3)
    many = [entry(f"f{number}") for number in range(4)]
    assert refused(place, *many, limits=few).details["limit"] == "entries"
    assert refused(place, entry("a/b/c/d"), limits=few).details["limit"] == "entries"
    small = rules.Limits(bytes=1 << 20)
    assert refused(place, entry("x", data=b"x" * (1 << 20)), limits=small).details["limit"] == "bytes"


def test_a_sparse_file_keeps_its_holes_and_may_not_be_endless(place):
    sparse = place / "sparse"
    with open(sparse, "wb") as file:
        file.seek(40 << 20)
        file.write(b"end")
    for form in ("gnu", "posix"):
        archive = place / f"{form}.tar"
        subprocess.run(["tar", f"--format={form}", "-S", "-C", place, "-cf", archive, "sparse"], check=True)
        rootfs, _told = made(place, archive)
        status = os.stat(rootfs / "sparse")
        assert status.st_size == (40 << 20) + 3
        assert status.st_blocks * 512 < 1 << 20
        with pytest.raises(BadArchive) as error:
            made(place, archive, limits=rules.Limits(bytes=1 << 20))
        assert error.value.details["limit"] == "bytes"


def test_what_eats_memory_is_ended_alone_and_told(place):
    """Each header is of a length that is taken; what they say of directories is kept until the end."""
    eater = place / "eater.tar"
    fat = {f"SCHILY.xattr.user.{number}": "x" * 60_000 for number in range(16)}
    tar(eater, *(entry(f"d{number}", tarfile.DIRTYPE, pax_headers=fat) for number in range(60)))
    small = rules.Limits(memory_bytes=48 << 20)
    with pytest.raises(BadArchive, match="takes more than 48") as error:
        made(place, eater, limits=small)
    assert error.value.details["limit"] == "memory"
    # a program, with a file that is small: its maker lives
    hungry = formats.Format(
        name="hungry", program=("/usr/bin/python3", "-I", "-S", "-c", "x = b'x' * (60 << 20); print(len(x))")
    )
    (place / "rootfs").mkdir()
    with pytest.raises(BadArchive, match="takes more than 48"):
        unpack(full(place), hungry, place / "rootfs", groups=groups(place), limits=small)
    assert made(place, full(place), limits=small)[1].entries, "the next one is as good as ever"
    assert not list(groups(place).tree.glob("u-*"))


def test_a_cage_whose_maker_was_killed_is_found_and_emptied(place):
    code = (
        f"import sys, time; sys.path.insert(0, {str(Path(__file__).resolve().parents[2])!r})\n"
        "from pathlib import Path\n"
        "from containers.core import cgroups\n"
        "from containers.core.cgroups import cages, places\n"
        f"groups = cgroups.open_named({groups(place).name!r}, Path({str(place)!r}))\n"
        "with cages.cage(groups, memory_bytes=64 << 20) as cage:\n"
        "  import os\n"
        "  if not (pid := os.fork()):\n"
        "    for file in cage.procs: places.write_file(file, '0')\n"
        "    print('in', flush=True)\n"
        "    time.sleep(600)\n"
        "  time.sleep(600)\n"
    )
    with subprocess.Popen(["/usr/bin/python3", "-I", "-S", "-B", "-c", code], stdout=subprocess.PIPE) as maker:
        assert maker.stdout is not None
        assert maker.stdout.readline() == b"in\n"
        opened = groups(place)
        (name,) = [one.name for one in opened.tree.glob("u-*")]
        inside = int((opened.tree / name / "cgroup.procs").read_text())
        for controller in ("memory", "pids"):
            assert (opened.controller_dir(controller) / name / "cgroup.procs").read_text().split() == [str(inside)]
        assert cages.sweep(opened) == [], "its maker is there"
        maker.kill()
    wait_until(lambda: cages.abandoned(opened) == [name], what="its maker is gone")
    assert cages.sweep(opened) == [name]
    wait_until(lambda: not os.path.exists(f"/proc/{inside}"), what="what was in it is gone")
    assert (cages.sweep(opened), list(opened.tree.glob("u-*"))) == ([], [])


def test_a_header_that_is_too_long_is_refused_before_it_is_read(place):
    block = bytearray(tarfile.TarInfo("x").tobuf())
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 8 << 30
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    (place / "long.tar").write_bytes(bytes(block) + b"\0" * 4096)
    with pytest.raises(BadArchive) as error:
        made(place, place / "long.tar")
    assert error.value.details["limit"] == "header"


def test_what_is_cut_off_or_garbled_is_refused(place):
    archive = full(place)
    whole = archive.read_bytes()
    for size in (1024, 1536, len(whole) // 2 // 512 * 512):
        archive.write_bytes(whole[:size])
        with pytest.raises(BadArchive):
            made(place, archive)
    archive.write_bytes(whole[:3072] + os.urandom(1024) + whole[4096:])
    with pytest.raises(BadArchive):
        made(place, archive)


# layers of OCI images


def test_a_layer_may_end_with_its_last_file(place):
    """As umoci insert writes them: neither the block that the file ends in is whole, nor do empty ones follow."""
    archive = tar(place / "short.tar", entry("last", data=b"x" * 700))
    whole = archive.read_bytes()
    archive.write_bytes(whole[: whole.rindex(b"x") + 1])
    rootfs, told = made(place, archive, layer=True)
    assert (rootfs / "last").read_bytes() == b"x" * 700
    assert told.diff_id == hashlib.sha256(archive.read_bytes()).hexdigest(), "of what is there"
    with pytest.raises(BadArchive):
        made(place, archive)


def opaque(path: Path) -> bool:
    try:
        return os.getxattr(path, tree.OPAQUE) == b"y"
    except OSError:
        return False


def whiteout(path: Path) -> bool:
    status = os.lstat(path)
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def test_whiteouts_become_overlays_whatever_order_they_come_in(place):
    rootfs, told = made(
        place,
        tar(
            place / "layer.tar",
            entry("etc/.wh.gone"),
            entry("var/.wh..wh..opq"),
            entry("var/new", data=b"x"),
            entry(".wh.both"),
            entry("both/new", data=b"x"),
            entry("later", tarfile.DIRTYPE),
            entry(".wh.later"),
            entry(".wh.file"),
            entry("file", data=b"x"),
            entry(".wh..wh.plnk/1.2", data=b"x"),
            entry(".wh..wh.aufs", data=b"x"),
            entry("mine/.wh..wh..opq"),
            entry("mine/.wh..wh..opq"),
            entry("x", data=b"", pax_headers={"SCHILY.xattr.user.overlay.opaque": "y"}),
        ),
        layer=True,
    )
    assert whiteout(rootfs / "etc/gone")
    assert [opaque(rootfs / name) for name in ("etc", "var", "both", "later", "mine")] == [
        False,
        True,
        True,
        True,
        True,
    ]
    assert (rootfs / "file").read_bytes() == b"x"
    assert sorted(os.listdir(rootfs)) == ["both", "etc", "file", "later", "mine", "var", "x"]
    assert told.implicit == ("etc", "var", "both", "mine")


@pytest.mark.parametrize("name", [".wh.", ".wh...", ".wh../x", "a/.wh.b/c"])
def test_whiteouts_that_are_none_are_refused(place, name):
    assert ".wh." in refused(place, entry(name), layer=True).message


def test_outside_of_layers_a_whiteout_is_a_file_like_any_other(place):
    rootfs, _told = made(place, tar(place / "x.tar", entry("a/.wh.b")))
    assert (rootfs / "a/.wh.b").is_file()


# confinement


def test_the_maker_of_a_tree_has_nothing_but_the_tree(place, monkeypatch):
    """As the kernel shows it, from outside, while it waits for more."""
    archive = tar(place / "x.tar", entry("x", data=b"x" * (1 << 20)))
    found: dict[str, object] = {}

    def look() -> None:
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{pid}/status").read_text()
                if f"Uid:\t{idmap.UNUSED_BASE}\t" not in status or "Seccomp:\t2" not in status:
                    continue
                if str(place) not in Path(f"/proc/{pid}/cmdline").read_text():
                    continue
                found["mounts"] = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
                found["others"] = [
                    name
                    for name in ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
                    if os.readlink(f"/proc/{pid}/ns/{name}") != os.readlink(f"/proc/self/ns/{name}")
                ]
                found["root"] = os.path.samefile(f"/proc/{pid}/root", place / "rootfs")
                found["core"] = "Max core file size        0 " in Path(f"/proc/{pid}/limits").read_text()
                found["status"] = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)

    real = unpacking._Flow._next

    def wait(self: unpacking._Flow) -> bytes:
        deadline = time.monotonic() + 60
        while "status" not in found and time.monotonic() < deadline:
            look()
        return real(self)

    monkeypatch.setattr(unpacking._Flow, "_next", wait)
    (place / "rootfs").mkdir()
    unpack(archive, formats.TAR, place / "rootfs", groups=groups(place))
    status = found["status"]
    assert isinstance(status, dict)
    kept = sum(1 << capabilities.NAMES.index(name) for name in ("chown", "dac_override", "fowner", "fsetid", "setfcap"))
    for name in ("CapPrm", "CapEff", "CapBnd"):
        assert int(status[name], 16) == kept, name
    assert (status["NoNewPrivs"], status["Groups"].strip()) == ("1", "")
    assert found["others"] == ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"]
    assert (found["root"], found["core"]) == (True, True)
    assert isinstance(found["mounts"], list)
    assert len(found["mounts"]) == 1, "its tree, and nothing else, is mounted"


def test_system_calls_beyond_the_list_fail(place):
    """The filters themselves, on a process of this test's: no process, socket, mount or program."""
    from containers.core.archives.calls import compile_list
    from containers.core.kernel import syscalls

    filters = compile_list(program=False)
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        import socket

        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
        syscalls.load_seccomp(filters)
        refusals = []
        for act in (
            os.fork,
            socket.socket,
            lambda: syscalls.mount("x", "/mnt", "tmpfs", 0),
            lambda: os.execv("/bin/true", ["true"]),
            lambda: syscalls.unshare(syscalls.CLONE_NEWUSER),
            lambda: os.kill(1, 0),
            lambda: os.chroot("/"),
        ):
            try:
                act()
                refusals.append("did it")
            except OSError as error:
                refusals.append(str(error.errno))
        os.write(write_fd, " ".join(refusals).encode())
        os._exit(0)
    os.close(write_fd)
    said = os.read(read_fd, 4096).decode()
    os.close(read_fd)
    os.waitpid(pid, 0)
    assert said.split() == ["38"] * 7


def test_a_program_that_reads_archives_may_write_nothing_and_reach_nobody(place):
    """A program of this test's in the place of the real one says what it sees."""
    script = (
        "import os,socket,sys\n"
        "def t(f):\n"
        "  try: f(); return 'did it'\n"
        "  except OSError as e: return str(e.errno)\n"
        "print(sorted(os.listdir('/')), os.getuid(), t(lambda: open('/usr/x','w')), t(lambda: open('/x','w')),"
        " t(socket.socket), t(lambda: open('/etc/passwd')), t(os.fork), t(lambda: open('/archive','ab')),"
        " open('/proc/self/status').read() if os.path.exists('/proc/self') else 'no proc', flush=True)\n"
        "sys.stdin.buffer.read()\n"
    )
    archive = tar(place / "x.tar", entry("x"))
    spy = formats.Format(name="spy", program=("/usr/bin/python3", "-I", "-S", "-c", script + "sys.exit(3)"))
    heard: list[bytes] = []
    real = unpacking._Flow._next

    def hear(self: unpacking._Flow) -> bytes:
        data = real(self)
        heard.append(data)
        return data

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unpacking._Flow, "_next", hear)
        rootfs = place / "rootfs"
        rootfs.mkdir()
        with pytest.raises(BadArchive):
            unpack(archive, spy, rootfs, groups=groups(place))
    said = b"".join(heard).decode()
    assert f"{confinement.NOBODY} 30 30 38 2 38 13 no proc" in said, said
    assert "'archive'" in said
    assert "'etc'" not in said
    assert "'proc'" not in said


def test_the_confined_process_imports_the_standard_library_only():
    project = str(Path(__file__).resolve().parents[2])
    program = (
        f"import sys; sys.path.insert(0, {project!r}); import containers.core.archives.process\n"
        "known = sys.stdlib_module_names | {'containers', '__main__'}\n"
        "sys.exit(' '.join(sorted({m.partition('.')[0] for m in sys.modules} - known)) or 0)"
    )
    done = subprocess.run(["/usr/bin/python3", "-I", "-S", "-B", "-c", program], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


def test_nothing_is_left_where_it_is_cancelled(place):
    archive = tar(place / "x.tar", entry("x", data=b"x" * (1 << 20)))

    def cancel() -> None:
        raise Cancelled("enough")

    with pytest.raises(Cancelled):
        made(place, archive, check_cancelled=cancel)
    wait_until(lambda: not at_work(place), what="nobody is at work on it any more")


def at_work(place: Path) -> list[str]:
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if str(place) in Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace"):
                found.append(pid)
    return found


def test_a_full_disk_is_told_as_one(place):
    small = place / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "boxroom-test", small], check=True)
    try:
        archive = tar(place / "x.tar", entry("x", data=os.urandom(4 << 20)))
        rootfs = small / "rootfs"
        rootfs.mkdir()
        with pytest.raises(StorageFull):
            unpack(archive, formats.TAR, rootfs, groups=groups(place))
    finally:
        unmount(small)


def test_a_missing_program_is_named(place):
    archive = tar(place / "x.tar", entry("x"))
    missing = formats.Format(name="x", program=("/nonexistent/unx",), package="x-tools")
    with pytest.raises(HostUnsupported, match="x-tools"):
        unpack(archive, missing, place / "rootfs", groups=groups(place))


# whatever it holds


NAMES = st.lists(
    st.sampled_from(["a", "b", "..", ".", "", "\udcff", ".wh.a", ".wh..wh..opq", "x" * 300]), max_size=5
).map("/".join)
KINDS = st.sampled_from(
    [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, b"9", b"M"]
)
TARGETS = NAMES | st.sampled_from(["/etc/passwd", "../../../../canary", "/", "a", "b", "a/b"])
ENTRIES = st.lists(st.tuples(NAMES, KINDS, TARGETS, st.integers(-1, 70000)), max_size=12)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(entries=ENTRIES, layer=st.booleans())
def test_whatever_an_archive_holds_nothing_outside_its_tree_is_touched(entries, layer):
    """Without the confinement: names alone already lead nowhere else."""
    with tempfile.TemporaryDirectory(prefix="boxroom-archives-") as directory:
        place = Path(directory)
        (place / "canary").write_text("untouched")
        before = os.lstat(place / "canary")
        rootfs = place / "rootfs"
        rootfs.mkdir()
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT, errors="surrogateescape") as archive:
            for name, kind, target, owner in entries:
                with contextlib.suppress(ValueError):
                    archive.addfile(entry(name, kind, linkname=target, uid=max(owner, 0))[0])
        stream.seek(0)
        root_fd = os.open(rootfs, os.O_RDONLY)
        made_tree = tree.Tree(root_fd, rules.Limits(), layer=layer)
        try:
            made_tree.take(stream)
        except rules.Refused:
            pass
        finally:
            made_tree.close()
            os.close(root_fd)
        after = os.lstat(place / "canary")
        assert (before.st_ino, before.st_nlink, before.st_mtime_ns) == (after.st_ino, after.st_nlink, after.st_mtime_ns)
        assert sorted(os.listdir(place)) == ["canary", "rootfs"]
        for where, _directories, names in os.walk(rootfs):
            for name in names:
                status = os.lstat(Path(where) / name)
                assert status.st_uid <= 65535
                assert not stat.S_ISBLK(status.st_mode)
                assert not stat.S_ISCHR(status.st_mode) or (layer and status.st_rdev == 0)
