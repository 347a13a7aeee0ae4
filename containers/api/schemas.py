"""What the API's calls take. Answers are made in containers.showing.present; docs/api.md tells of both."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator

from containers.core import recipes
from containers.core.attachments import MOST, Propagation
from containers.core.behaviour import Kind
from containers.core.hooks import MOST as HOOKS_MOST
from containers.core.nics import NicType
from containers.core.spec import RestartPolicy
from panel.accounts.models import Role

from .parsing import Body, Input, Name, Text


class LimitsIn(Body):
    """Ceilings; null = none."""

    memory_bytes: int | None = None
    cpus: float | None = Field(default=None, allow_inf_nan=False)
    pids: int | None = None
    disk_bytes: int | None = None
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


class ContainerIn(Body):
    """A container to make."""

    name: Name
    image: Name
    project: Name | None = None
    description: Text = ""
    tags: Tags = []
    limits: LimitsIn = LimitsIn()
    security: SecurityIn = SecurityIn()
    network: Name | None = None
    nics: Nics | None = None
    privileged: bool = False
    start: bool = False
    ephemeral: bool = False
    autostart: bool = False
    init_command: Arguments | None = None
    environment: Environment | None = None
    halt_signal: Text | None = None
    restart: RestartPolicy = "no"
    mounts: Mounts = []
    devices: Devices = []
    hooks: Hooks = []
    init: InitIn = InitIn()
    boot: BootIn = BootIn()
    console: ConsoleIn = ConsoleIn()


class ContainerChanges(Body):
    """What to change of a container; what is left out stays. limits, security: only those named change."""

    name: Name | None = None
    description: Text | None = None
    tags: Tags | None = None
    limits: LimitsIn | None = None
    security: SecurityIn | None = None
    ephemeral: bool | None = None
    autostart: bool | None = None
    privileged: bool | None = None
    init_command: Arguments | None = None
    environment: Environment | None = None
    halt_signal: Text | None = None
    restart: RestartPolicy | None = None
    mounts: Mounts | None = None
    devices: Devices | None = None
    nics: Nics | None = None
    hooks: Hooks | None = None
    init: InitIn | None = None
    boot: BootIn | None = None
    console: ConsoleIn | None = None

    @field_validator(
        "name",
        "description",
        "tags",
        "limits",
        "security",
        "ephemeral",
        "autostart",
        "privileged",
        "restart",
        "mounts",
        "devices",
        "nics",
        "hooks",
        "init",
        "boot",
        "console",
    )
    @classmethod
    def _not_null(cls, value: Any) -> Any:
        if value is None:
            raise ValueError("null is not a value for this; leave it out to keep what it is.")
        return value


class Nothing(Body):
    """A call that takes no fields."""


class StopIn(Body):
    """How to stop. timeout: seconds for a clean stop. force: kill at once. kill false: fail instead of killing."""

    timeout: int = Field(default=60, ge=0, le=3600)
    force: bool = False
    kill: bool = True


class RestartIn(StopIn):
    """How to restart: as a stop, then a start. inside: its init boots again instead, with the settings it has now."""

    inside: bool = False


class CloneIn(Body):
    """The clone's name, and the snapshot to make it from (its present state otherwise).

    count: so many at once, called NAME-1, NAME-2, …. full: everything is copied, nothing shared. expires_at: when it is
    stopped and deleted.
    """

    name: Name
    snapshot: Name | None = None
    count: int | None = Field(default=None, ge=1, le=50)
    full: bool = False
    start: bool = False
    ephemeral: bool | None = None
    expires_at: dt.datetime | None = None


class SnapshotIn(Body):
    """A snapshot's name (snap0, snap1, … otherwise) and note."""

    name: Name | None = None
    note: Annotated[Text, Field(max_length=500)] = ""
    pinned: bool = False
    expires_at: dt.datetime | None = None


class SnapshotChanges(Body):
    """What to change of a snapshot; what is left out stays. expires_at null: never."""

    name: Name | None = None
    note: Annotated[Text, Field(max_length=500)] | None = None
    pinned: bool | None = None
    expires_at: dt.datetime | None = None


class RestoreIn(Body):
    """What of a snapshot comes back: files, configuration, or all that it holds."""

    what: Literal["all", "files", "configuration"] | None = None


