"""What the API's calls take. Answers are made in containers.showing.present; docs/api.md tells of both."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator

from containers.core.model.spec import RestartPolicy

from .parsing import Body, Input, Name, Text
from .people_schemas import Time
from .setting_schemas import (
    Arguments,
    BootIn,
    ConsoleIn,
    Devices,
    Environment,
    Hooks,
    InitIn,
    LimitsIn,
    Mounts,
    Nics,
    SecurityIn,
    Tags,
)


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
    pool: Name = "default"
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
    stopped and deleted. pool: the storage pool that it lies in (the origin's otherwise).
    """

    name: Name
    snapshot: Name | None = None
    count: int | None = Field(default=None, ge=1, le=50)
    full: bool = False
    start: bool = False
    ephemeral: bool | None = None
    expires_at: Time | None = None
    pool: Name | None = None


class SnapshotIn(Body):
    """A snapshot's name (snap0, snap1, … otherwise) and note."""

    name: Name | None = None
    note: Annotated[Text, Field(max_length=500)] = ""
    pinned: bool = False
    expires_at: Time | None = None


class SnapshotChanges(Body):
    """What to change of a snapshot; what is left out stays. expires_at null: never."""

    name: Name | None = None
    note: Annotated[Text, Field(max_length=500)] | None = None
    pinned: bool | None = None
    expires_at: Time | None = None


class RestoreIn(Body):
    """What of a snapshot comes back: files, configuration, or all that it holds."""

    what: Literal["all", "files", "configuration"] | None = None


class PutBackIn(Body):
    """Which files and directories of a snapshot are put back; exact: what is in a directory and was not then goes."""

    paths: Annotated[list[Annotated[str, Field(max_length=20000)]], Field(min_length=1, max_length=1000)]
    exact: bool = False


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


class NetworkIn(Body):
    """A network to make. ipv4, ipv6: a gateway's address with prefix length, a subnet, "auto" or "none"."""

    name: Name
    type: Literal["bridge"]
    project: Name | None = None
    ipv4: Annotated[Text, Field(max_length=64)] = "auto"
    ipv6: Annotated[Text, Field(max_length=64)] = "auto"
    nat: bool = True
    description: Annotated[Text, Field(max_length=500)] = ""


class NetworkPatch(Body):
    """Changes to a network; fields left out stay. ipv4, ipv6: as for a new one; "auto" keeps what there is."""

    ipv4: Annotated[Text, Field(max_length=64)] = "auto"
    ipv6: Annotated[Text, Field(max_length=64)] = "auto"
    nat: bool = True
    description: Annotated[Text, Field(max_length=500)] = ""
