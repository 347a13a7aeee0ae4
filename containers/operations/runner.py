"""Runs one operation: claim it, look at rights and policy again, call its handler, record how it ended."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final
from uuid import UUID

from django.conf import settings

from panel.accounts import audit
from panel.accounts.actor import Forbidden
from panel.accounts.models import User

from ..bookkeeping import records
from ..core.errors import Cancelled, CoreError, SetupFailed
from ..core.host import Host
from ..core.sentences import say
from ..models import Container, Network, Operation
from ..rights.permissions import roles_that_may
from . import (
    backups,
    basket,
    catalogues,
    clone,
    create,
    images,
    importing,
    lifecycle,
    networks,
    restoring,
    snapshots,
    update,
)
from .failures import described
from .job import Job
from .owner import this_process
from .runtime import Runtime

ATTEMPTS_MAX: Final = 3
"""How often an operation is begun; when its worker dies each time it is rolled back instead."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Handler:
    """run does it, or what is left of it; undo takes back what a failed or cancelled run has left.

    undo returns what to say instead of "Rolled back.", where what was done stays. done is asked of an operation whose
    worker was lost: where the host is as was asked for it writes that down, and else returns False.
    """

    run: Callable[[Job], None]
    undo: Callable[[Job], str | None] | None = None
    done: Callable[[Job], bool] | None = None


HANDLERS: Final[dict[str, Handler]] = {
    "create": Handler(create.run, create.undo),
    "import": Handler(importing.run, importing.undo),
    "start": Handler(lifecycle.start),
    "stop": Handler(lifecycle.stop),
    "restart": Handler(lifecycle.restart),
    "freeze": Handler(lifecycle.freeze),
    "unfreeze": Handler(lifecycle.unfreeze),
    "delete": Handler(lifecycle.delete, done=lifecycle.deleted),
    "update": Handler(update.run),
    "rename": Handler(update.run),
    "snapshot": Handler(snapshots.take, done=snapshots.taken),
    "snapshot-change": Handler(snapshots.change),
    "snapshot-delete": Handler(snapshots.remove, done=snapshots.removed),
    "restore": Handler(snapshots.restore, snapshots.undo_restore, snapshots.restored),
    "put-back": Handler(snapshots.put_back),
    "clone": Handler(clone.run, clone.undo),
    "backup-export": Handler(backups.export, backups.undo_export, backups.exported),
    "backup-verify": Handler(backups.verify),
    "backup-delete": Handler(backups.delete, done=backups.deleted),
    "backup-scan": Handler(backups.scan),
    "backup-import": Handler(restoring.take_in, restoring.undo_take_in),
    "backup-restore": Handler(restoring.put_back, restoring.undo_put_back, restoring.replaced),
    "trash-restore": Handler(basket.restore, basket.undo_restore, basket.restored),
    "trash-purge": Handler(basket.purge, done=basket.purged),
    "image-catalogue": Handler(catalogues.fetch),
    "image-build": Handler(images.build, images.undo_build),
    "image-delete": Handler(images.delete, done=images.deleted),
    "network-create": Handler(networks.create, networks.undo_create, networks.created),
    "network-change": Handler(networks.change, networks.undo_change),
    "network-delete": Handler(networks.delete, done=Job.removed_before),
}


@cache
def local_runtime() -> Runtime:
    """Return the runtime of the host that this process runs on."""
    from .kernel import KernelRuntime

    return KernelRuntime(Host.open(settings.STATE_DIR))


def run(operation_id: UUID, runtime: Runtime | None = None, host: Host | None = None) -> bool:
    """Run a queued operation to its end; False where it is not queued (any more)."""
    operation = records.claim(operation_id, this_process())
    if operation is None:
        return False
    runtime = runtime or local_runtime()
    job = Job(operation, runtime, host or Host(settings.STATE_DIR, settings.BOXROOM_INSTANCE))
    handler = HANDLERS[operation.action]
    try:
        if operation.attempts <= ATTEMPTS_MAX:
            authorise(operation)
            handler.run(job)
        elif not _done(job):
            raise SetupFailed(say("Its worker was lost %(most)s times.", most=ATTEMPTS_MAX), step=operation.action)
    except Cancelled as error:
        _end(job, Operation.Status.CANCELLED, _undone(job, handler, "Cancelled."), described(error))
    except Exception as error:
        if not isinstance(error, (CoreError, OSError)):
            log.exception("%s of %s", operation.action, operation.object_name)
        reason = described(error)
        _end(job, Operation.Status.FAILED, _undone(job, handler, reason["message"]), reason)
    else:
        _end(job, Operation.Status.SUCCEEDED, job.message, None)
    return True