def _absolute(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError("Give an absolute path.")
    return value


class ExecIn(Body):
    """A command to run inside, and how its bytes travel in JSON."""

    command: Annotated[list[Text], Field(min_length=1, max_length=1024)]
    user: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:-]*$")] | None = None
    cwd: Annotated[Text, Field(max_length=4096), AfterValidator(_absolute)] | None = None
    environment: Environment = {}
    stdin: Input | None = None
    timeout: float = Field(default=60, gt=0, le=3600, allow_inf_nan=False)
    encoding: Literal["utf-8", "base64"] = "utf-8"
    max_output_bytes: int = Field(default=4 * 1024**2, ge=0, le=16 * 1024**2)

    @field_validator("command")
    @classmethod
    def _program(cls, value: list[str]) -> list[str]:
        if not value[0]:
            raise ValueError("The command's first word may not be empty.")
        return value


Package = Annotated[str, Field(pattern=f"^{recipes.PACKAGE}$")]
Url = Annotated[str, Field(max_length=2000, pattern=r"^https?://[^\s\x00-\x20\x7f]+$")]


class DebootstrapSource(Body):
    type: Literal["debootstrap"]
    suite: recipes.Suite
    variant: recipes.Variant | None = None
    init: recipes.Init | None = None
    packages: Annotated[list[Package], Field(max_length=recipes.PACKAGES_MAX)] | None = None
    mirror: Url | None = None


class OciSource(Body):
    type: Literal["oci"]
    reference: Annotated[Text, Field(min_length=1, max_length=500)]
    project: Name | None = None


class SimplestreamsSource(Body):
    type: Literal["simplestreams"]
    server: Url
    alias: Annotated[Text, Field(min_length=1, max_length=200)]
    architecture: Annotated[str, Field(pattern=r"^[a-z0-9_]{1,20}$")] | None = None


class UrlSource(Body):
    type: Literal["url"]
    url: Url
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
UploadId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
FilePath = Annotated[Text, Field(min_length=1, max_length=1024)]


class UploadSource(Body):
    type: Literal["upload"]
    upload: UploadId
    metadata: UploadId | None = None
    sha256: Sha256 | None = None


class FileSource(Body):
    type: Literal["file"]
    directory: Name
    path: FilePath
    metadata: FilePath | None = None
    sha256: Sha256 | None = None


class ContainerSource(Body):
    type: Literal["container"]
    container: Name
    snapshot: Name | None = None


class BusyboxSource(Body):
    type: Literal["busybox"]


ImageSource = Annotated[
    BusyboxSource
    | DebootstrapSource
    | OciSource
    | SimplestreamsSource
    | UrlSource
    | UploadSource
    | FileSource
    | ContainerSource,
    Field(discriminator="type"),
]


class ImageIn(Body):
    """An image to make, and from what."""

    name: Name
    description: Annotated[Text, Field(max_length=500)] = ""
    source: ImageSource


class ImageServerIn(Body):
    """An image server whose list is to be fetched."""

    server: Url


class UploadIn(Body):
    """The size of an archive that will be sent in pieces."""

    size_bytes: int = Field(ge=1, le=64 * 1024**3)


class NetworkIn(Body):
    """A network to make. ipv4, ipv6: a gateway's address with prefix length, a subnet, "auto" or "none"."""

    name: Name
    type: Literal["bridge"]
    project: Name | None = None
    ipv4: Annotated[Text, Field(max_length=64)] = "auto"
    ipv6: Annotated[Text, Field(max_length=64)] = "auto"
    nat: bool = True


class ProjectIn(Body):
    """A project to make."""

    name: Name
    description: Annotated[Text, Field(max_length=500)] = ""


class ProjectChanges(Body):
    """What is to be different; what is not given stays."""

    name: Name | None = None
    description: Annotated[Text, Field(max_length=500)] | None = None


RoleName = Literal["viewer", "operator", "administrator"]


class MemberIn(Body):
    """A member's role."""

    role: RoleName


class UserIn(Body):
    """A user to make. Nobody chooses another's password: the answer holds a one-time sign-in link."""

    username: Name
    host_admin: bool = False


class UserChanges(Body):
    """Whether the user may use the panel at all."""

    active: bool


def _aware(value: str) -> str:
    try:
        at = dt.datetime.fromisoformat(value)
    except ValueError:
        raise ValueError("Give a time as RFC 3339, such as 2030-01-31T12:00:00Z.") from None
    if at.tzinfo is None:
        raise ValueError("Give the time with its zone, such as 2030-01-31T12:00:00Z.")
    try:
        at.astimezone(dt.UTC)
    except OverflowError:
        raise ValueError("This time is out of range.") from None
    return value


Time = Annotated[str, Field(max_length=40), AfterValidator(_aware)]


class TokenIn(Body):
    """A token to make for oneself. expires_at: null = never."""

    name: Annotated[Text, Field(min_length=1, max_length=63)]
    expires_at: Time | None = None
    read_only: bool = False


assert set(RoleName.__args__) == set(Role.values)  # type: ignore[attr-defined]  # one list of roles
