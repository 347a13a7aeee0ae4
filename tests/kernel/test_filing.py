"""A container's files, seen and changed as its own root: browsing, writing, managing, and a tree that fights back."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import socket
import stat
import subprocess
import tarfile
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from containers.clients import filing as client
from containers.core.cgroups import detect
from containers.core.errors import (
    AlreadyExists,
    Busy,
    Cancelled,
    Changed,
    InUse,
    InvalidTransition,
    NotFound,
    PolicyDenied,
    SetupFailed,
    SpecError,
    StorageFull,
)
from containers.core.hoststore import claims, store
from containers.core.lifecycle import filing, running, stored
from containers.ticker.filing import Filers

from .conftest import NoNetwork
from .patience import wait_until
from .test_exactness import ACL
from .test_storage import run_to_end, upper


@pytest.fixture
def filers(host, settings):
    """The ticker's thread, at the socket that the web asks."""
    settings.BOXROOM_RUN_DIR = str(host.run_dir)
    thread = Filers(host)
    thread.start()
    yield thread
    thread.stop()
    thread.join(60)
    assert not thread.is_alive()


@pytest.fixture(params=["stopped", "running"])
def spec(request, host, container):
    """A container, stopped or running."""
    made = container()
    if request.param == "running":
        running.start(host, made, network=NoNetwork())
    return made


def names(spec, path: str = "/", **more) -> dict[str, dict]:
    asked = {"offset": 0, "limit": 1000, "sort": "name", "descending": False, "match": ""}
    snapshot = more.pop("snapshot", "")
    found = client.ask(spec.id, "list", {"path": path, **asked, **more}, snapshot=snapshot)
    return {one["name"]: one for one in found["items"]}


def write(spec, path: str, data: bytes, **more) -> dict:
    asked = {"path": path, "size": len(data), "etag": "", "replace": True, "mode": None, **more}
    return client.write(spec.id, asked, [data[:10], data[10:]])


def text(spec, path: str) -> dict:
    return client.ask(spec.id, "text", {"path": path})


async def content(spec, path: str, verb: str = "content", only: Sequence[str] = ()) -> bytes:
    stream = await client.stream(spec.id, verb, path, only=only)
    return b"".join([piece async for piece in stream])


async def test_files_are_seen_written_and_taken_as_the_containers_root(host, spec, filers):
    assert {"bin", "etc", "sbin"} <= set(names(spec))
    made = write(spec, "/etc/motd", b"hello\n")
    assert (made["entry"]["path"], made["entry"]["mode"], made["entry"]["user"]) == ("/etc/motd", "0644", "root")
    assert text(spec, "/etc/motd") | {"entry": None} == {
        "text": "hello\n", "etag": made["etag"], "line_ends": "lf", "reason": None, "entry": None,
    }  # fmt: skip
    # an owner, a mode and attributes stay; set-id bits do not
    change = {"path": "/etc/motd", "mode": 0o4640, "user": "alice", "group": "1000", "recursive": False}
    changed = client.ask(spec.id, "attributes", change)["entry"]
    assert (changed["user"], changed["gid"], changed["mode"]) == ("alice", 1000, "4640")
    again = write(spec, "/etc/motd", b"other\n", etag=made["etag"])["entry"]
    assert (again["uid"], again["gid"], again["mode"], again["size_bytes"]) == (1000, 1000, "0640", 6)
    # what is there is not replaced unasked, and what has changed not at all
    with pytest.raises(AlreadyExists):
        write(spec, "/etc/motd", b"new", replace=False)
    with pytest.raises(Changed):
        write(spec, "/etc/motd", b"late", etag=made["etag"])
    assert text(spec, "/etc/motd")["text"] == "other\n"
    client.ask(spec.id, "make", {"path": "/srv", "mode": None})
    client.ask(spec.id, "rename", {"path": "/etc/motd", "to": "/srv/motd"})
    with pytest.raises(AlreadyExists):
        client.ask(spec.id, "rename", {"path": "/etc/passwd", "to": "/srv/motd"})
    with pytest.raises(InUse, match="not empty"):
        client.ask(spec.id, "remove", {"path": "/srv", "recursive": False})
    assert await content(spec, "/srv/motd") == b"other\n"
    with tarfile.open(fileobj=io.BytesIO(await content(spec, "/srv", "archive"))) as archive:
        assert [(one.name, one.uid, one.mode) for one in archive] == [("srv", 0, 0o755), ("srv/motd", 1000, 0o640)]
    # of a directory what is named alone, with all in it
    client.ask(spec.id, "make", {"path": "/srv/d", "mode": None})
    write(spec, "/srv/d/one", b"1")
    write(spec, "/srv/left", b"2")
    for path, only, found in (
        ("/srv", ["d", "motd"], ["d", "d/one", "motd"]),
        ("/", ["srv"], ["srv", "srv/d", "srv/d/one", "srv/left", "srv/motd"]),
    ):
        with tarfile.open(fileobj=io.BytesIO(await content(spec, path, "archive", only))) as archive:
            assert sorted(archive.getnames()) == found
    for path, only, error in (
        ("/srv", ["motd", "none"], NotFound),
        ("/srv/motd", ["x"], SpecError),
        ("/srv", ["../etc"], SpecError),
    ):
        with pytest.raises(error):
            await content(spec, path, "archive", only)
    client.ask(spec.id, "remove", {"path": "/srv", "recursive": True})
    assert "srv" not in names(spec)
    with pytest.raises(NotFound):
        client.ask(spec.id, "entry", {"path": "/srv"})