def _done(job: Job) -> bool:
    """Tell whether a worker that was lost had done it all but for writing it down, which is done now."""
    handler = HANDLERS[job.operation.action]
    return job.resumed and handler.done is not None and handler.done(job)


def give_up(operation: Operation, runtime: Runtime) -> bool:
    """End an operation whose workers were lost again and again; False where it has ended already.

    It has succeeded where the host is as was asked for. Else rows that it had reserved for what is not there go.
    """
    job = Job(operation, runtime, Host(settings.STATE_DIR, settings.BOXROOM_INSTANCE))
    try:
        done = _done(job)
    except Exception:  # whatever it is, the operation ends now
        log.exception("looking what %s of %s has done", operation.action, operation.object_name)
        done = False
    if done:
        return records.finish(operation, Operation.Status.SUCCEEDED, message=job.message)
    message = "Its worker was lost again and again, while it was rolled back too; given up."
    error = {"code": "interrupted", "message": message, "field": None, "step": operation.action}
    if not records.finish(operation, Operation.Status.FAILED, message=message, error=error):
        return False
    for container_id in records.reserved(operation):
        if not runtime.observe([container_id]):
            records.forget_container(container_id)
    image, network = operation.image, operation.network
    if (operation.action == "image-build" and image and image.name not in runtime.images()) or (
        operation.action == "network-create" and network and not (network.ipv4 or network.ipv6)
    ):
        records.undo_reservation(operation)
    return True


def _undone(job: Job, handler: Handler, why: str) -> str:
    """Take back what was done; return why, and what became of it."""
    if handler.undo is None:
        return why
    try:
        left = handler.undo(job)
    except Exception:  # the first error is the outcome; this one is for the log, and for the next full reconcile
        log.exception("rolling back %s of %s", job.operation.action, job.operation.object_name)
        return say("%(why)s Rolling back failed too; see the log.", why=why)
    if left is None:
        return say("%(why)s Rolled back.", why=why)
    return say("%(why)s %(left)s", why=why, left=left) if left else why


def _end(job: Job, status: str, message: str, error: dict[str, Any] | None) -> None:
    job.tell_now()
    if status != Operation.Status.SUCCEEDED and job.operation.container_id:
        _settle_row(job)
    if job.operation.attempts > 1:
        # what the lost worker had begun to make belongs to nobody: it is gone before the operation has ended
        with contextlib.suppress(CoreError, OSError):
            job.runtime.tidy()
    if 1 < job.operation.attempts <= ATTEMPTS_MAX:
        message = say("%(why)s (Its worker was lost on the way; it was resumed.)", why=message)
    records.finish(job.operation, status, message=message, error=error)


def _settle_row(job: Job) -> None:
    """Whatever went wrong, the row says afterwards what the host says."""
    row = Container.objects.filter(pk=job.operation.container_id).first()
    if row is None:
        return
    try:
        job.settle(row)
    except (CoreError, OSError):
        log.exception("observing %s", row.name)


def authorise(operation: Operation) -> None:
    """Look at the actor's rights again: between the click and now they may have been withdrawn. Raises Forbidden."""
    if operation.actor_id is None and operation.actor_name == audit.SYSTEM_NAME:
        return
    # as it was when the operation was taken, which was just now
    user = operation.actor
    if user is None or not user.is_active or not _may(user, operation):
        raise Forbidden("The right to do this was withdrawn before it began.", action=operation.action)


def _may(user: User, operation: Operation) -> bool:
    action = operation.action
    if user.host_admin:
        return True
    if operation.container_id:
        return Container.objects.visible_to(user, action).filter(pk=operation.container_id).exists()
    if operation.network_id:
        return Network.objects.visible_to(user, action).filter(pk=operation.network_id).exists()
    if operation.project_id:
        return user.memberships.filter(project=operation.project_id, role__in=roles_that_may(action)).exists()
    # an image is made for whoever first needs it
    return action == "image-build" and bool(operation.arguments.get("implicit"))
