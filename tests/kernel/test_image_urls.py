"""Images out of archives that a web server has: a server of this test's own, on loopback."""

from __future__ import annotations

import hashlib
import http.server
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from containers.core import images
from containers.core.archives.unpacking import BadArchive
from containers.core.errors import PolicyDenied, SetupFailed

from .registries import Line
from .test_image_files import nothing_left, packed, tree


class Server(http.server.ThreadingHTTPServer):
    """Serves one file, as it is at that moment. etags: whether it says by which one knows it again."""

    daemon_threads = False

    def __init__(self, file: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.file = file
        self.etags = True
        self.answered: list[int] = []
        self.changes_to: Path | None = None


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        if self.path != "/root.tar?a=b":
            self.send_error(404)
            return
        data = self.server.file.read_bytes()
        etag = f'"{hashlib.sha256(data).hexdigest()}"'
        begin = int((re.findall(r"bytes=(\d+)-", self.headers.get("Range", "")) or [0])[0])
        if self.headers.get("If-Range", etag) != etag:
            begin = 0
        self.server.answered.append(206 if begin else 200)
        self.send_response(self.server.answered[-1])
        if self.server.etags:
            self.send_header("ETag", etag)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - begin))
        self.end_headers()
        if self.server.changes_to is not None:
            self.server.file, self.server.changes_to = self.server.changes_to, None
        self.wfile.write(data[begin:])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def archive(tmp_path) -> Path:
    made = tree(tmp_path / "tree")
    (made / "noise").write_bytes(os.urandom(1 << 20))
    return packed(tmp_path / "root.tar", "-C", str(made), ".")


@pytest.fixture
def server(host, archive) -> Iterator[Server]:
    with Server(archive) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def line(host, server) -> Iterator[Line]:
    made = Line(f"127.0.0.1:{server.server_port}")
    host.policy_path.write_text(f'[images]\ninsecure = ["{made.address}"]\n')
    yield made
    made.close()


def build(host, line: Line, name: str = "x", path: str = "/root.tar?a=b", **more: object):
    return images.build(host, name, {"type": "url", "url": f"http://{line.address}{path}", **more})


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_an_archive_of_a_server_is_taken_with_its_sha256_or_without(host, line, archive):
    told = []
    source = {"type": "url", "url": f"http://{line.address}/root.tar?a=b", "sha256": digest(archive)}
    built = images.build(host, "y", source, progress=lambda pct, _words: told.append(pct))
    assert built.details["file_sha256"] == digest(archive) == build(host, line).details["file_sha256"]
    assert built.defaults["init_command"] == ["/sbin/init"]
    assert told == sorted(told)
    assert any(20 < pct < 50 for pct in told)  # it knows how much there is, though nobody said so
    assert os.listdir(host.downloads_dir) == os.listdir(host.tmp_dir) == []


def test_what_is_not_it_not_there_or_not_allowed_is_refused(host, line, server):
    with pytest.raises(BadArchive, match="sha256"):
        build(host, line, sha256="0" * 64)
    with pytest.raises(SetupFailed, match="404"):
        build(host, line, path="/none")
    with pytest.raises(PolicyDenied) as denied:
        images.build(host, "x", {"type": "url", "url": f"https://127.0.0.1:{server.server_port}/root.tar"})
    assert denied.value.field == "source.url"
    host.policy_path.write_text(f'[images]\ninsecure = ["{line.address}"]\nmax_bytes = 500000\n')
    with pytest.raises(BadArchive, match="more than 500000 bytes"):
        build(host, line)
    nothing_left(host)


@pytest.mark.parametrize("etags", [True, False])
def test_a_connection_that_breaks_is_gone_on_with_where_the_file_is_known_again(host, line, server, archive, *, etags):
    server.etags = etags
    line.break_after_bytes, line.breaks_left = 1 << 19, 2
    assert build(host, line).details["file_sha256"] == digest(archive)
    assert server.answered == ([200, 206, 206] if etags else [200, 200, 200])


def test_a_file_that_changes_meanwhile_is_not_patched_together(host, line, server, tmp_path):
    other = tree(tmp_path / "other")
    (other / "noise").write_bytes(os.urandom(1 << 20))
    server.changes_to = packed(tmp_path / "other.tar", "-C", str(other), ".")
    line.break_after_bytes, line.breaks_left = 1 << 19, 1
    new = digest(server.changes_to)
    assert build(host, line).details["file_sha256"] == new
    assert server.answered == [200, 200]
