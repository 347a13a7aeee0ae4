"""Backups in an S3-compatible object store: moto's server, on loopback, over real connections."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator

import boto3
import pytest

from containers.core.backups import buckets, places
from containers.core.backups.buckets import Bucket
from containers.core.errors import NotFound, SetupFailed
from containers.core.host import Host
from containers.core.lifecycle import backing
from containers.core.storage import litter
from containers.ticker.backups import BackupStreams

from .registries import Line
from .test_backups import WATCHER, imported
from .test_exactness import but_its_own, fill, fingerprint
from .test_storage import sh, upper

SERVER = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print("http://{}:{}".format(*server.get_host_and_port()), flush=True)
sys.stdin.read()
"""
FILE = "web-1_20260102T030405Z.boxroom.tar.zst"


@pytest.fixture
def endpoint() -> Iterator[str]:
    command = [sys.executable, "-c", SERVER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        assert server.stdin
        assert server.stdout
        yield server.stdout.readline().decode().strip()
        server.stdin.close()


@pytest.fixture
def store(endpoint: str) -> Iterator[tuple[str, object]]:
    """A bucket of the test's own, and a client of another library that looks into it."""
    client = boto3.client(
        "s3", endpoint_url=endpoint, aws_access_key_id="one", aws_secret_access_key="two", region_name="us-east-1"
    )
    name = f"backups-{secrets.token_hex(4)}"
    client.create_bucket(Bucket=name)
    return name, client


@pytest.fixture
def bucket(host: Host, endpoint: str, store) -> Bucket:
    return named(host, endpoint, store[0])


def named(host: Host, endpoint: str, bucket: str) -> Bucket:
    host.policy_path.write_text(
        f'[backups.s3.offsite]\nendpoint = "{endpoint}"\nbucket = "{bucket}"\nprefix = "here/"\n'
    )
    keys = host.state_dir / "credentials" / "offsite.toml"
    keys.parent.mkdir(mode=0o700, exist_ok=True)
    keys.write_text('access_key = "one"\nsecret_key = "two"\n')
    keys.chmod(0o600)
    place = places.of(host, "offsite")
    assert isinstance(place, Bucket)
    return place


def read(place: Bucket, file: str) -> bytes:
    with place.reading(file) as fd, open(fd, "rb", closefd=False) as pipe:
        return pipe.read()


def downloaded(host: Host, file: str) -> bytes:
    """Return what the web gets of a backup."""
    streams = BackupStreams(host)
    streams.start()
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(host.backup_socket))
            connection.sendall(json.dumps({"destination": "offsite", "file": file}).encode() + b"\n")
            with connection.makefile("rb") as answer:
                head = json.loads(answer.readline())
                assert (head["ok"], head["name"]) == (True, file)
                data = answer.read()
    finally:
        streams.stop()
        streams.join()
    return data


def unfinished(store) -> list[str]:
    name, client = store
    return [one["Key"] for one in client.list_multipart_uploads(Bucket=name).get("Uploads", [])]


def test_what_is_written_is_read_and_what_fails_leaves_nothing(
    host: Host, bucket: Bucket, store, endpoint: str
) -> None:
    name, client = store
    client.put_object(Bucket=name, Key="here/note.txt", Body=b"another's")
    for size in (0, buckets.PART_BYTES, 2 * buckets.PART_BYTES + 1):
        data = os.urandom(size)
        with bucket.writing(FILE, about_bytes=size) as sink:
            for start in range(0, size, 3_000_001):
                sink(data[start : start + 3_000_001])
            assert bucket.listed() == []  # nothing of it is there before it is whole
        assert [(one.name, one.size_bytes) for one in bucket.listed()] == [(FILE, size)]
        assert (read(bucket, FILE), bucket.size_bytes(FILE)) == (data, size)
        keys = {one["Key"] for one in client.list_objects_v2(Bucket=name)["Contents"]}
        assert keys == {f"here/{FILE}", "here/note.txt"}
        for _ in range(2):
            bucket.remove(FILE)
        assert bucket.listed() == []
    for look in (read, Bucket.size_bytes):
        with pytest.raises(NotFound):
            look(bucket, FILE)
    with pytest.raises(ZeroDivisionError), bucket.writing(FILE, about_bytes=0) as sink:  # noqa: PT012
        for _ in range(8):
            sink(bytes(1 << 20))
        raise ZeroDivisionError
    assert (bucket.listed(), unfinished(store)) == ([], [])
    client.create_multipart_upload(Bucket=name, Key=f"here/{FILE}")  # as who is killed leaves it
    client.create_multipart_upload(Bucket=name, Key="here/another")
    bucket.remove(FILE)
    assert unfinished(store) == ["here/another"]
    _refused(host, endpoint)


