"""A root file system as its container sees it: layers of an overlay merged, shifted owners back at 0 and up.

The kernel does both, in a mount namespace of one thread, of which nothing is left when the thread ends or is killed:
mounts of the layers are idmapped, so that owners, ACLs and the owners of file capabilities are translated as they are
read, and an overlay without an upper layer lies over them. Sources: mount_setattr(2), kernel
Documentation/filesystems/{idmappings,overlayfs}.rst.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from ..errors import HostUnsupported, SetupFailed
from ..host import IDS_PER_CONTAINER
from ..kernel import syscalls
from ..model.idmap import IdMap
from ..plans.mount_flags import MS_PRIVATE, MS_RDONLY, MS_REC
from .source import Source, reversed_map

_SAME: Final = (IdMap(0, 0, IDS_PER_CONTAINER),)
_TIE: Final = ("/usr/bin/setpriv", "--pdeathsig", "KILL", "--")


def seen(source: Source, scratch: Path, act: Callable[[Path], None]) -> None:
    """Call act with the path of the tree as the container sees it, in a thread of its own; raises what act raises.

    scratch: an empty directory, for mount points. The tree is read-only and shows there to that thread and what it
    starts only. An owner that the container has no id for is nobody's (65534), as it is inside. Raises HostUnsupported
    where the file system knows no idmapped mounts.
    """
    failed: list[BaseException] = []

    def run() -> None:
        try:
            with contextlib.ExitStack() as held:
                act(_mounted(source, scratch, held))
        except BaseException as error:  # noqa: BLE001  it is raised again by the thread that waits
            failed.append(error)

    thread = threading.Thread(target=run, name=f"import {source.name}")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


def _mounted(source: Source, scratch: Path, held: contextlib.ExitStack) -> Path:
    """Mount the tree in this thread's own mount namespace; return its place."""
    userns_fd = held.enter_context(_user_namespace(source.uids, source.gids)) if source.uids or source.gids else None
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount(None, "/", None, MS_REC | MS_PRIVATE)
    places = []
    for index, layer in enumerate(source.layers):
        place = scratch / str(index)
        place.mkdir(mode=0o700)
        mount_fd = syscalls.open_tree(os.path.realpath(layer))
        held.callback(os.close, mount_fd)
        if userns_fd is not None:
            _shift(mount_fd, userns_fd, layer)
        syscalls.move_mount(mount_fd, str(place))
        places.append(place)
    if len(places) == 1:
        return places[0]
    merged = scratch / "merged"
    merged.mkdir(mode=0o700)
    # relative names, because a path may hold the colons and commas that divide them; the directory is this thread's own
    os.chdir(scratch)
    options = "lowerdir=" + ":".join(str(index) for index in reversed(range(len(places))))
    marks = ",userxattr" if userns_fd is not None else ""
    syscalls.mount("overlay", "merged", "overlay", MS_RDONLY, options + marks)
    return merged


def _shift(mount_fd: int, userns_fd: int, layer: str) -> None:
    try:
        syscalls.set_mount_idmap(mount_fd, userns_fd)
    except OSError as error:
        raise HostUnsupported(
            f"The file system of {layer} knows no idmapped mounts ({error.strerror}), by which owners are shifted "
            "back: copy it, with its owners, to ext4, xfs or btrfs first.",
            feature="idmapped-mount",
        ) from error


@contextlib.contextmanager
def _user_namespace(uids: tuple[IdMap, ...], gids: tuple[IdMap, ...]) -> Iterator[int]:
    """Hold a user namespace by whose map ids on disk become the container's; yields its descriptor."""
    uid_map, gid_map = (reversed_map(maps or _SAME) for maps in (uids, gids))
    # the program answers from inside the namespace: it has been made then
    command = [*_TIE, "/usr/bin/unshare", "--user", "--", "/usr/bin/cat"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/", env={}) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        try:
            holder.stdin.write(b".")
            holder.stdin.flush()
            if holder.stdout.read(1) != b".":
                raise HostUnsupported("No user namespace could be made.", feature="namespace-user")
            for name, text in (("uid_map", uid_map), ("gid_map", gid_map)):
                _write_map(f"/proc/{holder.pid}/{name}", text)
            userns_fd = os.open(f"/proc/{holder.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
            try:
                yield userns_fd
            finally:
                os.close(userns_fd)
        finally:
            holder.kill()


def _write_map(path: str, text: str) -> None:
    """Write an id map: at once, and once only (user_namespaces(7))."""
    try:
        with open(path, "wb", buffering=0) as file:
            file.write(text.encode())
    except OSError as error:
        raise SetupFailed.from_oserror("map owners", error) from error
