"""Tries what the runtime needs, in processes of its own, and prints what failed: ``{"probe": null or "why not"}``.

Run as ``python -I -S probe.py DIRECTORY``: a fresh, single-threaded interpreter, for it forks and enters namespaces.
DIRECTORY: an existing directory on the file system in question; a second argument, ``overlay``, tries only what depends
on it. Everything made goes away with the probe's processes.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator

if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))))

from containers.core.kernel import syscalls, user_namespaces
from containers.core.plans.mount_flags import MS_PRIVATE, MS_REC
from containers.core.proc import probing

DEADLINE_SEC = 50
FILTER_SEC = 40
"""The first rules of a boot wait for some fifteen kernel modules, which a slow and busy disk brings late."""
RTM_NEWLINK = 16
NLM_F_CREATE_EXCL_ACK = 0x605
_FILTER = """
table inet probe {
  chain post { type nat hook postrouting priority 100; policy accept; ip saddr 10.0.0.0/8 masquerade; }
  chain forward { type filter hook forward priority 0; policy accept; ct state established,related accept; }
  chain input { type filter hook input priority 0; policy accept; fib daddr . iif type local accept; }
}
table bridge probe {
  set v4 { type ifname . ether_addr . ipv4_addr; }
  chain pre { type filter hook prerouting priority -300; policy accept; iifname . ether saddr . ip saddr @v4 accept; }
}
"""


def in_child(act: Callable[[], None]) -> str | None:
    """Run act in a forked process; return why it failed, or None."""
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        words = ""
        try:
            signal.alarm(DEADLINE_SEC)
            act()
        except OSError as error:
            words = f"{error.strerror or error}{f' ({error.filename})' if error.filename else ''}"
        except BaseException as error:  # noqa: BLE001  the child's last frame: it is told to the parent
            words = str(error) or type(error).__name__
        os.write(write_fd, words.encode()[:4000])
        os._exit(1 if words else 0)
    os.close(write_fd)
    with open(read_fd, "rb") as pipe:
        words = pipe.read().decode(errors="replace")
    _pid, status = os.waitpid(pid, 0)
    if status and not words:
        return f"ended with status {os.waitstatus_to_exitcode(status)}"
    return words or None


def namespace(flag: int) -> Callable[[], None]:
    """Return a probe that makes one kind of namespace."""
    return lambda: syscalls.unshare(flag)


@contextlib.contextmanager
def user_namespace(ids: str) -> Iterator[int]:
    """Hold a user namespace with this map, for as long as the block; yields its descriptor."""
    fd = user_namespaces.made(ids)
    try:
        yield fd
    finally:
        os.close(fd)


def id_map() -> None:
    """Write the map of a container's own range."""
    with user_namespace(f"0 {2**28} 65536"):
        pass


def idmapped_mount(directory: str) -> None:
    """Translate a mount of the directory's file system by a user namespace."""
    with user_namespace(f"0 {2**28} 65536") as userns_fd:
        mount_fd = syscalls.open_tree(directory)
        try:
            syscalls.set_mount_idmap(mount_fd, userns_fd)
        finally:
            os.close(mount_fd)


def overlay(directory: str) -> None:
    """Mount overlay as a container does: in a user namespace, over idmapped layers; write a whiteout and a file.

    The file belongs to root inside, and so to id 0 on disk (Linux 5.19).
    """
    os.chmod(directory, 0o711)  # it is entered by an id of the namespace
    os.chdir(directory)
    for name in ("lower", "writable", "writable/upper", "writable/work", "merged"):
        os.mkdir(name)
    for name in ("kept", "gone"):
        with open(f"lower/{name}", "w", encoding="ascii"):
            pass
    with user_namespace(f"0 {2**28} 65536") as userns_fd:
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount(None, "/", None, MS_REC | MS_PRIVATE)
        for name in ("lower", "writable"):
            mount_fd = syscalls.open_tree(name)
            syscalls.set_mount_idmap(mount_fd, userns_fd)
            syscalls.move_mount(mount_fd, name)
            os.close(mount_fd)
        syscalls.setns(userns_fd, syscalls.CLONE_NEWUSER)
        syscalls.unshare(syscalls.CLONE_NEWNS)
        os.setgroups([])
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        layers = "lowerdir=lower,upperdir=writable/upper,workdir=writable/work"
        syscalls.mount("overlay", "merged", "overlay", 0, f"{layers},userxattr")
        with open("merged/kept", "w", encoding="ascii") as file:
            file.write("x")
            if os.fstat(file.fileno()).st_uid != 0:
                raise OSError("the layers' owners are not translated")
        os.unlink("merged/gone")


