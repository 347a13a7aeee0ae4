"""What a container's start is given of the host by its policy: looked at and made ready by the worker."""

from __future__ import annotations

import os

from ..host import Host
from ..kernel import mount_api
from ..model.spec import Spec
from ..plans.extras import Extras
from ..rules.policy import Policy, hooks_of, profile_of
from . import labels, profiles

_NO_LINKS = mount_api.RESOLVE_NO_SYMLINKS | mount_api.RESOLVE_NO_MAGICLINKS


def extras(host: Host, rules: Policy, spec: Spec) -> Extras:
    """Return what a start uses; nothing is done for a container that asks for nothing.

    Raises PolicyDenied naming the field, SetupFailed with the step and the path.
    """
    security = spec.security
    compiled = ""
    if security.seccomp:
        given = profile_of(rules, spec)
        compiled = profiles.compiled(
            host, security.seccomp, instead=given.instead, nesting=security.nesting, keyctl=security.keyctl
        )
    return Extras(
        seccomp=compiled,
        apparmor=labels.prepared(host, security.apparmor, nesting=security.nesting),
        hooks=hooks_of(rules, spec),
        lxcfs=found_lxcfs(rules.containers.lxcfs),
    )


def found_lxcfs(place: str) -> str:
    """Return where lxcfs is mounted, "" where nothing is. Nothing is asked of lxcfs itself, which may hang."""
    if not place.startswith("/"):
        return ""
    try:
        fds = [mount_api.open_path(None, path, _NO_LINKS) for path in (place, os.path.dirname(place))]
    except OSError:
        return ""
    mounted = mount_api.mount_id(fds[0]) != mount_api.mount_id(fds[1])
    for fd in fds:
        os.close(fd)
    return place if mounted else ""
