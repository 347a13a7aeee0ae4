"""Brings rows and host together: the kernel wins over the store, the store over the database.

quick() is called every second, full() at start and on a timer, on_events() when supervisors told something. Each may
run beside operations: what an operation works on is its own to write. Twice in a row changes nothing the second time.
"""

from __future__ import annotations

import collections
import contextlib
import datetime as dt
import logging
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from panel.accounts import audit

from ..asking import queue, services
from ..bookkeeping import records
from ..core import doctor
from ..core.errors import CoreError
from ..core.host import Host as CoreHost
from ..core.kernel.pids import boot_id
from ..core.model import restarts
from ..core.model.states import Status
from ..messaging import doorbell
from ..models import Container, Host, Operation, local_host
from ..operations import networks as network_operations
from ..operations import owner, runner
from ..operations.job import another_exit, exit_told_here, write_observed
from ..operations.runtime import Observed, Runtime
from . import autostart, rebuild, standing

RING_AGAIN_SEC: Final = 3.0
CANARY_SEC: Final = 3.0
HEALTHY_RUN_SEC: Final = 60.0
EPHEMERAL_AGAIN_SEC: Final = 60.0
LIVE: Final = (Status.RUNNING, Status.FROZEN)
_COMPARED: Final = ("pk", "status", "status_at", "init_pid", "started_at", "last_exit")
_READ: Final = (*_COMPARED, "name", "restart_count", "autostart")
"""Columns that it takes to write what is observed: to take a whole row apart takes longer than all the rest."""
TOGETHER: Final = 50
"""Rows that are written in one transaction, for which other writers wait."""
OOM_QUIET_SEC: Final = 3.0
"""Processes that the kernel ends within this time are one event."""

log = logging.getLogger(__name__)
_rung = {"canary": 0.0, "tidy": 0.0, "order": 0.0}
TIDY_SEC: Final = 10.0
AGAIN_SEC: Final = 5.0
"""How long after putting the host in order failed it is tried again."""


def quick(host: CoreHost, runtime: Runtime | None = None, *, changed: Collection[str] | None = None) -> None:
    """Write what changed by itself, follow the policies, ring for what waits, take over from dead workers.

    changed: only these containers (by id) are looked at; None: all.
    """
    runtime = runtime or runner.local_runtime()
    row = local_host()
    ring_canary(row.name)
    if recover(row, runtime):
        _rung["tidy"] = time.monotonic() + TIDY_SEC
    if time.monotonic() < _rung["tidy"]:
        # what the lost worker had begun belongs to nobody as soon as its last child has ended
        with contextlib.suppress(CoreError, OSError):
            runtime.tidy()
    ring_again(row)
    if 0 < _rung["order"] <= time.monotonic():
        put_in_order(row, runtime)
    if changed is None:
        align_all(row, runtime)
    elif changed:
        align_some(row, runtime, changed)
    follow_policies(row)
    autostart.step(row, runtime)


def each_second(host: CoreHost, runtime: Runtime | None = None, *, changed: Collection[str]) -> None:
    """Do what quick() does, where there may be anything to do: to find that out costs a tenth."""
    ring_canary(settings.BOXROOM_HOST)
    awaited = time.monotonic() < _rung["tidy"] or _rung["order"] > 0
    if changed or awaited or any(ask() for ask in standing.of_host(settings.BOXROOM_HOST)):
        quick(host, runtime, changed=changed)


def full(host: CoreHost, runtime: Runtime | None = None) -> list[str]:
    """Do all that quick() does, and bring together what changes seldom; return in words what was mended."""
    runtime = runtime or runner.local_runtime()
    row = local_host()
    mended = rebuild.mend_rows(row, runtime, host)
    quick(host, runtime)
    mended += put_in_order(row, runtime)
    rebuild.save_facts(row, runtime.facts())
    autostart.step(row, runtime, begin=True)
    if mended:
        log.warning("mended: %s", "; ".join(mended))
        audit.record(None, "host.reconcile", "host", row.name, detail={"mended": mended[:100]})
    return mended


def put_in_order(row: Host, runtime: Runtime) -> list[str]:
    """Make networks and store what they should be; what fails is tried again by quick(). Returns what was mended."""
    _rung["order"] = 0.0
    try:
        runtime.ensure_networks(network_operations.configs(row))
        return runtime.tidy()
    except (CoreError, OSError):
        log.exception("putting the host in order")
        _rung["order"] = time.monotonic() + AGAIN_SEC
        return []


def take_facts(host: CoreHost, runtime: Runtime | None = None) -> None:
    """Let the web know at once what a changed policy file allows."""
    runtime = runtime or runner.local_runtime()
    doctor.refresh_changing(host)
    rebuild.save_facts(local_host(), runtime.facts())


