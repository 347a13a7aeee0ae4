"""Reads a container's files for the panel: ``python -I -S -B reader.py``, a fresh process for each request.

The request is one line of JSON on standard input; the answer, on standard output, is one line of JSON, and bytes behind
it where files were asked for::

    {"verb", "layers": [PATH, ...], "before": [INDEX, ...], "after": [INDEX, ...], "shared": N, "path", "id_lines"}

layers: the trees of layers, or their disks, each once; before, after: stacks of them, uppermost first. Owners on disk
are the container's; the process lives in a user namespace in which they are its own (id_lines: its uid_map), with no
right but to read what belongs to it, no network, and an empty root: what it holds of the host is the layers'
directories, read-only. Whatever a hostile tree makes of it, it is nobody on the host.
"""

from __future__ import annotations

import codecs
import json
import os
import resource
import sys
from typing import Any, Final

if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))))

from containers.core.kernel import disk_mount, mount_api, syscalls, user_namespaces
from containers.core.plans.mount_flags import MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_PRIVATE, MS_RDONLY, MS_REC, MS_REMOUNT
from containers.core.reading import packing, verbs

CPU_SEC: Final = 60
PACK_CPU_SEC: Final = 24 * 3600
"""Of a whole layer, however large it is."""
PACK_FAILED: Final = 3
MEMORY_BYTES: Final = 1 << 30
DESCRIPTORS: Final = 65536
_READ_SEARCH: Final = 1 << 2
"""CAP_DAC_READ_SEARCH: read whatever belongs to the ids of this user namespace."""
_NAMESPACES: Final = (
    syscalls.CLONE_NEWNS
    | syscalls.CLONE_NEWNET
    | syscalls.CLONE_NEWIPC
    | syscalls.CLONE_NEWUTS
    | syscalls.CLONE_NEWCGROUP
)


def main() -> None:
    """Answer one request."""

    def write(data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(1, view) :]

    def begin(head: dict[str, Any]) -> None:
        write(json.dumps({"ok": True, **head}).encode() + b"\n")

    request = json.loads(sys.stdin.buffer.readline())
    try:
        trees = _confined(request)
        _answer(request, trees, begin, write)
    except verbs.Refused as error:
        begin({"ok": False, "code": error.code, "message": str(error)})
    except OSError as error:
        code, message = verbs.named(error)
        begin({"ok": False, "code": code, "message": message})


def _answer(request: dict[str, Any], trees: list[int], begin: Any, write: Any) -> None:
    after = [trees[index] for index in request["after"]]
    before = [trees[index] for index in request["before"]]
    verb, path = request["verb"], request.get("path", "/")
    if verb == "changes":
        begin(verbs.compared(before, after, request["shared"], path))
    elif verb == "text":
        begin(verbs.text(before, after, path))
    elif verb == "list":
        begin(verbs.listing(after, path))
    elif verb == "content":
        verbs.content(after, path, begin, write)
    elif verb == "archive":
        verbs.archive(after, path, begin, write)
    elif verb == "pack":
        _pack(after[0], begin, write)
    else:
        raise verbs.Refused("invalid-value", "There is no such verb.")


def _pack(tree: int, begin: Any, write: Any) -> None:
    """Write a layer as a tar; what goes wrong behind the head is told by the exit status, and on standard error."""
    begin({})
    try:
        packing.layer(tree, write)
    except OSError as error:
        os.write(2, str(error.strerror).encode())
        os._exit(PACK_FAILED)


def _confined(request: dict[str, Any]) -> list[int]:
    """Open the layers as the container sees them, and give up everything else; return a directory of each."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(DESCRIPTORS, resource.getrlimit(resource.RLIMIT_NOFILE)[1]),) * 2)
    try:
        userns_fd = user_namespaces.made(str(request["id_lines"]))
    except OSError:
        raise verbs.Refused("host-unsupported", "No user namespace could be made.") from None
    trees = []
    for path in request["layers"]:
        mount_fd, tree = disk_mount.layer_mount(path)
        mount_api.restrict(mount_fd, read_only=True, receives=False, userns_fd=userns_fd)
        trees.append((mount_fd, tree))
    syscalls.setns(userns_fd, syscalls.CLONE_NEWUSER)
    os.close(userns_fd)
    syscalls.unshare(_NAMESPACES)
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    _empty_root()
    for kind, most in (
        (resource.RLIMIT_CPU, PACK_CPU_SEC if request["verb"] == "pack" else CPU_SEC),
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_FSIZE, 0),
    ):
        resource.setrlimit(kind, (most, most))
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    syscalls.set_capabilities(_READ_SEARCH)
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    opened = [os.open(tree, flags, dir_fd=mount_fd) for mount_fd, tree in trees]
    for mount_fd, _tree in trees:
        os.close(mount_fd)
    return opened


def _empty_root() -> None:
    """Have nothing of the host's file system in sight."""
    syscalls.mount(None, "/", None, MS_REC | MS_PRIVATE)
    syscalls.mount("none", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=4k,mode=0755")
    os.chdir("/tmp")
    syscalls.pivot_root(".", ".")
    syscalls.umount(".", syscalls.MNT_DETACH)
    os.chdir("/")
    syscalls.mount(None, "/", None, MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)


if __name__ == "__main__":
    for encoding in ("ascii", "latin-1", "utf-8", "idna"):
        codecs.lookup(encoding)
    # from here on nothing can be loaded from a tree that somebody else wrote
    sys.meta_path.clear()
    sys.path.clear()
    sys.path_hooks.clear()
    main()