def test_a_stopped_containers_changes_are_there_when_it_runs_and_nobody_is_in_the_way(host, container, filers):
    spec = container()
    write(spec, "/etc/note", b"before\n")
    stored.snapshot(host, spec.id, "a")
    write(spec, "/etc/note", b"after\n")
    # a directory of a layer below, which overlay cannot rename by itself
    client.ask(spec.id, "rename", {"path": "/etc", "to": "/etc2"})
    client.ask(spec.id, "rename", {"path": "/etc2", "to": "/etc"})
    assert run_to_end(host, spec, "cat /etc/note; stat -c %a /etc /etc/note").split() == ["after", "755", "644"]
    asked = {"path": "/etc/note"}
    assert client.ask(spec.id, "text", asked, snapshot="a")["text"] == "before\n"
    with pytest.raises(SpecError, match="stays as it is"):
        client.ask(spec.id, "make", {"path": "/x", "mode": None}, snapshot="a")
    with store.lock(host, "container", spec.id):
        assert "etc" in names(spec)  # who reads waits for nobody
        with filing_wait(0.2), pytest.raises(Busy):
            write(spec, "/etc/note", b"x")
    assert stored.orphans(host) == []


@contextlib.contextmanager
def filing_wait(seconds: float):
    before = filing.WAIT_SEC
    filing.WAIT_SEC = seconds
    try:
        yield
    finally:
        filing.WAIT_SEC = before


def test_links_lead_inside_and_what_is_no_file_is_never_opened(host, spec, filers, tmp_path):
    (tmp_path / "secret").write_text("the host's")
    tree = upper(host, spec)
    make = {"path": "/d", "mode": None}
    client.ask(spec.id, "make", make)
    for name, target in (("abs", str(tmp_path / "secret")), ("up", "../../../../etc/passwd"), ("dir", "/etc"),
                         ("loop", "loop"), ("proc", "/proc/self/root/etc/passwd")):  # fmt: skip
        os.symlink(target, tree / "d" / name)
    os.mkfifo(tree / "d/fifo")
    os.mknod(tree / "d/kmsg", stat.S_IFCHR | 0o666, os.makedev(1, 11))
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(str(tree / "d/socket"))
    found = {name: (one["kind"], one["leads_to"]) for name, one in names(spec, "/d").items()}
    assert found == {
        "abs": ("link", None), "up": ("link", "file"), "dir": ("link", "directory"), "loop": ("link", None),
        "proc": ("link", None), "fifo": ("fifo", None), "kmsg": ("device", None), "socket": ("socket", None),
    }  # fmt: skip
    assert text(spec, "/d/up")["text"].startswith("root:x:0:0")
    assert set(names(spec, "/d/dir")) == set(names(spec, "/etc"))
    for name in ("fifo", "kmsg", "socket"):
        assert text(spec, f"/d/{name}")["reason"] == "no-file"
        with pytest.raises(SpecError, match="not a regular file"):
            write(spec, f"/d/{name}", b"x")
    for name in ("abs", "loop", "proc"):
        with pytest.raises((NotFound, SpecError)):
            text(spec, f"/d/{name}")
    # what is written through a link is what it leads to, inside; the host's file is as it was
    with pytest.raises(NotFound):
        write(spec, "/d/abs", b"mine")
    assert (tmp_path / "secret").read_text() == "the host's"
    write(spec, "/d/up", b"root:x:0:0::/:/bin/sh\n")
    assert names(spec, "/d")["up"]["kind"] == "link"
    for place in ("/proc", "/sys", "/dev/pts"):
        with contextlib.suppress(NotFound):  # while it does not run there is none, or an empty directory
            with contextlib.suppress(SpecError):  # it belongs to the kernel
                assert names(spec, place) == {}