def links() -> None:
    """Make a bridge and a veth pair in a scratch network namespace."""
    syscalls.unshare(syscalls.CLONE_NEWNET)
    for name, kind in (("probe0", b"bridge"), ("probe1", b"veth")):
        info = _attribute(18, _attribute(1, kind))
        message = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, 0, 0, 0) + _attribute(3, name.encode() + b"\0") + info
        header = struct.pack("=IHHII", 16 + len(message), RTM_NEWLINK, NLM_F_CREATE_EXCL_ACK, 1, 0)
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as netlink:
            netlink.send(header + message)
            number = -struct.unpack_from("=i", netlink.recv(65536), 16)[0]
        if number:
            raise OSError(number, f"{kind.decode()}: {os.strerror(number)}")


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def packet_filter() -> None:
    """Load NAT and bridge rules in a scratch network namespace."""
    syscalls.unshare(syscalls.CLONE_NEWNET)
    path = "/usr/sbin:/usr/bin:/sbin:/bin"
    command = ["nft", "-f", "-"]
    try:
        done = subprocess.run(
            command, input=_FILTER, capture_output=True, text=True, env={"PATH": path}, timeout=FILTER_SEC, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise OSError(f"nft did not end within {FILTER_SEC} s") from error
    if done.returncode:
        raise OSError(done.stderr.strip().partition("\n")[0])


def seccomp() -> None:
    """Make a filter with libseccomp, and see that the kernel takes filters."""
    from containers.core.kernel import libseccomp

    with libseccomp.Filter(libseccomp.ACT_ALLOW):
        pass
    with open("/proc/sys/kernel/seccomp/actions_avail", encoding="ascii") as file:
        if "errno" not in file.read().split():
            raise OSError("the kernel's seccomp has no errno action")


def held(parent: str) -> str:
    """Make a directory that this process holds (flock) until it ends, so that no sweeper takes it for left behind."""
    while True:
        made = tempfile.mkdtemp(prefix=".probe-", dir=parent)
        with contextlib.suppress(BlockingIOError, FileNotFoundError):
            made_fd = os.open(made, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(made_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(made_fd).st_ino == os.stat(made).st_ino:
                return made


def main() -> int:
    """Run every probe; print the results as one JSON object."""
    scratch = held(sys.argv[1])
    kinds = {
        "cgroup": syscalls.CLONE_NEWCGROUP,
        "ipc": syscalls.CLONE_NEWIPC,
        "mount": syscalls.CLONE_NEWNS,
        "network": syscalls.CLONE_NEWNET,
        "pid": syscalls.CLONE_NEWPID,
        "user": syscalls.CLONE_NEWUSER,
        "uts": syscalls.CLONE_NEWUTS,
    }
    try:
        if sys.argv[2:] == ["overlay"]:
            sys.stdout.write(json.dumps({"overlay": in_child(lambda: overlay(scratch))}))
            return 0
        results = {f"namespace-{name}": in_child(namespace(flag)) for name, flag in kinds.items()}
        results["id-map"] = in_child(id_map)
        results["idmapped-mount"] = in_child(lambda: idmapped_mount(scratch))
        results["overlay"] = in_child(lambda: overlay(scratch))
        results["links"] = in_child(links)
        results["nftables"] = in_child(packet_filter)
        results["seccomp"] = in_child(seccomp)
        for name, probe in probing.all_of_them(scratch).items():
            results[name] = in_child(probe)
        results["pidfd"] = in_child(lambda: os.close(os.pidfd_open(os.getpid())))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    sys.stdout.write(json.dumps(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
