"""Rows as the JSON values of the API: one shape per resource, for the API, the pages' scripts and the sockets."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Sequence
from typing import Any, Final

from django.conf import settings
from django.db.models import Prefetch, QuerySet

from panel.accounts.models import ApiToken, AuditRecord, Membership, Project, User

from ..asking import nics, queue
from ..core.host import Host as CoreHost
from ..core.model import restarts
from ..core.model.behaviour import Boot, Consoles, Init
from ..core.model.security import Security
from ..core.model.states import Status
from ..models import Backup, Container, Event, Image, Network, Operation, Schedule, Snapshot, Trashed

LIMITS: Final = (
    "memory_bytes",
    "swap_bytes",
    "cpus",
    "cpu_weight",
    "cpuset",
    "pids",
    "disk_bytes",
    "disk_inodes",
    "io_read_bytes_per_sec",
    "io_write_bytes_per_sec",
    "io_read_ops_per_sec",
    "io_write_ops_per_sec",
    "io_weight",
    "hugepages",
    "cgroup",
)
_ERROR: Final = ("code", "message", "step", "path", "errno", "console")
_ALIVE: Final = (Status.RUNNING, Status.FROZEN)
_LAST_EXIT: Final = ("at", "reason", "exit_code", "signal", "console")


def time(at: dt.datetime | None) -> str | None:
    """Return an RFC 3339 time in UTC with milliseconds, as 2026-01-31T12:00:00.000Z."""
    if at is None:
        return None
    return at.astimezone(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def with_relations(rows: QuerySet[Container]) -> QuerySet[Container]:
    """Return the query extended by all that `container` needs, so that a list costs four queries, not hundreds."""
    unfinished = Operation.objects.filter(status__in=Operation.UNFINISHED)
    return rows.select_related("project").prefetch_related(
        "interfaces__network",
        Prefetch("operations", queryset=unfinished, to_attr="unfinished"),
        Prefetch("clone_operations", queryset=unfinished, to_attr="unfinished_as_clone"),
    )


def unfinished_operation(row: Container) -> Operation | None:
    """Return the operation that holds a container now: its own, or the clone that makes it."""
    if not hasattr(row, "unfinished"):
        return queue.unfinished(row)
    held: list[Operation] = [*row.unfinished, *getattr(row, "unfinished_as_clone", ())]
    return held[0] if held else None


def status(row: Any) -> str:
    """Return the status as the API tells it: what is not there yet, or is being removed, counts as stopped."""
    return Status.STOPPED.value if row.status == Status.ABSENT else str(row.status)


def limits(values: dict[str, Any]) -> dict[str, Any]:
    """Return all limits; null = none."""
    return {name: values.get(name) for name in LIMITS}


def security(values: dict[str, Any]) -> dict[str, Any]:
    """Return all security settings."""
    return _all(Security, values)


def _all(kind: type[Security | Init | Boot | Consoles], given: dict[str, Any]) -> dict[str, Any]:
    """Return all of some settings; most containers have given none of them."""
    return dataclasses.asdict(kind.from_dict(given)) if given else dict(_NONE_GIVEN[kind])


_NONE_GIVEN: Final = {kind: dataclasses.asdict(kind.from_dict({})) for kind in (Security, Init, Boot, Consoles)}

NamedNic = tuple[Any, str | None]
"""An interface's columns, and the name of its network."""


def container(row: Container) -> dict[str, Any]:
    """Return a container."""
    nics = [(nic, nic.network.name if nic.network else None) for nic in row.interfaces.all()]
    return shape(row, row.project.name, nics, unfinished_operation(row))


