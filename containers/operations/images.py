"""image-build and image-delete, and the image that a create finds missing.

One build per image: whoever needs an image that is not there makes (or finds) its image-build operation, and either
runs it himself or waits for whoever does. So nobody waits for a worker's thread that he holds himself.
"""

from __future__ import annotations

import time
from typing import Final

from django.db import IntegrityError, transaction
from django.utils import timezone

from ..bookkeeping import records
from ..core.errors import Cancelled, NotFound, SetupFailed
from ..core.sentences import restored, say
from ..messaging.notices import notify
from ..models import Image, Operation
from . import basket
from .failures import described
from .job import Job
from .owner import this_process

POLL_SEC: Final = 0.3
SHARE_PCT: Final = 80
"""How much of a create's progress is its image."""


def build(job: Job) -> None:
    """Make the image, from the beginning."""
    _build(job, job)
    job.message = "Made."


def undo_build(job: Job) -> None:
    """Say in the row that there is no image: available again where it was cancelled, failed otherwise."""
    if job.operation.image is None:
        return
    state = Image.State.AVAILABLE if job.cancelled() else Image.State.FAILED
    _set_state(job.image, state)


def delete(job: Job) -> None:
    """Forget the image; what containers use of it stays."""
    if job.removed_before():
        return
    image = job.image
    thrown = basket.of_image(job)
    job.runtime.remove_image(image.name, thrown)
    with transaction.atomic():
        job.message = "Moved to the trash." if basket.mirror(job, thrown.id if thrown else "") else "Deleted."
        job.remember(removed=job.message)
        Image.objects.filter(pk=image.pk).delete()
    notify("image", image.pk)


def deleted(job: Job) -> bool:
    """Forget an image that is on the host no more; False while it is there."""
    if not job.removed_before() and job.image.name in job.runtime.images():
        return False
    delete(job)
    return True


def ensure(job: Job, name: str) -> Image:
    """Return the image, made now if it is not there yet; its progress and log are the operation's own meanwhile.

    Raises what the build raised; Cancelled where this operation is cancelled, whoever runs the build.
    """
    while True:
        job.refuse_if_cancelled()
        image = Image.objects.filter(host=job.operation.host, name=name).first()
        if image is None:
            raise NotFound(say("The image %(name)s is gone.", name=name))
        if image.state == Image.State.READY:
            return image
        operation = _build_operation(job, image)
        if operation is None:
            continue
        claimed = records.claim(operation.pk, this_process())
        if claimed is not None:
            _run_for(job, claimed)
        else:
            _wait_for(job, operation)


def _build_operation(job: Job, image: Image) -> Operation | None:
    """Return the image's unfinished build, made here if there is none; None where somebody was faster."""
    found = Operation.objects.filter(image=image, action="image-build", status__in=Operation.UNFINISHED).first()
    if found is not None:
        return found
    try:
        with transaction.atomic():
            # not rung: whoever makes it runs it; if he dies before, it is rung as every forgotten one is
            return Operation.objects.create(
                host=job.operation.host,
                action="image-build",
                image=image,
                object_name=image.name,
                arguments={"implicit": True, "for": str(job.operation.pk)},
                actor=job.operation.actor,
                actor_name=job.operation.actor_name,
                source_ip=job.operation.source_ip,
                cancellable=True,
                rung_at=timezone.now(),
            )
    except IntegrityError:
        return None


def _run_for(job: Job, operation: Operation) -> None:
    """Run a build within the operation that needs it."""
    inner = Job(operation, job.runtime, job.host)
    try:
        _build(inner, job)
    except Cancelled as error:
        _set_state(inner.image, Image.State.AVAILABLE)
        records.finish(operation, Operation.Status.CANCELLED, message="Cancelled.", error=error.kept())
        job.refuse_if_cancelled(at_once=True)
        # the build alone was cancelled: for this operation that is a failure, not to be tried again and again
        raise SetupFailed("The making of the image was cancelled.", step="image") from error
    except BaseException as error:
        _set_state(inner.image, Image.State.FAILED)
        inner.tell_now()
        records.finish(operation, Operation.Status.FAILED, message=str(error), error=described(error))
        raise
    inner.tell_now()
    records.finish(operation, Operation.Status.SUCCEEDED, message="Made.")


def _build(inner: Job, outer: Job) -> None:
    """Make the image of `inner`, telling both operations (which may be one)."""
    image = inner.image
    if image.state == Image.State.READY:
        return
    known = inner.runtime.images().get(image.name)
    _set_state(image, Image.State.BUILDING)
    both = inner is not outer

    def progress(pct: int, message: str) -> None:
        inner.progress(pct, message)
        if both:
            outer.progress(pct * SHARE_PCT // 100, say("%(name)s: %(message)s", name=image.name, message=message))

    def log(text: str) -> None:
        inner.log(text)
        if both:
            outer.log(text)

    def cancelled() -> bool:
        return inner.cancelled() or (both and outer.cancelled())

    if known is None:
        known = inner.runtime.build_image(image.name, image.source, progress, log, cancelled)
    with transaction.atomic():
        Image.objects.filter(pk=image.pk).update(
            state=Image.State.READY,
            layers=list(known.layers),
            size_bytes=known.size_bytes,
            defaults=known.defaults,
            details=known.details,
            built_at=timezone.now(),
        )
        notify("image", image.pk)


def _wait_for(job: Job, operation: Operation) -> None:
    """Wait until another's build has ended, telling what it tells; raises SetupFailed where it failed."""
    while True:
        operation.refresh_from_db()
        if operation.status == Operation.Status.QUEUED:
            # nobody runs it (any more): the caller looks again, and takes it himself
            return
        if operation.finished:
            break
        job.refuse_if_cancelled()
        message = restored({"message": operation.message, "said": operation.said})
        told = say("%(name)s: %(message)s", name=operation.object_name, message=message)
        job.progress(operation.progress_pct * SHARE_PCT // 100, told)
        job.copy_log(operation.log)
        time.sleep(POLL_SEC)
    if operation.status == Operation.Status.FAILED:
        error = operation.error or {}
        raise SetupFailed(
            restored(error) or "The image could not be made.",
            step=str(error.get("step") or "image"),
            path=error.get("path"),
            errno=error.get("errno"),
            console=error.get("console"),
        )
    if operation.status == Operation.Status.CANCELLED and operation.cancel_requested:
        # somebody wants no such build, not only one of those who waited for it
        raise SetupFailed("The making of the image was cancelled.", step="image")


def _set_state(image: Image, state: str) -> None:
    image.state = state
    Image.objects.filter(pk=image.pk).update(state=state)
    notify("image", image.pk)
