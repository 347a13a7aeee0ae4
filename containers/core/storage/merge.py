"""One layer out of many: what keeps a stack from growing without end."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ..failpoints import failpoint
from ..host import Host
from ..hoststore import pools, store
from ..kernel import files
from ..kernel.tree_copy import copy_tree
from . import overlay
from .marks import is_opaque


def bounded(host: Host, layers: tuple[str, ...], *, made_for: str) -> tuple[str, ...]:
    """Return a stack with the same content and at most overlay.LAYERS_MAX layers.

    A deeper one keeps its bottom layer, which is an image's and large; all the others become one. Their data is copied
    (shared where the file system can), because hard links would show. The caller holds the layers lock (shared) until
    something refers to the result; the old layers stay for the snapshots that refer to them.
    """
    if len(layers) <= overlay.LAYERS_MAX:
        return layers
    pool = pools.of_layer(host, layers[-1])
    return (layers[0], _merged(host, layers[1:], made_for=made_for, kind="merged", pool=pool))


def flattened(host: Host, layers: tuple[str, ...], *, made_for: str, pool: pools.Pool | None = None) -> tuple[str, ...]:
    """Return one new layer with the content of a stack: a copy that shares nothing with anybody.

    pool: where it lies; None is the default one. The caller holds the layers lock (shared) until something refers to
    it.
    """
    return (_merged(host, layers, made_for=made_for, kind="whole", pool=pool),)


def gathered(host: Host, layers: tuple[str, ...], *, made_for: str, pool: pools.Pool) -> tuple[str, ...]:
    """Return a stack with the same content, for a container in a pool: a copy there where the pool's driver wants that.

    One that lies there already is shared. The caller holds the layers lock (shared) until something refers to it.
    """
    if not pool.driver.WHOLE or all(pools.name_of(host, layer) == pool.name for layer in layers):
        return layers
    for layer in layers:
        overlay.require(host, layer)
    return flattened(host, layers, made_for=made_for, pool=pool)


def _merged(host: Host, layers: tuple[str, ...], *, made_for: str, kind: str, pool: pools.Pool | None = None) -> str:
    """Make one layer of many; marks of what lies below stay in force."""
    with store.making(host, pool) as directory:
        copy_tree(store.rootfs(host, layers[0]), directory / "rootfs")
        for layer in layers[1:]:
            _lay_over(store.rootfs(host, layer), directory / "rootfs")
        overlay.describe(directory, made_for=made_for, kind=kind)
        files.sync_tree(directory)
        failpoint(host.state_dir, "merge.merged")
        return overlay.publish(host, directory)


def _lay_over(upper: Path, lower: Path) -> None:
    """Change lower, a layer in the making, into what the two together are; whiteouts and opaque marks stay in force."""
    # beside it, and not in the store's trash: a subvolume's parts cannot be moved out of it
    gone = lower.parent / "gone"
    gone.mkdir(mode=0o700)
    with files.opened(upper) as upper_fd, files.opened(lower) as lower_fd:
        _clear(gone, upper_fd, lower_fd)
    files.remove_tree(gone)
    copy_tree(upper, lower)


def _clear(gone: Path, upper_fd: int, lower_fd: int) -> None:
    """Move out of lower what upper replaces or hides, so that a plain copy over it gives the merged tree."""
    waiting: list[tuple[str, ...]] = [()]
    while waiting:
        path = waiting.pop()
        with files.entered(upper_fd, path) as above_fd, files.entered(lower_fd, path) as below_fd:
            for name in os.listdir(above_fd):
                try:
                    below = os.stat(name, dir_fd=below_fd, follow_symlinks=False)
                except FileNotFoundError:
                    continue
                above = os.stat(name, dir_fd=above_fd, follow_symlinks=False)
                both = stat.S_ISDIR(above.st_mode) and stat.S_ISDIR(below.st_mode)
                if both and not _opaque_entry(above_fd, name):
                    waiting.append((*path, name))
                else:
                    os.rename(name, gone / store.new_layer_id(), src_dir_fd=below_fd)


def _opaque_entry(directory_fd: int, name: str) -> bool:
    with files.opened(name, dir_fd=directory_fd) as child_fd:
        return is_opaque(child_fd)
