"""The size that a container's own files are held to, changed: at once where that can be done, else while it is stopped.

A larger disk grows where it is, in use or not. For any other change what the container wrote is copied into a new
writable layer, whose commit point is the rename of root.json.
"""

from __future__ import annotations

from ..errors import InUse, InvalidTransition, StorageFull
from ..host import Host
from ..hoststore import pools, store
from ..model.limits import Limits
from ..storage import disks, overlay, room
from . import holding


def resize(host: Host, container_id: str, before: Limits, after: Limits) -> None:
    """Put the disk limits of `after` in force; done already is done. before: those in force until now.

    Raises InvalidTransition where it runs and that takes a copy, InUse where what it wrote is more than that,
    StorageFull where the host has no room, HostUnsupported, SetupFailed; nothing has changed then.
    """
    size = disks.wanted(after)
    with store.lock(host, "container", container_id):
        root = store.load_root(host, container_id)
        disk = disks.path(host, root.writable)
        limited = disks.there(host, root.writable)
        if size is None and not limited:
            return
        if size is not None and limited and before.disk_inodes == after.disk_inodes:
            if disks.holds(disk, size) or disks.grow(disk, size):
                return
        if holding.alive(host, container_id):
            raise InvalidTransition(
                "Stop it first: this takes a copy of what it wrote.",
                field="limits.disk_bytes",
            )
        try:
            overlay.resized(host, container_id, size)
        except StorageFull as error:
            left = room.of(pools.of_layer(host, root.writable).layers_dir)
            if size is None or not left.free_bytes or left.inodes_free == 0:
                raise  # it is the host's disk that is full
            raise InUse("What it has written is more than that.", field="limits.disk_bytes") from error
    holding.tidy(host)
