"""A simplestreams server of this test's own, in the layout of images.linuxcontainers.org."""

from __future__ import annotations

import datetime
import functools
import hashlib
import http.server
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from containers.core import images
from containers.core.archives.unpacking import BadArchive
from containers.core.errors import CoreError, PolicyDenied, SetupFailed, SpecError
from containers.core.hoststore import store
from containers.core.images import metadata, simplestreams
from containers.core.images.base import Order

from .test_image_files import nothing_left, packed, tree

HERE = os.uname().machine
NAMES = {"x86_64": "amd64", "aarch64": "arm64"}


def item(root: Path, path: Path, kind: str) -> dict[str, object]:
    data = path.read_bytes()
    return {
        "ftype": kind,
        "path": str(path.relative_to(root)),
        "size": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }


@pytest.fixture(scope="module")
def offered(tmp_path_factory) -> Path:
    """What the server serves: tiny/7 in two versions, of which the newer is incomplete, and one for another machine."""
    place = tmp_path_factory.mktemp("streams")
    root = place / "www"
    made = tree(place / "tree")
    products = {}
    for arch, words in ((NAMES[HERE], "here"), ("s390x", "there")):
        where = root / f"images/tiny/7/{arch}/default/20260102_05:24"
        where.mkdir(parents=True)
        subprocess.run(["mksquashfs", made, where / "rootfs.squashfs", "-quiet"], check=True, stdout=subprocess.DEVNULL)
        (place / "metadata.yaml").write_text(f"architecture: {arch}\nproperties:\n  description: Tiny {words}\n")
        packed(where / "incus.tar.xz", "--xz", "-C", str(place), "metadata.yaml")
        items = {
            "incus.tar.xz": item(root, where / "incus.tar.xz", "incus.tar.xz"),
            "rootfs.squashfs": item(root, where / "rootfs.squashfs", "squashfs"),
            "delta-20260101.vcdiff": {"ftype": "squashfs.vcdiff", "path": "x", "size": 1, "sha256": "0" * 64},
        }
        products[f"tiny:7:{arch}:default"] = {
            "aliases": "tiny/7/default,tiny/7",
            "arch": arch,
            "os": "Tiny",
            "release": "7",
            "variant": "default",
            "versions": {"20260102_05:24": {"items": items}, "20260103_05:24": {"items": {}}},
        }
    streams = root / "streams/v1"
    streams.mkdir(parents=True)
    listed = {"datatype": "image-downloads", "path": "streams/v1/images.json", "format": "products:1.0"}
    (streams / "index.json").write_text(json.dumps({"format": "index:1.0", "index": {"images": listed}}))
    (streams / "images.json").write_text(json.dumps({"format": "products:1.0", "products": products}))
    return root


@pytest.fixture(scope="session")
def keys(tmp_path_factory) -> Iterator[Path]:
    """A directory with a key of this run's own, and keyring.gpg beside it; another one's is stranger.gpg."""
    place = tmp_path_factory.mktemp("keys")
    for name in ("stranger", "keyring"):
        home = place / name
        home.mkdir(mode=0o700)
        past = ("--faked-system-time", "20200101T000000")  # what a key has signed is never older than the key
        gpg(home, *past, "--passphrase", "", "--quick-gen-key", "Test <test@example.org>", "ed25519", "sign", "never")
        gpg(home, "--output", str(place / f"{name}.gpg"), "--export")
    yield place
    for name in ("stranger", "keyring"):
        subprocess.run(["gpgconf", "--homedir", place / name, "--kill", "all"], check=True)


def gpg(home: Path, *arguments: str) -> None:
    command = ["gpg", "--homedir", str(home), "--batch", "--yes", "--quiet", "--pinentry-mode", "loopback", *arguments]
    subprocess.run(command, check=True, capture_output=True)


def signed(root: Path, home: Path) -> None:
    """Sign each list of a server in a file of its own, as simplestreams has it; beside stays what is not signed."""
    for path in (root / "streams/v1").glob("*.json"):
        gpg(home, "--output", str(path.with_suffix(".sjson")), "--clearsign", str(path))


@pytest.fixture
def serve(host, keys) -> Iterator[object]:
    """Return a function that serves a directory, to whom the policy lets this host go; returns its address.

    Its lists are signed, unless sign is False.
    """
    running = []

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    def start(root: Path, *, sign: bool = True) -> str:
        if sign:
            signed(root, keys / "keyring")
        made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(root)))
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        running.append((made, thread))
        address = f"127.0.0.1:{made.server_port}"
        policy = f'[images]\ninsecure = ["{address}"]\nkeyrings = {{"{address}" = "{keys}/keyring.gpg"}}\n'
        host.policy_path.write_text(policy)
        return f"http://{address}"

    yield start
    for made, thread in running:
        made.shutdown()
        thread.join()
        made.server_close()


