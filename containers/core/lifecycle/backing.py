"""Containers backed up, and had back: new ones, or in place. See docs/backups.md, and core.backups for the format.

A backup is made of a point: layers that nobody changes any more. A running container stands still while what it wrote
is copied, and never for the stream; the layers are held (core.hoststore.holds), not the container. Commit points::

    export          the file's rename in its place
    import as new   the container's directory, as of every create
    in place        root.json, as of every restore; a safety point is made first
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from .. import cgroups
from ..archives.rules import Limits
from ..archives.unpacking import within_room
from ..backups import form, taking, writing
from ..backups.place import Place
from ..backups.taking import Outcome
from ..errors import NotFound
from ..failpoints import failpoint
from ..host import Host
from ..hoststore import holds, more_ids, points, pools, store
from ..kernel import files
from ..model.spec import Spec
from ..rules import policy_file
from ..sentences import say
from ..storage import overlay
from . import holding, snapshots, stored

Progress = Callable[[int, str], None]
SPARE_BYTES: Final = 1 << 30
SPARE_PART: Final = 20
"""What an import leaves free on a disk: so much, of a small one a twentieth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """A backup that was made. points: how many snapshots are in it. plain_bytes: of its layers, uncompressed."""

    file: str
    size_bytes: int
    sha256: str
    plain_bytes: int
    points: int
    made_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Watcher:
    """Who is told how far it is, 0..100, and who may end it: check_cancelled raises."""

    progress: Progress = lambda _pct, _message: None
    check_cancelled: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What is backed up: layers that are held, as its manifest counts them."""

    manifest: form.Manifest
    trees: list[Path]
    id_lines: str


def name_now(container: str) -> str:
    """Return what a backup of a container that is made now is called."""
    return form.file_name(container, dt.datetime.now(dt.UTC))


def free_name(place: Place, container: str) -> str:
    """Return the name of a container's next backup in a place."""
    there = {one.name for one in place.listed()}
    now = dt.datetime.now(dt.UTC)
    return next(one for number in range(1000) if (one := form.file_name(container, now, number)) not in there)


def export(host: Host, container_id: str, place: Place, *, file: str, with_points: bool, watcher: Watcher) -> Exported:
    """Back a container up to a file in a place, as it is now, with its snapshots or without; or leave nothing.

    Raises NotFound, Busy, TimedOut, StorageFull, SetupFailed, HostUnsupported, and what the watcher raises.
    """
    with point(host, container_id, with_points=with_points) as taken:
        with place.writing(file, about_bytes=taken.manifest.size_bytes) as sink, writing.compressed(sink) as output:
            plain = stream(host, taken, output, watcher)
        watcher.progress(100, "Written")
        return Exported(
            file=file,
            size_bytes=output.size_bytes,
            sha256=output.sha256,
            plain_bytes=plain,
            points=len(taken.manifest.points),
            made_at=taken.manifest.made_at,
        )


