"""What changes seldom between rows and host: rows made again from the store, images, snapshots, the facts."""

from __future__ import annotations

import ipaddress
from typing import Any, Final

from django.db import IntegrityError, transaction
from django.utils import timezone

from panel.accounts.models import Project

from ..asking import queue
from ..bookkeeping import points, records, specs
from ..core.host import Host as CoreHost
from ..core.model.nics import Nic
from ..core.model.spec import Spec
from ..core.model.states import Status
from ..models import Container, Host, Image, Network, NetworkInterface, Operation, Snapshot, local_host
from ..operations.basket import empty_rows
from ..operations.runtime import Built, Runtime

BUSYBOX: Final = "busybox"
IMAGES: Final[dict[str, tuple[dict[str, Any], str]]] = {
    BUSYBOX: ({"type": "busybox"}, "The host's static BusyBox: starts at once, takes almost nothing."),
    "debian-12": (
        {"type": "debootstrap", "suite": "bookworm"},
        "Debian 12 with systemd, made by debootstrap when it is first used.",
    ),
    "debian-13": (
        {"type": "debootstrap", "suite": "trixie"},
        "Debian 13 with systemd, made by debootstrap when it is first used.",
    ),
    "debian-sid": (
        {"type": "debootstrap", "suite": "sid"},
        "Debian's unstable distribution, made by debootstrap when it is first used.",
    ),
    "debian-12-sysvinit": (
        {"type": "debootstrap", "suite": "bookworm", "init": "sysvinit"},
        "Debian 12 with sysvinit, made by debootstrap when it is first used.",
    ),
}
DEFAULT: Final = "default"
_COMPARED: Final = ("note", "layers", "pinned", "expires_at", "kind")
"""What a snapshot's row says and people can change."""


def setup(host: CoreHost, runtime: Runtime) -> Host:
    """Make what a new installation has: host, project, network and images; once more changes nothing.

    Networks and containers that the store knows, and the rows do not, are taken from the store. Raises what making the
    network and the busybox image raises.
    """
    row = local_host()
    Project.objects.get_or_create(name=DEFAULT, defaults={"description": "Everybody's first project."})
    for name, (source, description) in IMAGES.items():
        Image.objects.get_or_create(host=row, name=name, defaults={"source": source, "description": description})
    save_facts(row, {**runtime.facts(), "autostart": True})
    mend_rows(row, runtime, host)
    network = Network.objects.filter(host=row, name=DEFAULT).first()
    if network is None:
        taken = [subnet for one in Network.objects.filter(host=row) for subnet in _subnets(one)]
        ipv4, ipv6 = runtime.choose_subnets(taken, DEFAULT)
        numbers = set(Network.objects.filter(host=row).values_list("number", flat=True))
        number = next(one for one in range(1000) if one not in numbers)
        Network.objects.create(host=row, name=DEFAULT, number=number, ipv4=ipv4, ipv6=ipv6)
    _make_busybox(row, runtime)
    return row


def _subnets(network: Network) -> list[str]:
    return [str(ipaddress.ip_interface(text).network) for text in (network.ipv4, network.ipv6) if text]


def _make_busybox(row: Host, runtime: Runtime) -> None:
    """Make the image that is there from the beginning; without any network it takes a fraction of a second."""
    image = Image.objects.get(host=row, name=BUSYBOX)
    if image.state == Image.State.READY or image.operations.filter(status__in=Operation.UNFINISHED).exists():
        return
    built = runtime.build_image(BUSYBOX, image.source, lambda *_told: None, lambda _line: None, lambda: False)
    image_ready(image, built)


def image_ready(image: Image, built: Built) -> None:
    """Write into an image's row what was built."""
    Image.objects.filter(pk=image.pk).update(
        state=Image.State.READY,
        layers=list(built.layers),
        size_bytes=built.size_bytes,
        defaults=built.defaults,
        details=built.details,
        built_at=timezone.now(),
    )


def save_facts(host: Host, facts: dict[str, Any]) -> None:
    """Merge facts into the host's row, if they are new."""
    with transaction.atomic():
        row = Host.objects.select_for_update().get(pk=host.pk)
        merged = {**row.facts, **facts}
        if merged != row.facts:
            Host.objects.filter(pk=host.pk).update(facts=merged)
    host.facts = merged


def mend_rows(host: Host, runtime: Runtime, core_host: CoreHost) -> list[str]:
    """Make rows agree with the store, where no operation is at work; return in words what was mended."""
    mended = _mend_images(host, runtime)
    # the trash before the containers: what is put back meanwhile is seen at one of the two places
    mended += empty_rows(host, runtime.basket())
    stored = runtime.stored()
    rows = Container.objects.only("name").in_bulk(list(stored))
    points_of = _known_points(host)
    for container_id, spec in stored.items():
        row = rows.get(container_id) or Container.objects.filter(pk=container_id).first()
        # deleted since the store was read: its row went after its directory
        if row is None and container_id in runtime.observe([container_id]):
            mended += _remake(host, spec, core_host)
            row = Container.objects.filter(pk=container_id).first()
        # looked at once more where an operation may have been at work between the two looks
        alike = row is not None and points_of.get(container_id, {}) == _told_points(runtime, container_id)
        if row is not None and not alike and queue.unfinished(row) is None:
            mended += _mend_snapshots(row, runtime)
    return mended


def _known_points(host: Host) -> dict[str, dict[str, tuple[Any, ...]]]:
    """Return what the rows say of every container's snapshots, by container and name."""
    found: dict[str, dict[str, tuple[Any, ...]]] = {}
    rows = Snapshot.objects.filter(container__host=host).order_by()
    for container_id, name, *values in rows.values_list("container_id", "name", *_COMPARED):
        found.setdefault(container_id, {})[name] = tuple(values)
    return found


