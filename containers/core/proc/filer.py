"""Shows and changes a container's files for the panel: ``python -I -S -B filer.py``, a fresh process for each request.

The request is one line of JSON on standard input (core.lifecycle.filing makes it). The answer goes to standard output:
a line of JSON, and bytes behind it where a file or an archive was asked for. For a file that is written there is a line
``{"go": true}`` before, and its bytes are then read from standard output, which is a socket.

    running     enters the namespaces of the container's init, by pidfd, and its cgroups
    stopped     mounts the container's own layers, as a start does, in a mount namespace of its own
    a snapshot  mounts its layers, with nothing to write to

In each case the process is the container's root in the container's user namespace, its root directory is the
container's, it has no network, a short list of system calls, and the few rights that files take. It never executes
anything, and nothing can be loaded once the tree is in sight (CVE-2019-14271).
"""

from __future__ import annotations

import codecs
import json
import os
import resource
import signal
import sys
from typing import Any, Final

if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))))

from containers.core.archives.calls import compile_list
from containers.core.filing import changing, looking, places, putting_back, writing
from containers.core.kernel import disk_mount, mount_api, syscalls, user_namespaces
from containers.core.model.capabilities import NAMES
from containers.core.plans.mount_flags import MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_PRIVATE, MS_RDONLY, MS_REC

CPU_SEC: Final = 600
QUICK_SEC: Final = 60
"""What is neither sent nor received in bytes has ended by then: a file system inside may never answer."""
MEMORY_BYTES: Final = 1 << 30
DESCRIPTORS: Final = 65536
_CHUNK_BYTES: Final = 1 << 18
_TELL_EVERY: Final = 500
_ENTERED: Final = (
    syscalls.CLONE_NEWNS
    | syscalls.CLONE_NEWNET
    | syscalls.CLONE_NEWIPC
    | syscalls.CLONE_NEWUTS
    | syscalls.CLONE_NEWCGROUP
)
_READS: Final = ("dac_read_search",)
_WRITES: Final = ("chown", "dac_override", "dac_read_search", "fowner", "fsetid", "mknod", "setfcap")
_CALLS: Final = """
    alarm copy_file_range fdatasync fgetxattr flistxattr fremovexattr fsync getxattr listxattr openat2 prctl rename
    renameat renameat2 rt_sigtimedwait setitimer statfs umask utimensat
""".split()
_LONG: Final = ("content", "archive", "write", "put-back")


class _Stream:
    """Standard output, both ways."""

    def __init__(self) -> None:
        self._begun = False

    def begin(self, head: dict[str, Any]) -> None:
        """Begin an answer that has bytes behind it."""
        self._begun = True
        self.line({"ok": True, **head})

    def end(self, answer: dict[str, Any]) -> None:
        """Tell an answer, unless bytes are on their way already."""
        if not self._begun:
            self.line(answer)

    def go(self) -> None:
        """Have the file sent."""
        self.line({"go": True})

    def line(self, value: dict[str, Any]) -> None:
        """Tell one line."""
        self.write(json.dumps(value).encode() + b"\n")

    @staticmethod
    def write(data: bytes) -> None:
        """Write all of it."""
        view = memoryview(data)
        while view:
            view = view[os.write(1, view) :]

    @staticmethod
    def read(most: int) -> bytes:
        """Return the next bytes of a file that is sent."""
        return os.read(1, most)


def main() -> None:
    """Answer one request."""
    stream = _Stream()
    request = json.loads(sys.stdin.buffer.readline())
    try:
        roots = _confined(request)
        if request["verb"] not in _LONG:
            signal.alarm(QUICK_SEC)
        answer = _answered(request["verb"], request["asked"], roots, stream)
        stream.end({"ok": True, **(answer or {})})
    except places.Refused as error:
        stream.end({"ok": False, "code": error.code, "message": str(error)})
    except OSError as error:
        refused = places.named(error)
        stream.end({"ok": False, "code": refused.code, "message": str(refused)})
    except (MemoryError, RecursionError):
        stream.end({"ok": False, "code": "invalid-value", "message": "There is too much in it."})


def _answered(verb: str, asked: dict[str, Any], roots: list[int], stream: _Stream) -> dict[str, Any] | None:
    """Do what is asked. roots: the container's, or the snapshot's; for put-back both, the snapshot's first."""
    root_fd, path = roots[-1], asked["path"]
    match verb:
        case "list":
            found: dict[str, Any] = looking.listing(
                root_fd,
                path,
                offset=asked["offset"],
                limit=asked["limit"],
                sort=asked["sort"],
                descending=asked["descending"],
                match=asked["match"],
            )
            return found
        case "entry":
            return {"entry": looking.entry(root_fd, path)}
        case "text":
            return {**looking.text(root_fd, path), "entry": looking.entry(root_fd, path)}
        case "content":
            looking.content(root_fd, path, stream.begin, stream.write)
        case "archive":
            looking.archive(root_fd, path, asked["only"], stream.begin, stream.write)
        case "write":
            return writing.write(root_fd, path, asked, stream.go, stream.read)
        case "make":
            return changing.make(root_fd, path, asked["mode"])
        case "rename":
            return changing.rename(root_fd, path, asked["to"])
        case "remove":
            return changing.remove(root_fd, path, recursive=asked["recursive"])
        case "attributes":
            return changing.attributes(root_fd, path, asked)
        case "put-back":
            signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(1))
            putting = putting_back.PutBack(exact=asked["exact"], tell=_teller(stream))
            return putting.run(roots[0], root_fd, asked["paths"])
        case _:
            raise places.Refused("invalid-value", "There is no such verb.")
    return None


