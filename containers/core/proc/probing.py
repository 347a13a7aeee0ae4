"""What a container can do without, tried like the rest (core.proc.probe): each function raises OSError where it fails.

The list is that of lxc-checkconfig(1); what is required of a host is tried in core.proc.probe.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from containers.core.errors import CoreError
from containers.core.kernel import bpf, mount_api, syscalls
from containers.core.model.limits import DISK_MIN_BYTES
from containers.core.plans import devices
from containers.core.plans.mount_flags import MS_PRIVATE, MS_REC

_NEWLINK: Final = 16
_CREATE_EXCL_ACK: Final = 0x605
_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_DUMP: Final = 0x301
_FAMILIES: Final = {
    # struct inet_diag_req_v2 begins with family and protocol; the others' requests are a family and what to show
    "inet-diag": struct.pack("=BBBxI48x", socket.AF_INET, socket.IPPROTO_TCP, 0, 0xFFFFFFFF),
    "unix-diag": struct.pack("=BxHIIIII", socket.AF_UNIX, 0, 0xFFFFFFFF, 0, 1, 0, 0),
    "packet-diag": struct.pack("=BBHIIII", socket.AF_PACKET, 0, 0, 0, 1, 0, 0),
    "netlink-diag": struct.pack("=BBHIIII", socket.AF_NETLINK, 255, 0, 0, 1, 0, 0),
}
"""Source: include/uapi/linux/{inet,unix,packet,netlink}_diag.h."""
_VFS_CAP_REVISION_2: Final = 0x02000000


def time_namespace() -> None:
    """Make a time namespace with an offset, and enter it."""
    syscalls.unshare(syscalls.CLONE_NEWTIME)
    with open("/proc/self/timens_offsets", "w", encoding="ascii") as file:
        file.write("boottime 60 0\n")
    fd = os.open("/proc/self/ns/time_for_children", os.O_RDONLY)
    syscalls.setns(fd, syscalls.CLONE_NEWTIME)


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _add_link(name: str, kind: str, *, parent: int = 0, data: bytes = b"") -> None:
    info = _attribute(1, kind.encode()) + (_attribute(2, data) if data else b"")
    message = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, 0, 0, 0) + _attribute(3, name.encode() + b"\0")
    message += _attribute(5, struct.pack("=I", parent)) if parent else b""
    message += _attribute(18, info)
    header = struct.pack("=IHHII", 16 + len(message), _NEWLINK, _CREATE_EXCL_ACK, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as netlink:
        netlink.send(header + message)
        number = -struct.unpack_from("=i", netlink.recv(65536), 16)[0]
    if number:
        raise OSError(number, f"{kind}: {os.strerror(number)}")


def link_on_card(kind: str, data: bytes = b"") -> Callable[[], None]:
    """Return a probe that makes a link of a kind on another link, in a scratch network namespace."""

    def probe() -> None:
        syscalls.unshare(syscalls.CLONE_NEWNET)
        _add_link("probe0", "veth")
        _add_link("probe1", kind, parent=socket.if_nametoindex("probe0"), data=data)

    return probe


def vlan_data(number: int) -> bytes:
    """Return what a vlan link is made of: IFLA_VLAN_ID."""
    return _attribute(1, struct.pack("=H", number))


def _mount(kind: str, options: str | None, directory: str) -> None:
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount(None, "/", None, MS_REC | MS_PRIVATE)
    syscalls.mount(kind, directory, kind, 0, options)


def own_terminals(directory: str) -> None:
    """Mount a devpts of one's own, and open a terminal of it."""
    os.makedirs(directory, exist_ok=True)
    _mount("devpts", "newinstance,ptmxmode=0666,max=2", directory)
    os.close(os.open(f"{directory}/ptmx", os.O_RDWR | os.O_NOCTTY))
    if os.stat(directory).st_dev == os.stat("/dev/pts").st_dev:
        raise OSError("it is the host's own")


def message_queues(directory: str) -> None:
    """Mount message queues of one's own."""
    os.makedirs(directory, exist_ok=True)
    syscalls.unshare(syscalls.CLONE_NEWIPC)
    _mount("mqueue", None, directory)


def fuse() -> None:
    """Open the device of file systems in user space."""
    os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))


def key_rings() -> None:
    """Begin a session keyring."""
    syscalls.new_session_keyring()


