"""start, stop, restart, freeze, unfreeze, delete."""

from __future__ import annotations

from django.db import transaction

from ..bookkeeping import records
from ..core.errors import CoreError, InvalidTransition
from ..core.model import restarts
from ..core.model.spec import Spec
from ..core.model.states import Status
from ..core.sentences import say
from ..models import Container
from . import basket, networks
from .job import Job, another_exit, exit_told_here

LIVE = (Status.RUNNING, Status.FROZEN)


def start(job: Job) -> None:
    """Start; one that runs already is done."""
    start_container(job, job.container)
    job.message = "Started."


def stop(job: Job) -> None:
    """Stop; one that is stopped already is done."""
    stop_container(job, job.container)
    job.message = "Stopped."


def restart(job: Job) -> None:
    """Stop and start again; or, from inside, have its init boot again."""
    container = job.container
    if job.arguments.get("inside"):
        _boot_again(job, container)
        return
    if not job.journal.get("stopped"):
        # what could not start afterwards, by a policy that has changed, is not stopped either
        job.final_spec(container)
        if job.observe(container).status in LIVE:
            job.progress(10, "Stopping")
            stop_container(job, container)
        job.remember(stopped=True)
    job.progress(50, "Starting")
    start_container(job, container)
    job.message = "Restarted."


def _boot_again(job: Job, container: Container) -> None:
    before = job.journal.get("init_pid") or job.observe(container).init_pid
    job.remember(init_pid=before)
    # a process that was killed may have seen to it already
    if job.observe(container).init_pid == before:
        job.progress(10, "Booting again")
        job.runtime.reboot(container.pk, timeout_sec=float(job.arguments.get("timeout", 60)))
    job.settle(container)
    records.add_event(container, "rebooted", operation=job.operation)
    job.message = "Booted again."


def freeze(job: Job) -> None:
    """Freeze; one that is frozen already is done."""
    container = job.container
    if _now(job, container, "freeze") != Status.FROZEN:
        job.runtime.freeze(container.pk)
    job.settle(container)
    job.message = "Frozen."


def unfreeze(job: Job) -> None:
    """Let it go on; one that runs already is done."""
    container = job.container
    if _now(job, container, "unfreeze") != Status.RUNNING:
        job.runtime.thaw(container.pk)
    job.settle(container)
    job.message = "Unfrozen."


def _now(job: Job, container: Container, action: str) -> Status:
    """Return running or frozen; raises InvalidTransition where it has ended meanwhile."""
    status = job.observe(container).status
    if status not in LIVE:
        raise InvalidTransition(
            say("Not possible while the container is %(status)s: %(action)s.", status=status, action=action),
            status=str(status),
            action=action,
        )
    return status


def delete(job: Job) -> None:
    """Remove the container from the host, then its row; one that is gone already is done."""
    if job.removed_before():
        return
    container = job.container
    if job.observe(container).status in LIVE:
        if not job.arguments.get("force"):
            raise InvalidTransition("It runs: stop it first.", status="running", action="delete")
        job.progress(10, "Stopping")
        job.runtime.stop(container.pk, timeout_sec=0, force=True, kill=True)
    job.progress(40, "Removing")
    job.runtime.delete(container.pk, basket.of_container(job))
    with transaction.atomic():
        job.message = "Moved to the trash." if basket.mirror(job, container.pk) else "Deleted."
        job.remember(removed=job.message)
        records.forget_container(container.pk)


def deleted(job: Job) -> bool:
    """Forget a container that is on the host no more; False while it is there."""
    if not job.removed_before() and job.observe(job.container).status != Status.ABSENT:
        return False
    delete(job)
    return True


def start_container(job: Job, container: Container, spec: Spec | None = None) -> None:
    """Start a container and write down that it runs, or why it did not start.

    spec: its final one, where this operation has just made the container of it.
    """
    by_person = job.operation.actor_id is not None
    seen = job.observe(container)
    if seen.status in LIVE:
        job.settle(container)
        return
    if another_exit(container.last_exit, seen.last_exit):
        # it ended just now: what comes next must not hide that
        job.settle(container)
    if spec is None:
        spec = job.final_spec(container)
    else:
        job.runtime.check_policy(spec)  # to make it may have taken long
    try:
        if not job.runtime.bridges_there(spec):
            job.runtime.ensure_networks(networks.configs(container.host))
        job.runtime.start(spec, job.progress, job.cancelled, str(job.arguments.get("stdio", "")))
    except (CoreError, OSError) as error:
        console = error.details.get("console") if isinstance(error, CoreError) else None
        job.settle(
            container,
            "start-failed",
            last_exit=exit_told_here("start-failed", after=job.observe(container).last_exit, console=console),
        )
        raise
    fresh = {"restart_count": 0, "restart_at": None} if by_person else {"restart_at": None}
    job.settle(container, **fresh)


def stop_container(job: Job, container: Container, *, timeout_sec: float | None = None) -> None:
    """Stop a container as the operation's arguments say, and write down that it is stopped."""
    arguments = job.arguments
    if job.observe(container).status != Status.STOPPED:
        job.runtime.stop(
            container.pk,
            timeout_sec=float(arguments.get("timeout", 60) if timeout_sec is None else timeout_sec),
            force=bool(arguments.get("force", False)),
            kill=bool(arguments.get("kill", True)),
        )
    job.settle(container, restart_at=None)
    last = container.last_exit
    if last is not None and last["reason"] not in restarts.EXPLICIT:
        # it ended by itself before it could be stopped: all the same it was told to stay so
        job.settle(container, last_exit={**last, restarts.GIVEN_UP: True}, restart_count=0)
