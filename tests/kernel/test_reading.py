"""What is in snapshots: differences, listings, files and archives, read in the container's own user namespace."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import socket
import stat
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from containers.clients import reading as client
from containers.core.errors import NotFound, SpecError
from containers.core.hoststore import claims, store
from containers.core.kernel import files
from containers.core.lifecycle import reading, running, snapshots, stored
from containers.core.reading import compare
from containers.core.storage import overlay
from containers.ticker.reading import Readers

from . import answers
from .conftest import NoNetwork
from .patience import patient, wait_until
from .test_storage import run_to_end, upper


def changed(host, spec, *, after: str, before: str = "") -> dict[str, tuple]:
    """Return the differences by path: (change, before, after, what)."""
    told, _ = answers.read(host, spec.id, "changes", after=after, before=before)
    assert told["complete"]
    return {
        one["path"]: (one["change"], one["before_bytes"], one["after_bytes"], tuple(one["what"]))
        for one in told["items"]
    }


def test_what_a_restore_changes_is_told_entry_by_entry(host, container):
    spec = container()
    run_to_end(host, spec, "mkdir -p /d/sub; echo one > /d/a; echo same > /d/same; ln -s a /d/l; echo x > /d/sub/x")
    stored.snapshot(host, spec.id, "snap0")
    run_to_end(
        host,
        spec,
        "rm -r /d/sub; echo other > /d/a; rm /etc/passwd; echo new > /etc/new; ln -sf b /d/l; chmod 600 /d/same;"
        "mkdir -p /tree/in; echo 12345 > /tree/in/f; rm -r /var; mkdir /var; echo y > /var/y",
    )
    found = changed(host, spec, after="snap0")
    found.pop("/d/l")
    assert found == {
        "/d/a": ("changed", 6, 4, ("content", "times")),
        "/d/same": ("changed", 5, 5, ("mode",)),
        "/d/sub": ("added", 0, 0, ()),
        "/d/sub/x": ("added", 0, 2, ()),
        "/etc/new": ("removed", 4, 0, ()),
        "/etc/passwd": ("added", 0, len("root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/tmp:/bin/sh\n"), ()),
        "/tree": ("removed", 0, 0, ()),
        "/tree/in": ("removed", 0, 0, ()),
        "/tree/in/f": ("removed", 6, 0, ()),
        "/var/y": ("removed", 2, 0, ()),
    }
    assert stored.orphans(host) == []


def test_two_points_that_are_alike_have_no_difference_and_any_two_are_compared(host, container):
    spec = container()
    for name in ("a", "b"):
        stored.snapshot(host, spec.id, name)
        (upper(host, spec) / name).write_text(name)
    stored.restore(host, spec.id, store.load_snapshot(host, spec.id, "a").layers, safety=snapshots.Safety(name="undo"))
    (upper(host, spec) / "branch").write_text("x")
    stored.snapshot(host, spec.id, "c")
    assert changed(host, spec, before="c", after="c") == {}
    assert changed(host, spec, after="c") == {}
    assert {path: one[0] for path, one in changed(host, spec, before="undo", after="c").items()} == {
        "/a": "removed",
        "/b": "removed",
        "/branch": "added",
    }


def test_the_cost_grows_with_what_changed_not_with_the_root(host, container, monkeypatch):
    spec = container()
    stored.snapshot(host, spec.id, "a")
    (upper(host, spec) / "sbin").mkdir()
    (upper(host, spec) / "sbin/new").write_text("1")
    asked = reading.request(host, spec.id, "changes", after="a")
    looked, listdir = [], os.listdir

    def noted(fd: int) -> list[str]:
        looked.append(os.readlink(f"/proc/self/fd/{fd}").removeprefix(str(host.layers_dir)))
        return listdir(fd)

    monkeypatch.setattr(os, "listdir", noted)
    with contextlib.ExitStack() as held:
        fds = [held.enter_context(files.opened(layer)) for layer in asked["layers"]]
        stacks = [[fds[index] for index in asked[side]] for side in ("before", "after")]
        found = compare.changes(*stacks, asked["shared"])
    assert [one.path for one in found.items] == ["/sbin/new"]
    own = f"/{store.load_root(host, spec.id).writable}/rootfs"
    # no directory of the image was looked into: not even /sbin, which holds hundreds of files
    assert sorted(looked) == [own, f"{own}/sbin"]


def test_the_reader_is_the_container_s_root_and_nobody_on_the_host(host, container):
    spec = container()
    secret = upper(host, spec) / "secret"
    secret.write_text("s")
    secret.chmod(0)
    os.chown(secret, 1000, 1000)
    stored.snapshot(host, spec.id, "a")
    told, data = answers.read(host, spec.id, "content", after="a", path="/secret")
    assert (told["size_bytes"], data) == (1, b"s")
    ours, theirs = socket.socketpair()
    try:
        asked = reading.request(host, spec.id, "archive", after="a")
        process = reading.start(host, asked, theirs.fileno())
        theirs.close()
        # it waits for us to read: the root is larger than a socket holds
        assert ours.recv(1) == b"{"
        fields = dict(
            line.split(":\t", 1)
            for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()
            if ":\t" in line
        )
        base = claims.id_base(host, spec.slot)
        assert fields["Uid"].split() == [str(base)] * 4
        assert fields["Groups"].strip() == ""
        assert int(fields["CapEff"], 16) == int(fields["CapPrm"], 16) == 1 << 2
        assert fields["NoNewPrivs"] == "1"
        assert os.listdir(f"/proc/{process.pid}/root") == []
        assert os.readlink(f"/proc/{process.pid}/ns/net") != os.readlink("/proc/self/ns/net")
    finally:
        ours.close()
        process.kill()
        process.wait()


def test_links_lead_nowhere_and_what_is_no_file_is_not_opened(host, container, tmp_path):
    spec = container()
    (tmp_path / "host").write_text("the host's")
    tree = upper(host, spec)
    (tree / "file").symlink_to(tmp_path / "host")
    (tree / "dir").symlink_to("/etc")
    (tree / "up").symlink_to("../../../../../../etc")
    os.mkfifo(tree / "fifo")
    os.mknod(tree / "kmsg", stat.S_IFCHR | 0o666, os.makedev(1, 11))
    stored.snapshot(host, spec.id, "a")
    for path in ("/file", "/fifo", "/kmsg", "/dir", "/"):
        with pytest.raises(SpecError, match="not a regular file"):
            answers.read(host, spec.id, "content", after="a", path=path)
    for path in ("/dir/passwd", "/up/passwd", "/../etc/passwd", "/none"):
        with pytest.raises(NotFound):
            answers.read(host, spec.id, "content", after="a", path=path)
    told, _ = answers.read(host, spec.id, "list", after="a")
    kinds = {one["name"]: (one["kind"], one["target"]) for one in told["items"]}
    assert kinds["file"] == ("link", str(tmp_path / "host"))
    assert (kinds["fifo"][0], kinds["kmsg"][0], kinds["bin"][0]) == ("fifo", "device", "directory")
    with pytest.raises(SpecError, match="not a directory"):
        answers.read(host, spec.id, "list", after="a", path="/dir")


def test_an_archive_holds_everything(host, container, tmp_path):
    spec = container()
    tree = upper(host, spec) / "data"
    tree.mkdir()
    (tree / "f").write_bytes(b"x" * 100_000)
    os.chown(tree / "f", 1000, 1001)
    (tree / "f").chmod(0o4750)
    os.link(tree / "f", tree / "g")
    os.setxattr(tree / "f", "user.note", b"kept")
    os.utime(tree / "f", ns=(1_000_000_000, 1_234_567_890_123_456_789))
    (tree / "l").symlink_to("f")
    os.mknod(tree / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.close(os.open(os.fsencode(tree) + b"/\xff", os.O_CREAT | os.O_WRONLY))
    stored.snapshot(host, spec.id, "a")
    _told, data = answers.read(host, spec.id, "archive", after="a", path="/data")
    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape") as archive:
        members = {one.name: one for one in archive}
        file = members["data/f"]
        assert archive.extractfile("data/g").read() == b"x" * 100_000  # type: ignore[union-attr]
    assert (file.uid, file.gid, file.mode, file.size) == (1000, 1001, 0o4750, 100_000)
    assert file.pax_headers["SCHILY.xattr.user.note"] == "kept"
    assert abs(file.mtime - 1234567890.1234567) < 1e-6
    assert (members["data/g"].type, members["data/g"].linkname) == (tarfile.LNKTYPE, "data/f")
    assert (members["data/l"].linkname, members["data/null"].devmajor, members["data/null"].devminor) == ("f", 1, 3)
    assert os.fsdecode(b"data/\xff") in members
    # what tar makes of it
    (tmp_path / "a.tar").write_bytes(data)
    done = subprocess.run(
        ["tar", "--xattrs", "-tvf", tmp_path / "a.tar"], capture_output=True, text=True, errors="replace", check=True
    )
    assert "-rwsr-x---" in done.stdout


def test_text_differs_by_lines_and_only_text(host, container):
    spec = container()
    tree = upper(host, spec)
    (tree / "t").write_text("one\ntwo\nthree\n")
    (tree / "b").write_bytes(b"\0\1")
    (tree / "big").write_bytes(b"x" * (300 * 1024))
    stored.snapshot(host, spec.id, "a")
    (upper(host, spec) / "t").write_text("one\n2\nthree\n")
    (upper(host, spec) / "new").write_text("one\n")
    (upper(host, spec) / "open").write_text("one")

    def text(path: str) -> tuple[str | None, str | None]:
        told, _ = answers.read(host, spec.id, "text", after="a", path=path)
        return told["diff"], told["reason"]

    diff, reason = text("/t")
    assert diff is not None
    assert "-2\n+two" in diff
    assert diff.endswith(" three")
    assert reason is None
    assert text("/new") == ("--- before\n+++ after\n@@ -1 +0,0 @@\n-one", None)
    assert text("/open") == ("--- before\n+++ after\n@@ -1 +0,0 @@\n-one\n\\ No newline at end of file", None)
    assert text("/b") == (None, "binary")
    assert text("/big") == (None, "too-large")
    assert text("/bin") == (None, "no-file")
    assert text("/on-neither-side") == (None, "no-file")


def test_a_running_container_s_files_are_compared_while_it_writes(host, container):
    spec = container(
        init_command=("/bin/sh", "-c", "while :; do echo $$ > /busy; rm /busy; mkdir -p /m/n; rm -r /m; done")
    )
    stored.snapshot(host, spec.id, "a")
    running.start(host, spec, network=NoNetwork())
    for _ in range(3):
        assert set(changed(host, spec, after="a")) <= {"/busy", "/m", "/m/n"}
    assert overlay.plan(host, spec)


# the way from the web


@pytest.fixture
def readers(host, settings):
    """The ticker's thread, at the socket that the web asks."""
    settings.BOXROOM_RUN_DIR = str(host.run_dir)
    thread = Readers(host)
    thread.start()
    yield thread
    thread.stop()
    thread.join(patient(60))
    assert not thread.is_alive()


