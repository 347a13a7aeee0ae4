"""`down --containers`: stop every container and take away what the instance has in the kernel and in /run."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from ..core.cgroups import detect
from ..core.errors import CoreError
from ..core.host import Host
from ..core.hoststore import claims, store
from ..core.lifecycle import leaks, running
from ..core.model.states import Status
from ..core.network import networks

PARALLEL = 64
"""Each waits most of the time: for an init that ends slowly, or never."""
LEAVE_SEC = 10.0
"""A supervisor that has told of its end is gone a moment later."""


def _last_first(host: Host, ids: list[str]) -> list[list[str]]:
    """Return containers in groups that are stopped together: the other way round than they are started."""
    orders: dict[int, list[str]] = {}
    for container_id in ids:
        order = 0
        with contextlib.suppress(CoreError):
            order = store.load(host, container_id).boot.order
        orders.setdefault(order, []).append(container_id)
    return [orders[order] for order in sorted(orders, reverse=True)]


def stop_everything(host: Host, *, timeout_sec: float) -> Iterator[str]:
    """Stop all containers (cleanly, then by force), then networks, cgroups, claims and the run directory.

    Yields a line for each thing done. The panel must be down, so that nobody starts what is stopped here. What stays is
    the state directory. Running it twice changes nothing.
    """
    if not host.run_dir.exists():
        yield "No container was running."
        return
    alive = [
        container_id
        for container_id, seen in running.observe(host).items()
        if seen.status in (Status.RUNNING, Status.FROZEN)
    ]

    def stop(container_id: str) -> str:
        name = store.load(host, container_id).name
        try:
            last = running.stop(host, container_id, timeout_sec=timeout_sec)
        except CoreError as error:
            return f"{name}: {error.message}"
        return f"{name}: {last.reason if last else 'stopped'}"

    with ThreadPoolExecutor(PARALLEL) as pool:
        for together in _last_first(host, alive):
            yield from pool.map(stop, together)
    running.sweep(host)
    leaks.repair(host, leaks.find(host))
    networks.remove_all(host)
    detect.open(host).remove_instance(wait_sec=LEAVE_SEC)
    claims.release(host)
    shutil.rmtree(host.run_dir, ignore_errors=True)
    yield "Networks, cgroups and the run directory are removed."
