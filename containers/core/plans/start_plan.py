"""What the worker asks of a supervisor: one container's start, complete and as data. Pure."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from ..host import Host
from ..model.attachments import Attachments
from ..model.spec import Spec
from .extras import Extras

PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TERM: Final = "xterm-256color"
TITLE_ROOM: Final = " " * 96
"""A last argument for the launcher: its supervisors write "supervisor INSTANCE NAME ID" over their arguments."""
HANDSHAKE_SEC: Final = 60.0
"""How long a child may take for its own steps before the start is given up."""
NETWORK_SEC: Final = 60.0
"""How long the worker may take to attach the network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartPlan:
    """One start.

    id_base: first host id of the container's range; None for a privileged container. lowers: read-only layers, top
    first, absolute. upper, work: in one directory, the container's own; disk: the file whose file system is mounted as
    that directory, "" where it is there as it stands. cgroup limits are those of spec.
    attachments: what the spec's mounts and devices come to on this host. extras: what else it uses of the host's.
    more_ids: first host id and number of those from 65536 on inside; None where it has no more. stdio: by which name
    somebody waits for an application's standard streams (core.proc.stdio); "" where they are its console. keeps_spare:
    whether the disk's spare files (core.kernel.spare_files) are made again before init runs.
    """

    state_dir: str
    instance: str
    spec: Spec
    id_base: int | None
    lowers: tuple[str, ...]
    upper: str
    work: str
    disk: str = ""
    attachments: Attachments = field(default_factory=Attachments)
    extras: Extras = field(default_factory=Extras)
    more_ids: tuple[int, int] | None = None
    stdio: str = ""
    keeps_spare: bool = False

    @property
    def host(self) -> Host:
        """Return the instance."""
        return Host(Path(self.state_dir), self.instance)

    def to_json(self) -> str:
        """Return the plan as JSON text."""
        # not by dataclasses.asdict(), which copies every value and takes longer than all that follows
        return json.dumps(self, default=_values)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Parse what to_json wrote; the sender is root, so that no more than the shape is checked."""
        values: dict[str, Any] = json.loads(text)
        values["spec"] = Spec.from_dict(values["spec"])
        values["lowers"] = tuple(values["lowers"])
        values["attachments"] = Attachments.from_dict(values["attachments"])
        values["more_ids"] = tuple(values["more_ids"]) if values.get("more_ids") else None
        values["extras"] = Extras.from_dict(values.get("extras", {}))
        return cls(**values)


def _values(one: Any) -> dict[str, Any]:
    """Return a dataclass as what JSON knows; raises TypeError for anything else."""
    if not dataclasses.is_dataclass(one):
        raise TypeError(f"a plan has no place for {one!r}")
    return {name: getattr(one, name) for name in one.__dataclass_fields__}


def environment(spec: Spec) -> dict[str, str]:
    """Return the environment of init and of everything that is started inside: clean, and the same for both.

    ``container=lxc`` is what distributions look for (systemd.io/CONTAINER_INTERFACE); container_uuid seeds machine-id.
    """
    return {
        "PATH": PATH,
        "TERM": TERM,
        "container": "lxc",
        "container_uuid": uuid(spec.machine_id),
        **spec.environment,
    }


def uuid(machine_id: str) -> str:
    """Return 32 hex digits in the groups of a UUID."""
    return "-".join((machine_id[:8], machine_id[8:12], machine_id[12:16], machine_id[16:20], machine_id[20:]))