async def test_names_that_are_no_utf8_pages_and_large_directories(host, container, filers):
    spec = container()
    tree = upper(host, spec) / "many"
    tree.mkdir()
    many = 50_000
    for number in range(many):
        os.mknod(tree / f"f{number:05}")
    os.mkdir(os.fsencode(tree) + b"/a\xff\n")
    page = {"path": "/many", "limit": 3, "offset": many - 1, "sort": "name", "descending": False, "match": ""}
    found = client.ask(spec.id, "list", page)
    assert (found["total"], found["complete"]) == (many + 1, True)
    assert [one["name"] for one in found["items"]] == [f"f{many - 2}", f"f{many - 1}"]
    found = client.ask(spec.id, "list", {**page, "offset": 0, "limit": 1})
    assert [(one["name"], one["path"]) for one in found["items"]] == [(r"a\xff\n", r"/many/a\xff\x0a")]
    path = os.fsdecode(b"/many/a\xff\n/x\\y")
    write(spec, path, b"odd")
    assert await content(spec, path) == b"odd"
    assert list(names(spec, os.fsdecode(b"/many/a\xff\n"))) == ["x\\y"]
    assert len(names(spec, "/many", match="F0000")) == 10


def test_the_filer_is_the_containers_root_with_few_rights_and_ends_with_it(host, container, filers):
    spec = container()
    running.start(host, spec, network=NoNetwork())
    asked = {"path": "/big", "size": 10, "etag": "", "replace": True, "mode": None}
    ours, theirs = socket.socketpair()
    with contextlib.closing(ours), filing.prepared(host, spec.id, "write", asked) as ready:
        process = filing.start(host, ready, theirs.fileno())
        theirs.close()
        try:
            assert b'"go": true' in ours.recv(100)
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
            assert status["Uid"].split() == [str(claims.id_base(host, spec.slot))] * 4
            assert int(status["CapEff"], 16) == sum(1 << bit for bit in (0, 1, 2, 3, 4, 27, 31))
            assert (status["NoNewPrivs"], status["Seccomp"], status["Groups"].strip()) == ("1", "2", "")
            for name in ("mnt", "user", "net", "cgroup"):
                init = ready.request["init_pid"]
                assert os.readlink(f"/proc/{process.pid}/ns/{name}") == os.readlink(f"/proc/{init}/ns/{name}")
            assert f"/c-{spec.id}/attach\n" in Path(f"/proc/{process.pid}/cgroup").read_text()
            detect.open(host).kill(spec.id)
            process.wait(60)
        finally:
            process.kill()
            process.wait()
    wait_until(lambda: running.observe_one(host, spec.id).status == "stopped", what="it has stopped")
    assert "big" not in names(spec)


