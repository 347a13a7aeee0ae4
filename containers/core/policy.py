"""The floor under every role: the host's policy file, and the check that no configuration passes by. Pure.

``policy.toml`` in the state directory belongs to root and is not written by the panel. Without it the defaults hold::

    [containers]
    privileged = false            # may there be privileged containers
    nesting = false               # may containers make user namespaces
    keyctl = false                # may containers use key rings
    ids = 65536                   # how many ids a container may have; more than that come from root's in /etc/subuid
    lxcfs = "/var/lib/lxcfs"      # where lxcfs is mounted, if it is; "" for not using it
    cgroup_files = []             # files of cgroups that may be written for a container: "memory.high", "cpu.uclamp.*"
    apparmor = []                 # AppArmor profiles of the host's that containers may name; "generated" always
    capabilities = []             # what containers may keep beyond the default, such as "sys_time"
    host_network = false          # may containers have the host's network instead of one of their own
    parent_nics = []              # short for [parents.LINK] of every project, for macvlan and ipvlan
    file_bytes = 17179869184      # how large a file may be that is sent to the files page of a container

    [images]
    sources = []                  # private hosts and subnets that images may come from, too
    insecure = []                 # hosts, with their port, that are asked by http without encryption
    max_bytes = 68719476736       # what one image may come to, unpacked
    directories = {isos = "/srv/images"}  # directories of the host whose files may become images, by name

    [backups]
    local = true                  # may backups lie on this host itself, beside its containers
    directories = {nas = "/srv/backups"}  # directories of the host that backups may be written to, by name
    max_bytes = 1099511627776     # what one backup may come to, unpacked

    [backups.s3.offsite]          # an S3-compatible store, by the name that backups ask for it by
    endpoint = "https://s3.example.org"
    bucket = "backups"
    prefix = "boxroom/"           # of what is written there
    region = ""                   # where the store wants one; its keys stand in credentials/offsite.toml

    [ceilings]                    # of every project that has no table of its own
    containers = 100
    memory_bytes = 68719476736
    cpus = 16.0
    disk_bytes = 1099511627776

    [projects.web.ceilings]       # of one project
    containers = 10

    [shares.media]                # a directory of the host that containers may be given, by its name here
    path = "/srv/media"           # absolute, without links
    projects = ["web"]            # whose containers; "*" is every project's, none is nobody's
    read_only = true              # even for a container that asks for more
    submounts = false             # may it hold, and receive, other mounts of the host (propagation "slave")

    [devices.kvm]                 # a device node, in the same way; fuse and tun are everybody's unless said otherwise
    path = "/dev/kvm"
    projects = ["web"]

    [parents.lan]                 # a network card of the host that NICs may sit on, by its name here
    link = "eth1"                 # its name on the host
    projects = ["web"]            # as of shares
    types = ["macvlan", "phys"]   # for what: macvlan, ipvlan, vlan, phys, routed
    vlans = ["10", "100-199"]     # which numbers vlan NICs may have
    addresses = ["192.0.2.16/28"] # which addresses routed NICs may have

    [seccomp.tight]               # the system call profile seccomp/tight in the state directory
    projects = ["web"]            # as of shares
    instead = false               # instead of Boxroom's own list, and not beside it

    [hooks.backup]                # the program hooks/backup in the state directory
    projects = ["web"]            # as of shares
    points = ["pre-start"]        # where in a container's life; left out, everywhere
    timeout_sec = 30              # how long it may take

    [pools.fast]                  # a directory of the host that containers may lie in, beside the state directory
    path = "/srv/fast"            # absolute, without links; only root may write to it
    driver = "btrfs"              # overlay, btrfs, dir or loop
    projects = ["*"]              # as of shares
    disk_bytes = 10737418240      # with loop: the disk limit of those that ask for none

A key that is not known is refused, so that a misspelt rule is not a missing one.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from . import capabilities, grants, lxcfs, object_stores, pool_rules
from . import policy_tables as toml
from .attachments import Attachments
from .ceilings import Ceilings as Ceilings
from .ceilings import check as check_ceilings
from .errors import PolicyDenied, SpecError
from .grants import DEFAULT_DEVICES, HostDevice, HostHook, Parent, Profile, Share
from .hooks import Call
from .host import IDS_PER_CONTAINER
from .limits import Limits
from .names import check_name
from .nics import Nic, host_network
from .object_stores import ObjectStore
from .pool_rules import PoolRule
from .security import APPARMOR_GENERATED, Security
from .sentences import say
from .spec import Spec

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Containers:
    """What a container may be."""

    privileged: bool = False
    nesting: bool = False
    keyctl: bool = False
    apparmor: tuple[str, ...] = ()
    cgroup_files: tuple[str, ...] = ()
    lxcfs: str = lxcfs.DEFAULT_PLACE
    ids: int = IDS_PER_CONTAINER
    capabilities: tuple[str, ...] = ()
    parent_nics: tuple[str, ...] = ()
    host_network: bool = False
    file_bytes: int = 16 * 1024**3


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """Where images may come from, beside public addresses (host names and subnets), and how large they may be.

    insecure: hosts, with their port, that are asked without encryption; they need not be public.
    directories: of the host, absolute, by the names that their files are asked for by. max_bytes: unpacked.
    """

    sources: tuple[str, ...] = ()
    insecure: tuple[str, ...] = ()
    max_bytes: int = 64 * 1024**3
    directories: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Backups:
    """Where backups may lie, and how large one may be. local: in the state directory, as the place called local.

    directories: of the host, absolute, by the names that they are asked for by. max_bytes: unpacked. s3: by name, too.
    """

    local: bool = True
    directories: Mapping[str, str] = field(default_factory=dict)
    max_bytes: int = 1 << 40
    s3: Mapping[str, ObjectStore] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """What the places are asked for by."""
        return [*(["local"] if self.local else []), *sorted([*self.directories, *self.s3])]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The whole policy of a host. projects: ceilings that replace the general ones, by project."""

    containers: Containers = field(default_factory=Containers)
    images: Images = field(default_factory=Images)
    backups: Backups = field(default_factory=Backups)
    ceilings: Ceilings = field(default_factory=Ceilings)
    projects: Mapping[str, Ceilings] = field(default_factory=dict)
    shares: Mapping[str, Share] = field(default_factory=dict)
    devices: Mapping[str, HostDevice] = field(default_factory=lambda: dict(DEFAULT_DEVICES))
    parents: Mapping[str, Parent] = field(default_factory=dict)
    seccomp: Mapping[str, Profile] = field(default_factory=dict)
    hooks: Mapping[str, HostHook] = field(default_factory=dict)
    pools: Mapping[str, PoolRule] = field(default_factory=dict)

    def ceilings_of(self, project: str) -> Ceilings:
        """Return the ceilings that hold for a project."""
        return self.projects.get(project, self.ceilings)