def stream(host: Host, taken: Point, output: writing.Output, watcher: Watcher) -> int:
    """Write a backup of a point; return its layers' length uncompressed."""
    whole = max(1, taken.manifest.size_bytes)

    def tell(done: int) -> None:
        watcher.progress(5 + min(90, 90 * done // whole), "Writing")

    return writing.write(
        host,
        output,
        taken.manifest,
        taken.trees,
        id_lines=taken.id_lines,
        tell=tell,
        check_cancelled=watcher.check_cancelled,
    )


@contextlib.contextmanager
def point(host: Host, container_id: str, *, with_points: bool) -> Iterator[Point]:
    """Yield what a container is now, kept from being collected; it may be started, changed and deleted meanwhile."""
    store.prepare(host)
    with contextlib.ExitStack() as held:
        with store.lock(host, "container", container_id):
            spec = store.load(host, container_id)
            id_lines = more_ids.map_lines(host, spec)
            kept = [one for one in points.listed(host, container_id) if one.kind != "safety"] if with_points else []
            lineage = store.load_root(host, container_id).lineage
            with holding.present(host, container_id) as root:
                known = list(dict.fromkeys([*root, *(layer for one in kept for layer in one.layers)]))
                held.enter_context(holds.held(host, known))
        failpoint(host.state_dir, "export.point")
        trees = [store.rootfs(host, layer) for layer in known]
        manifest = form.Manifest(
            made_at=holding.now(),
            container=form.portable(json.loads(spec.to_json())),
            sizes=tuple(files.disk_bytes(tree) for tree in trees),
            root=tuple(map(known.index, root)),
            lineage=lineage,
            points=tuple(_told(one, known) for one in kept),
        )
        yield Point(manifest=manifest, trees=trees, id_lines=id_lines)
    holding.tidy(host)


def _told(one: points.Snapshot, known: list[str]) -> form.Point:
    return form.Point(
        name=one.name,
        layers=tuple(map(known.index, one.layers)),
        container=form.portable(one.spec) if one.spec else {},
        note=one.note,
        created_at=one.created_at,
        size_bytes=one.size_bytes,
        kind=one.kind,
        pinned=one.pinned,
        expires_at=one.expires_at,
        lineage=one.lineage,
    )


class _Seen(Exception):
    """A manifest, and no need of more."""

    def __init__(self, manifest: form.Manifest) -> None:
        super().__init__()
        self.manifest = manifest


def look(host: Host, source_fd: int) -> form.Manifest:
    """Return what a backup says it holds, reading its beginning only: nothing of it is proven. Raises BadArchive."""

    def seen(manifest: form.Manifest) -> None:
        raise _Seen(manifest)

    try:
        _read(host, source_fd, Watcher(), begin=seen)
    except _Seen as found:
        return found.manifest
    raise AssertionError("unreachable")


def verify(host: Host, source_fd: int, watcher: Watcher) -> Outcome:
    """Read a backup to its end and compare its digests, making nothing. Raises BadArchive, SetupFailed."""
    return _read(host, source_fd, watcher)


def _read(
    host: Host, source_fd: int, watcher: Watcher, *, begin: Callable[[form.Manifest], None] = lambda _manifest: None
) -> Outcome:
    store.prepare(host)
    with store.making(host) as scratch:
        most = policy_file.load(host).backups.max_bytes
        return taking.take(
            source_fd,
            scratch,
            groups=cgroups.open(host),
            begin=begin,
            layer=lambda number: _nobody(number, watcher),
            limits=_limits(most),
            check_cancelled=watcher.check_cancelled,
        )


@contextlib.contextmanager
def _nobody(number: int, watcher: Watcher) -> Iterator[None]:
    watcher.progress(min(95, 5 + number), say("Reading layer %(number)s", number=number + 1))
    yield None


def _limits(most: int) -> Limits:
    # no ratio: what a container wrote may be of one byte, over and over
    return Limits(bytes=most, entries=taking.ENTRIES_MAX, wall_sec=taking.WALL_SEC)


@contextlib.contextmanager
def unpacked(
    host: Host,
    source_fd: int,
    *,
    devices: bool,
    begin: Callable[[form.Manifest], None],
    watcher: Watcher,
    pool: pools.Pool | None = None,
) -> Iterator[tuple[Outcome, tuple[str, ...]]]:
    """Yield a backup's layers, in this host's store and held, after its digests were compared; else nothing is left.

    pool: where they lie; None is the default one. devices: nodes other than overlay's own marks are made too. begin:
    told the manifest first, may raise. Raises BadArchive, StorageFull, SetupFailed, HostUnsupported, and what the
    callbacks raise.
    """
    store.prepare(host)
    with contextlib.ExitStack() as held:
        scratch = held.enter_context(store.making(host))
        pool = pool or pools.default(host)
        room = os.statvfs(pool.place)
        spare = min(SPARE_BYTES, room.f_blocks * room.f_frsize // SPARE_PART)
        allowed = policy_file.load(host).backups.max_bytes
        limits = _limits(max(0, min(allowed, room.f_bavail * room.f_frsize - spare)))
        bench = _Bench(host, held, limits, watcher, pool=pool, devices=devices)
        with within_room(limits, allowed, pool.place):
            outcome = taking.take(
                source_fd,
                scratch,
                groups=cgroups.open(host),
                begin=bench.begin(begin),
                layer=bench.layer,
                limits=limits,
                check_cancelled=watcher.check_cancelled,
            )
        outcome.left_out = bench.left_out
        failpoint(host.state_dir, "import.checked")
        watcher.progress(85, "Bringing it to the disk")
        for directory in bench.made:
            overlay.describe(directory, made_for=outcome.manifest.name, kind="backup")
            files.sync_tree(directory)
            watcher.check_cancelled()
        with store.lock(host, "layers", shared=True):
            layers = tuple(overlay.publish(host, directory) for directory in bench.made)
            held.enter_context(holds.held(host, layers))
        failpoint(host.state_dir, "import.published")
        try:
            yield outcome, layers
        finally:
            held.close()
            holding.tidy(host)


class _Bench:
    """Layers in the making, each in a directory of store.making until it is published or removed."""

    def __init__(
        self,
        host: Host,
        held: contextlib.ExitStack,
        limits: Limits,
        watcher: Watcher,
        *,
        pool: pools.Pool,
        devices: bool,
    ) -> None:
        self._host, self._held, self._watcher, self._devices = host, held, watcher, devices
        self._pool = pool
        self.limits = limits
        self.made: list[Path] = []
        self.left_out: Counter[str] = Counter()

    def begin(self, told: Callable[[form.Manifest], None]) -> Callable[[form.Manifest], None]:
        """Return what takes the manifest, and hands it on: how many ids own something."""

        def taken(manifest: form.Manifest) -> None:
            self.limits = dataclasses.replace(self.limits, ids=form.ids(manifest))
            told(manifest)

        return taken

    @contextlib.contextmanager
    def layer(self, number: int) -> Iterator[taking.Maker]:
        """Yield what makes a layer of the tar that it is fed."""
        self._watcher.progress(min(80, 5 + number), say("Unpacking layer %(number)s", number=number + 1))
        directory = self._held.enter_context(store.making(self._host, self._pool))
        rootfs = directory / "rootfs"
        rootfs.mkdir(mode=0o755)
        with taking.tree(rootfs, self.limits, cgroups.open(self._host), self._watcher.check_cancelled) as maker:
            yield maker
        self.left_out.update(maker.left_out)
        failed = taking.make_devices(rootfs, maker.devices) if self._devices else len(maker.devices)
        if failed:
            self.left_out["devices"] += failed
        self.made.append(directory)
        failpoint(self._host.state_dir, "import.layer")


def stack_of(manifest: form.Manifest, layers: tuple[str, ...], name: str = "") -> tuple[str, ...]:
    """Return what a point of a backup is made of, or its container where name is "", in this host's store."""
    if not name:
        return tuple(layers[number] for number in manifest.root)
    found = next((one for one in manifest.points if one.name == name), None)
    if found is None or not found.layers:
        raise NotFound(say("There is no snapshot %(name)s with files in this backup.", name=name))
    return tuple(layers[number] for number in found.layers)


def snapshots_of(
    manifest: form.Manifest, layers: tuple[str, ...], specs: dict[str, dict[str, Any]]
) -> list[points.Snapshot]:
    """Return the records of a backup's snapshots. specs: their configurations, where those are taken over."""
    return [
        points.Snapshot(
            name=one.name,
            layers=tuple(layers[number] for number in one.layers),
            note=one.note,
            created_at=one.created_at,
            size_bytes=one.size_bytes,
            spec=specs.get(one.name, {}),
            kind=cast("points.Kind", one.kind),
            pinned=one.pinned,
            expires_at=one.expires_at,
            lineage=one.lineage,
        )
        for one in manifest.points
        # what holds the configuration only, and that is not taken over, is nothing
        if one.layers or one.name in specs
    ]


def create(host: Host, spec: Spec, kept: Sequence[points.Snapshot], *, lineage: tuple[str, ...], twin: bool) -> Spec:
    """Make a container of layers of unpacked(), which spec names; raises as stored.create does."""
    made = stored.create_with(host, spec, kept, lineage=lineage, twin=twin)
    failpoint(host.state_dir, "import.committed")
    return made


def replace(host: Host, container_id: str, layers: tuple[str, ...], safety: snapshots.Safety) -> Spec:
    """Have a stopped container's files be those of unpacked() layers; what was before is a snapshot, safety.

    Its name, configuration, addresses and machine id stay. Raises as snapshots.restore does.
    """
    made = snapshots.restore(host, container_id, layers, safety=safety)
    failpoint(host.state_dir, "import.committed")
    return made