def diagnosis(name: str) -> Callable[[], None]:
    """Return a probe that asks for a list of sockets, as ss(8) does."""

    def probe() -> None:
        body = _FAMILIES[name]
        header = struct.pack("=IHHII", 16 + len(body), _SOCK_DIAG_BY_FAMILY, _DUMP, 1, 0)
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as netlink:
            netlink.send(header + body)
            answer = netlink.recv(65536)
        kind = struct.unpack_from("=H", answer, 4)[0]
        if kind == 2 and (number := -struct.unpack_from("=i", answer, 16)[0]):
            raise OSError(number, os.strerror(number))

    return probe


def file_handles(directory: str) -> None:
    """Ask for a file's handle (name_to_handle_at)."""
    handle = ctypes.create_string_buffer(struct.pack("=Ii", 128, 0) + bytes(128))
    mount_id = ctypes.c_int()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.name_to_handle_at(-100, os.fsencode(directory), handle, ctypes.byref(mount_id), 0):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def file_capabilities(directory: str) -> None:
    """Give a file a capability."""
    path = os.path.join(directory, "program")
    with open(path, "w", encoding="ascii"):
        pass
    os.setxattr(path, "security.capability", struct.pack("=IIIII", _VFS_CAP_REVISION_2, 1 << 10, 0, 0, 0))
    os.unlink(path)


def event_files() -> None:
    """Make an eventfd, a signalfd, an inotify and an epoll descriptor."""
    import select

    os.close(os.eventfd(0))
    os.close(syscalls.signal_fd({12}))
    select.epoll().close()
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.inotify_init1(0)
    if fd < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"inotify: {os.strerror(number)}")
    os.close(fd)


def device_programs() -> None:
    """Load a program that rules over devices, as cgroup v2 has them."""
    os.close(bpf.load_device_program(devices.v2_program()))


def paths_beneath() -> None:
    """Open a path that may not lead out (openat2)."""
    root_fd = os.open("/", os.O_PATH | os.O_DIRECTORY)
    os.close(mount_api.open_path(root_fd, "proc", mount_api.RESOLVE_IN_ROOT))


def programs_of_32_bits() -> None:
    """Make a call of i386's, which a 64-bit process can make where programs of 32 bits run."""
    if os.uname().machine != "x86_64":
        return
    import mmap

    code = b"\xb8\x14\x00\x00\x00\xcd\x80\xc3"  # mov eax, 20 (getpid); int 0x80; ret
    memory = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    if ctypes.CFUNCTYPE(ctypes.c_int)(address)() != os.getpid():
        raise OSError("they do not")


def _disk(scratch: str) -> Path:
    from containers.core.storage import disks

    place = Path(tempfile.mkdtemp(dir=scratch)) / disks.NAME
    try:
        disks.make(place, disks.Size(size_bytes=DISK_MIN_BYTES))
        with disks.opened(place) as top:
            (top / "rootfs").mkdir()
    except CoreError as error:
        raise OSError(error.message) from error
    return place


def disk_limits(scratch: str) -> None:
    """Make a file with a file system in it, and mount it."""
    _disk(scratch)


def disk_growth(scratch: str) -> None:
    """Make one larger while it is mounted."""
    from containers.core.storage import disks

    disk = _disk(scratch)
    with disks.opened(disk):
        if not disks.grow(disk, disks.Size(size_bytes=2 * DISK_MIN_BYTES)):
            raise OSError("root has no CAP_SYS_RESOURCE here")


def all_of_them(scratch: str) -> dict[str, Callable[[], None]]:
    """Return the probes by name. scratch: a directory on the state directory's file system."""
    inner = os.path.join(scratch, "inner")
    with contextlib.suppress(FileExistsError):
        os.mkdir(inner, 0o755)
    return {
        "namespace-time": time_namespace,
        "link-macvlan": link_on_card("macvlan"),
        "link-ipvlan": link_on_card("ipvlan"),
        "link-vlan": link_on_card("vlan", vlan_data(7)),
        "devpts": lambda: own_terminals(inner),
        "mqueue": lambda: message_queues(inner),
        "fuse": fuse,
        "keyrings": key_rings,
        **{name: diagnosis(name) for name in _FAMILIES},
        "file-handles": lambda: file_handles(scratch),
        "file-capabilities": lambda: file_capabilities(scratch),
        "event-files": event_files,
        "device-programs": device_programs,
        "openat2": paths_beneath,
        "disk-limits": lambda: disk_limits(scratch),
        "disk-growth": lambda: disk_growth(scratch),
        "ia32": programs_of_32_bits,
    }
