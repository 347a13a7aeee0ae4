"""The trash on a real disk: what is thrown away and taken back is whole, whenever somebody is killed."""

from __future__ import annotations

import dataclasses
import secrets
from pathlib import Path

import pytest

from containers.core import failpoints
from containers.core.errors import AlreadyExists, InvalidTransition, NotFound
from containers.core.failpoints import MARKER
from containers.core.hoststore import basket, store
from containers.core.lifecycle import discarding, stored
from containers.core.model.deleted import Entry
from containers.core.model.spec import Spec

from .test_storage import killed_at, read, recovered, upper

CHILD = """
import sys, json
sys.path.insert(0, sys.argv[1])
from containers.core.model.deleted import Entry
from containers.core.host import Host
from containers.core.lifecycle import discarding
from containers.core.model.spec import Spec
host = Host.open(sys.argv[2])
act, *rest = json.loads(sys.argv[3])
if act == "throw": getattr(discarding, f"throw_{rest[0]['kind']}")(host, Entry(**rest[0]))
elif act == "container": discarding.take_back_container(host, rest[0], Spec.from_dict(rest[1]))
elif act == "snapshot": discarding.take_back_snapshot(host, rest[0], rest[1])
elif act == "image": discarding.take_back_image(host, *rest)
elif act == "purge": discarding.purge(host, rest[0])
"""


def entry(kind: str, name: str, **more: object) -> Entry:
    when = {"deleted_at": "2026-01-01T00:00:00+00:00", "expires_at": "2026-01-08T00:00:00+00:00"}
    return Entry(**{"id": secrets.token_hex(16), "kind": kind, "name": name, **when, **more})


def of(spec: Spec) -> Entry:
    return entry("container", spec.name, id=spec.id)


def test_a_container_comes_back_whole_with_its_snapshots(host, container):
    spec = container()
    (upper(host, spec) / "a").write_text("one")
    stored.snapshot(host, spec.id, "s")
    (upper(host, spec) / "b").write_text("two" * 10_000)
    discarding.throw_container(host, of(spec))
    assert not store.exists(host, spec.id)
    assert basket.listed(host)[spec.id].size_bytes >= 30_000
    assert stored.recover(host) == []
    assert stored.orphans(host) == []
    back = discarding.take_back_container(host, spec.id, dataclasses.replace(spec, name="other", slot=7, generation=2))
    assert (back.name, back.slot) == ("other", 7)
    assert store.load(host, spec.id) == back
    assert (read(host, spec.id, "/a"), read(host, spec.id, "/b")) == (b"one", b"two" * 10_000)
    assert read(host, spec.id, "/etc/hostname") == b"other\n"
    assert [one.name for one in store.snapshots(host, spec.id)] == ["s"]
    assert basket.ids(host) == []
    stored.recover(host)
    assert stored.orphans(host) == []
    with pytest.raises(NotFound):
        discarding.take_back_container(host, secrets.token_hex(6), spec)


def test_what_is_purged_leaves_nothing(host, container, layer):
    spec = container()
    (upper(host, spec) / "a").write_text("one")
    stored.snapshot(host, spec.id, "s")
    discarding.throw_container(host, of(spec))
    assert len(store.layer_ids(host)) > 1
    discarding.purge(host, spec.id)
    discarding.purge(host, spec.id)
    # of the image nobody has told the store
    assert store.layer_ids(host) == set()
    assert stored.orphans(host) == []
    assert not list(Path(host.locks_dir).glob("basket-*"))


def test_a_running_container_is_not_thrown_away(host, running_container):
    with pytest.raises(InvalidTransition):
        discarding.throw_container(host, of(running_container))
    assert store.exists(host, running_container.id)
    assert basket.listed(host) == {}


