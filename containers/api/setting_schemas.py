"""What a container's settings are in the API's calls."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from containers.core.model.attachments import MOST, Propagation
from containers.core.model.behaviour import Kind
from containers.core.model.hooks import MOST as HOOKS_MOST
from containers.core.model.nics import NicType

from .parsing import Body, Name, Text


class LimitsIn(Body):
    """Ceilings; null = none."""

    memory_bytes: int | None = None
    cpus: float | None = Field(default=None, allow_inf_nan=False)
    pids: int | None = None
    disk_bytes: int | None = None
    disk_inodes: int | None = None
    io_read_bytes_per_sec: int | None = None
    io_write_bytes_per_sec: int | None = None
    swap_bytes: int | None = None
    cpu_weight: int | None = None
    cpuset: Annotated[str, Field(max_length=1000)] | None = None
    io_read_ops_per_sec: int | None = None
    io_write_ops_per_sec: int | None = None
    io_weight: int | None = None
    hugepages: Annotated[dict[Text, int], Field(max_length=8)] | None = None
    cgroup: Annotated[dict[Text, Text], Field(max_length=64)] | None = None


Bound = int | Literal["unlimited"]


class PrlimitIn(Body):
    """A resource limit's halves."""

    soft: Bound
    hard: Bound


Capability = Annotated[str, Field(max_length=40)]


Seconds = Annotated[float, Field(allow_inf_nan=False)]


class SecurityIn(Body):
    """Rights of the container's processes, from the next start on; null = as in every container."""

    nesting: bool | None = None
    capabilities_drop: Annotated[list[Capability], Field(max_length=64)] | None = None
    capabilities_keep: Annotated[list[Capability], Field(max_length=64)] | None = None
    no_new_privs: bool | None = None
    sysctls: Annotated[dict[Text, Text | int], Field(max_length=128)] | None = None
    prlimits: Annotated[dict[Text, Bound | PrlimitIn], Field(max_length=16)] | None = None
    oom_score_adj: int | None = None
    keyctl: bool | None = None
    seccomp: Annotated[str, Field(max_length=63)] | None = None
    clock_offsets: Annotated[dict[Text, Seconds], Field(max_length=8)] | None = None
    personality: Annotated[str, Field(max_length=40)] | None = None
    apparmor: Annotated[str, Field(max_length=200)] | None = None
    ids: int | None = None


Tags = Annotated[list[Name], Field(max_length=32)]
Arguments = Annotated[list[Text], Field(max_length=64)]
Environment = Annotated[dict[Text, Text], Field(max_length=256)]


class MountIn(Body):
    """A shared directory: the share's name in the host's policy, what of it, and where it is inside."""

    share: Name
    target: Text
    subpath: Text = ""
    read_only: bool = False
    create: bool = True
    optional: bool = False
    propagation: Propagation = "private"


class DeviceIn(Body):
    """A device node: the device's name in the host's policy, and how its node is inside."""

    device: Name
    path: Text = ""
    mode: Annotated[Text, Field(max_length=4)] = "0666"
    uid: int = 0
    gid: int = 0


class HookIn(Body):
    """A program that is run at a point: the host's, by its name in the policy, or at "start" one of the container's."""

    point: Text
    hook: Text = ""
    command: Annotated[list[Text], Field(max_length=64)] = []


Hooks = Annotated[list[HookIn], Field(max_length=HOOKS_MOST)]
Mounts = Annotated[list[MountIn], Field(max_length=MOST)]
Devices = Annotated[list[DeviceIn], Field(max_length=MOST)]


class InitIn(Body):
    """How the first process runs; null = as in every container, and at the beginning as its image says."""

    kind: Kind | None = None
    arguments: Annotated[list[Text], Field(max_length=1024)] | None = None
    user: Annotated[Text, Field(max_length=128)] | None = None
    groups: Annotated[list[int], Field(max_length=32)] | None = None
    cwd: Annotated[Text, Field(max_length=4096)] | None = None
    reboot_signal: Annotated[Text, Field(max_length=16)] | None = None
    wait_for_all: bool | None = None


class BootIn(Body):
    """When it is started among those that start with the host; null = the default."""

    groups: Annotated[list[Name], Field(max_length=32)] | None = None
    order: int | None = None
    delay_sec: int | None = None


class ConsoleIn(Body):
    """/dev/console and the ttys, from the next start on; null = the default, and at the beginning as its image says."""

    ttys: int | None = None
    buffer_bytes: int | None = None
    log_bytes: int | None = None
    rotations: int | None = None
    exclusive: bool | None = None


class NicIn(Body):
    """A network interface. A PATCH knows it by its name; of what is left out it keeps MAC and addresses."""

    name: Annotated[Text, Field(min_length=1, max_length=15)] | None = None
    type: NicType = "bridge"
    network: Name | None = None
    mac: Annotated[Text, Field(max_length=17)] | None = None
    ipv4: Annotated[Text, Field(max_length=32)] | None = None
    ipv4_gateway: Annotated[Text, Field(max_length=32)] | None = None
    ipv6: Annotated[Text, Field(max_length=64)] | None = None
    ipv6_gateway: Annotated[Text, Field(max_length=64)] | None = None
    static: bool = False
    parent: Name | None = None
    mode: Annotated[Text, Field(max_length=16)] | None = None
    vlan: int | None = None
    mtu: int | None = None
    routes: Annotated[list[Annotated[Text, Field(max_length=64)]], Field(max_length=32)] = []
    ingress_bytes_per_sec: int | None = None
    egress_bytes_per_sec: int | None = None


Nics = Annotated[list[NicIn], Field(max_length=16)]
