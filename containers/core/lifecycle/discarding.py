"""Into the trash, out of it again, and away for good: each by one rename. See basket.py.

What is taken back is moved while the layers are held (shared): who looks for unused ones looks at containers first and
at the trash afterwards, and would see it at neither place.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

from ..errors import AlreadyExists, NotFound
from ..failpoints import failpoint
from ..host import Host
from ..hoststore import basket, points, store
from ..kernel import files
from ..model.deleted import Entry
from ..model.spec import Spec
from ..names import check_name
from ..sentences import say
from ..storage import disks, identity
from . import holding, runs


@contextlib.contextmanager
def _entry(host: Host, entry_id: str) -> Iterator[None]:
    with store.lock(host, "basket", entry_id):
        try:
            yield
        finally:
            store.forget_lock(host, "basket", entry_id)


def throw_container(host: Host, entry: Entry) -> None:
    """Move a stopped container into the trash, with its snapshots. One that is gone is fine.

    Raises InvalidTransition while it runs, Busy, StorageFull.
    """
    store.prepare(host)
    with store.lock(host, "container", entry.id), _entry(host, entry.id):
        if not store.exists(host, entry.id):
            return
        holding.require_stopped(host, entry.id, "delete")
        runs.settle(host, entry.id)
        store.settle(host, entry.id)
        root = store.load_root(host, entry.id)
        own = files.disk_bytes(disks.source(host, root.writable))
        size = own + sum(one.size_bytes for one in points.listed(host, entry.id))
        place = basket.write(host, dataclasses.replace(entry, size_bytes=size))
        failpoint(host.state_dir, "throw.begun")
        host.container_dir(entry.id).rename(place / basket.PAYLOAD["container"])
        files.sync_dir(place)
        files.sync_dir(host.containers_dir)
        failpoint(host.state_dir, "throw.committed")
        store.forget_locks(host, entry.id)


def throw_snapshot(host: Host, entry: Entry) -> None:
    """Move a snapshot's record into the trash. One that is gone is fine."""
    store.prepare(host)
    source = points.directory(host, entry.container_id) / f"{check_name(entry.name)}.json"
    with store.lock(host, "container", entry.container_id), _entry(host, entry.id):
        if not source.exists():
            return
        found = points.load(host, entry.container_id, entry.name)
        place = basket.write(host, dataclasses.replace(entry, size_bytes=found.size_bytes))
        failpoint(host.state_dir, "throw.begun")
        source.rename(place / basket.PAYLOAD["snapshot"])
        files.sync_dir(place)
        files.sync_dir(source.parent)
        failpoint(host.state_dir, "throw.committed")


def throw_image(host: Host, entry: Entry) -> None:
    """Move an image's record into the trash. One that is gone is fine."""
    store.prepare(host)
    source = host.images_dir / f"{check_name(entry.name)}.json"
    with store.lock(host, "image", entry.name, wait_sec=0), _entry(host, entry.id):
        if not source.exists():
            return
        size = store.load_image(host, entry.name).size_bytes
        place = basket.write(host, dataclasses.replace(entry, size_bytes=size))
        failpoint(host.state_dir, "throw.begun")
        source.rename(place / basket.PAYLOAD["image"])
        files.sync_dir(place)
        files.sync_dir(host.images_dir)
        failpoint(host.state_dir, "throw.committed")


def take_back_container(host: Host, entry_id: str, spec: Spec) -> Spec:
    """Put a container back, with another spec: its name, slot and addresses may be others now; return it, with layers.

    Done already is done. Raises NotFound, SpecError, Busy; it stays in the trash then.
    """
    with store.lock(host, "container", entry_id), _entry(host, entry_id):
        if store.exists(host, entry_id):
            _away(host, entry_id)
            return store.load(host, entry_id)
        entry = basket.load(host, entry_id)
        source = basket.payload(host, entry)
        data = files.read_json(source / "root.json")
        root = store.Root(
            layers=tuple(data["layers"]), writable=data["writable"], lineage=tuple(data.get("lineage", ()))
        )
        whole = dataclasses.replace(spec, id=entry_id, layers=root.layers)
        whole.check()
        with store.lock(host, "layers", shared=True):
            identity.write(host, whole, root, twin=False)
            files.write(source / "spec.json", (whole.to_json() + "\n").encode())
            failpoint(host.state_dir, "take-back.written")
            source.rename(host.container_dir(entry_id))
            files.sync_dir(host.containers_dir)
        failpoint(host.state_dir, "take-back.committed")
        _away(host, entry_id)
    return whole


def take_back_snapshot(host: Host, entry_id: str, name: str) -> None:
    """Put a snapshot back where it was, under this name. Raises NotFound where its container is gone, AlreadyExists."""
    entry = basket.load(host, entry_id)
    with store.lock(host, "container", entry.container_id), _entry(host, entry_id):
        if not store.exists(host, entry.container_id):
            raise NotFound("Its container is gone: put that back first.")
        target = points.directory(host, entry.container_id) / f"{check_name(name)}.json"
        if target.exists():
            raise AlreadyExists(say("There is a snapshot %(name)s already.", name=name), field="name")
        source = basket.payload(host, entry)
        if name != entry.name:
            files.write_json(source, {**files.read_json(source), "name": name})
        with store.lock(host, "layers", shared=True):
            source.rename(target)
            files.sync_dir(target.parent)
        failpoint(host.state_dir, "take-back.committed")
        _away(host, entry_id)


def take_back_image(host: Host, entry_id: str, name: str) -> None:
    """Put an image back, by this name. Raises NotFound, AlreadyExists where there is another of that name by now."""
    entry = basket.load(host, entry_id)
    with store.lock(host, "image", name, wait_sec=0), _entry(host, entry_id):
        target, record = host.images_dir / f"{check_name(name)}.json", basket.payload(host, entry)
        if target.exists():
            raise AlreadyExists(say("There is an image %(name)s already.", name=name), field="name")
        kept = files.read_json(record)
        if kept["name"] != name:
            files.write_json(record, {**kept, "name": name})
        with store.lock(host, "layers", shared=True):
            record.rename(target)
            files.sync_dir(host.images_dir)
        failpoint(host.state_dir, "take-back.committed")
        _away(host, entry_id)


def purge(host: Host, entry_id: str) -> None:
    """Remove something from the trash for good, with the layers that nothing else uses. Nothing there is fine."""
    with _entry(host, entry_id):
        _away(host, entry_id)
    failpoint(host.state_dir, "purge.committed")
    holding.tidy(host)


def _away(host: Host, entry_id: str) -> None:
    """Drop an entry's directory with what is left in it; the caller holds its lock."""
    store.discard(host, basket.directory(host, entry_id))
    files.sync_dir(host.basket_dir)
