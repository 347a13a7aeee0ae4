"""Shared directories and devices on a container's settings page: what it has, what it may have, and why not."""

from __future__ import annotations

from typing import Any, Final

from django.utils.translation import gettext as _

from ..asking import giving
from ..asking.told import policy_problem
from ..core.errors import CoreError
from ..core.rules.grants import given_to
from ..models import Host
from .rows import Row
from .sentences import translated

SWITCHES: Final = ("fuse", "tun")
"""Devices that are offered by a switch, where the policy allows them."""
_FLAGS: Final = ("read_only", "create", "optional")


def _uses(device: str) -> str:
    """Return what a device that has a switch is for."""
    uses = {
        "fuse": _("File systems made by programs inside: sshfs, rclone, fuse-overlayfs"),
        "tun": _("VPNs made by programs inside: WireGuard in user space, OpenVPN"),
    }
    return uses[device]


def context(row: Row) -> dict[str, Any]:
    """Return what the parts of the settings page need. Reasons are "" where nothing is in the way."""
    container = row.container
    project = container.project.name
    shares = {name: one for name, one in giving.shares(container.host).items() if given_to(one.projects, project)}
    known = giving.devices(container.host)
    given = {name: one for name, one in known.items() if given_to(one.projects, project)}
    reason = row.reason("update")
    on = {device["device"]: device for device in container.devices}
    return {
        "given_reason": reason,
        "given_mounts": [
            {**mount, "read_only": mount["read_only"] or bool(shares.get(mount["share"], _NONE).read_only)}
            for mount in container.mounts
        ],
        "given_shares": sorted(shares.items()),
        "share_reason": reason or ("" if shares else _no_shares(container.host)),
        "given_switches": [
            {
                "name": name,
                "uses": _uses(name),
                "on": name in on,
                "reason": reason or _not_given(name, given, on, container.host),
            }
            for name in SWITCHES
        ],
        "given_devices": [device for name, device in on.items() if name not in SWITCHES],
        "more_devices": sorted((name, one) for name, one in given.items() if name not in (*SWITCHES, *on)),
    }


class _Nothing:
    """A share that the policy does not name any more."""

    read_only = False


_NONE: Final = _Nothing()


def _no_shares(host: Host) -> str:
    return translated(policy_problem(host)) or _(
        "This host's policy gives this project no shared directory. Its administrator adds them to policy.toml."
    )


def _not_given(name: str, given: dict[str, Any], on: dict[str, Any], host: Host) -> str:
    """Return why a switch cannot be turned on; one that is on can always be turned off."""
    if name in given or name in on:
        return ""
    return translated(policy_problem(host)) or _("This host's policy does not give it to this project.")


def added_mount(row: Row, data: dict[str, str]) -> list[dict[str, Any]]:
    """Return the container's mounts with one more, as a form's fields say."""
    more: dict[str, Any] = {name: data.get(name, "").strip() for name in ("share", "subpath", "target")}
    more |= {name: bool(data.get(name)) for name in _FLAGS}
    more["propagation"] = "slave" if data.get("receives") else "private"
    return [*row.container.mounts, more]


def without_mount(row: Row, target: str) -> list[dict[str, Any]]:
    """Return the container's mounts without the one at a target."""
    return [mount for mount in row.container.mounts if mount["target"] != target]


def changed_devices(row: Row, name: str, data: dict[str, str], *, add: bool) -> list[dict[str, Any]]:
    """Return the container's devices with one more, or without one."""
    others = [device for device in row.container.devices if device["device"] != name]
    if not add:
        return others
    more: dict[str, Any] = {"device": name, "path": data.get("path", "").strip()}
    if data.get("mode", "").strip():
        more["mode"] = data["mode"].strip()
    return [*others, more]


def in_place(error: CoreError) -> tuple[str, str]:
    """Return a form's field that a refusal is about ("all" for none), and the words for it."""
    parts = (error.field or "").split(".")
    return (parts[2] if len(parts) == 3 and parts[0] in ("mounts", "devices") else "all"), translated(error.message)
