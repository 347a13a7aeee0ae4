"""The check that no configuration passes by: whether the host's policy allows what is asked for. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..errors import PolicyDenied
from ..host import IDS_PER_CONTAINER
from ..model import capabilities
from ..model.attachments import Attachments
from ..model.hooks import Call
from ..model.limits import Limits
from ..model.nics import Nic, host_network
from ..model.security import APPARMOR_GENERATED, Security
from ..model.spec import Spec
from ..sentences import say
from . import grants, pool_rules
from .ceilings import Ceilings
from .ceilings import check as check_ceilings
from .grants import Parent, Profile
from .policy_values import DEFAULT, Containers, Images, Policy, subnet

__all__ = [
    "DEFAULT",
    "Ceilings",
    "Containers",
    "Images",
    "Policy",
    "check",
    "check_cgroup",
    "check_nics",
    "check_security",
    "check_source",
    "hooks_of",
    "links_of",
    "profile_of",
    "resolve",
]


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
        raise _denied(
            say("This host's policy gives a container at most %(most)s ids.", most=allowed.ids), "security.ids"
        )
    if security.apparmor not in ("", APPARMOR_GENERATED, *allowed.apparmor):
        raise _denied("This host's policy names no AppArmor profile like this.", "security.apparmor")
    keep, drop = security.capabilities_keep, security.capabilities_drop
    kept = capabilities.names_kept(privileged=privileged, keep=keep, drop=drop)
    if refused := sorted(kept - capabilities.default(privileged=privileged) - set(allowed.capabilities)):
        raise _denied(
            say("This host's policy does not let containers keep %(names)s.", names=", ".join(refused)),
            "security.capabilities_keep",
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
            raise _denied(
                say("This host's policy does not let %(file)s be written.", file=file), f"limits.cgroup.{file}"
            )


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
    subnets = [subnet(source) for source in policy.images.sources if "/" in source]
    for text in addresses:
        address = ipaddress.ip_address(text.partition("%")[0])
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        if any(address.version == subnet.version and address in subnet for subnet in subnets):
            continue
        if not address.is_global or address.is_multicast or address.is_reserved:
            raise _denied(
                say(
                    "Images may not come from %(host)s (%(address)s): name it under images.sources "
                    "in the host's policy.",
                    host=host_name,
                    address=str(address),
                ),
                "source",
            )


def _denied(message: str, field: str, **details: Any) -> PolicyDenied:
    return PolicyDenied(message, field=field, **details)
