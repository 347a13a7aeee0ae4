"""What people ask for, as typed values: a new container, a stop, a network."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import Any, Final

from ..core.errors import SpecError
from ..core.model.hooks import build_all as build_hooks
from ..core.model.network_config import NetworkConfig
from ..core.names import check_name
from ..core.sentences import say
from ..models import Host
from . import configuration, giving, pools

STOP_TIMEOUT_SEC: Final = 60
STOP_TIMEOUT_MAX_SEC: Final = 3600
NOTE_MAX: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerRequest:
    """A container that somebody wants. init_command, environment, halt_signal None: the image's own.

    nics: as asking.nics takes them; None is one on the network.
    """

    name: str
    image: str
    project: str = "default"
    description: str = ""
    tags: tuple[str, ...] = ()
    limits: dict[str, Any] = field(default_factory=dict)
    security: dict[str, Any] = field(default_factory=dict)
    network: str = "default"
    nics: tuple[dict[str, Any], ...] | None = None
    privileged: bool = False
    start: bool = False
    ephemeral: bool = False
    autostart: bool = False
    init_command: tuple[str, ...] | None = None
    environment: dict[str, str] | None = None
    halt_signal: str | None = None
    restart: str = "no"
    pool: str = "default"
    mounts: tuple[dict[str, Any], ...] = ()
    devices: tuple[dict[str, Any], ...] = ()
    hooks: tuple[dict[str, Any], ...] = ()
    init: dict[str, Any] = field(default_factory=dict)
    boot: dict[str, Any] = field(default_factory=dict)
    console: dict[str, Any] = field(default_factory=dict)


def check_request(data: ContainerRequest, host: Host) -> dict[str, Any]:
    """Return the columns of the new container's row; raises SpecError naming the field, or PolicyDenied."""
    check_name(data.name)
    check_name(data.project, field="project")
    check_name(data.image, field="image")
    check_name(data.network, field="network")
    values = {name: getattr(data, name) for name in configuration.CHANGEABLE}
    given = giving.check({"mounts": values.pop("mounts"), "devices": values.pop("devices")}, host, data.project)
    row = configuration.check_changes(values, host)
    giving.check_hooks(host, data.project, build_hooks(row["hooks"]))
    giving.check_profile(host, data.project, str(row["security"].get("seccomp", "")))
    row["limits"] = pools.check(host, data.project, data.pool, row["limits"])
    return {"name": data.name, "image_name": data.image, "pool": data.pool, **row, **given}


def check_stop(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a stop, with their defaults; raises SpecError."""
    timeout = arguments.get("timeout", STOP_TIMEOUT_SEC)
    if not isinstance(timeout, (int, float)) or isinstance(timeout, bool) or not 0 <= timeout <= STOP_TIMEOUT_MAX_SEC:
        raise SpecError(
            say("timeout must be between 0 and %(most)s seconds.", most=STOP_TIMEOUT_MAX_SEC), field="timeout"
        )
    return {
        "timeout": timeout,
        "force": bool(arguments.get("force", False)),
        "kill": bool(arguments.get("kill", True)),
        **({"inside": True} if arguments.get("inside") else {}),
    }


def check_network(name: str, kind: str, ipv4: str, ipv6: str, number: int, *, nat: bool) -> NetworkConfig:
    """Return a network's configuration; "auto" and "none" are None there. Raises SpecError naming the field."""
    if kind != "bridge":
        raise SpecError("Use bridge.", field="type")
    config = NetworkConfig(
        name=name,
        number=number,
        ipv4=_gateway(ipv4, "ipv4", 4),
        ipv6=_gateway(ipv6, "ipv6", 6),
        nat=nat,
    )
    config.check()
    return config


def _gateway(text: str, where: str, version: int) -> str | None:
    """Return a gateway with prefix length; a subnet's own address stands for the first address in it."""
    if text in ("auto", "none"):
        return None
    if "/" not in text:
        raise SpecError("Give a subnet with prefix length, auto or none.", field=where)
    try:
        interface = ipaddress.ip_interface(text)
    except ValueError:
        raise SpecError("Give a subnet with prefix length, auto or none.", field=where) from None
    if interface.version != version:
        raise SpecError(say("This is not an IPv%(version)s subnet.", version=version), field=where)
    network = interface.network
    if interface.ip == network.network_address and network.num_addresses > 2:
        return f"{network.network_address + 1}/{network.prefixlen}"
    return text