def _teller(stream: _Stream) -> Any:
    """Return what tells, now and then, how far a long copy is."""
    told = [0, 0]

    def tell(entries: int, size: int) -> None:
        if entries - told[0] >= _TELL_EVERY or size - told[1] >= 64 * _CHUNK_BYTES:
            told[:] = entries, size
            stream.line({"entries": entries, "size_bytes": size})

    return tell


# confinement


def _confined(request: dict[str, Any]) -> list[int]:
    """Have the container's root, or a snapshot's, as root directory, and nothing else; return the open roots."""
    for path in request["procs"]:
        _join(path)
    most = min(DESCRIPTORS, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    filters = compile_list(program=False, more=_CALLS)
    places.hold_own()
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    init_fd = request["init_fd"]
    userns_fd = _own_users(request["id_lines"]) if init_fd is None else _of_init(request["init_pid"], init_fd)
    point = [_layer(path, userns_fd, writes=False) for path in request["point"]]
    layers = [_layer(path, userns_fd, writes=False) for path in request["lowers"]]
    own_fd = None if request["own"] is None else _layer(request["own"], userns_fd, writes=True)[0]
    syscalls.setns(userns_fd, syscalls.CLONE_NEWUSER)
    os.close(userns_fd)
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    roots = []
    if init_fd is None or point:
        syscalls.unshare(_ENTERED)
        syscalls.mount(None, "/", None, MS_REC | MS_PRIVATE)
        syscalls.mount("none", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=1m,mode=0700")
        os.chdir("/tmp")
    if point:
        roots.append(_root_of("p", point, None))
    if init_fd is None:
        os.fchdir(_root_of("l", layers, own_fd))
        syscalls.pivot_root(".", ".")
        syscalls.umount(".", syscalls.MNT_DETACH)
    else:
        syscalls.setns(init_fd, _ENTERED)
        os.close(init_fd)
    os.chdir("/")
    roots.append(os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    _give_up(request, filters)
    return roots


def _join(path: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, b"0")
    finally:
        os.close(fd)


def _own_users(id_lines: str) -> int:
    try:
        return user_namespaces.made(id_lines)
    except OSError:
        raise places.Refused("setup-failed", "No user namespace could be made.") from None


def _of_init(pid: int, init_fd: int) -> int:
    """Return the user namespace of the container's init."""
    fd = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    # after opening: what was opened is the container's, and not another's that has its pid by now
    signal.pidfd_send_signal(init_fd, 0)
    return fd


def _layer(path: str, userns_fd: int, *, writes: bool) -> tuple[int, str]:
    """Return a detached mount of a layer, with the owners that the container sees, and where in it the tree is."""
    mount_fd, tree = disk_mount.layer_mount(path)
    mount_api.restrict(mount_fd, read_only=not writes, receives=False, userns_fd=userns_fd)
    return mount_fd, tree


def _root_of(letter: str, layers: list[tuple[int, str]], own_fd: int | None) -> int:
    """Mount layers, uppermost first, as one tree below the working directory; return its open root."""
    names = [f"{letter}{number}" for number in range(len(layers))]
    for name, (mount_fd, _tree) in zip(names, layers, strict=True):
        os.mkdir(name)
        syscalls.move_mount(mount_fd, name)
        os.close(mount_fd)
    trees = [name if tree == "." else f"{name}/{tree}" for name, (_fd, tree) in zip(names, layers, strict=True)]
    place = trees[0]
    if own_fd is not None or len(names) > 1:
        place, data = f"{letter}-root", f"lowerdir={':'.join(trees)},userxattr"
        flags = MS_NOSUID | MS_NODEV
        if own_fd is not None:
            os.mkdir("own")
            syscalls.move_mount(own_fd, "own")
            os.close(own_fd)
            data += ",upperdir=own/rootfs,workdir=own/work"
        else:
            flags |= MS_RDONLY
        os.mkdir(place)
        syscalls.mount("overlay", place, "overlay", flags, data)
    return os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _give_up(request: dict[str, Any], filters: bytes) -> None:
    """Keep the rights that files take, and no other."""
    for kind, most in (
        (resource.RLIMIT_CPU, CPU_SEC),
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_FSIZE, request["file_bytes"] if request["writes"] else 0),
    ):
        resource.setrlimit(kind, (most, most))
    sys.setrecursionlimit(10_000)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    os.umask(0)
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    kept = _WRITES if request["writes"] else _READS
    syscalls.set_capabilities(sum(1 << NAMES.index(name) for name in kept))
    # it is taken away whenever the ids change
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    syscalls.load_seccomp(filters)


if __name__ == "__main__":
    for encoding in ("ascii", "latin-1", "utf-8", "idna", "unicode_escape"):
        codecs.lookup(encoding)
    # from here on nothing can be loaded from a tree that somebody else wrote
    sys.meta_path.clear()
    sys.path.clear()
    sys.path_hooks.clear()
    main()