def test_snapshots_and_images_come_back_unless_their_place_is_taken(host, container, layer):
    store.save_image(host, store.Image(name="b", source={}, layers=(layer,), size_bytes=5, defaults={}))
    spec = container()
    (upper(host, spec) / "a").write_text("one")
    kept = stored.snapshot(host, spec.id, "s")
    stored.restore(host, spec.id, (layer,))
    one = entry("snapshot", "s", container=spec.name, container_id=spec.id)
    discarding.throw_snapshot(host, one)
    stored.collect(host)
    assert store.snapshots(host, spec.id) == []
    assert set(kept.layers) <= store.layer_ids(host)
    stored.snapshot(host, spec.id, "s")
    with pytest.raises(AlreadyExists):
        discarding.take_back_snapshot(host, one.id, "s")
    discarding.take_back_snapshot(host, one.id, "t")
    assert store.load_snapshot(host, spec.id, "t").layers == kept.layers
    image = entry("image", "b")
    discarding.throw_image(host, image)
    assert store.images(host) == {}
    store.save_image(host, store.Image(name="b", source={}, layers=(layer,), size_bytes=6, defaults={}))
    with pytest.raises(AlreadyExists):
        discarding.take_back_image(host, image.id, "b")
    discarding.take_back_image(host, image.id, "c")
    assert {name: one.size_bytes for name, one in store.images(host).items()} == {"b": 6, "c": 5}
    assert store.load_image(host, "c").name == "c"
    two = entry("snapshot", "t", container=spec.name, container_id=spec.id)
    discarding.throw_snapshot(host, two)
    discarding.throw_container(host, of(spec))
    with pytest.raises(NotFound, match="container is gone"):
        discarding.take_back_snapshot(host, two.id, "t")
    discarding.take_back_container(host, spec.id, spec)
    discarding.take_back_snapshot(host, two.id, "t")
    assert stored.orphans(host) == []


@pytest.mark.parametrize("kind", ["container", "snapshot", "image"])
@pytest.mark.parametrize("point", ["throw.begun", "throw.committed"])
def test_a_killed_delete_has_it_here_or_in_the_trash(host, container, layer, kind, point):
    store.save_image(host, store.Image(name="b", source={}, layers=(layer,), size_bytes=0, defaults={}))
    spec = container()
    (upper(host, spec) / "f").write_text("x")
    stored.snapshot(host, spec.id, "s")
    name = {"container": spec.name, "snapshot": "s", "image": "b"}[kind]
    more = {"id": spec.id} if kind == "container" else {"container_id": spec.id}
    thrown = entry(kind, name, **more)
    killed_at(host, point, "throw", dataclasses.asdict(thrown), child=CHILD)
    recovered(host)
    here = {
        "container": lambda: store.exists(host, spec.id),
        "snapshot": lambda: bool(store.snapshots(host, spec.id)),
        "image": lambda: "b" in store.images(host),
    }[kind]
    assert here() == (point == "throw.begun")
    assert (thrown.id in basket.listed(host)) == (point == "throw.committed")
    # whoever goes on gets to the end
    getattr(discarding, f"throw_{kind}")(host, thrown)
    assert thrown.id in basket.listed(host)
    if kind == "container":
        discarding.take_back_container(host, spec.id, spec)
    assert read(host, spec.id, "/f") == b"x"


@pytest.mark.parametrize("point", ["take-back.written", "take-back.committed"])
def test_a_killed_return_has_it_here_or_in_the_trash(host, container, point):
    spec = container()
    (upper(host, spec) / "f").write_text("x")
    stored.snapshot(host, spec.id, "s")
    discarding.throw_container(host, of(spec))
    wanted = dataclasses.replace(spec, name="renamed", generation=2)
    killed_at(host, point, "container", spec.id, dataclasses.asdict(wanted), child=CHILD)
    assert store.exists(host, spec.id) == (point == "take-back.committed")
    recovered(host)
    assert discarding.take_back_container(host, spec.id, wanted).name == "renamed"
    assert store.load(host, spec.id).name == "renamed"
    assert read(host, spec.id, "/f") == b"x"
    recovered(host)
    assert basket.listed(host) == {}


def test_a_killed_purge_is_finished_by_whoever_comes_next(host, container):
    spec = container()
    (upper(host, spec) / "f").write_text("x")
    discarding.throw_container(host, of(spec))
    killed_at(host, "purge.committed", "purge", spec.id, child=CHILD)
    recovered(host)
    assert store.layer_ids(host) == set()


@pytest.mark.parametrize("errno_name", ["ENOSPC", "EIO"])
@pytest.mark.parametrize("point", ["throw.begun", "take-back.written"])
def test_a_failure_changes_nothing(host, container, monkeypatch, point, errno_name):
    spec = container()
    (host.state_dir / MARKER).touch(mode=0o600)
    monkeypatch.setattr(failpoints, "_hits", {})
    monkeypatch.setenv("BOXROOM_FAILPOINTS", f"{point}={errno_name}")
    thrown = point == "take-back.written"
    if thrown:
        discarding.throw_container(host, of(spec))
        with pytest.raises(OSError, match=point):
            discarding.take_back_container(host, spec.id, spec)
    else:
        with pytest.raises(OSError, match=point):
            discarding.throw_container(host, of(spec))
    monkeypatch.delenv("BOXROOM_FAILPOINTS")
    recovered(host)
    assert store.exists(host, spec.id) == (not thrown)
    assert (spec.id in basket.listed(host)) == thrown