DEFAULT: Final = Policy()
_TABLES: Final = (
    "containers",
    "images",
    "backups",
    "ceilings",
    "projects",
    "shares",
    "devices",
    "parents",
    "seccomp",
    "hooks",
    "pools",
)


def parse(text: str) -> Policy:
    """Return the policy that a policy file says.

    Raises SpecError (field ``policy.TABLE.KEY``) for what is no TOML, an unknown key, a value of the wrong type.
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SpecError(say("policy.toml is not valid TOML: %(error)s", error=error), field="policy") from None
    toml.refuse_unknown(tables, _TABLES, "policy")
    projects = {}
    for name, table in toml.table(tables.get("projects", {}), "policy.projects").items():
        check_name(name, field=f"policy.projects.{name}")
        toml.refuse_unknown(toml.table(table, f"policy.projects.{name}"), ("ceilings",), f"policy.projects.{name}")
        projects[name] = toml.build(Ceilings, table.get("ceilings", {}), f"policy.projects.{name}.ceilings")
    containers = toml.build(Containers, tables.get("containers", {}), "policy.containers")
    policy = Policy(
        containers=containers,
        images=toml.build(Images, tables.get("images", {}), "policy.images"),
        backups=_backups(toml.table(tables.get("backups", {}), "policy.backups")),
        ceilings=toml.build(Ceilings, tables.get("ceilings", {}), "policy.ceilings"),
        projects=projects,
        shares=_named(Share, tables, "shares"),
        devices={**DEFAULT_DEVICES, **_named(HostDevice, tables, "devices")},
        seccomp=_named(Profile, tables, "seccomp"),
        hooks=_named(HostHook, tables, "hooks"),
        pools=pool_rules.parse(tables.get("pools", {})),
        parents={**_short_parents(containers.parent_nics), **_named(Parent, tables, "parents")},
    )
    for name in policy.containers.capabilities:
        if name not in capabilities.NAMES:
            raise SpecError(say("There is no capability %(name)r.", name=name), field="policy.containers.capabilities")
    for source in policy.images.sources:
        if "/" in source:
            _subnet(source)
    return policy


def _backups(table: Mapping[str, Any]) -> Backups:
    plain = toml.build(Backups, {name: value for name, value in table.items() if name != "s3"}, "policy.backups")
    stores = object_stores.parse(table.get("s3", {}), "policy.backups.s3")
    for name in stores:
        if name == "local" or name in plain.directories:
            raise SpecError("There is another place of this name.", field=f"policy.backups.s3.{name}")
    return dataclasses.replace(plain, s3=stores)


def _short_parents(links: Iterable[str]) -> dict[str, Parent]:
    found = {}
    for link in links:
        check_name(link, field="policy.containers.parent_nics")
        found[link] = Parent(link=link, projects=("*",), types=("macvlan", "ipvlan"))
    return found


def check(policy: Policy, spec: Spec, others: Iterable[Spec] = ()) -> None:
    """Raise PolicyDenied naming the field where the final, merged spec is more than the policy allows.

    others: the specs of the host's other containers, of whatever project; spec itself may be among them and is not
    counted twice.
    """
    if spec.privileged and not policy.containers.privileged:
        raise _denied("This host's policy does not allow privileged containers.", "privileged")
    check_security(policy.containers, spec.security, privileged=spec.privileged)
    check_cgroup(policy.containers, spec.limits)
    profile_of(policy, spec)
    hooks_of(policy, spec)
    check_nics(policy.containers, policy.parents, spec.project, spec.nics)
    resolve(policy, spec)
    pool_rules.check(policy.pools, spec.project, spec.pool, spec.limits)
    check_ceilings(policy.ceilings_of(spec.project), spec, others)


def check_security(allowed: Containers, security: Security, *, privileged: bool) -> None:
    """Raise PolicyDenied (field ``security.NAME``) for nesting, or for capabilities beyond the default, not allowed."""
    if security.nesting and not allowed.nesting:
        raise _denied("This host's policy does not allow nesting.", "security.nesting")
    if security.keyctl and not allowed.keyctl:
        raise _denied("This host's policy does not let containers use key rings.", "security.keyctl")
    if security.ids > max(allowed.ids, IDS_PER_CONTAINER):
        raise _denied(f"This host's policy gives a container at most {allowed.ids} ids.", "security.ids")
    if security.apparmor not in ("", APPARMOR_GENERATED, *allowed.apparmor):
        raise _denied("This host's policy names no AppArmor profile like this.", "security.apparmor")
    keep, drop = security.capabilities_keep, security.capabilities_drop
    kept = capabilities.names_kept(privileged=privileged, keep=keep, drop=drop)
    if refused := sorted(kept - capabilities.default(privileged=privileged) - set(allowed.capabilities)):
        raise _denied(
            f"This host's policy does not let containers keep {', '.join(refused)}.", "security.capabilities_keep"
        )


def check_nics(allowed: Containers, parents: Mapping[str, Parent], project: str, wanted: Sequence[Nic]) -> None:
    """Raise PolicyDenied (field ``nics.N.NAME``) for the host's network, its cards and addresses, where not given."""
    if host_network(wanted) and not allowed.host_network:
        raise _denied("This host's policy does not let containers have the host's network.", "nics.0.type")
    grants.links_of(parents, project, wanted)