def on_events(host: CoreHost, messages: Iterable[dict[str, Any]], runtime: Runtime | None = None) -> None:
    """Take supervisors' news: {"id", "event": started, stopped, rebooted, oom}. What is so now is looked at once."""
    runtime = runtime or runner.local_runtime()
    row = Host.objects.defer("facts").get(name=settings.BOXROOM_HOST)
    told: dict[str, set[str]] = collections.defaultdict(set)
    for message in messages:
        told[str(message.get("id"))].add(str(message.get("event")))
    rows = list(Container.objects.filter(host=row, pk__in=told).only(*_READ))
    if not rows:
        return
    for container in rows:
        if "oom" in told[container.pk]:
            _tell_of_oom(container)
    held = _held_ids(row)
    free = [container for container in rows if container.pk not in held]
    _align_each(row, free, _seen(runtime, free), host_rebooted=False)
    if any(told[container.pk] != {"started"} for container in free):
        # nothing that runs is to be started or removed; what others wait for is looked at each second
        follow_policies(row)
    if any(container.autostart for container in rows):
        autostart.step(row, runtime)


def _tell_of_oom(container: Container) -> None:
    """Write that the kernel ended something: the supervisor tells when it was init, the samples' counter anyway."""
    now = timezone.now()
    if not container.events.filter(kind="oom", at__range=(now - dt.timedelta(seconds=OOM_QUIET_SEC), now)).exists():
        records.add_event(container, "oom")


# what runs


def align_all(host: Host, runtime: Runtime) -> None:
    """Observe every container, and write what its row does not say yet."""
    host_rebooted = host.facts.get("boot_id") not in (None, boot_id())
    # first the rows, then the host: a row that an operation moves in between is left to that operation
    held = _held_ids(host)
    rows = list(Container.objects.filter(host=host).values_list(*_COMPARED, named=True))
    runtime.sweep()
    observed = collections.defaultdict(lambda: Observed(status=Status.ABSENT), runtime.observe())
    others = {row.pk: row for row in rows if row.pk not in held and not _same(row, observed[row.pk])}
    # one that has moved since is looked at the next time
    unmoved = [
        container
        for container in Container.objects.filter(pk__in=others).only(*_READ)
        if all(getattr(container, name) == getattr(others[container.pk], name) for name in _COMPARED)
    ]
    _align_each(host, unmoved, observed, host_rebooted=host_rebooted)
    if host.facts.get("boot_id") != boot_id():
        rebuild.save_facts(host, {"boot_id": boot_id()})


def align_some(host: Host, runtime: Runtime, ids: Collection[str]) -> None:
    """Observe these containers, and write what their rows do not say yet; on a host that has not rebooted."""
    held = _held_ids(host)
    rows = list(Container.objects.filter(host=host, pk__in=ids).only(*_READ))
    runtime.sweep()
    free = [container for container in rows if container.pk not in held]
    _align_each(host, free, _seen(runtime, free), host_rebooted=False)


def _seen(runtime: Runtime, containers: Sequence[Container]) -> dict[str, Observed]:
    absent = {container.pk: Observed(status=Status.ABSENT) for container in containers}
    return absent | runtime.observe(absent)


def _align_each(
    host: Host, containers: Sequence[Container], observed: Mapping[str, Observed], *, host_rebooted: bool
) -> None:
    """Write what was observed of each of these, some in one transaction."""
    others = [container for container in containers if not _same(container, observed[container.pk])]
    for first in range(0, len(others), TOGETHER):
        with transaction.atomic():
            # an operation that began since the rows were read writes for itself
            held = _held_ids(host)
            for container in others[first : first + TOGETHER]:
                if container.pk not in held:
                    align(container, observed[container.pk], host_rebooted=host_rebooted)


def _held_ids(host: Host) -> set[str | None]:
    """Return the ids of the containers that operations are working on."""
    return {held_id for pair in _held(host).values_list("container_id", "target_id") for held_id in pair}


def _held(host: Host) -> Any:
    """Return the operations that are being worked on; a queued one has changed nothing yet."""
    return Operation.objects.filter(host=host, status=Operation.Status.RUNNING)


def align(container: Container, observed: Observed, *, host_rebooted: bool) -> None:
    """Write what was observed; with the reason where it stopped by itself, with an Event where it rebooted."""
    was_live = container.status in LIVE
    fields: dict[str, Any] = {}
    reason = observed.reason
    if was_live and observed.status == Status.STOPPED:
        reason, last_exit = _why_stopped(container, observed, host_rebooted=host_rebooted)
        fields["last_exit"] = last_exit
        if _ran_sec(container, last_exit) > HEALTHY_RUN_SEC:
            fields["restart_count"] = 0
    elif observed.status == Status.ABSENT and container.status != Status.ABSENT:
        reason = "lost from the host's store"
    rebooted = (
        was_live and observed.status in LIVE and container.init_pid is not None
        and observed.init_pid != container.init_pid
    )  # fmt: skip
    if write_observed(container, observed, reason, guarded=True, **fields) and rebooted:
        records.add_event(container, "rebooted")


def _same(container: Any, observed: Observed) -> bool:
    """Whether a container, or a row of its _COMPARED columns, says what was observed."""
    return (
        container.status == observed.status
        and container.init_pid == observed.init_pid
        and container.started_at == observed.started_at
        and not another_exit(container.last_exit, observed.last_exit)
    )