def shape(row: Any, project: str, named: Sequence[NamedNic], unfinished: Operation | None) -> dict[str, Any]:
    """Return a container, from its columns as attributes, its interfaces, and the operation that holds it."""
    last_exit = row.last_exit
    waits = row.restart_at and row.status == Status.STOPPED
    return {
        "name": row.name,
        "project": project,
        "status": status(row),
        "status_reason": row.status_reason,
        "image": row.image_name,
        "description": row.description,
        "tags": row.tags,
        "created_at": time(row.created_at),
        "expires_at": time(row.expires_at),
        "started_at": time(row.started_at),
        "pid": row.init_pid if row.status in _ALIVE else None,
        "addresses": [nic.ipv4 for nic, _name in named if nic.ipv4] + [nic.ipv6 for nic, _name in named if nic.ipv6],
        "networks": [
            {"name": nic.name, "network": network, "mac": nic.mac, "ipv4": nic.ipv4, "ipv6": nic.ipv6}
            for nic, network in named
            if network is not None
        ],
        "nics": [nics.wanted(nic, network) for nic, network in named],
        "limits": limits(row.limits),
        "security": security(row.security),
        "autostart": row.autostart,
        "privileged": row.privileged,
        "ephemeral": row.ephemeral,
        "restart": row.restart,
        "pool": row.pool,
        "restart_count": row.restart_count,
        "restart_at": time(row.restart_at)
        if waits and restarts.wanted(row.restart, last_exit, row.restart_count)
        else None,
        "mounts": row.mounts,
        "devices": row.devices,
        "hooks": row.hooks,
        "init_command": row.init_command or ["/sbin/init"],
        "environment": row.environment,
        "halt_signal": row.halt_signal or None,
        "init": _all(Init, row.init),
        "boot": _all(Boot, row.boot),
        "console": _all(Consoles, row.console),
        "operation": operation(unfinished) if unfinished else None,
        "last_exit": {name: last_exit.get(name) for name in _LAST_EXIT} if last_exit else None,
    }


def operation(row: Operation) -> dict[str, Any]:
    """Return an operation. container: its name at that time, kept after its deletion; null where it is about none."""
    error = row.error
    return {
        "id": str(row.pk),
        "action": row.action,
        "status": row.status,
        "object": row.object_name,
        "container": row.container_name or None,
        "actor": row.actor_name,
        "progress_pct": row.progress_pct,
        "message": row.message,
        "error": _error(error) if error else None,
        "cancellable": row.cancellable and not row.finished and not row.cancel_requested,
        "created_at": time(row.created_at),
        "started_at": time(row.started_at),
        "finished_at": time(row.finished_at),
    }


def snapshot(row: Snapshot, parent: str | None = None) -> dict[str, Any]:
    """Return a snapshot. parent: the youngest that it descends from and that is still there."""
    return {
        "name": row.name,
        "note": row.note,
        "created_at": time(row.created_at),
        "created_by": row.created_by,
        "size_bytes": row.size_bytes,
        "pinned": row.pinned,
        "kind": row.kind,
        "expires_at": time(row.expires_at),
        "holds": row.holds,
        "parent": parent,
    }


def _error(error: dict[str, Any]) -> dict[str, Any]:
    """Return an operation's error; what is kept to say it in other languages is the pages' own."""
    return {name: value for name, value in error.items() if name != "said"} | {name: error.get(name) for name in _ERROR}


def schedule(row: Schedule) -> dict[str, Any]:
    """Return a schedule."""
    return {
        "id": row.pk,
        "name": row.name,
        "project": row.project.name,
        "container": row.container.name if row.container else None,
        "tag": row.tag or None,
        "when": row.when,
        "timezone": row.zone,
        "keep": row.keep,
        "enabled": row.enabled,
        "destination": row.destination or None,
        "snapshots": row.with_snapshots,
        "next_at": time(row.next_at),
        "last_at": time(row.last_at),
        "created_by": row.created_by,
    }


def trashed(row: Trashed) -> dict[str, Any]:
    """Return something in the trash."""
    return {
        "id": row.pk,
        "kind": row.kind,
        "name": row.name,
        "container": row.container or None,
        "project": row.project.name if row.project else None,
        "size_bytes": row.size_bytes,
        "deleted_at": time(row.deleted_at),
        "deleted_by": row.deleted_by,
        "expires_at": time(row.expires_at),
    }


