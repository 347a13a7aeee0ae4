"""What a container's first process does until its exec, as data: made by its starter, complete before the clone."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass

from ..kernel.syscalls import filters_of
from ..model import capabilities
from ..model.behaviour import Init
from ..model.hooks import Call
from ..model.nics import host_network
from ..model.spec import Spec
from ..plans import mount_plan
from ..plans.start_plan import StartPlan, environment
from . import confining, rights


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildPlan:
    """What the child does, complete before the clone.

    mounts: how many it is handed. scratch: a host directory that the child mounts over. capabilities: the bounding set.
    last_capability: the highest that the kernel knows. own_list: whether the filters are of Boxroom's own list, which
    allows all that setup does. links: NICs to bring up; None in the host's network. limits:
    instead of those that every container has. sysctls: of the network namespace. tasks: as in cgroups.places.Birth.
    stdio: whether an application's standard streams are pipes, which it tells of.
    """

    mounts: int
    before: tuple[mount_plan.Operation, ...]
    after: tuple[mount_plan.Operation, ...]
    scratch: str
    hostname: str
    links: tuple[str, ...] | None
    privileged: bool
    capabilities: int
    last_capability: int
    seccomp: tuple[bytes, ...]
    own_list: bool
    no_new_privs: bool
    limits: rights.Limits
    sysctls: tuple[tuple[str, str], ...]
    command: tuple[str, ...]
    environment: dict[str, str]
    init: Init
    ttys: int
    confinement: confining.Confinement
    name: str = ""
    hooks: tuple[Call, ...] = ()
    tells_root: bool = False
    tasks: tuple[str, ...] = ()
    stdio: bool = False


@functools.cache
def last_capability() -> int:
    """Return the number of the highest capability that the kernel knows."""
    with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as file:
        return int(file.read())


def kept(spec: Spec) -> int:
    """Return a container's bounding set as a bit mask."""
    security = spec.security
    return capabilities.kept(
        privileged=spec.privileged, keep=security.capabilities_keep, drop=security.capabilities_drop
    )


def of(plan: StartPlan, bpf: bytes, tasks: tuple[str, ...]) -> ChildPlan:
    """Return what the child will do. bpf: the system call filter. tasks: as in cgroups.places.Birth."""
    spec = plan.spec
    own = os.path.commonpath((plan.upper, plan.work))
    return ChildPlan(
        mounts=len(plan.lowers) + 1,
        before=mount_plan.before_network(
            layers=len(plan.lowers),
            upper=os.path.relpath(plan.upper, own),
            work=os.path.relpath(plan.work, own),
            nesting=spec.security.nesting,
            lxcfs=plan.extras.lxcfs,
            own_network=plan.id_base is None or not host_network(spec.nics),
        ),
        after=mount_plan.after_cgroups(),
        scratch=str(plan.host.run_dir),
        hostname=spec.hostname or spec.name,
        links=None if host_network(spec.nics) else tuple(nic.name for nic in spec.nics),
        privileged=spec.privileged,
        capabilities=kept(spec),
        last_capability=last_capability(),
        seccomp=tuple(filters_of(bpf)),
        own_list=not plan.extras.seccomp,
        no_new_privs=spec.security.no_new_privs,
        limits=rights.limits_of(spec.security.prlimits),
        sysctls=rights.of_network(spec.security.sysctls),
        command=(*spec.init_command, *spec.init.arguments),
        environment=environment(spec) | _ttys(spec),
        init=spec.init,
        ttys=spec.console.ttys,
        confinement=confining.of(spec.security, plan.extras.apparmor),
        name=spec.name,
        hooks=plan.extras.hooks,
        tells_root=bool(plan.attachments),
        tasks=tasks,
        stdio=bool(plan.stdio),
    )


def _ttys(spec: Spec) -> dict[str, str]:
    """Return what tells systemd on which terminals to offer a login (systemd-getty-generator(8)).

    /dev/console has the first pty of the container's own devpts, the ttys have the next ones.
    """
    numbers = range(1, spec.console.ttys + 1)
    return {"container_ttys": " ".join(f"pts/{number}" for number in numbers)} if numbers else {}
