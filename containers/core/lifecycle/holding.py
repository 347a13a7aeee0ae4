"""A container held still while what it is on disk is read or changed: what every change of stored containers needs."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from .. import cgroups
from ..errors import CoreError, InvalidTransition, NotFound, TimedOut
from ..failpoints import failpoint
from ..host import Host
from ..hoststore import store
from ..kernel import files
from ..proc.records import RunFile
from ..sentences import say
from ..storage import disks, litter, merge, overlay

FREEZE_TIMEOUT_SEC: Final = 30.0
FROZEN_MAX_SEC: Final = 30.0
"""How long a running container stands still for a copy of what it wrote, at most; what takes longer is given up."""
_FROZEN_BY_US: Final = "frozen-for-copy"
"""In a container's directory while it is frozen for the sake of a copy, and would not be otherwise."""


@contextlib.contextmanager
def present(host: Host, container_id: str) -> Iterator[tuple[str, ...]]:
    """Yield read-only layers that are what the container's root is now, and keep them from being collected meanwhile.

    The caller holds the container's lock.
    """
    running = alive(host, container_id)
    if running or _limited(host, container_id):
        with contextlib.ExitStack() as held:
            if running:
                overlay.flush(host, container_id)
                with frozen(host, container_id):
                    failpoint(host.state_dir, "copy.frozen")
                    directory, root = _copied(host, container_id, held)
            else:
                directory, root = held.enter_context(overlay.copied(host, container_id, timeout_sec=None))
            files.sync_tree(directory)
            failpoint(host.state_dir, "copy.copied")
            with store.lock(host, "layers", shared=True):
                layers = (*root.layers, overlay.publish(host, directory))
                yield merge.bounded(host, layers, made_for=container_id)
        return
    overlay.seal(host, container_id)
    with store.lock(host, "layers", shared=True):
        root = store.load_root(host, container_id)
        layers = merge.bounded(host, root.layers, made_for=container_id)
        if layers != root.layers:
            store.save_root(host, container_id, dataclasses.replace(root, layers=layers))
        yield layers


def _limited(host: Host, container_id: str) -> bool:
    """Tell whether what a stopped container wrote is on a disk of its own: it stays there, and counts on."""
    root = store.load_root(host, container_id)
    return disks.there(host, root.writable) and not overlay.untouched(host, root)


def _copied(host: Host, container_id: str, held: contextlib.ExitStack) -> tuple[Path, store.Root]:
    """Copy what a frozen container wrote; raises TimedOut saying what can be done instead where it takes too long."""
    try:
        return held.enter_context(overlay.copied(host, container_id, timeout_sec=FROZEN_MAX_SEC))
    except TimedOut:
        raise TimedOut(
            say(
                "What the container wrote could not be copied within %(seconds)g s, and it may not "
                "stand still for longer; it runs on unchanged. A stopped container needs no copy.",
                seconds=FROZEN_MAX_SEC,
            ),
            step="copy",
        ) from None


@contextlib.contextmanager
def frozen(host: Host, container_id: str) -> Iterator[None]:
    """Hold a running container still; it runs on afterwards, whatever happens, unless it was frozen before."""
    groups = cgroups.open(host)
    if groups.frozen(container_id, inner=False):
        yield
        return
    mark = marker(host, container_id)
    files.write(mark, b"", sync=False)
    try:
        groups.freeze(container_id, FREEZE_TIMEOUT_SEC)
        yield
    finally:
        with contextlib.suppress(NotFound):
            groups.thaw(container_id, inner=False)
        mark.unlink(missing_ok=True)


def marker(host: Host, container_id: str) -> Path:
    """Return the file that is there while a container is frozen for a copy only."""
    return host.container_dir(container_id) / _FROZEN_BY_US


def require_stopped(host: Host, container_id: str, action: str) -> None:
    """Raise NotFound, or InvalidTransition while anything of the container lives."""
    if not store.exists(host, container_id):
        raise NotFound("There is no such container on this host.")
    if alive(host, container_id):
        raise InvalidTransition(
            say("Stop the container first: %(action)s is not possible while it runs.", action=action)
        )


def alive(host: Host, container_id: str) -> bool:
    """Tell whether a process or a supervisor of the container is there; while it reboots only the latter is."""
    return cgroups.open(host).populated(container_id) or _supervised(host, container_id)


def _supervised(host: Host, container_id: str) -> bool:
    run = RunFile.read(host.run_path(container_id))
    pidfd = run.supervisor.open() if run is not None else None
    if pidfd is None:
        return False
    os.close(pidfd)
    return True


def tidy(host: Host) -> None:
    """Collect now, or leave it to the next time: what was asked for is done, and litter harms nobody.

    A build may be being recorded, or another container be damaged, so that nobody knows what it refers to.
    """
    with contextlib.suppress(CoreError):
        litter.collect(host)


def now() -> str:
    """Return the time as records keep it: ISO 8601, UTC, milliseconds."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
