"""What a container's start is given of the host by its policy: looked at and made ready by the worker."""

from __future__ import annotations

from ..extras import Extras
from ..host import Host
from ..policy import Policy, hooks_of, profile_of
from ..spec import Spec
from . import labels, profiles


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
    )
