"""Reads the host's policy file, and checks it.

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
    keyrings = {"images.example.org" = "/etc/keys.gpg"}  # whose lists have to be signed; all that are asked by http

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
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeVar

from ..errors import SpecError
from ..host import Host
from ..model import capabilities
from ..names import check_name
from ..sentences import say
from . import grants, object_stores, pool_rules
from . import policy_tables as toml
from .ceilings import Ceilings
from .grants import DEFAULT_DEVICES, HostDevice, HostHook, Parent, Profile, Share
from .policy_values import DEFAULT, Backups, Containers, Images, Policy, subnet

_T = TypeVar("_T")
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


def load(host: Host) -> Policy:
    """Return what the host's policy file says, the defaults where there is none.

    Raises SpecError (field ``policy`` or below) where it cannot be understood.
    """
    try:
        text = host.policy_path.read_text()
    except FileNotFoundError:
        return DEFAULT
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(say("policy.toml cannot be read: %(error)s", error=error), field="policy") from None
    return parse(text)


def parse(text: str) -> Policy:
    """Return the policy that a policy file says.

    Raises SpecError (field ``policy.TABLE.KEY``) for what is no TOML, an unknown key, a value of the wrong type. It
    says where: whoever meets it may have asked for something that has nothing to do with that table.
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SpecError(say("policy.toml is not valid TOML: %(error)s", error=error), field="policy") from None
    try:
        return _policy(tables)
    except SpecError as error:
        key = (error.field or "").removeprefix("policy.")
        told = say("policy.toml, %(key)s: %(problem)s", key=key, problem=error.message)
        raise SpecError(told, field=error.field) from None


def _policy(tables: Mapping[str, Any]) -> Policy:
    toml.refuse_unknown(tables, _TABLES, "policy")
    projects = {}
    for name, table in toml.table(tables.get("projects", {}), "policy.projects").items():
        check_name(name, field=f"policy.projects.{name}")
        toml.refuse_unknown(toml.table(table, f"policy.projects.{name}"), ("ceilings",), f"policy.projects.{name}")
        projects[name] = toml.build(Ceilings, table.get("ceilings", {}), f"policy.projects.{name}.ceilings")
    containers = toml.build(Containers, tables.get("containers", {}), "policy.containers")
    policy = Policy(
        containers=containers,
        images=_images(toml.table(tables.get("images", {}), "policy.images")),
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
            subnet(source)
    return policy


def _images(table: Mapping[str, Any]) -> Images:
    plain = toml.build(Images, {key: value for key, value in table.items() if key != "keyrings"}, "policy.images")
    keyrings = toml.table(table.get("keyrings", {}), "policy.images.keyrings")
    for host, path in keyrings.items():
        grants.check_path(path, f"policy.images.keyrings.{host}", device=False)
    return dataclasses.replace(plain, keyrings={host.lower(): path for host, path in keyrings.items()})


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