def links_of(policy: Policy, spec: Spec) -> dict[str, str]:
    """Return the host's links by the names that the spec's NICs call them by; raises PolicyDenied."""
    return grants.links_of(policy.parents, spec.project, spec.nics)


def check_cgroup(allowed: Containers, limits: Limits) -> None:
    """Raise PolicyDenied (field ``limits.cgroup.FILE``) for a cgroup's file that the policy does not name."""
    for file in limits.cgroup or ():
        if not any(file == one or (one.endswith("*") and file.startswith(one[:-1])) for one in allowed.cgroup_files):
            raise _denied(f"This host's policy does not let {file} be written.", f"limits.cgroup.{file}")


def profile_of(policy: Policy, spec: Spec) -> Profile:
    """Return how the spec's system call profile is used; raises PolicyDenied where it is not given to its project."""
    return grants.profile_of(policy.seccomp, spec.project, spec.security.seccomp)


def hooks_of(policy: Policy, spec: Spec) -> tuple[Call, ...]:
    """Return the spec's hooks as they are run; raises PolicyDenied where one is not given to its project."""
    return grants.hooks_of(policy.hooks, spec.project, spec.hooks)


def resolve(policy: Policy, spec: Spec) -> Attachments:
    """Return what a spec's mounts and devices come to on this host; raises PolicyDenied naming the field."""
    return grants.resolve(policy.shares, policy.devices, spec)


