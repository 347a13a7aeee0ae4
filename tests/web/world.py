"""A host without a kernel, for what is above the seam between operations and the runtime; and rows to work on.

FakeRuntime keeps in memory what the real one keeps in the kernel and the store. A test that wants a call to fail, to
take its time, or to die in the middle, says so in `before`.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import itertools
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from containers.core.errors import NotFound
from containers.core.host import Host as CoreHost
from containers.core.model.deleted import Entry
from containers.core.model.network_config import NetworkConfig
from containers.core.model.nics import Nic
from containers.core.model.spec import Limits, Spec
from containers.core.model.states import Status
from containers.models import Container, Host, Image, Network, Operation, local_host
from containers.operations import runner
from containers.operations.runtime import Built, Cancelled, Kept, Log, Observed, Origin, Progress, Taken
from panel.accounts.actor import Actor
from panel.accounts.models import Project
from tests.web.api import Api

CORE_HOST = CoreHost(Path("/nonexistent"), "test2")
GIB = 1024**3
_pids = itertools.count(1000)


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def exited(reason: str = "stopped", exit_code: int | None = None, **more: Any) -> dict[str, Any]:
    """Return a last_exit of this moment."""
    return {"at": now().isoformat(), "reason": reason, "exit_code": exit_code, "signal": None, "console": "", **more}


class FakeRuntime:
    """Implements containers.operations.runtime.Runtime in memory."""

    def __init__(self) -> None:
        self.specs: dict[str, Spec] = {}
        self.seen: dict[str, Observed] = {}
        self.plugged: dict[str, tuple[Nic, ...]] = {}
        self.made_images: dict[str, Built] = {}
        self.offered: list[dict[str, Any]] = []
        self.taken: dict[str, dict[str, dict[str, Any]]] = {}
        self.networks: dict[int, NetworkConfig] = {}
        self.limits: dict[str, Limits] = {}
        self.sizes: dict[str, int | None] = {}
        self.attached: dict[str, Spec] = {}
        self.left_of_import = ""
        self.bridges_gone = False
        self.registered: set[str] = set()
        self.origins: list[Origin] = []
        self.put: list[tuple[str, list[str], bool]] = []
        self.thrown: dict[str, Entry] = {}
        self.kept: dict[str, Any] = {}
        self.calls: list[tuple[str, str]] = []
        self.before: dict[str, Callable[[], None]] = {}
        self.lineages: dict[str, tuple[str, ...]] = {}
        self.policy: Callable[[Spec], None] = lambda _spec: None

    def _call(self, verb: str, about: str = "") -> None:
        self.calls.append((verb, about))
        if verb in self.before:
            self.before[verb]()

    def count(self, verb: str) -> int:
        return sum(1 for name, _about in self.calls if name == verb)

    def observe(self, container_ids: Iterable[str] | None = None) -> dict[str, Observed]:
        wanted = self.seen if container_ids is None else container_ids
        return {container_id: self.seen[container_id] for container_id in wanted if container_id in self.seen}

    def sweep(self) -> list[str]:
        return []

    def stored(self) -> dict[str, Spec]:
        return dict(self.specs)

    def snapshots(self, container_id: str) -> dict[str, dict[str, Any]]:
        return dict(self.taken.get(container_id, {}))

    def lineage(self, container_id: str) -> tuple[str, ...]:
        return self.lineages.get(container_id, ())

    def check_policy(self, spec: Spec) -> None:
        self.policy(spec)

    def best_pool(self, project: str) -> str:
        return f"best-of-{project}"

    def create(self, spec: Spec, progress: Progress) -> Spec:
        self._call("create", spec.id)
        progress(50, "half")
        self.specs[spec.id] = spec
        self.registered.add(spec.id)
        self.seen[spec.id] = Observed(status=Status.STOPPED)
        return spec

    def register(self, spec: Spec) -> None:
        self.registered.add(spec.id)

    def save(self, spec: Spec) -> None:
        self._call("save", spec.id)
        self.specs[spec.id] = spec

    def delete(self, container_id: str, thrown: Entry | None = None) -> None:
        self._call("delete", container_id)
        if thrown is not None and container_id in self.specs:
            self.thrown[container_id] = thrown
            self.kept[container_id] = (self.specs[container_id], self.taken.get(container_id, {}))
        self.specs.pop(container_id, None)
        self.seen.pop(container_id, None)
        self.taken.pop(container_id, None)
        self.registered.discard(container_id)

    def start(self, spec: Spec, progress: Progress, cancelled: Cancelled, stdio: str = "") -> None:
        self._call("start", spec.id)
        if spec.id not in self.specs:
            raise NotFound("There is no such container on this host.")
        self.run(spec.id)

    def run(self, container_id: str) -> None:
        """Have a container run, as if its init had just begun."""
        self.seen[container_id] = Observed(status=Status.RUNNING, init_pid=next(_pids), started_at=now())

    def end(self, container_id: str, reason: str = "poweroff", exit_code: int | None = None, **more: Any) -> None:
        """Have a container end by itself."""
        last = exited(reason, exit_code, **more)
        self.seen[container_id] = Observed(status=Status.STOPPED, reason=reason, last_exit=last)

    def stop(self, container_id: str, *, timeout_sec: float, force: bool, kill: bool) -> None:
        self._call("stop", container_id)
        self.end(container_id, "killed" if force else "stopped")

    def reboot(self, container_id: str, *, timeout_sec: float) -> None:
        self._call("reboot", container_id)
        self.run(container_id)

    def freeze(self, container_id: str) -> None:
        self._call("freeze", container_id)
        self.seen[container_id] = dataclasses.replace(self.seen[container_id], status=Status.FROZEN)

    def thaw(self, container_id: str) -> None:
        self._call("thaw", container_id)
        self.seen[container_id] = dataclasses.replace(self.seen[container_id], status=Status.RUNNING)

    def apply_limits(self, container_id: str, limits: Limits) -> None:
        self._call("apply_limits", container_id)
        self.limits[container_id] = limits

    def resize(self, container_id: str, limits: Limits, before: Limits) -> None:
        self._call("resize", container_id)
        self.sizes[container_id] = limits.disk_bytes

    def attach(self, spec: Spec, before: Spec) -> None:
        self._call("attach", spec.id)
        self.attached[spec.id] = spec

    def change_nics(self, spec: Spec, before: Spec) -> None:
        self._call("change_nics", spec.id)
        self.plugged[spec.id] = spec.nics

    def snapshot(self, container_id: str, kept: Kept) -> Taken:
        self._call("snapshot", container_id)
        layers = (*self.specs[container_id].layers, f"layer-{kept.name}")
        self._keep(container_id, kept, layers)
        return Taken(layers=layers, size_bytes=4096)

    def _keep(self, container_id: str, kept: Kept, layers: tuple[str, ...]) -> None:
        known = self.taken.setdefault(container_id, {})
        spec = json.loads(self.specs[container_id].to_json())
        found = {**dataclasses.asdict(kept), "layers": list(layers), "size_bytes": 4096, "spec": spec}
        if kept.name not in known:
            known[kept.name] = {**found, "created_at": now().isoformat(), "lineage": list(known)}
            self.lineages[container_id] = (*self.lineage(container_id), kept.name)

    def keep_configuration(self, container_id: str, kept: Kept) -> None:
        self._call("keep_configuration", container_id)
        self._keep(container_id, kept, ())

    def change_snapshot(self, container_id: str, name: str, kept: Kept) -> None:
        self._call("change_snapshot", container_id)
        known = self.taken[container_id]
        if name in known:
            values = dataclasses.asdict(kept)
            values.pop("kind")
            known[kept.name] = {**known.pop(name), **values}

    def basket(self) -> dict[str, Entry]:
        return dict(self.thrown)

    def take_back(self, entry: Entry, spec: Spec | None, name: str) -> None:
        self._call("take_back", entry.id)
        kept = self.kept.pop(entry.id)
        del self.thrown[entry.id]
        if entry.kind == "snapshot":
            self.taken.setdefault(entry.container_id, {})[name] = kept
        elif entry.kind == "image":
            self.made_images[name] = kept
        else:
            assert spec is not None
            self.specs[entry.id] = dataclasses.replace(spec, layers=kept[0].layers)
            self.taken[entry.id] = kept[1]
            self.seen[entry.id] = Observed(status=Status.STOPPED)
            self.registered.add(entry.id)

    def purge(self, entry_id: str) -> None:
        self._call("purge", entry_id)
        self.thrown.pop(entry_id, None)
        self.kept.pop(entry_id, None)

    def remove_snapshot(self, container_id: str, name: str, thrown: Entry | None = None) -> None:
        self._call("remove_snapshot", container_id)
        if thrown is not None and name in self.taken.get(container_id, {}):
            self.thrown[thrown.id], self.kept[thrown.id] = thrown, self.taken[container_id][name]
        self.taken.get(container_id, {}).pop(name, None)

    def restore(self, container_id: str, name: str, *, spec: Spec | None, safety: Kept) -> Spec:
        self._call("restore", container_id)
        self._keep(container_id, safety, (*self.specs[container_id].layers, f"layer-{safety.name}"))
        layers = tuple(self.taken[container_id][name]["layers"])
        self.specs[container_id] = dataclasses.replace(spec or self.specs[container_id], layers=layers)
        self.lineages[container_id] = (*self.taken[container_id][name]["lineage"], name)
        if "restored" in self.before:
            self.before["restored"]()
        return self.specs[container_id]

    def put_back(self, container_id: str, name: str, paths: Any, *, exact: bool, tell: Any) -> dict[str, Any]:
        self._call("put_back", container_id)
        self.put.append((name, list(paths), exact))
        tell(1, 4096)
        found = {"put_back": len(paths), "removed": int(exact), "same": 0, "size_bytes": 4096}
        return {**found, "skipped": ["null"], "left_out": 1}

    def clone(self, source_id: str, spec: Spec, origin: Origin, progress: Progress) -> Spec:
        self._call("clone", source_id)
        self.origins.append(origin)
        made = dataclasses.replace(spec, layers=origin.layers or (*spec.layers, "now"))
        self.specs[spec.id] = made
        self.seen[spec.id] = Observed(status=Status.STOPPED)
        return made

    def import_lxc(self, spec: Spec, progress: Progress, cancelled: Cancelled, commit: Callable[[], None]) -> Spec:
        self._call("import_lxc", spec.id)
        progress(10, "Copying")
        commit()
        return self.create(dataclasses.replace(spec, layers=("imported",)), progress)

    def take_in(self, spec: Spec, make: Callable[[], Spec]) -> None:
        self._call("take_in", spec.name)
        self.check_policy(spec)
        made = make()
        self.specs[spec.id] = made
        self.seen[spec.id] = Observed(status=Status.STOPPED)

    def end_import(self, container_id: str) -> str:
        self._call("end_import", container_id)
        return self.left_of_import

    def build_image(
        self, name: str, source: dict[str, Any], progress: Progress, log: Log, cancelled: Cancelled
    ) -> Built:
        self._call("build_image", name)
        progress(40, "unpacking")
        log("I: unpacking\n")
        self.made_images[name] = Built(layers=(f"base-{name}",), size_bytes=1, defaults={"halt_signal": "SIGUSR2"})
        return self.made_images[name]

    def catalogue(self, server: str, progress: Progress, cancelled: Cancelled) -> list[dict[str, Any]]:
        self._call("catalogue", server)
        return list(self.offered)

    def images(self) -> dict[str, Built]:
        return dict(self.made_images)

    def remove_image(self, name: str, thrown: Entry | None = None) -> None:
        self._call("remove_image", name)
        if thrown is not None and name in self.made_images:
            self.thrown[thrown.id], self.kept[thrown.id] = thrown, self.made_images[name]
        self.made_images.pop(name, None)

    def choose_subnets(self, taken: Sequence[str], seed: str) -> tuple[str, str]:
        number = 100 + len(taken)
        return f"10.90.{number}.1/24", f"fd00:90:{number}::1/64"

    def ensure_network(self, config: NetworkConfig, configs: Sequence[NetworkConfig]) -> None:
        self._call("ensure_network", config.name)
        self.networks[config.number] = config

    def change_network(self, old: NetworkConfig, new: NetworkConfig, configs: Sequence[NetworkConfig]) -> None:
        self._call("change_network", new.name)
        assert old.number == new.number
        assert new in configs
        self.networks[new.number] = new

    def remove_network(self, config: NetworkConfig, configs: Sequence[NetworkConfig]) -> None:
        self._call("remove_network", config.name)
        self.networks.pop(config.number, None)

    def ensure_networks(self, configs: Sequence[NetworkConfig]) -> None:
        self._call("ensure_networks")
        self.bridges_gone = False
        self.networks = {config.number: config for config in configs}

    def bridges_there(self, spec: Spec) -> bool:
        return not self.bridges_gone

    def tidy(self) -> list[str]:
        return []

    def facts(self) -> dict[str, Any]:
        return {"memory_bytes": 8 * GIB, "cpus": 4, "pids": 32768, "disk_limits": False, "policy": {}}


def actor(user: Any, token: Any = None) -> Actor:
    return Actor(user, "192.0.2.7", token)


def make_host() -> Host:
    """Make the rows of a new installation: host, image busybox (ready), image debian-12 (not made), network."""
    host = local_host()
    host.facts = {"memory_bytes": 8 * GIB, "cpus": 4, "pids": 32768, "disk_limits": False, "policy": {}}
    host.save()
    Image.objects.create(host=host, name="busybox", source={"type": "busybox"}, state="ready", layers=["base"])
    Image.objects.create(host=host, name="debian-12", source={"type": "debootstrap", "suite": "bookworm"})
    Network.objects.create(host=host, name="default", number=0, ipv4="10.90.3.1/24", ipv6="fd00:90:3::1/64")
    return host


def make_container(
    project: Project, name: str = "web-1", *, runtime: FakeRuntime | None = None, status: str = "stopped", **more: Any
) -> Container:
    """Make a container's row, and in the runtime what belongs to it."""
    from containers.asking import nics
    from containers.bookkeeping import reservations, specs

    host = local_host()
    image = Image.objects.get(host=host, name="busybox")
    columns = {"name": name, "project": project, "image": image, "image_name": "busybox", "layers": ["base"], **more}
    container = reservations.add_container(host, columns)
    network = Network.objects.get(host=host, name="default")
    nics.write(container, nics.plan(container, [{}], lambda _name: network))
    container.status = status
    if runtime is not None:
        runtime.specs[container.pk] = specs.spec_of(container, CORE_HOST)
        runtime.seen[container.pk] = Observed(status=Status.STOPPED)
        if status != Status.STOPPED:
            runtime.run(container.pk)
            seen = dataclasses.replace(runtime.seen[container.pk], status=Status(status))
            runtime.seen[container.pk] = seen
            container.init_pid, container.started_at = seen.init_pid, seen.started_at
    container.save()
    return container


def run(operation: Operation, runtime: FakeRuntime) -> Operation:
    """Do an operation as the worker does; return its row as it is then."""
    assert runner.run(operation.pk, runtime, CORE_HOST)
    return Operation.objects.get(pk=operation.pk)


def change_limits(api: Api, runtime: FakeRuntime, limits: dict[str, Any]) -> Operation:
    """Ask by the API for other limits of web-1, have it done, and return the operation."""
    status, answer = api.patch("/containers/web-1", {"limits": limits})
    assert status == 202, answer
    return run(Operation.objects.get(pk=answer["id"]), runtime)
