"""What people ask for, as typed values, and the checks that need no database."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
import signal
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlparse

from ..core.errors import InvalidTransition, PolicyDenied, SpecError
from ..core.model import recipes
from ..core.model.behaviour import Boot, Consoles, Init
from ..core.model.hooks import build_all as build_hooks
from ..core.model.hooks import plain_hook
from ..core.model.network_config import NetworkConfig
from ..core.model.security import Security
from ..core.model.spec import RESTART_POLICIES, Limits, build, check_environment, check_init_command, check_text
from ..core.names import check_name
from ..core.rules import policy
from ..core.sentences import say
from ..models import Container, Host
from . import giving, pools
from .told import policy_of

STOP_TIMEOUT_SEC: Final = 60
STOP_TIMEOUT_MAX_SEC: Final = 3600
TAGS_MAX: Final = 32
NOTE_MAX: Final = 500
_NO_CEILING: Final = 2**50

CHANGEABLE: Final = frozenset(
    {
        "description",
        "tags",
        "limits",
        "ephemeral",
        "autostart",
        "privileged",
        "security",
        "init_command",
        "environment",
        "halt_signal",
        "restart",
        "mounts",
        "devices",
        "hooks",
        "init",
        "boot",
        "console",
    }
)
GROUPS: Final[dict[str, type[Init] | type[Boot] | type[Consoles]]] = {"init": Init, "boot": Boot, "console": Consoles}


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
    values = {name: getattr(data, name) for name in CHANGEABLE}
    given = giving.check({"mounts": values.pop("mounts"), "devices": values.pop("devices")}, host, data.project)
    columns = check_changes(values, host)
    giving.check_hooks(host, data.project, build_hooks(columns["hooks"]))
    giving.check_profile(host, data.project, str(columns["security"].get("seccomp", "")))
    columns["limits"] = pools.check(host, data.project, data.pool, columns["limits"])
    return {"name": data.name, "image_name": data.image, "pool": data.pool, **columns, **given}


def check_changes(changes: dict[str, Any], host: Host, present: Container | None = None) -> dict[str, Any]:
    """Return changes as columns of a container's row; raises SpecError naming the field, or PolicyDenied.

    present: the container that is changed; of its limits, security settings and the like those that are not named stay.
    """
    for name in changes:
        if name not in CHANGEABLE:
            raise SpecError(say("%(name)s cannot be changed.", name=name), field=name)
    given = {name: value for name, value in changes.items() if name in ("mounts", "devices")}
    columns: dict[str, Any] = giving.check(given, host, present.project.name) if given and present else {}
    for name, value in changes.items():
        if name in given:
            continue
        if name == "limits":
            before = present.limits if present else {}
            columns["limits"] = check_limits({**before, **_plain_limits(value)}, host, before)
            if present is not None:
                pools.check_limits(host, present.pool, columns["limits"])
        elif name == "security":
            privileged = bool(changes.get("privileged", present is not None and present.privileged))
            wanted = {**(present.security if present else {}), **value}
            columns["security"] = check_security(wanted, host, privileged=privileged)
            if present is not None:
                name_of_profile = str(columns["security"].get("seccomp", ""))
                giving.check_profile(host, present.project.name, name_of_profile)
        elif name == "hooks":
            hooks = build_hooks(value or ())
            if present is not None:
                giving.check_hooks(host, present.project.name, hooks)
            columns["hooks"] = [plain_hook(hook) for hook in hooks]
        elif name == "tags":
            columns["tags"] = _tags(value)
        elif name == "description":
            columns["description"] = check_text(value, field="description", most=500, lines=True)
        elif name in GROUPS:
            columns[name] = check_group(name, {**(getattr(present, name) if present else {}), **value})
        elif name == "init_command":
            if value is not None:
                # whether a name to be looked up will do is known when its kind is: see check_command
                check_init_command(tuple(value), absolute=False)
            columns["init_command"] = list(value or ())
        elif name == "environment":
            check_environment(value or {})
            columns["environment"] = dict(value or {})
        elif name == "halt_signal":
            columns["halt_signal"] = check_signal(value) if value else ""
        elif name == "restart":
            if value not in RESTART_POLICIES:
                raise SpecError("Use no, on-failure or always.", field="restart")
            columns["restart"] = value
        else:
            columns[name] = bool(value)
    if present is not None and {"init", "init_command"} & columns.keys():
        check_command(columns.get("init_command", present.init_command), columns.get("init", present.init))
    if columns.get("privileged") and not (present and present.privileged):
        check_privileged(host)
    return columns


def check_group(name: str, values: dict[str, Any]) -> dict[str, Any]:
    """Return what of init, boot or console is not as in every container; raises SpecError naming the field."""
    group = GROUPS[name].from_dict(values)
    group.check()
    if isinstance(group, Init) and group.reboot_signal:
        check_signal(group.reboot_signal, field="init.reboot_signal")
    return group.given()


def check_command(command: Sequence[str], init: Mapping[str, Any]) -> None:
    """Raise SpecError where a command cannot be process 1, which nobody looks up in PATH.

    command: [] for the image's own. init: as in a container's row, with what its image adds.
    """
    if command and init.get("kind", "system") == "system":
        check_init_command(tuple(command))


def check_privileged(host: Host) -> None:
    """Raise PolicyDenied unless the host's policy, as its worker last told it, allows privileged containers."""
    with policy_of(host):
        if not host.facts.get("policy", {}).get("privileged"):
            raise PolicyDenied("This host's policy does not allow privileged containers.", field="privileged")