def test_whoever_is_killed_in_the_midst_leaves_the_old_file_and_nothing_else(host, spec, filers):
    write(spec, "/etc/motd", b"old\n")
    before = set(names(spec, "/etc"))
    size = 1 << 20
    asked = {"path": "/etc/motd", "size": size, "etag": "", "replace": True, "mode": None}
    for sent in (0, size // 2, size - 1):
        ours, theirs = socket.socketpair()
        with contextlib.closing(ours), filing.prepared(host, spec.id, "write", asked) as ready:
            process = filing.start(host, ready, theirs.fileno())
            theirs.close()
            assert b'"go": true' in ours.recv(100)
            ours.sendall(b"n" * sent)
            process.send_signal(signal.SIGKILL)
            process.wait(60)
        assert text(spec, "/etc/motd")["text"] == "old\n"
    with pytest.raises(SpecError, match="not sent to its end"):
        client.write(spec.id, {**asked, "size": 10}, [b"12345"])
    assert text(spec, "/etc/motd")["text"] == "old\n"
    assert set(names(spec, "/etc")) == before


def test_a_full_disk_leaves_the_old_file(host, container, filers):
    script = (
        "mkdir -p /full; mount -t tmpfs -o size=64k none /full && echo old > /full/f;"
        "touch /full/ready; while :; do sleep 3600; done"
    )
    spec = container(init_command=("/bin/sh", "-c", script))
    running.start(host, spec, network=NoNetwork())

    def ready() -> bool:
        with contextlib.suppress(NotFound):
            return "ready" in names(spec, "/full")
        return False

    wait_until(ready, what="its tmpfs is mounted")
    with pytest.raises(StorageFull, match="full"):
        write(spec, "/full/f", b"x" * 200_000)
    assert text(spec, "/full/f")["text"] == "old\n"
    assert set(names(spec, "/full")) == {"f", "ready"}
    with pytest.raises(PolicyDenied):
        client.write(spec.id, {"path": "/f", "size": 17 * 1024**3, "etag": "", "replace": True, "mode": None}, [])


def test_a_tree_that_changes_meanwhile_leads_nowhere(host, container, filers, tmp_path):
    (tmp_path / "victim").write_text("host")
    swap = (
        "mkdir -p /s/real /other; echo inside > /s/real/f; echo inside > /other/f; cd /s;"
        f"while :; do ln -s {tmp_path} l; mv -T l d 2>/dev/null; rm -rf d; cp -r real d; rm d/f; mkfifo d/f;"
        "rm d/f; ln -s /dev/zero d/f; rm -rf d; ln -s /other d; rm d; done"
    )
    spec = container(init_command=("/bin/sh", "-c", swap))
    running.start(host, spec, network=NoNetwork())
    outcomes = set()
    for _ in range(3):
        for do in (
            lambda: text(spec, "/s/d/f"),
            lambda: write(spec, "/s/d/f", b"panel"),
            lambda: client.ask(spec.id, "attributes", {"path": "/s/d", "mode": 0o777, "user": "1000", "group": None,
                                                       "recursive": True}),
            lambda: client.ask(spec.id, "remove", {"path": "/s/d", "recursive": True}),
        ):  # fmt: skip
            try:
                outcomes.add(type(do()).__name__)
            except (NotFound, SpecError, AlreadyExists, InUse, SetupFailed) as error:
                outcomes.add(error.code)
    assert "unavailable" not in outcomes
    assert (tmp_path / "victim").read_text() == "host"
    assert (tmp_path.stat().st_mode & 0o777, os.listdir(tmp_path)) == (0o700, ["victim"])


def test_a_tree_of_any_depth_is_removed(host, container, filers):
    spec = container()
    here = os.open(upper(host, spec), os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(700):
        os.mkdir("deep", dir_fd=here)
        inner = os.open("deep", os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    with pytest.raises(SpecError, match="nested too deeply"):
        client.ask(spec.id, "attributes", {"path": "/deep", "mode": 0o700, "user": None, "group": None,
                                           "recursive": True})  # fmt: skip
    client.ask(spec.id, "remove", {"path": "/deep", "recursive": True})
    assert "deep" not in names(spec)


def test_a_frozen_container_and_a_privileged_one(host, container, filers):
    spec = container()
    running.start(host, spec, network=NoNetwork())
    running.freeze(host, spec.id)
    write(spec, "/etc/motd", b"while it stands still\n")
    assert text(spec, "/etc/motd")["text"] == "while it stands still\n"
    running.thaw(host, spec.id)
    running.stop(host, spec.id, timeout_sec=60)
    assert run_to_end(host, spec, "cat /etc/motd").strip() == "while it stands still"
    bare = container(privileged=True)
    write(bare, "/etc/motd", b"stopped\n")
    running.start(host, bare, network=NoNetwork())
    assert text(bare, "/etc/motd")["text"] == "stopped\n"
    with pytest.raises(InvalidTransition, match="privileged"):
        write(bare, "/etc/motd", b"x")


def test_nobody_else_asks_and_one_container_does_not_hold_up_another(host, container, filers):
    spec, other = container(), container()
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(str(host.filer_socket))
        request = {"container": spec.id, "verb": "put-back", "snapshot": "", "asked": {}}
        link.sendall(json.dumps(request).encode() + b"\n")
        assert "This is no request" in link.recv(1000).decode()
    host.filer_socket.chmod(0o666)
    script = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); print(s.recv(1000))"
    host.filer_socket.parent.chmod(0o755)
    stranger = subprocess.run(
        ["/usr/bin/setpriv", "--reuid", "65533", "--regid", "65533", "--clear-groups", "--", "/usr/bin/python3", "-c",
         script, str(host.filer_socket)], capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "Only root and the web" in stranger.stdout
    begun = threading.Semaphore(0)
    go_on = threading.Event()

    def slow():
        asked = {"path": "/x", "size": 1, "etag": "", "replace": True, "mode": None}

        def pieces():
            begun.release()
            go_on.wait(300)
            yield b"x"

        with contextlib.suppress(Busy):
            client.write(spec.id, asked, pieces())

    with filing_wait(120):
        threads = [threading.Thread(target=slow) for _ in range(4)]
        for thread in threads:
            thread.start()
        assert begun.acquire(timeout=60)
        wait_until(lambda: filers._of_one[spec.id] == 4, what="four are at work")
        with pytest.raises(Busy, match="Too many"):
            names(spec)
        assert "etc" in names(other)
        go_on.set()
        for thread in threads:
            thread.join(180)
    assert names(spec)["x"]["size_bytes"] == 1


# put back


def put_back(host, spec, *paths: str, exact: bool = False) -> dict:
    told: list[tuple[int, int]] = []
    done = filing.put_back(host, spec.id, "a", paths, exact=exact, tell=lambda *one: told.append(one))
    assert all(entries >= 0 for entries, _size in told)
    return done


def test_files_of_a_snapshot_come_back_as_they_were_and_no_other_changes(host, spec, filers):
    tree = upper(host, spec) / "data"
    tree.mkdir()
    (tree / "f").write_bytes(b"then\n" * 1000)
    os.chown(tree / "f", 1000, 1001)
    (tree / "f").chmod(0o4750)
    os.setxattr(tree / "f", "user.note", b"kept")
    os.utime(tree / "f", ns=(1_000_000_000, 1_234_567_890_123_456_789))
    os.link(tree / "f", tree / "g")
    (tree / "link").symlink_to("f")
    (tree / "dir").mkdir()
    (tree / "dir").chmod(0o2711)
    (tree / "dir/in").write_text("in")
    (tree / "gone").mkdir()
    (tree / "gone/x").write_text("x")
    os.mkfifo(tree / "pipe")
    os.setxattr(tree / "pipe", "system.posix_acl_access", ACL)
    (tree / "hole").write_bytes(b"")
    os.truncate(tree / "hole", 1 << 20)
    stored.snapshot(host, spec.id, "a")
    client.ask(spec.id, "remove", {"path": "/data/gone", "recursive": True})
    client.ask(spec.id, "remove", {"path": "/data/dir", "recursive": True})
    client.ask(spec.id, "remove", {"path": "/data/pipe", "recursive": False})
    write(spec, "/data/dir", b"a file instead")
    write(spec, "/data/f", b"now\n")
    client.ask(spec.id, "make", {"path": "/data/new", "mode": None})
    write(spec, "/data/new/y", b"y")
    before = names(spec, "/data")
    assert put_back(host, spec, "/data/f")["put_back"] == 1
    one = names(spec, "/data")["f"]
    assert (one["uid"], one["gid"], one["mode"], one["size_bytes"]) == (1000, 1001, "4750", 5000)
    assert one["modified_at"] == pytest.approx(1234567890.123456789)
    assert {name: item for name, item in names(spec, "/data").items() if name != "f"} == {
        name: item for name, item in before.items() if name != "f"
    }
    done = put_back(host, spec, "/data", exact=True)
    assert os.getxattr(upper(host, spec) / "data/pipe", "system.posix_acl_access") == ACL
    assert (done["removed"], done["skipped"], done["left_out"]) == (2, [], 0)
    now, then = names(spec, "/data"), names(spec, "/data", snapshot="a")
    assert now == then
    assert (now["f"]["links"], now["dir"]["mode"], now["pipe"]["kind"]) == (2, "2711", "fifo")
    assert names(spec, "/data/gone") == names(spec, "/data/gone", snapshot="a")
    assert text(spec, "/data/dir/in")["text"] == "in"
    again = put_back(host, spec, "/data", "/data/dir/in")
    assert again["put_back"] <= 2  # files of several names are not compared
    assert not [name for name in names(spec, "/data") if name.startswith(".boxroom")]
    with pytest.raises(NotFound):
        put_back(host, spec, "/data/new")
    with pytest.raises(SpecError, match="restore the snapshot"):
        put_back(host, spec, "/")


def test_putting_back_follows_no_link_out_and_a_killed_one_leaves_old_or_new(host, container, filers, tmp_path):
    (tmp_path / "f").write_text("host")
    spec = container()
    tree = upper(host, spec) / "d"
    tree.mkdir()
    for number in range(40):
        (tree / f"f{number}").write_text("then")
    stored.snapshot(host, spec.id, "a")
    # the directory is a link now, to a place that is there on the host only
    here = upper(host, spec)
    client.ask(spec.id, "remove", {"path": "/d", "recursive": True})
    (here / "d").unlink()  # overlay's mark that it is gone
    (here / "d").symlink_to(tmp_path)
    with pytest.raises(NotFound):
        put_back(host, spec, "/d/f1")
    assert sorted(os.listdir(tmp_path)) == ["f"]
    assert put_back(host, spec, "/d")["put_back"] == 1
    for number in range(40):
        write_there = store.rootfs(host, store.load_root(host, spec.id).writable) / f"d/f{number}"
        write_there.write_text("now!")
    asked = {"path": "/", "paths": ["/d"], "exact": False}
    read_fd, write_fd = os.pipe()
    with filing.prepared(host, spec.id, "put-back", asked, snapshot="a") as ready:
        process = filing.start(host, ready, write_fd)
        os.close(write_fd)
        first = write_there.parent / "f0"
        wait_until(lambda: first.read_text() == "then" or process.poll() is not None, what="it is at work")
        process.kill()
        process.wait()
    os.close(read_fd)
    found = {text(spec, f"/d/f{number}")["text"] for number in (0, 1, 20, 38, 39)}
    assert found <= {"then", "now!"}
    put_back(host, spec, "/d")
    assert set(names(spec, "/d")) == {f"f{number}" for number in range(40)}
    assert text(spec, "/d/f39")["text"] == "then"


def test_kinds_that_have_changed_are_put_back_and_who_is_cancelled_leaves_nothing_half_done(host, container, filers):
    spec = container()
    here = upper(host, spec)
    (here / "d").mkdir()
    (here / "d/file").write_text("was a file")
    (here / "d/tree").mkdir()
    (here / "d/tree/leaf").write_text("was in a directory")
    stored.snapshot(host, spec.id, "a")
    client.ask(spec.id, "remove", {"path": "/d/file", "recursive": False})
    client.ask(spec.id, "make", {"path": "/d/file", "mode": None})
    client.ask(spec.id, "make", {"path": "/d/file/inner", "mode": None})
    client.ask(spec.id, "remove", {"path": "/d/tree", "recursive": True})
    client.ask(spec.id, "make", {"path": "/d/tree", "mode": None})
    # what is in the way lies in a layer below now, where overlay moves no directory
    stored.snapshot(host, spec.id, "b")
    put_back(host, spec, "/d")
    assert text(spec, "/d/file")["text"] == "was a file"
    assert text(spec, "/d/tree/leaf")["text"] == "was in a directory"

    def cancelled(_entries: int, _size: int) -> None:
        raise Cancelled("enough")

    (upper(host, spec) / "d/big").write_bytes(b"x" * (40 << 20))
    stored.snapshot(host, spec.id, "c")
    client.ask(spec.id, "remove", {"path": "/d/big", "recursive": False})
    with pytest.raises(Cancelled):
        filing.put_back(host, spec.id, "c", ["/d"], exact=False, tell=cancelled)
    assert names(spec, "/d").keys() <= {"file", "tree", "big"}