def _told_points(runtime: Runtime, container_id: str) -> dict[str, tuple[Any, ...]]:
    """Return what the store says of a container's snapshots, as `_known_points` does of one."""
    return {
        name: tuple(points.columns_of(found)[column] for column in _COMPARED)
        for name, found in runtime.snapshots(container_id).items()
    }


def _mend_images(host: Host, runtime: Runtime) -> list[str]:
    mended = []
    known = runtime.images()
    for image in Image.objects.filter(host=host):
        if image.operations.filter(status__in=Operation.UNFINISHED).exists():
            continue
        built = known.get(image.name)
        if built is not None and (image.state != Image.State.READY or image.layers != list(built.layers)):
            image_ready(image, built)
            mended.append(f"image {image.name}: it is there")
        elif built is None and image.state in (Image.State.READY, Image.State.BUILDING):
            Image.objects.filter(pk=image.pk).update(state=Image.State.AVAILABLE, layers=[], size_bytes=None)
            mended.append(f"image {image.name}: it is not there")
    return mended


def _remake(host: Host, spec: Spec, core_host: CoreHost) -> list[str]:
    """Make the row of a container that only the store knows."""
    name = spec.name
    project, _made = Project.objects.get_or_create(name=spec.project)
    if Container.objects.filter(name=name).exists():
        name = f"{spec.name[:50]}-{spec.id}"
    columns = {**specs.columns_of(spec), "name": name}
    image = Image.objects.filter(host=host, name=spec.image).first()
    try:
        with transaction.atomic():
            container = Container.objects.create(
                id=spec.id, host=host, project=project, image=image, status=Status.STOPPED, **columns
            )
            for nic in spec.nics:
                _remake_nic(container, nic, core_host)
            records.add_event(container, "found", reason="made again from the host's store")
    except IntegrityError as error:
        return [f"container {spec.name} ({spec.id}) is in the store, and its row cannot be made: {error}"]
    return [f"container {name}: its row was made again from the store"]


def _remake_nic(container: Container, nic: Nic, core_host: CoreHost) -> None:
    network = Network.objects.filter(host=container.host, name=nic.network).first() if nic.network else None
    if network is None and nic.network:
        prefix = core_host.bridge_name(0)[:-1]
        ipv4 = f"{nic.ipv4_gateway}/{nic.ipv4.partition('/')[2]}" if nic.ipv4 and nic.ipv4_gateway else ""
        network6 = ipaddress.IPv6Interface(nic.ipv6).network if nic.ipv6 else None
        network = Network.objects.create(
            host=container.host,
            name=nic.network,
            number=int(nic.bridge.removeprefix(prefix)),
            ipv4=ipv4,
            ipv6=f"{network6[1]}/{network6.prefixlen}" if network6 else "",
        )
    NetworkInterface.objects.create(
        container=container,
        network=network,
        index=nic.index,
        type=nic.type,
        options=specs.options_of(nic),
        name=nic.name,
        mac=nic.mac or None,
        ipv4=nic.ipv4.partition("/")[0] if nic.ipv4 else None,
        ipv6=nic.ipv6.partition("/")[0] if nic.ipv6 else None,
    )


def _mend_snapshots(container: Container, runtime: Runtime) -> list[str]:
    mended = []
    stored = runtime.snapshots(container.pk)
    rows = {row.name: row for row in container.snapshots.all()}
    for name, found in stored.items():
        if name not in rows:
            points.take(container, name, found)
            mended.append(f"container {container.name}: snapshot {name} was found")
        elif _unlike(rows[name], found):
            points.take(container, name, found)
            mended.append(f"container {container.name}: snapshot {name} is another than its row said")
    for name in rows.keys() - stored.keys():
        rows[name].delete()
        mended.append(f"container {container.name}: snapshot {name} is gone")
    return mended


def _unlike(row: Snapshot, found: dict[str, Any]) -> bool:
    """Whether what a row says of a snapshot, and people can change, is not what the store says."""
    columns = points.columns_of(found)
    return any(getattr(row, name) != columns[name] for name in _COMPARED)


def disagreements(host: Host, runtime: Runtime) -> list[dict[str, Any]]:
    """Return what rows and host do not say alike, but for what operations are at work on."""
    found: list[dict[str, Any]] = []

    def add(kind: str, name: str, what: str) -> None:
        found.append({"kind": kind, "name": name, "what": what})

    stored, observed = runtime.stored(), runtime.observe()
    rows = {row.pk: row for row in Container.objects.filter(host=host)}
    for container_id, row in rows.items():
        if queue.unfinished(row) is not None:
            continue
        seen = observed.get(container_id)
        if seen is None:
            add("container", row.name, "it has a row, and nothing on the host")
            continue
        if seen.status != row.status:
            add("container", row.name, f"the row says {row.status}, the host {seen.status}")
        if runtime.snapshots(container_id).keys() != set(row.snapshots.values_list("name", flat=True)):
            add("snapshot", row.name, "rows and store do not have the same snapshots")
    for container_id in stored.keys() - rows.keys():
        add("container", stored[container_id].name, f"it is in the host's store ({container_id}) and has no row")
    built = runtime.images()
    for image in Image.objects.filter(host=host):
        if not image.operations.filter(status__in=Operation.UNFINISHED).exists():
            ready = image.state == Image.State.READY
            if ready != (image.name in built):
                add("image", image.name, f"the row says {image.state}, the store {'has' if not ready else 'lacks'} it")
    return found