def check_security(values: dict[str, Any], host: Host, *, privileged: bool) -> dict[str, Any]:
    """Return the security settings that are not as in every container; raises SpecError, PolicyDenied naming the field.

    The policy is that of the host as its worker last told it.
    """
    security = Security.from_dict(values)
    security.check(privileged=privileged)
    told = host.facts.get("policy", {})
    allowed = policy.Containers(
        nesting=bool(told.get("nesting")),
        keyctl=bool(told.get("keyctl")),
        ids=int(told.get("ids", 0)),
        apparmor=tuple(told.get("apparmor", ())),
        capabilities=tuple(told.get("capabilities", ())),
    )
    with policy_of(host):
        policy.check_security(allowed, security, privileged=privileged)
    return security.given()


def _plain_limits(value: Limits | dict[str, Any]) -> dict[str, Any]:
    return dataclasses.asdict(value) if isinstance(value, Limits) else dict(value)


def check_limits(values: dict[str, Any], host: Host, before: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the limits that are set, checked against what the host has; raises SpecError naming the field.

    before: those of the container now. A disk that it has is not taken from it by what the doctor says by now.
    """
    limits = build(Limits, values, "limits")
    facts = host.facts
    limits.check(
        host_memory_bytes=facts.get("memory_bytes") or _NO_CEILING,
        host_cpus=facts.get("cpus") or _NO_CEILING,
        host_pids=facts.get("pids") or _NO_CEILING,
        host_online=facts.get("online"),
    )
    limits.check_types()
    files = tuple(facts.get("policy", {}).get("cgroup_files", ()))
    with policy_of(host):
        policy.check_cgroup(policy.Containers(cgroup_files=files), limits)
    new_disk = limits.disk_bytes is not None and limits.disk_bytes != (before or {}).get("disk_bytes")
    if new_disk and not facts.get("disk_limits"):
        raise SpecError("This host cannot hold a container to a size; its doctor says why.", field="limits.disk_bytes")
    return {name: value for name, value in dataclasses.asdict(limits).items() if value is not None}


def check_disk_in_use(container: Container, wanted: dict[str, Any]) -> None:
    """Refuse limits of a disk that can only be put in force while the container is stopped: InvalidTransition."""
    (before, files_before), (after, files_after) = (
        (limits.get("disk_bytes"), limits.get("disk_inodes")) for limits in (container.limits, wanted)
    )
    if (before, files_before) == (after, files_after):
        return
    larger = before is not None and after is not None and after > before and files_before == files_after
    if not (larger and container.host.facts.get("disk_growth")):
        message = "Stop it first: this takes a copy of what it wrote."
        if container.host.facts.get("disk_growth"):
            message = "Stop it first: while it runs a disk limit can only be raised."
        field = "limits.disk_bytes" if files_before == files_after else "limits.disk_inodes"
        raise InvalidTransition(message, field=field)


def _tags(value: Any) -> list[str]:
    tags = list(dict.fromkeys(value))
    if len(tags) > TAGS_MAX:
        raise SpecError(say("Use at most %(most)s tags.", most=TAGS_MAX), field="tags")
    return [check_name(tag, field="tags") for tag in tags]


def check_signal(text: str, *, field: str = "halt_signal") -> str:
    """Return text if it is a signal: SIGPWR, SIGRTMIN+3, SIGRTMAX-1, or a number from 1 to 64; raises SpecError."""
    real_time = re.fullmatch(r"SIGRTM(?:IN\+|AX-)([0-9]{1,2})", text, re.ASCII)
    number = re.fullmatch(r"[1-9][0-9]?", text, re.ASCII)
    good = int(real_time[1]) <= 30 if real_time else int(text) <= 64 if number else text in signal.Signals.__members__
    if not good:
        raise SpecError("Name a signal, such as SIGPWR or SIGRTMIN+3.", field=field)
    return text


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


def check_source(source: dict[str, Any], host: Host) -> dict[str, Any]:
    """Return an image's source, of those that builders on the host make; raises SpecError.

    Raises PolicyDenied for a local mirror, unless the host's policy, as its worker last told it, names it.
    """
    kind = source.get("type")
    if kind == "busybox":
        return {"type": "busybox"}
    if kind != "debootstrap":
        raise SpecError(say("Images cannot be made from %(kind)r.", kind=kind), field="source.type")
    recipes.check(source)
    if mirror := source.get("mirror"):
        check_remote(mirror, field="source.mirror", named=tuple(host.facts.get("policy", {}).get("sources", ())))
    return {name: value for name, value in source.items() if value is not None}


def _address(host: str) -> str | None:
    """Return the address that a URL's host is, as inet_aton(3) reads it too: 127.1, 0x7f.1; None for a name."""
    if host == "localhost" or host.endswith(".localhost"):
        return "127.0.0.1"
    for read in (ipaddress.ip_address, lambda text: ipaddress.IPv4Address(socket.inet_aton(text))):
        try:
            return str(read(host))
        except (OSError, ValueError):
            continue
    return None


def check_remote(url: str, *, field: str, named: tuple[str, ...] = ()) -> None:
    """Raise PolicyDenied where a URL's host is written as a loopback or private address.

    named: host names and subnets that the host's policy names as sources all the same.
    A name may still lead to one: whoever fetches it looks again at what it resolves to.
    """
    try:
        parts = urlparse(url)
        host = (parts.hostname or "").rstrip(".").lower()
        good = parts.scheme in ("http", "https") and bool(host) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise SpecError("Give an http or https address.", field=field)
    address = _address(host)
    try:
        policy.check_source(policy.Policy(images=policy.Images(sources=named)), host, [address] if address else [])
    except PolicyDenied:
        raise PolicyDenied("Loopback and private addresses are not allowed as sources.", field=field) from None