def backup(row: Backup) -> dict[str, Any]:
    """Return a backup. problem: what was wrong when it was last read, None for nothing."""
    return {
        "id": row.pk,
        "container": row.container,
        "project": row.project.name if row.project else None,
        "destination": row.destination,
        "file": row.file,
        "size_bytes": row.size_bytes,
        "restored_bytes": row.plain_bytes,
        "sha256": row.sha256 or None,
        "snapshots": row.points,
        "schedule": row.schedule or None,
        "created_at": time(row.created_at),
        "created_by": row.created_by or None,
        "verified_at": time(row.verified_at),
        "verified_by": row.verified_by or None,
        "problem": row.problem or None,
    }


def preview(found: dict[str, Any]) -> dict[str, Any]:
    """Return what a schedule will do."""
    return {**found, "next": [time(at) for at in found["next"]]}


def event(row: Event) -> dict[str, Any]:
    """Return something that happened to a container."""
    return {
        "at": time(row.at),
        "event": row.kind,
        "old": row.old or None,
        "new": row.new or None,
        "reason": row.reason,
        "actor": row.actor_name or None,
        "operation": str(row.operation_id) if row.operation_id else None,
        "detail": row.detail,
    }


def image(row: Image) -> dict[str, Any]:
    """Return an image."""
    return {
        "name": row.name,
        "description": row.description,
        "source": {name: value for name, value in row.source.items() if name != "id"},
        "state": row.state,
        "size_bytes": row.size_bytes,
        "layers": len(row.layers),
        "runs": row.defaults,
        "details": row.details,
        "created_at": time(row.created_at),
        "built_at": time(row.built_at),
    }


def network(row: Network) -> dict[str, Any]:
    """Return a network. ipv4, ipv6: the gateway's address with prefix length, null for none.

    problems: what `doctor` found that keeps its containers from reaching out, and how to mend it.
    """
    return {
        "name": row.name,
        "type": row.type,
        "project": row.project.name if row.project else None,
        "ipv4": row.ipv4 or None,
        "ipv6": row.ipv6 or None,
        "nat": row.nat,
        "description": row.description,
        "created_at": time(row.created_at),
        "problems": _problems(row),
    }


def _problems(row: Network) -> list[dict[str, str]]:
    bridge = CoreHost(settings.STATE_DIR, settings.BOXROOM_INSTANCE).bridge_name(row.number)
    found = [item for item in row.host.facts.get("doctor") or [] if item.get("part") == "network" and not item["ok"]]
    return [
        {name: str(item.get(name) or "") for name in ("what", "why", "mend")}
        for item in found
        if item["level"] != "info" and item.get("bridge", "") in ("", bridge)
    ]


def member(row: Membership) -> dict[str, Any]:
    """Return a member of a project."""
    return {"user": row.user.username, "role": row.role}


def project(row: Project) -> dict[str, Any]:
    """Return a project with its members."""
    members = sorted(row.memberships.all(), key=lambda membership: membership.user.username)
    return {
        "name": row.name,
        "description": row.description,
        "created_at": time(row.created_at),
        "members": [member(membership) for membership in members],
    }


def user(row: User) -> dict[str, Any]:
    """Return a user."""
    return {
        "username": row.username,
        "host_admin": row.host_admin,
        "active": row.is_active,
        "created_at": time(row.date_joined),
        "last_sign_in_at": time(row.last_login),
    }


def token(row: ApiToken) -> dict[str, Any]:
    """Return a token, without its secret, which nobody knows any more."""
    return {
        "id": row.pk,
        "name": row.name,
        "read_only": row.read_only,
        "created_at": time(row.created_at),
        "expires_at": time(row.expires_at),
        "last_used_at": time(row.last_used_at),
    }


def audit_record(row: AuditRecord) -> dict[str, Any]:
    """Return a record of the audit trail."""
    return {
        "at": time(row.at),
        "actor": row.actor_name or None,
        "action": row.action,
        "object": row.object_name,
        "object_type": row.object_type,
        "project": row.project or None,
        "source_ip": row.source_ip,
        "outcome": row.outcome,
        "operation": str(row.operation_id) if row.operation_id else None,
        "detail": row.detail,
    }
