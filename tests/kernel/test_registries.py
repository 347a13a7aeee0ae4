"""Images out of registries: the real server on loopback, filled by skopeo; tokens; broken lines; where not to go."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from containers.core import images
from containers.core.archives.unpacking import BadArchive
from containers.core.errors import Cancelled, PolicyDenied, SetupFailed, SpecError
from containers.core.hoststore import store
from containers.core.images import downloading, remote
from containers.core.lifecycle import stored

from .registries import Line, Tokens, registry
from .test_image_files import layout, nothing_left, tree

__all__ = ["layout"]


@pytest.fixture(scope="module")
def big(tmp_path_factory) -> Path:
    """An OCI layout with one layer of 3 MB that does not compress."""
    place = tmp_path_factory.mktemp("big")
    for words in (["init", "--layout", "layout"], ["new", "--image", "layout:x"]):
        subprocess.run(["umoci", *words], check=True, cwd=place, stdout=subprocess.DEVNULL)
    subprocess.run(["umoci", "unpack", "--image", "layout:x", "one"], check=True, cwd=place, stdout=subprocess.DEVNULL)
    (tree(place / "one/rootfs") / "data").write_bytes(os.urandom(3 << 20))
    subprocess.run(["umoci", "repack", "--image", "layout:x", "one"], check=True, cwd=place, stdout=subprocess.DEVNULL)
    return place / "layout"


def push(source: Path, address: str, name: str, *options: str) -> None:
    subprocess.run(
        ["skopeo", "copy", "-q", "--dest-tls-verify=false", *options, f"oci:{source}:x", f"docker://{address}/{name}"],
        check=True,
    )


@pytest.fixture(scope="module")
def filled(layout, big, tmp_path_factory) -> Path:
    """What a registry keeps that has team/tiny:1 (gzip), team/tiny:zstd and team/big:1."""
    place = tmp_path_factory.mktemp("registry")
    with registry(place) as address:
        push(layout, address, "team/tiny:1")
        push(layout, address, "team/tiny:zstd", "--dest-compress-format", "zstd", "--format", "oci")
        push(big, address, "team/big:1")
    return place


@pytest.fixture
def server(filled) -> Iterator[str]:
    """That registry, running."""
    with registry(filled) as address:
        yield address


def allow(host, *addresses: str) -> None:
    host.policy_path.write_text(f"[images]\ninsecure = {json.dumps(addresses)}\n")


def pull(host, reference: str, name: str = "x", **options):
    return images.build(host, name, {"type": "oci", "reference": reference}, **options)


def downloads(host) -> list[str]:
    return os.listdir(host.downloads_dir) if host.downloads_dir.exists() else []


def test_an_image_is_pulled_and_its_layers_shared(host, server):
    allow(host, server)
    told: list[int] = []
    built = pull(host, f"{server}/team/tiny:1", progress=lambda pct, _message: told.append(pct))
    assert told == sorted(told)
    assert len(built.layers) == 2
    assert built.defaults["init_command"] == ["/bin/sh", "-c"]
    assert built.details["reference"] == f"{server}/team/tiny:1"
    again = pull(host, f"{server}/team/tiny@{built.details['digest']}", "y")
    assert again.layers == built.layers
    other = pull(host, f"{server}/team/tiny:zstd", "z")
    assert other.layers == built.layers, "packed in another way, the same all the same"
    assert downloads(host) == []
    for name in "xyz":
        stored.delete_image(host, name)
    nothing_left(host)


def test_what_is_not_there_is_named(host, server):
    allow(host, server)
    for reference in (f"{server}/team/none:1", f"{server}/team/tiny:none", f"{server}/team/tiny@sha256:{'0' * 64}"):
        with pytest.raises(SpecError) as error:
            pull(host, reference)
        assert error.value.field == "source.reference"
    nothing_left(host)


def test_a_token_is_asked_for_with_the_credentials_that_root_wrote_down(host, layout, tmp_path):
    tokens = Tokens()
    try:
        with registry(tmp_path, tokens=tokens) as address:
            push(layout, address, "team/tiny:1", f"--dest-creds={tokens.USER}:{tokens.PASSWORD}")
            tokens.asked.clear()
            allow(host, address, tokens.address)
            with pytest.raises(SpecError, match=r"registries\.toml"):
                pull(host, f"{address}/team/tiny:1")
            path = host.state_dir / "registries.toml"
            table = f'["{address}"]\nusername = "{tokens.USER}"\npassword = "{tokens.PASSWORD}"\n'
            path.write_text(table)
            path.chmod(0o644)
            with pytest.raises(PolicyDenied, match="0600"):
                pull(host, f"{address}/team/tiny:1")
            path.chmod(0o600)
            assert len(pull(host, f"{address}/team/tiny:1").layers) == 2
            assert tokens.asked[-1] == {"scope": ["repository:team/tiny:pull"], "service": ["test"]}
            path.write_text(f"[projects.web]\n{table.replace('[', '[projects.web.')}")
            with pytest.raises(SpecError):
                pull(host, f"{address}/team/tiny:1", "y")
            source = {"type": "oci", "reference": f"{address}/team/tiny:1", "project": "web"}
            lines: list[str] = []
            images.build(host, "y", source, log=lines.append)
            kept = (host.images_dir / "y.json").read_text() + "".join(lines)
            assert tokens.PASSWORD not in kept
    finally:
        tokens.close()


def test_a_broken_line_is_gone_on_with_where_it_broke(host, server):
    line = Line(server)
    try:
        allow(host, line.address)
        line.break_after_bytes, line.breaks_left = 1 << 20, 2
        pull(host, f"{line.address}/team/big:1")
        begun = [int(text.removeprefix("bytes=").removesuffix("-")) for text in line.ranges]
        assert len(begun) == 2
        assert 0 < begun[0] < begun[1]
    finally:
        line.close()


def test_what_a_failed_download_brought_is_kept_for_the_next(host, server, monkeypatch):
    monkeypatch.setattr(downloading, "IDLE_TRIES", 2)
    line = Line(server)
    try:
        allow(host, line.address)
        line.break_after_bytes, line.breaks_left, line.then_dead = 1 << 20, 1, True
        with pytest.raises(SetupFailed, match="get on"):
            pull(host, f"{line.address}/team/big:1")
        [name] = downloads(host)
        size = (host.downloads_dir / name).stat().st_size
        assert size > 0
        assert stored.orphans(host) == []
        assert downloading.sweep(host.downloads_dir) == [], "kept for a day"
        line.dead = False
        line.ranges.clear()
        pull(host, f"{line.address}/team/big:1")
        assert line.ranges == [f"bytes={size}-"]
        assert downloads(host) == []
    finally:
        line.close()


def test_what_nobody_goes_on_with_is_swept_after_a_day(host):
    host.downloads_dir.mkdir()
    old, new = host.downloads_dir / "old.part", host.downloads_dir / "new.part"
    for path in (old, new):
        path.write_bytes(b"x")
    long_ago = time.time() - downloading.KEPT_SEC - 60
    os.utime(old, (long_ago, long_ago))
    assert downloading.sweep(host.downloads_dir) == ["unfinished download: old.part"]
    assert downloads(host) == ["new.part"]


def test_what_was_brought_before_and_is_wrong_is_fetched_anew(host, server):
    allow(host, server)
    pull(host, f"{server}/team/big:1")
    about = json.loads((host.layers_dir / store.load_image(host, "x").layers[0] / "layer.json").read_text())
    assert about["key"].startswith("sha256:")
    stored.delete_image(host, "x")
    # a partial file whose bytes are not those of the blob
    line = Line(server)
    try:
        allow(host, line.address)
        line.break_after_bytes, line.breaks_left = 1 << 20, 1
        pull(host, f"{line.address}/team/big:1")
        stored.delete_image(host, "x")
        line.breaks_left = 0
        manifest = subprocess.run(
            ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{server}/team/big:1"],
            check=True,
            capture_output=True,
        ).stdout
        digest = json.loads(manifest)["layers"][0]["digest"].removeprefix("sha256:")
        (host.downloads_dir / f"{digest}.part").write_bytes(b"x" * 1000)
        with pytest.raises(BadArchive):
            pull(host, f"{line.address}/team/big:1")
        pull(host, f"{line.address}/team/big:1")
    finally:
        line.close()


def test_a_cancelled_pull_leaves_nothing(host, server):
    allow(host, server)

    def half_way() -> bool:
        return host.downloads_dir.is_dir() and any(host.downloads_dir.glob("*.part"))

    with pytest.raises(Cancelled):
        pull(host, f"{server}/team/big:1", cancelled=half_way)
    assert downloads(host) == []
    nothing_left(host)


# where not to go


def test_nobody_is_asked_who_is_not_public_or_named(host, server):
    for text in ("", '[images]\nsources = ["example.org"]\n'):
        host.policy_path.write_text(text)
        for reference in (f"{server}/team/tiny:1", "localhost/x:1", "127.0.0.1/x:1", "[::1]/x:1", "10.0.0.1/x:1"):
            with pytest.raises((PolicyDenied, SetupFailed)) as error:
                pull(host, reference)
            assert isinstance(error.value, PolicyDenied), reference
            assert error.value.field == "source.reference"
    nothing_left(host)


@pytest.fixture
def redirecting() -> Iterator[tuple[str, list[tuple[str, str | None]], list[str]]]:
    """A server that redirects to wherever the test says, and tells who asked with what right."""
    asked: list[tuple[str, str | None]] = []
    targets: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers.get("Authorization")))
            self.send_response(307 if targets else 404)
            if targets:
                self.send_header("Location", targets[0])
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"127.0.0.1:{made.server_port}", asked, targets
    made.shutdown()
    thread.join()
    made.server_close()


def test_a_redirection_leads_nowhere_that_may_not_be_asked(host, redirecting):
    address, asked, targets = redirecting
    allow(host, address)
    port = address.rpartition(":")[2]
    for target in (
        f"http://localhost:{port}/x",
        f"https://127.0.0.2:{port}/x",
        "https://10.0.0.1/x",
        "https://[::ffff:10.0.0.1]/x",
        "http://169.254.169.254/latest/meta-data/",
    ):
        targets[:] = [target]
        with pytest.raises((PolicyDenied, SpecError)):
            pull(host, f"{address}/x:1")
    for target in ("file:///etc/passwd", "gopher://x/", "https://user:pw@example.org/", "//"):
        targets[:] = [target]
        with pytest.raises((SpecError, SetupFailed)):
            pull(host, f"{address}/x:1")
    asked.clear()
    targets[:] = [f"http://{address}/again"]
    with pytest.raises(SetupFailed, match="too often"):
        pull(host, f"{address}/x:1")
    assert len(asked) == 1 + remote.REDIRECTS_MAX
    nothing_left(host)
