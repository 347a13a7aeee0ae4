"""What a supervisor tells the ticker of its own accord while its container runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ..cgroups.base import Cgroups
from ..host import Host
from . import records
from .loop import Loop


@contextlib.contextmanager
def freezes_told(host: Host, cgroups: Cgroups, container_id: str, loop: Loop) -> Iterator[None]:
    """Meanwhile tell the ticker when the container is frozen or thawed, whoever does it."""
    try:
        watch = cgroups.watch_frozen(container_id)
    except OSError:  # the ticker finds out all the same, some seconds later
        yield
        return

    def tell() -> None:
        try:
            frozen = watch.changed()
        except OSError:
            loop.forget(watch.fileno())
            return
        if frozen is not None:
            records.notify(host, container_id, "frozen" if frozen else "thawed")

    loop.watch(watch.fileno(), read=tell)
    try:
        yield
    finally:
        loop.forget(watch.fileno())
        watch.close()
