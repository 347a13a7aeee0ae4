"""A container's row as the runtime's spec, and back."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Any

from ..core.attachments import Device, Mount
from ..core.behaviour import Boot, Consoles, Init
from ..core.hooks import build_all, plain_hook
from ..core.host import Host as CoreHost
from ..core.network.base import plain
from ..core.nics import Nic
from ..core.security import Security
from ..core.spec import Limits, RestartPolicy, Spec, build
from ..models import Container, NetworkInterface
from .reservations import config_of

DEFAULT_INIT = ("/sbin/init",)


def spec_of(container: Container, host: CoreHost) -> Spec:
    """Return the final, merged spec of a container's row: what is checked is what is run."""
    restart: RestartPolicy = container.restart  # type: ignore[assignment]
    return Spec(
        id=container.pk,
        name=container.name,
        project=container.project.name,
        slot=container.slot,
        image=container.image_name,
        layers=tuple(container.layers),
        machine_id=container.machine_id,
        created_at=container.created_at.astimezone(dt.UTC).isoformat(),
        hostname=container.name,
        description=container.description,
        tags=tuple(container.tags),
        limits=limits_of(container),
        nics=tuple(
            nic_of(nic, container, host) for nic in container.interfaces.select_related("network").order_by("index")
        ),
        privileged=container.privileged,
        security=Security.from_dict(container.security),
        init_command=tuple(container.init_command) or DEFAULT_INIT,
        environment=dict(container.environment),
        halt_signal=container.halt_signal or None,
        autostart=container.autostart,
        ephemeral=container.ephemeral,
        restart=restart,
        mounts=tuple(build(Mount, mount, "mounts") for mount in container.mounts),
        devices=tuple(build(Device, device, "devices") for device in container.devices),
        hooks=build_all(container.hooks),
        init=Init.from_dict(container.init),
        boot=Boot.from_dict(container.boot),
        console=Consoles.from_dict(container.console),
        generation=container.generation,
    )


def limits_of(container: Container) -> Limits:
    """Return the limits of a container's row."""
    return build(Limits, container.limits, "limits")


def nic_of(nic: NetworkInterface, container: Container, host: CoreHost) -> Nic:
    """Return a NIC's row as the runtime wants it."""
    config = config_of(nic.network)
    prefix4 = config.ipv4.partition("/")[2] if config.ipv4 else ""
    prefix6 = config.ipv6.partition("/")[2] if config.ipv6 else ""
    return Nic(
        name=nic.name,
        network=config.name,
        bridge=host.bridge_name(config.number),
        host_link=host.veth_name(container.slot, nic.index),
        mac=nic.mac,
        ipv4=f"{nic.ipv4}/{prefix4}" if nic.ipv4 and prefix4 else None,
        ipv4_gateway=plain(config.ipv4) if config.ipv4 else None,
        ipv6=f"{nic.ipv6}/{prefix6}" if nic.ipv6 and prefix6 else None,
    )


def columns_of(spec: Spec) -> dict[str, Any]:
    """Return what of a spec stands in columns of its own: for rows that are rebuilt from the host's store."""
    limits = dataclasses.asdict(spec.limits)
    return {
        "name": spec.name,
        "slot": spec.slot,
        "image_name": spec.image,
        "layers": list(spec.layers),
        "machine_id": spec.machine_id,
        "created_at": dt.datetime.fromisoformat(spec.created_at),
        "description": spec.description,
        "tags": list(spec.tags),
        "limits": {name: value for name, value in limits.items() if value is not None},
        "privileged": spec.privileged,
        "security": spec.security.given(),
        "init_command": list(spec.init_command),
        "environment": dict(spec.environment),
        "halt_signal": spec.halt_signal or "",
        "autostart": spec.autostart,
        "ephemeral": spec.ephemeral,
        "restart": spec.restart,
        "mounts": [dataclasses.asdict(mount) for mount in spec.mounts],
        "devices": [dataclasses.asdict(device) for device in spec.devices],
        "hooks": [plain_hook(hook) for hook in spec.hooks],
        "init": spec.init.given(),
        "boot": spec.boot.given(),
        "console": spec.console.given(),
        "generation": spec.generation,
    }