def pull(host, server: str, alias: str = "tiny/7", name: str = "x", **more: str):
    return images.build(host, name, {"type": "simplestreams", "server": server, "alias": alias, **more})


def test_the_newest_complete_version_for_this_machine_is_taken(host, serve, offered):
    built = pull(host, serve(offered))
    details = built.details
    assert (details["os"], details["release"], details["variant"]) == ("Tiny", "7", "default")
    assert (details["serial"], details["description"]) == ("20260102_05:24", "Tiny here")
    assert details["architecture"] == metadata.machine(NAMES[HERE])
    assert built.defaults["init_command"] == ["/sbin/init"]
    [layer] = built.layers
    assert os.stat(store.rootfs(host, layer) / "etc/inittab").st_uid == 12
    assert os.listdir(host.downloads_dir) == os.listdir(host.tmp_dir) == []


def test_what_there_is_is_named_where_it_was_asked_for_wrongly(host, serve, offered):
    server = serve(offered)
    with pytest.raises(SpecError, match="tiny/7, tiny/7/default") as error:
        pull(host, server, "tiny/8")
    assert error.value.field == "source.alias"
    with pytest.raises(SpecError, match="There is: tiny"):
        pull(host, server, "none")
    with pytest.raises(SpecError) as machine:
        pull(host, server, architecture="s390x")
    assert machine.value.field == "source.architecture"
    nothing_left(host)


