"""create: the image if it is not made yet, the container on disk, and the first start if it was asked for."""

from __future__ import annotations

from ..bookkeeping import records
from ..core.model.states import Status
from ..core.rules.pool_rules import BEST
from ..models import Container, Image
from . import images, lifecycle
from .job import Job


def run(job: Job) -> None:
    """Make the container; what an earlier process made of it is kept."""
    container, stored = job.container, None
    if job.observe(container).status == Status.ABSENT:
        image = images.ensure(job, job.arguments["image"])
        job.no_more_cancel()
        take_over(container, image)
        choose_pool(job, container)
        spec = job.final_spec(container)
        job.progress(85, "Making the container")
        stored = job.runtime.create(spec, lambda pct, text: job.progress(85 + pct // 20, text))
        take_layers(container, stored.layers)
    if not job.journal.get("created"):
        job.remember(created=True)
        job.settle(container, "created")
    if job.arguments.get("start"):
        job.progress(92, "Starting")
        lifecycle.start_container(job, container, stored)
        job.message = "Created and started."
    else:
        job.message = "Created."


def undo(job: Job) -> str | None:
    """Remove what there is of it, and its row; one that was made, and only did not start, stays."""
    if job.journal.get("created") or job.operation.container is None:
        return ""
    job.runtime.delete(job.container.pk)
    records.undo_reservation(job.operation)
    return None


def choose_pool(job: Job, container: Container) -> None:
    """Write into the row which pool is the best one now, where that was asked for."""
    if container.pool == BEST:
        container.pool = job.runtime.best_pool(container.project.name)
        container.save(update_fields=["pool"])


def take_layers(container: Container, layers: tuple[str, ...]) -> None:
    """Write the layers of the stored spec into the row."""
    if container.layers != list(layers):
        container.layers = list(layers)
        Container.objects.filter(pk=container.pk).update(layers=container.layers)


def take_over(container: Container, image: Image) -> None:
    """Write into the row what it takes over from its image: the layers, and what was not asked for otherwise."""
    container.layers = list(image.layers)
    own = dict(image.defaults.get("init") or {})
    # what ends a system's init says nothing to an application, nor the other way round
    kind = own.get("kind", "system")
    if container.init.get("kind", kind) != kind:
        own.pop("reboot_signal", None)
    elif not container.halt_signal:
        container.halt_signal = str(image.defaults.get("halt_signal") or "")
    if container.init_command:  # what an image adds to its own command is nothing to another's
        own.pop("arguments", None)
    container.init = {**own, **container.init}
    container.console = {**dict(image.defaults.get("console") or {}), **container.console}
    container.init_command = container.init_command or list(image.defaults.get("init_command") or ())
    container.environment = {**dict(image.defaults.get("environment") or {}), **container.environment}
    container.save(update_fields=["layers", "init_command", "halt_signal", "environment", "init", "console"])