def test_a_store_that_is_away_is_told_in_few_words_and_what_it_was_sent_before_is_ended(
    host: Host, bucket: Bucket, store, monkeypatch
) -> None:
    name, client = store
    client.create_multipart_upload(Bucket=name, Key=f"here/{FILE}")  # as a store leaves it that was away
    client.create_multipart_upload(Bucket=name, Key="here/another")
    with monkeypatch.context() as patch:
        patch.setattr(buckets, "FORSAKEN_SEC", 100 * 365 * 24 * 3600)  # this store says of all that they are of 2010
        with bucket.writing(FILE, about_bytes=1) as sink:
            sink(b"x")
    assert sorted(unfinished(store)) == ["here/another", f"here/{FILE}"], "it may be somebody's who writes now"
    with bucket.writing(FILE, about_bytes=1) as sink:
        sink(b"x")
    assert unfinished(store) == ["here/another"]
    away = named(host, "http://127.0.0.1:1", "backups")
    with pytest.raises(SetupFailed) as error:
        away.listed()
    assert str(error.value) == "offsite cannot be reached: Connection refused"


def _refused(host: Host, endpoint: str) -> None:
    absent = named(host, endpoint, "there-is-none")
    with pytest.raises(SetupFailed, match="NoSuchBucket"):
        absent.listed()
    with pytest.raises(SetupFailed, match="NoSuchBucket"), absent.writing(FILE, about_bytes=0) as sink:
        sink(b"data")
    keys = host.state_dir / "credentials" / "offsite.toml"
    keys.chmod(0o640)
    with pytest.raises(SetupFailed, match="chmod 600"):
        absent.listed()
    keys.write_text('access_key = "one"\n')
    keys.chmod(0o600)
    with pytest.raises(SetupFailed, match="write access_key and secret_key"):
        absent.listed()


def test_a_container_there_and_back(host: Host, bucket: Bucket, endpoint: str, container) -> None:
    spec = container(init_command=sh("sleep 1000"))
    fill(upper(host, spec))
    (upper(host, spec) / "noise").write_bytes(os.urandom(4 << 20))
    before = fingerprint(host, spec.id)
    file = backing.free_name(bucket, spec.name)
    made = backing.export(host, spec.id, bucket, file=file, with_points=True, watcher=WATCHER)
    assert made.size_bytes == bucket.size_bytes(file)
    assert backing.free_name(bucket, spec.name) != file
    with bucket.reading(file) as fd:  # its beginning only: the rest is not waited for
        assert backing.look(host, fd).name == spec.name
    with bucket.reading(file) as fd:
        backing.verify(host, fd, WATCHER)
    assert downloaded(host, file) == read(bucket, file)
    new = imported(host, spec, file, place=bucket)
    assert but_its_own(fingerprint(host, new.id)) == but_its_own(before)
    # a connection that breaks is told as that, and not as a backup that is damaged
    line = Line(endpoint.removeprefix("http://"))
    try:
        line.break_after_bytes, line.breaks_left = 5 << 19, 2
        broken = named(host, f"http://{line.address}", bucket.store.bucket)
        with pytest.raises(SetupFailed, match="offsite cannot be reached"), broken.reading(file) as fd:
            backing.verify(host, fd, WATCHER)
        data = downloaded(host, file)
        assert 0 < len(data) < made.size_bytes
        assert read(bucket, file).startswith(data)
    finally:
        line.close()
    with pytest.raises(SetupFailed, match="offsite cannot be reached"):
        broken.size_bytes(file)
    assert litter.orphans(host) == []