def _why_stopped(container: Container, observed: Observed, *, host_rebooted: bool) -> tuple[str, dict[str, Any]]:
    """Return why a container that ran does not any more: what its supervisor wrote, if it could."""
    last = observed.last_exit
    fresh = last is not None and another_exit(container.last_exit, last)
    if last is not None and fresh and last["reason"] != "supervisor-lost":
        return str(last["reason"]), last
    reason = "host-reboot" if host_rebooted else "supervisor-lost"
    at = last["at"] if last is not None and fresh else timezone.now().isoformat()
    return reason, exit_told_here(reason, at=at, after=last)


def _ran_sec(container: Container, last_exit: dict[str, Any]) -> float:
    """Return how long the run took that has ended; by the wall clock where its supervisor could not tell."""
    if (told := last_exit.get("ran_sec")) is not None:
        return float(told)
    return (timezone.now() - container.started_at).total_seconds() if container.started_at else 0.0


# policies


def follow_policies(host: Host) -> None:
    """Start again what should run, remove what was ephemeral; with a back-off, and never after an explicit stop."""
    now = timezone.now()
    rows = Container.objects.filter(host=host, status=Status.STOPPED, last_exit__isnull=False)
    for container in rows.filter(Q(ephemeral=True) | ~Q(restart="no")).select_related("host", "project"):
        if queue.unfinished(container) is not None or autostart.waits(host, container):
            continue
        if container.restarts:
            _restart(container, now)
        elif container.ephemeral and (container.last_exit or {}).get("reason") != "start-failed":
            _remove(container, now)


def _restart(container: Container, now: dt.datetime) -> None:
    guarded = Container.objects.filter(pk=container.pk, status=Status.STOPPED, restart_at=container.restart_at)
    wait = dt.timedelta(seconds=restarts.back_off_sec(container.restart_count))
    if container.restart_at is None:
        guarded.update(restart_at=now + wait)
    elif _due(container.restart_at, now, wait) and guarded.update(
        restart_at=None, restart_count=container.restart_count + 1
    ):
        _request(container, "start")


def _due(moment: dt.datetime, now: dt.datetime, wait: dt.timedelta) -> bool:
    """Whether a moment, set `wait` before it came, has come; after a step of the clock it is no farther than that."""
    return moment <= now or moment > now + wait


def _remove(container: Container, now: dt.datetime) -> None:
    wait = dt.timedelta(seconds=EPHEMERAL_AGAIN_SEC)
    if container.restart_at is not None and not _due(container.restart_at, now, wait):
        return
    again = now + wait
    if Container.objects.filter(pk=container.pk, restart_at=container.restart_at).update(restart_at=again):
        _request(container, "delete")


def _request(container: Container, action: str) -> None:
    try:
        services.request_by_system(container, action)
    except CoreError as error:
        log.info("%s of %s: %s", action, container.name, error.message)


# operations


def ring_again(host: Host) -> None:
    """Ring for every operation that waits longer than a doorbell takes."""
    now = timezone.now()
    wait = dt.timedelta(seconds=RING_AGAIN_SEC)
    # rung in the future: the clock was stepped since
    late = Q(rung_at=None) | Q(rung_at__lt=now - wait) | Q(rung_at__gt=now + wait)
    waiting = Operation.objects.filter(late, host=host, status=Operation.Status.QUEUED)
    for operation_id in list(waiting.order_by("created_at").values_list("pk", flat=True)):
        if waiting.filter(pk=operation_id).update(rung_at=now):
            doorbell.ring_now(operation_id, host.name)


def ring_canary(host_name: str) -> None:
    """Ring with no operation, every few seconds: the worker's answer tells that it is there."""
    if time.monotonic() - _rung["canary"] >= CANARY_SEC:
        _rung["canary"] = time.monotonic()
        doorbell.ring_now(doorbell.CANARY, host_name)


def recover(host: Host, runtime: Runtime | None = None) -> int:
    """Give back what dead workers held: it is resumed; begun too often, it is rolled back; then given up.

    Returns how many operations that were.
    """
    lost = [operation for operation in _held(host) if not owner.alive(operation.owner)]
    for operation in lost:
        if operation.attempts > runner.ATTEMPTS_MAX + 1:
            runner.give_up(operation, runtime or runner.local_runtime())
        elif records.requeue(operation, message="Its worker was lost; waiting to be resumed."):
            log.warning("%s of %s: its worker was lost", operation.action, operation.object_name)
            doorbell.ring_now(operation.pk, host.name)
    return len(lost)


def disagreements(host: CoreHost, runtime: Runtime | None = None) -> list[dict[str, Any]]:
    """Return what rows and host do not say alike, for fsck; operations that run are left out. Changes nothing."""
    return rebuild.disagreements(local_host(), runtime or runner.local_runtime())


def this_host() -> CoreHost:
    """Return the instance that this process belongs to."""
    return CoreHost.open(settings.STATE_DIR)