def check_source(policy: Policy, host_name: str, addresses: Iterable[str]) -> None:
    """Raise PolicyDenied unless an image may come from this host.

    host_name: as the source's address says it. addresses: every address it resolves to, and that will be connected to:
    each must be public, or the policy must name the host or a subnet that holds the address.
    """
    if host_name.lower().rstrip(".") in {source.lower() for source in policy.images.sources if "/" not in source}:
        return
    subnets = [_subnet(source) for source in policy.images.sources if "/" in source]
    for text in addresses:
        address = ipaddress.ip_address(text.partition("%")[0])
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        if any(address.version == subnet.version and address in subnet for subnet in subnets):
            continue
        if not address.is_global or address.is_multicast or address.is_reserved:
            raise _denied(
                f"Images may not come from {host_name} ({address}): name it under images.sources in the host's policy.",
                "source",
            )


def _denied(message: str, field: str, **details: Any) -> PolicyDenied:
    return PolicyDenied(message, field=field, **details)


def _subnet(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise SpecError(say("policy.toml: %(error)s.", error=error), field="policy.images.sources") from None


def _named(cls: type[_T], tables: Mapping[str, Any], kind: str) -> dict[str, _T]:
    """Return the tables below [shares], [devices] or [parents]; raises SpecError for a name or a path that is none."""
    found = {}
    for name, table in toml.table(tables.get(kind, {}), f"policy.{kind}").items():
        where = f"policy.{kind}.{name}"
        check_name(name, field=where)
        values = dict(toml.table(table, where))
        if kind == "devices" and name in DEFAULT_DEVICES:
            values.setdefault("path", DEFAULT_DEVICES[name].path)
        if kind == "parents":
            values.setdefault("link", "")
        elif kind in ("shares", "devices"):
            grants.check_path(values.get("path"), f"{where}.path", device=kind == "devices")
        made = toml.build(cls, values, where)
        if isinstance(made, Parent):
            grants.check_parent(made, where)
        if isinstance(made, HostHook):
            grants.check_hook(made, where)
        found[name] = made
    return found
