"""A container's row as the runtime's spec, and back."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterable
from typing import Any

from ..core.host import Host as CoreHost
from ..core.model.attachments import Device, Mount
from ..core.model.behaviour import Boot, Consoles, Init
from ..core.model.hooks import build_all, plain_hook
from ..core.model.network_config import plain
from ..core.model.nics import PAIRS, Nic, NicType
from ..core.model.security import Security
from ..core.model.spec import Limits, RestartPolicy, Spec, build
from ..models import Container, NetworkInterface
from .reservations import config_of

DEFAULT_INIT = ("/sbin/init",)


def spec_of(container: Container, host: CoreHost, interfaces: Iterable[NetworkInterface] | None = None) -> Spec:
    """Return the final, merged spec of a container's row: what is checked is what is run.

    interfaces: instead of those that it has.
    """
    if interfaces is None:
        interfaces = container.interfaces.select_related("network").order_by("index")
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
        nics=tuple(nic_of(nic, container, host) for nic in sorted(interfaces, key=lambda nic: nic.index)),
        privileged=container.privileged,
        security=Security.from_dict(container.security),
        init_command=tuple(container.init_command) or DEFAULT_INIT,
        environment=dict(container.environment),
        halt_signal=container.halt_signal or None,
        autostart=container.autostart,
        ephemeral=container.ephemeral,
        restart=restart,
        pool=container.pool,
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
    options = nic.options
    kind: NicType = nic.type  # type: ignore[assignment]
    common = {key: options[key] for key in _SAME if key in options}
    if kind in PAIRS:
        common["host_link"] = host.veth_name(container.slot, nic.index)
    if nic.network is not None:
        return Nic(name=nic.name, index=nic.index, type=kind, mac=nic.mac or "", **common, **_on_network(nic, host))
    return Nic(
        name=nic.name,
        index=nic.index,
        type=kind,
        mac=nic.mac or "",
        ipv4=options.get("ipv4"),
        ipv4_gateway=_asked(options, "ipv4_gateway"),
        ipv6=options.get("ipv6"),
        ipv6_gateway=_asked(options, "ipv6_gateway"),
        routes=tuple(options.get("routes", ())),
        **common,
    )


_SAME = ("static", "parent", "mode", "vlan", "mtu", "ingress_bytes_per_sec", "egress_bytes_per_sec")


def options_of(nic: Nic) -> dict[str, Any]:
    """Return what of a NIC stands in its row's options: for rows that are rebuilt from the host's store."""
    found = {key: getattr(nic, key) for key in _SAME if getattr(nic, key)}
    if nic.type != "bridge":
        found |= {key: getattr(nic, key) for key in ("ipv4", "ipv6") if getattr(nic, key)}
        found |= {"routes": list(nic.routes)} if nic.routes else {}
    for key in ("ipv4_gateway", "ipv6_gateway"):
        gateway = getattr(nic, key)
        if nic.type != "bridge":
            found |= {key: gateway} if gateway else {}
        elif gateway is None or gateway == "dev":
            found[key] = gateway or "none"
        elif key == "ipv6_gateway":
            found[key] = "auto"
    return found


def _asked(options: dict[str, Any], key: str) -> str | None:
    text = options.get(key)
    return None if text in (None, "none") else str(text)


def _on_network(nic: NetworkInterface, host: CoreHost) -> dict[str, Any]:
    """Return what a NIC has of its network. Gateways: "auto" is the network's own address."""
    assert nic.network is not None
    config = config_of(nic.network)
    found: dict[str, Any] = {"network": config.name, "bridge": host.bridge_name(config.number)}
    for key, gateway in (("ipv4", config.ipv4), ("ipv6", config.ipv6)):
        own, prefix = getattr(nic, key), gateway.partition("/")[2] if gateway else ""
        found[key] = f"{own}/{prefix}" if own and prefix else None
        asked = nic.options.get(f"{key}_gateway", "auto" if key == "ipv4" else "none")
        found[f"{key}_gateway"] = {"auto": plain(gateway) if gateway else None, "none": None}.get(asked, asked)
    return found


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
        "pool": spec.pool,
        "mounts": [dataclasses.asdict(mount) for mount in spec.mounts],
        "devices": [dataclasses.asdict(device) for device in spec.devices],
        "hooks": [plain_hook(hook) for hook in spec.hooks],
        "init": spec.init.given(),
        "boot": spec.boot.given(),
        "console": spec.console.given(),
        "generation": spec.generation,
    }
