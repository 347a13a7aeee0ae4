"""The runtime of the host that this process runs on, as the handlers ask for it."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from ..core import filenames, images
from ..core.errors import AlreadyExists, CoreError, NotFound, PolicyDenied, SpecError
from ..core.host import Host
from ..core.hoststore import basket, every, more_ids, points, store
from ..core.images import base, downloading, simplestreams, staging
from ..core.lifecycle import (
    attaching,
    discarding,
    filing,
    granting,
    hooking,
    importing,
    pooling,
    publishing,
    replugging,
    resizing,
    running,
    snapshots,
    stored,
)
from ..core.model.deleted import Entry
from ..core.model.exits import LastExit
from ..core.model.network_config import NetworkConfig
from ..core.model.spec import Limits, Spec
from ..core.network import networks
from ..core.rules import policy, policy_file, pool_rules
from . import facts
from .runtime import Built, Cancelled, Kept, Log, Observed, Origin, Progress, Taken

API_REASONS: Final = {"lost": "supervisor-lost", "reboot": "exit"}
"""The runtime's words for an exit that the API knows by another name."""


_CEILINGS: Final = threading.Lock()
"""A project's ceilings are counted and taken by one thread at a time; the host has one worker process."""


class KernelRuntime:
    """Implements Runtime on the kernel and the store of one host."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def observe(self, container_ids: Iterable[str] | None = None) -> dict[str, Observed]:
        seen = running.observe(self.host, container_ids)
        return {container_id: _observed(one) for container_id, one in seen.items()}

    def sweep(self) -> list[str]:
        return list(running.sweep(self.host))

    def stored(self) -> dict[str, Spec]:
        return every.load_all(self.host)[0]

    def snapshots(self, container_id: str) -> dict[str, dict[str, Any]]:
        found = store.snapshots(self.host, container_id)
        return {one.name: {**dataclasses.asdict(one), "layers": list(one.layers)} for one in found}

    def lineage(self, container_id: str) -> tuple[str, ...]:
        return store.load_root(self.host, container_id).lineage

    def check_policy(self, spec: Spec) -> None:
        rules = policy_file.load(self.host)
        # reading every spec takes a while: only a ceiling needs the others
        counted = rules.ceilings_of(spec.project) != policy.Ceilings()
        policy.check(rules, spec, self.stored().values() if counted else ())

    def best_pool(self, project: str) -> str:
        return pooling.best(self.host, policy_file.load(self.host).pools, project)

    def _settle(self, spec: Spec) -> None:
        """See that the pool that a container is to lie in is there; after its policy was checked."""
        if spec.pool != pool_rules.DEFAULT:
            pooling.settle(self.host, policy_file.load(self.host).pools, spec.pool)

    def create(self, spec: Spec, progress: Progress) -> Spec:
        # what an image is made of is the store's to know: a row could name somebody else's layer
        own = dataclasses.replace(spec, layers=store.load_image(self.host, spec.image).layers)
        with _CEILINGS:
            self.check_policy(own)
            self._settle(own)
            with ThreadPoolExecutor(1) as beside:
                # waiting for nft takes as long as making a container; of one that fails delete() takes it back
                known = beside.submit(networks.expect, self.host, own)
                made = stored.create(self.host, own, progress=progress)
        known.result()
        networks.register(self.host, made)
        return made

    def take_in(self, spec: Spec, make: Callable[[], Spec]) -> None:
        with _CEILINGS:
            self.check_policy(spec)
            self._settle(spec)
            made = make()
        networks.register(self.host, made)

    def register(self, spec: Spec) -> None:
        networks.register(self.host, spec)

    def save(self, spec: Spec) -> None:
        old = store.load(self.host, spec.id)
        if old.name != spec.name:
            stored.rename(self.host, spec.id, spec.name)
        # the layers are the store's to know
        kept = dataclasses.replace(spec, layers=old.layers)
        with store.lock(self.host, "container", spec.id):
            store.save(self.host, kept)
        networks.register(self.host, kept)

    def delete(self, container_id: str, thrown: Entry | None = None) -> None:
        with contextlib.suppress(NotFound):
            spec = store.load(self.host, container_id)
            if spec.hooks:
                hooking.run(self.host, policy_file.load(self.host), spec, "destroy")
            networks.detach(self.host, spec)
        if thrown is not None:
            discarding.throw_container(self.host, thrown)
        stored.delete(self.host, container_id)
        networks.unregister(self.host, container_id)
        more_ids.release(self.host, container_id)
        (self.host.stats_dir / f"{container_id}.rings").unlink(missing_ok=True)

    def start(self, spec: Spec, progress: Progress, cancelled: Cancelled, stdio: str = "") -> None:
        rules = policy_file.load(self.host)
        port = networks.Port(self.host, policy.links_of(rules, spec))
        given = policy.resolve(rules, spec)
        extras = granting.extras(self.host, rules, spec)
        running.start(
            self.host,
            spec,
            network=port,
            attachments=given,
            extras=extras,
            progress=progress,
            cancelled=cancelled,
            stdio=stdio,
        )

    def stop(self, container_id: str, *, timeout_sec: float, force: bool, kill: bool) -> None:
        # the runtime's words: kill at once, force when the time is up
        running.stop(self.host, container_id, timeout_sec=timeout_sec, force=kill, kill=force)

    def reboot(self, container_id: str, *, timeout_sec: float) -> None:
        running.reboot(self.host, container_id, timeout_sec=timeout_sec)

    def freeze(self, container_id: str) -> None:
        running.freeze(self.host, container_id)

    def thaw(self, container_id: str) -> None:
        running.thaw(self.host, container_id)

    def apply_limits(self, container_id: str, limits: Limits) -> None:
        running.update_limits(self.host, container_id, limits)

    def resize(self, container_id: str, limits: Limits, before: Limits) -> None:
        resizing.resize(self.host, container_id, before, limits)

    def attach(self, spec: Spec, before: Spec) -> None:
        rules = policy_file.load(self.host)
        wanted = policy.resolve(rules, spec)
        try:
            there = policy.resolve(rules, before)
        except (PolicyDenied, SpecError):  # withdrawn since: taken away, and not put back
            there = wanted
        attaching.change(self.host, spec.id, wanted, there)

    def change_nics(self, spec: Spec, before: Spec) -> None:
        rules = policy_file.load(self.host)
        links = policy.links_of(rules, spec)
        with contextlib.suppress(PolicyDenied):  # withdrawn since: taken away, and not put back
            links = {**policy.links_of(rules, before), **links}
        replugging.change(self.host, before, spec, links)

    def snapshot(self, container_id: str, kept: Kept) -> Taken:
        try:
            made = stored.snapshot(self.host, container_id, **dataclasses.asdict(kept))
        except AlreadyExists:
            known = store.load_snapshot(self.host, container_id, kept.name)
            return Taken(layers=known.layers, size_bytes=known.size_bytes)
        return Taken(layers=made.layers, size_bytes=made.size_bytes)

    def keep_configuration(self, container_id: str, kept: Kept) -> None:
        snapshots.keep_configuration(self.host, container_id, kept.name, kept.note, expires_at=kept.expires_at)

    def change_snapshot(self, container_id: str, name: str, kept: Kept) -> None:
        snapshots.change_snapshot(
            self.host,
            container_id,
            name,
            new_name=kept.name,
            note=kept.note,
            pinned=kept.pinned,
            expires_at=kept.expires_at,
        )

    def basket(self) -> dict[str, Entry]:
        return basket.listed(self.host)

    def take_back(self, entry: Entry, spec: Spec | None, name: str) -> None:
        if entry.kind == "snapshot":
            discarding.take_back_snapshot(self.host, entry.id, name)
        elif entry.kind == "image":
            discarding.take_back_image(self.host, entry.id, name)
        elif spec is not None:
            with _CEILINGS:
                self.check_policy(spec)
                made = discarding.take_back_container(self.host, entry.id, spec)
            networks.register(self.host, made)

    def purge(self, entry_id: str) -> None:
        discarding.purge(self.host, entry_id)

    def remove_snapshot(self, container_id: str, name: str, thrown: Entry | None = None) -> None:
        if thrown is not None:
            discarding.throw_snapshot(self.host, thrown)
        stored.delete_snapshot(self.host, container_id, name)

    def restore(self, container_id: str, name: str, *, spec: Spec | None, safety: Kept) -> Spec:
        point = store.load_snapshot(self.host, container_id, name)
        made = stored.restore(
            self.host,
            container_id,
            point.layers,
            lineage=points.descended(point.lineage, name),
            spec=spec,
            safety=snapshots.Safety(name=safety.name, note=safety.note, expires_at=safety.expires_at),
        )
        networks.register(self.host, made)
        return made

    def put_back(
        self, container_id: str, name: str, paths: Sequence[str], *, exact: bool, tell: Callable[[int, int], None]
    ) -> dict[str, Any]:
        plain = [filenames.parsed(path) for path in paths]
        return filing.put_back(self.host, container_id, name, plain, exact=exact, tell=tell)

    def clone(self, source_id: str, spec: Spec, origin: Origin, progress: Progress) -> Spec:
        named = store.load_snapshot(self.host, source_id, origin.snapshot).layers if origin.snapshot else None
        layers = origin.layers or named
        with _CEILINGS:
            self.check_policy(spec)
            self._settle(spec)
            made = stored.clone(self.host, source_id, spec, snapshot_layers=layers, full=origin.full, progress=progress)
        networks.register(self.host, made)
        try:
            name = store.load(self.host, source_id).name
            if made.hooks:
                hooking.run(self.host, policy_file.load(self.host), made, "clone", SRC_NAME=name)
        except CoreError:
            self.delete(made.id)
            raise
        return made

    def import_lxc(self, spec: Spec, progress: Progress, cancelled: Cancelled, commit: Callable[[], None]) -> Spec:
        with importing.copied(self.host, spec, progress=progress, cancelled=cancelled) as directory:
            commit()
            with _CEILINGS:
                self.check_policy(spec)
                made = stored.create_from(self.host, spec, directory)
        networks.register(self.host, made)
        return made

    def end_import(self, container_id: str) -> str:
        return importing.finish(self.host, container_id)

    def build_image(
        self, name: str, source: dict[str, Any], progress: Progress, log: Log, cancelled: Cancelled
    ) -> Built:
        told = {"progress": progress, "log": lambda line: log(f"{line}\n"), "cancelled": cancelled}
        if source["type"] == "container":
            order = base.Order(host=self.host, name=name, source=source, **told)  # type: ignore[arg-type]
            return _built(publishing.publish(order, str(source["id"]), source.get("snapshot")))
        made = images.build(self.host, name, source, **told)  # type: ignore[arg-type]
        for upload in (source.get("upload"), source.get("metadata")):
            if source["type"] == "upload" and upload:
                staging.forget_upload(self.host, upload)
        return _built(made)

    def catalogue(self, server: str, progress: Progress, cancelled: Cancelled) -> list[dict[str, Any]]:
        order = base.Order(
            host=self.host,
            name="catalogue",
            source={"server": server},
            progress=progress,
            log=lambda _line: None,
            cancelled=cancelled,
        )
        return simplestreams.listing(order)

    def images(self) -> dict[str, Built]:
        return {name: _built(one) for name, one in store.images(self.host).items()}

    def remove_image(self, name: str, thrown: Entry | None = None) -> None:
        if thrown is not None:
            discarding.throw_image(self.host, thrown)
        stored.delete_image(self.host, name)

    def choose_subnets(self, taken: Sequence[str], seed: str) -> tuple[str, str]:
        chosen = networks.choose_subnets(self.host, taken, seed)
        return chosen.ipv4, chosen.ipv6

    def ensure_network(self, config: NetworkConfig, configs: Sequence[NetworkConfig]) -> None:
        networks.keep_up(self.host, self.stored, lambda specs: networks.ensure(self.host, config, configs, specs))

    def change_network(self, old: NetworkConfig, new: NetworkConfig, configs: Sequence[NetworkConfig]) -> None:
        networks.keep_up(self.host, self.stored, lambda specs: networks.change(self.host, old, new, configs, specs))

    def remove_network(self, config: NetworkConfig, configs: Sequence[NetworkConfig]) -> None:
        networks.keep_up(self.host, self.stored, lambda specs: networks.remove(self.host, config, configs, specs))

    def ensure_networks(self, configs: Sequence[NetworkConfig]) -> None:
        networks.keep_up(self.host, self.stored, lambda specs: networks.ensure_all(self.host, configs, specs))

    def bridges_there(self, spec: Spec) -> bool:
        return all(Path("/sys/class/net", nic.bridge).exists() for nic in spec.nics if nic.bridge)

    def tidy(self) -> list[str]:
        return stored.recover(self.host) + downloading.sweep(self.host.downloads_dir)

    def facts(self) -> dict[str, Any]:
        return facts.of(self.host)


def _built(made: base.BuiltImage | store.Image) -> Built:
    return Built(layers=made.layers, size_bytes=made.size_bytes, defaults=made.defaults, details=made.details)


def _observed(seen: running.Observation) -> Observed:
    return Observed(
        status=seen.status,
        reason=API_REASONS.get(seen.reason, seen.reason),
        init_pid=seen.init_pid,
        started_at=dt.datetime.fromisoformat(seen.started_at) if seen.started_at else None,
        last_exit=_exit(seen.last_exit),
    )


def _exit(last: LastExit | None) -> dict[str, Any] | None:
    if last is None:
        return None
    values = last.as_dict()
    return {**values, "reason": API_REASONS.get(last.reason, last.reason)}