def test_the_web_asks_and_gets_answers_and_refusals(host, container, readers):
    spec = container()
    (upper(host, spec) / "f").write_text("one\n")
    stored.snapshot(host, spec.id, "a")
    (upper(host, spec) / "f").write_text("two!\n")
    told = client.ask(spec.id, "changes", after="a")
    assert [(one["path"], one["before_bytes"], one["after_bytes"]) for one in told["items"]] == [("/f", 5, 4)]
    assert client.ask(spec.id, "text", after="a", path="/f")["diff"].endswith("-two!\n+one")
    assert [one["name"] for one in client.ask(spec.id, "list", after="a", path="/root")["items"]] == []
    for asked in ({"after": "none"}, {"after": "a", "path": "/none"}):
        with pytest.raises(NotFound):
            client.ask(spec.id, "list", **asked)
    with pytest.raises(NotFound):
        client.ask("0" * 12, "list", after="")
    with pytest.raises(NotFound):
        client.ask("../../etc", "list", after="")


async def test_files_come_as_streams_and_a_reader_ends_with_whoever_asked(host, container, readers):
    spec = container()
    (upper(host, spec) / "big").write_bytes(os.urandom(3 << 20))
    kept = stored.snapshot(host, spec.id, "a")
    stream = await client.stream(spec.id, "content", after="a", path="/big")
    assert stream.head == {"size_bytes": 3 << 20, "name": "big"}
    data = b"".join([piece async for piece in stream])
    assert data == (store.rootfs(host, kept.layers[-1]) / "big").read_bytes()
    stream = await client.stream(spec.id, "archive", after="a", path="/")
    stream.close()
    await asyncio.to_thread(wait_until, lambda: not readers._running, what="the reader ends")
    with pytest.raises(SpecError):
        await client.stream(spec.id, "content", after="a", path="/bin")


def test_nobody_else_may_ask(host, readers):
    script = (
        "import os, socket, sys\n"
        "link = socket.socket(socket.AF_UNIX)\n"
        "link.connect(sys.argv[1])\n"
        "if sys.argv[2]: link.sendall(sys.argv[2].encode())\n"
        "print(link.recv(1000))"
    )
    asked = subprocess.run(
        [sys.executable, "-c", script, str(host.reader_socket), "{}\n"], capture_output=True, text=True, check=True
    )
    assert "This is no question" in asked.stdout
    host.reader_socket.chmod(0o666)
    host.reader_socket.parent.chmod(0o755)
    stranger = subprocess.run(
        ["/usr/bin/setpriv", "--reuid", "65533", "--regid", "65533", "--clear-groups", "--", "/usr/bin/python3", "-c",
         script, str(host.reader_socket), ""],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "Only root and the web" in stranger.stdout