@pytest.mark.lxc("An image that is not the one of the list is refused", "CVE-2026-33542")
def test_a_file_that_is_not_the_one_of_the_list_is_refused(host, serve, offered, tmp_path):
    copy = tmp_path / "www"
    subprocess.run(["cp", "-a", offered, copy], check=True)
    root = next(copy.rglob(f"{NAMES[HERE]}/default/*/rootfs.squashfs"))
    data = bytearray(root.read_bytes())
    data[len(data) // 2] ^= 1
    root.write_bytes(data)
    with pytest.raises(BadArchive, match="sha256"):
        pull(host, serve(copy))
    nothing_left(host)


@pytest.mark.parametrize(
    ("index", "images_json"),
    [
        ("{}", "{}"),
        ("[]", "{}"),
        (None, '{"products": []}'),
        (None, '{"products": {"a": {"versions": []}}}'),
        ('{"index": {"images": {"datatype": "image-downloads", "path": "../../etc/passwd"}}}', "{}"),
        ('{"index": {"images": {"datatype": "image-downloads", "path": "http://10.0.0.1/x"}}}', "{}"),
        ("x" * 100, "{}"),
    ],
)
def test_a_server_that_talks_nonsense_is_refused(host, serve, offered, tmp_path, index, images_json):
    copy = tmp_path / "www"
    (copy / "streams/v1").mkdir(parents=True)
    (copy / "streams/v1/index.json").write_text(index or (offered / "streams/v1/index.json").read_text())
    (copy / "streams/v1/images.json").write_text(images_json)
    with pytest.raises((SpecError, BadArchive)):
        pull(host, serve(copy))
    nothing_left(host)


def test_only_servers_that_may_be_asked_are_asked(host, serve, offered):
    server = serve(offered)
    host.policy_path.write_text("")
    for address in (server, server.replace("http:", "https:"), "https://10.0.0.1", "file:///etc"):
        with pytest.raises((PolicyDenied, SpecError)) as error:
            pull(host, address)
        assert isinstance(error.value, CoreError)
        assert error.value.field == "source.server"


def test_what_a_server_offers_this_host_is_listed(host, serve, offered):
    order = Order(
        host=host,
        name="catalogue",
        source={"server": serve(offered)},
        progress=lambda *_: None,
        log=lambda _line: None,
        cancelled=lambda: False,
    )
    [found] = simplestreams.listing(order)
    assert found.pop("size_bytes") > 0
    assert found == {
        "alias": "tiny/7",
        "os": "Tiny",
        "release": "7",
        "variant": "default",
        "architecture": HERE,
        "serial": "20260102_05:24",
    }


def test_a_list_that_comes_by_http_is_signed_by_a_key_of_the_policy(host, serve, offered, keys, tmp_path):
    root = tmp_path / "www"
    subprocess.run(["cp", "-a", offered, root], check=True)
    lists = root / "streams/v1"
    for path in lists.glob("*.sjson"):
        path.unlink()
    server = serve(root, sign=False)
    good = host.policy_path.read_text()

    def refused(kind: type[CoreError], words: str) -> None:
        with pytest.raises(kind, match=words) as error:
            pull(host, server)
        assert error.value.field == "source.server"
        assert os.listdir(host.tmp_dir) == []

    # nothing is signed; by somebody else; something is before, behind or in what is signed
    refused(SpecError, "404")
    signed(root, keys / "stranger")
    refused(BadArchive, "not signed by a key")
    signed(root, keys / "keyring")
    whole = (lists / "index.sjson").read_bytes()
    for spoilt, words in (
        (b"{}\n" + whole, "is not signed"),
        (whole + b"{}\n", "is not signed"),
        (whole + whole, "is not signed"),
        (whole.replace(b"images.json", b"others.json"), "not signed by a key"),
        (b"", "is not signed"),
    ):
        (lists / "index.sjson").write_bytes(spoilt)
        refused(BadArchive, words)
    (lists / "index.sjson").write_bytes(whole)
    assert pull(host, server).details["serial"] == "20260102_05:24"
    # beside the list, and by somebody else there
    for path in lists.glob("*.sjson"):
        path.unlink()
    for path in lists.glob("*.json"):
        gpg(keys / "keyring", "--output", f"{path}.gpg", "--detach-sign", str(path))
    assert pull(host, server, name="y").details["serial"] == "20260102_05:24"
    gpg(keys / "stranger", "--output", str(lists / "images.json.gpg"), "--detach-sign", str(lists / "images.json"))
    refused(BadArchive, "not signed by a key")
    # whom the policy names no key for is asked by https alone
    host.policy_path.write_text(good.partition("keyrings")[0])
    refused(PolicyDenied, "name a keyring")
    host.policy_path.write_text(good.replace("keyring.gpg", "none.gpg"))
    with pytest.raises(SetupFailed, match="read the keyring"):
        pull(host, server)


def test_a_list_that_was_good_once_is_refused_once_a_newer_one_was_seen(host, serve, offered, keys, tmp_path):
    root = tmp_path / "www"
    subprocess.run(["cp", "-a", offered, root], check=True)
    lists = root / "streams/v1"
    server = serve(root, sign=False)
    path = lists / "images.json"
    plain = json.loads(path.read_text())

    def at(signed_at: str, updated: str) -> None:
        path.write_text(json.dumps({**plain, "updated": updated}))
        for one in lists.glob("*.json"):
            faked = ("--faked-system-time", signed_at)
            gpg(keys / "keyring", *faked, "--output", str(one.with_suffix(".sjson")), "--clearsign", str(one))

    def listed() -> list[str]:
        lines: list[str] = []
        order = Order(
            host=host,
            name="catalogue",
            source={"server": server},
            progress=lambda *_: None,
            log=lines.append,
            cancelled=lambda: False,
        )
        assert len(simplestreams.listing(order)) == 1
        return lines

    def refused(date: str, last: str) -> None:
        with pytest.raises(BadArchive, match=f"is of {date}, and one of {last} was there before") as error:
            pull(host, server)
        assert error.value.field == "source.server"
        nothing_left(host)

    at("20260110T120000", "Fri, 09 Jan 2026 00:00:00 +0000")
    old = {one: one.read_bytes() for one in lists.glob("*.sjson")}
    assert any("days old, of 2026-01-10 12:00" in line for line in listed())
    listed()  # the same once more is no older one
    at("20260301T120000", "2026-03-01T11:00:00Z")
    listed()
    # what was signed before; all of it, or one list of two
    for one, data in old.items():
        one.write_bytes(data)
    refused("2026-01-10 12:00", "2026-03-01 12:00")
    at("20260302T120000", "2026-03-02T11:00:00Z")
    listed()
    (lists / "images.sjson").write_bytes(old[lists / "images.sjson"])
    refused("2026-01-10 12:00", "2026-03-02 12:00")
    # signed anew, and made before
    at("20260303T120000", "2026-03-01T11:00:00Z")
    refused("2026-03-01 11:00", "2026-03-02 11:00")
    # by a clock that goes wrong: whatever comes after it is taken
    at("20260304T120000", "Thu, 01 Jan 2099 00:00:00 +0000")
    listed()
    at("20260305T120000", (datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)).isoformat())
    assert pull(host, server).details["serial"] == "20260102_05:24"


@pytest.mark.lxc("Paths of a server's list stay below the server", "CVE-2026-33945")
def test_paths_of_a_list_stay_below_the_server():
    good = {"sha256": "0" * 64, "size": 1}
    for path in ("../x", "/x", "a/../b", "http://x/y", "a//b", "a b", "a?b", "a#b", "", "-a", "a/.b/../c"):
        assert simplestreams._item({**good, "path": path}) is None, path
    assert simplestreams._item({**good, "path": "images/a/20260102_05:24/rootfs.squashfs"}) is not None
