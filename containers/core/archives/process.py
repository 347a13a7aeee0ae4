"""The confined process that reads a hostile archive: ``python -I -S process.py ORDERS``, as root, for one archive.

ORDERS is JSON, {"role": "decode", ...} or {"role": "make", ...}. What both roles share: namespaces of their own for
mounts, processes, network, IPC and names, a cgroup with little memory and few processes, another root directory, ids
that nobody else has, no privilege over anything outside, and a list of system calls in which no process, socket or
mount can be made. It dies with whoever started it.

decode   turns the file into a plain tar on standard output, by a program of the host, whose root directory holds that
         file and the host's programs, read-only; it may write nothing at all.
make     turns a plain tar on standard input into a tree, which is its root directory; it tells, on descriptor 3, how
         far it is, and how it ended, as lines of JSON. It is root in a user namespace whose ids are the tree's, by
         an idmapped mount: owners lie unshifted on disk, and nothing but the tree has owners that it may act for.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, Final

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from containers.core.archives import confinement, rules, tree
from containers.core.archives.calls import compile_list
from containers.core.kernel import syscalls, user_namespaces
from containers.core.model.capabilities import NAMES
from containers.core.model.idmap import UNUSED_BASE, unused
from containers.core.plans.mount_flags import MS_BIND, MS_NODEV, MS_NOSUID, MS_RDONLY, MS_REMOUNT

TELL_EVERY_SEC: Final = 0.2
_KEPT: Final = ("chown", "dac_override", "fowner", "fsetid", "setfcap")
"""What making a tree with its owners takes, in a user namespace that owns nothing but the tree."""
_SEEN: Final = ("bin", "lib", "lib32", "lib64", "libx32", "usr")


def main(orders: dict[str, Any]) -> int:
    """Confine this process and do what is asked; return its exit status."""
    confinement.enter_cage(orders["cage"], orders["report"])
    make = orders["role"] == "make"
    filters = compile_list(program=not make)
    # one that has ids which nobody else has, made by one of them
    held_fd = user_namespaces.made(unused(orders["limits"]["ids"]).line(), owner_id=UNUSED_BASE) if make else -1
    confinement.leave_host()
    if make:
        mount_fd = syscalls.open_tree(orders["tree"])
        syscalls.set_mount_idmap(mount_fd, held_fd)
        syscalls.move_mount(mount_fd, orders["tree"])
        os.close(mount_fd)
        confinement.enter_root(orders["tree"])
    else:
        _programs_only(orders["scratch"], orders["archive"])
    child = os.fork()
    if child == 0:
        _in_child(orders, filters, held_fd)
    _pid, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) & 0xFF


def _in_child(orders: dict[str, Any], filters: bytes, userns_fd: int) -> None:
    """Give up what is left of root's rights and do the work; the first process of its pid namespace. Never returns."""
    status = 1
    try:
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        limits = rules.Limits(**orders["limits"])
        confinement.limit(
            memory_bytes=limits.memory_bytes,
            cpu_sec=limits.wall_sec,
            file_bytes=limits.bytes if orders["role"] == "make" else 0,
        )
        if orders["role"] == "decode":
            confinement.drop_to_nobody(filters)
            os.execve(orders["program"][0], orders["program"], {"LC_ALL": "C", "PATH": "/usr/bin:/bin"})
        _drop_to_tree_root(filters, userns_fd)
        status = _make(limits, layer=orders["layer"], exact=orders.get("exact", False))
    except OSError as error:
        with contextlib.suppress(OSError):
            os.write(2, f"{error.strerror} [{error.errno}]\n".encode())
    finally:
        os._exit(status)


def _make(limits: rules.Limits, *, layer: bool, exact: bool) -> int:
    """Make the tree from standard input and report; 0 where all of it was made."""
    told_at = 0.0

    def tell(entries: int) -> None:
        nonlocal told_at
        now = time.monotonic()
        if now - told_at >= TELL_EVERY_SEC:
            told_at = now
            _report({"entries": entries})

    root_fd = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    made = tree.Tree(root_fd, limits, layer=layer, exact=exact, tell=tell)
    try:
        with open(0, "rb", buffering=0, closefd=False) as stream:
            made.take(stream)
            while stream.read(1 << 20):
                pass  # what comes behind the end belongs to the archive's digest, and to nothing else
    except rules.Refused as refused:
        _report({"refused": refused.why, "entry": ascii(refused.entry)[1:-1][:500], "limit": refused.limit})
    except OSError as error:
        _report({"errno": error.errno, "message": error.strerror, "entry": ascii(error.filename or "")[1:-1][:500]})
    except MemoryError:
        _report({"refused": "It takes too much memory to read.", "entry": "", "limit": "memory"})
    except Exception as error:  # noqa: BLE001  the last frame: whatever a hostile file brings about is told
        _report({"refused": f"It cannot be read ({type(error).__name__}: {ascii(str(error))[:200]}).", "entry": ""})
    else:
        _report({"done": made.result()})
        return 0
    return 1


def _report(value: dict[str, Any]) -> None:
    data = json.dumps(value).encode() + b"\n"
    while data:
        data = data[os.write(confinement.REPORT_FD, data) :]


# confinement


def _programs_only(scratch: str, archive: str) -> None:
    """Make a root directory of the host's programs and one file ("" for none), all of it read-only."""
    flags = MS_NOSUID | MS_NODEV
    syscalls.mount("boxroom-decode", scratch, "tmpfs", flags, "mode=755,size=64k")
    for name in _SEEN:
        outside, inside = f"/{name}", f"{scratch}/{name}"
        if os.path.islink(outside):
            os.symlink(os.readlink(outside), inside)
        elif os.path.isdir(outside):
            os.mkdir(inside, 0o755)
            syscalls.mount(outside, inside, None, MS_BIND)
            syscalls.mount(None, inside, None, MS_REMOUNT | MS_BIND | MS_RDONLY | flags)
    if archive:
        os.close(os.open(f"{scratch}/archive", os.O_WRONLY | os.O_CREAT, 0o444))
        syscalls.mount(archive, f"{scratch}/archive", None, MS_BIND)
        syscalls.mount(None, f"{scratch}/archive", None, MS_REMOUNT | MS_BIND | MS_RDONLY | flags)
    syscalls.mount(None, scratch, None, MS_REMOUNT | MS_BIND | MS_RDONLY | flags)
    confinement.enter_root(scratch)


def _drop_to_tree_root(filters: bytes, userns_fd: int) -> None:
    """Become root of the user namespace that owns the tree, and keep only what making a tree takes."""
    syscalls.setns(userns_fd, syscalls.CLONE_NEWUSER)
    os.close(userns_fd)
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    for number, name in enumerate(NAMES):
        if name not in _KEPT:
            with contextlib.suppress(OSError):  # one that this kernel does not have
                syscalls.prctl(syscalls.PR_CAPBSET_DROP, number)
    syscalls.set_capabilities(sum(1 << NAMES.index(name) for name in _KEPT))
    # whatever Python would look for now, it would look for in the tree
    sys.meta_path.clear()
    sys.path.clear()
    sys.path_hooks.clear()
    confinement.seal(filters)


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
