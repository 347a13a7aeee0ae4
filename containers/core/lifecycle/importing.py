"""A container of LXC's taken over: its tree becomes a layer of the store, and, if it is moved, LXC's own goes.

What is to be taken over is written by root into the host store, before the operation is asked for: rows, which the web
process may write, never name a path of the host. The commit point is that of a create: the rename of the container's
directory. Only then is LXC's container removed, by one rename out of LXC's sight first; a killed removal is gone on
with.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from ..errors import NotFound, SetupFailed
from ..failpoints import failpoint
from ..host import Host
from ..hoststore import pools, store
from ..kernel import files
from ..kernel.tree_copy import copy_tree
from ..lxc import finding, shifting
from ..lxc.source import Source
from ..model.spec import Spec
from ..sentences import say
from ..storage import overlay

Progress = Callable[[int, str], None]
REMOVE_SEC: Final = 3600


def order(host: Host, container_id: str, source: Source) -> None:
    """Write down what a container is to be made of; root only."""
    store.prepare(host)
    host.imports_dir.mkdir(mode=0o700, exist_ok=True)
    files.write_json(_order_path(host, container_id), source.as_dict())


def ordered(host: Host, container_id: str) -> Source:
    """Return what a container is to be made of; raises NotFound where root has written nothing."""
    try:
        return Source.from_dict(files.read_json(_order_path(host, container_id)))
    except FileNotFoundError:
        raise NotFound("Nobody on the host has asked for this import: use `manage.py import-lxc`.") from None


def forget(host: Host, container_id: str) -> None:
    """Forget what a container was to be made of; nothing there is fine."""
    _order_path(host, container_id).unlink(missing_ok=True)


def _order_path(host: Host, container_id: str) -> Path:
    return host.imports_dir / f"{container_id}.json"


@contextlib.contextmanager
def copied(host: Host, spec: Spec, *, progress: Progress, cancelled: Callable[[], bool]) -> Iterator[Path]:
    """Yield a directory of `store.making` with the tree in it, on the disk, for stored.create_from.

    Owners are 0 to 65535; ACLs, extended attributes, file capabilities, hard links and holes are kept. A tree that is
    to be moved, whose owners are not shifted and that lies on the store's file system, is linked instead of copied.
    Raises what finding.check raises, Cancelled, StorageFull, SetupFailed, HostUnsupported; nothing is left then.
    """
    source = ordered(host, spec.id)
    finding.check(source)
    with store.making(host) as scratch, store.making(host, pools.open_pool(host, spec.pool)) as directory:
        progress(10, say("Copying the root file system of %(name)s", name=source.name))
        plain = len(source.layers) == 1 and not source.uids and not source.gids
        if plain:
            tree = Path(os.path.realpath(source.layers[0]))
            link = source.move and os.stat(tree).st_dev == os.stat(directory).st_dev
            copy_tree(tree, directory / "rootfs", cancelled=cancelled, link=link)
        else:
            shifting.seen(source, scratch, lambda tree: copy_tree(tree, directory / "rootfs", cancelled=cancelled))
        failpoint(host.state_dir, "import.copied")
        finding.check(source)  # it may have been started meanwhile
        overlay.describe(directory, made_for=spec.id, kind="import")
        progress(80, "Bringing it to the disk")
        files.sync_tree(directory)
        yield directory


def finish(host: Host, container_id: str) -> str:
    """Remove LXC's container if it was to be moved, and the order; return what of it could not be removed, or "".

    The container is in the store. Twice is once.
    """
    try:
        source = ordered(host, container_id)
    except NotFound:
        return ""
    if source.move and store.exists(host, container_id):
        away = os.path.join(source.path, f".{source.name}.moved-{container_id}")
        with contextlib.suppress(FileNotFoundError):
            if not os.path.lexists(away):
                finding.check(source)
                os.rename(source.directory, away)
        failpoint(host.state_dir, "import.away")
        try:
            _remove(away)
        except SetupFailed as error:
            forget(host, container_id)
            return error.message
    forget(host, container_id)
    return ""


def _remove(path: str) -> None:
    """Remove a tree on its own file system only; nothing there is fine."""
    done = subprocess.run(
        ["/usr/bin/rm", "-rf", "--one-file-system", "--", path],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"},
        timeout=REMOVE_SEC,
        check=False,
    )
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip().splitlines()
        why = words[-1] if words else "?"
        raise SetupFailed(
            say("%(path)s could not be removed: %(error)s", path=path, error=why), step="remove", path=path
        )
