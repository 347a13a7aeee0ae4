"""What happens to containers on disk: create, delete, rename, snapshot, restore, clone, and the tidying afterwards.

Every change has one commit point, the rename of one file or directory (storage/overlay.py, store.py); before it a crash
leaves what was, after it what was asked for, and in both cases perhaps litter, which recover() and collect() remove.
"""

from __future__ import annotations

from collections.abc import Callable

from .. import files, store
from ..errors import AlreadyExists
from ..failpoints import failpoint
from ..host import Host
from ..spec import Spec
from ..storage import overlay

Progress = Callable[[int, str], None]


def create(host: Host, spec: Spec, *, progress: Progress = lambda _pct, _message: None) -> Spec:
    """Make a container from spec.layers (an image's); return its spec as stored.

    The commit point is the rename of its directory. Raises SpecError, AlreadyExists, Busy, StorageFull, or SetupFailed
    where a layer is missing; nothing is left then.
    """
    spec.check()
    store.prepare(host)
    with store.lock(host, "container", spec.id), store.lock(host, "layers", shared=True):
        if host.container_dir(spec.id).exists():
            raise AlreadyExists(f"The container {spec.name} is on this host already.")
        progress(10, "Making its writable layer")
        root = overlay.fresh(host, spec.layers, made_for=spec.id)
        try:
            failpoint(host.state_dir, "create.fresh")
            _place(host, spec, root)
        except BaseException:
            store.to_trash(host, host.layers_dir / root.writable)
            raise
    progress(100, "Created")
    return spec


def _place(host: Host, spec: Spec, root: store.Root) -> None:
    """Make a container's directory, whole and on disk, and put it in place by one rename."""
    with store.making(host) as directory:
        files.write(directory / "spec.json", (spec.to_json() + "\n").encode())
        files.write_json(directory / "root.json", {"layers": list(root.layers), "writable": root.writable})
        (directory / "snapshots").mkdir(mode=0o700)
        files.sync_dir(directory)
        failpoint(host.state_dir, "create.placed")
        directory.rename(host.container_dir(spec.id))
        files.sync_dir(host.containers_dir)
