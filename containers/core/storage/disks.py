"""A layer in a file of a fixed size, with a file system of its own: what holds a container to a size on any disk.

Such a layer is ``layers/ID/disk`` instead of ``layers/ID/rootfs``; in it are ``rootfs`` and ``work``. Only the writable
layer of a container with a limit is one. The file is sparse: on the host it takes what was written, and what is
removed inside is given back (discard). It is never mounted at a place: see core.kernel.disk_mount.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..errors import HostUnsupported, SetupFailed
from ..host import Host
from ..hoststore import pools, store
from ..kernel import disk_mount, files
from ..model.capabilities import NAMES
from ..model.limits import Limits
from ..sentences import say

NAME: Final = "disk"
MAKER: Final = "mkfs.ext4"
CHECKER: Final = "e2fsck"
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_BLOCK_BYTES: Final = 4096
_INODES_SPARE: Final = 24
"""The file system's own first inodes, the directories around the tree, and the files that are kept beside it."""
_MAKE_SEC: Final = 120
_SET_CAPACITY: Final = 0x4C07
"""LOOP_SET_CAPACITY of linux/loop.h: look again how long the file is."""
_RESIZE_FS: Final = 0x40086610
"""EXT4_IOC_RESIZE_FS of linux/ext4.h; of an unsigned 64-bit number of blocks."""
_SUPERBLOCK_AT: Final = 1024
_SUPERBLOCK: Final = struct.Struct("<2I")
"""The beginning of struct ext4_super_block: how many inodes, how many blocks (the lower half: enough for 16 TiB)."""
_STATE_AT: Final = 1024 + 0x3A
_ERRORS: Final = 2
"""EXT4_ERROR_FS of s_state."""
_MENDED: Final = 1 | 2
"""e2fsck(8): errors corrected; the system should be rebooted, which a file system that is not mounted never needs."""
_MEND_SEC: Final = 3600
_SYS_RESOURCE: Final = NAMES.index("sys_resource")


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much a disk may hold. size_bytes: with what its file system needs itself; inodes None: one for 16 KiB."""

    size_bytes: int
    inodes: int | None = None


def wanted(limits: Limits) -> Size | None:
    """Return the disk that limits ask for; None without one."""
    if limits.disk_bytes is None:
        return None
    # a file system has whole blocks
    return Size(size_bytes=limits.disk_bytes // _BLOCK_BYTES * _BLOCK_BYTES, inodes=limits.disk_inodes)


def path(host: Host, layer: str) -> Path:
    """Return where a layer's disk is, if it has one."""
    return host.layers_dir / layer / NAME


def there(host: Host, layer: str) -> bool:
    """Tell whether a layer is a disk."""
    return path(host, layer).is_file()


def source(host: Host, layer: str) -> Path:
    """Return what is mounted for a layer: its tree, or its disk; see disk_mount.layer_mount()."""
    return path(host, layer) if there(host, layer) else store.rootfs(host, layer)


@contextlib.contextmanager
def tree(host: Host, layer: str) -> Iterator[Path]:
    """Yield the tree of a layer; while the block lasts, for this process and its children. Raises SetupFailed."""
    pools.of_layer(host, layer)  # says so where it is not there
    if not there(host, layer):
        yield store.rootfs(host, layer)
        return
    with opened(path(host, layer)) as directory:
        yield directory / disk_mount.TREE


@contextlib.contextmanager
def opened(disk: Path) -> Iterator[Path]:
    """Yield the top directory of a disk's file system. Raises SetupFailed where it cannot be mounted."""
    with contextlib.ExitStack() as mount:
        try:
            top = mount.enter_context(disk_mount.at(str(disk)))
        except OSError as error:
            raise SetupFailed.from_oserror("mount the disk", error) from error
        yield top


def make(disk: Path, size: Size) -> None:
    """Make an empty disk, in a directory of the caller's. Raises StorageFull, SetupFailed, HostUnsupported."""
    program = shutil.which(MAKER, path=_PATH)
    if program is None:
        raise HostUnsupported(
            say("%(program)s is missing: install e2fsprogs.", program=MAKER), feature=MAKER, field="limits.disk_bytes"
        )
    disk_fd = os.open(disk, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        # pages that change while they are written have no checksum that fits
        files.write_in_place(disk_fd)
        os.ftruncate(disk_fd, size.size_bytes)
    except OSError as error:
        raise files.translated(error, "make the disk", disk) from error
    finally:
        os.close(disk_fd)
    # what a configuration file of the host says about file systems of this size does not matter
    form = ["-t", "ext4", "-T", "default", "-b", str(_BLOCK_BYTES), "-I", "256", "-m", "0", "-e", "remount-ro"]
    form += ["-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner=0:0"]
    form += ["-i", "16384"] if size.inodes is None else ["-N", str(size.inodes + _INODES_SPARE)]
    done = subprocess.run(
        [program, "-q", "-F", *form, "--", str(disk)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env={"PATH": _PATH, "LC_ALL": "C"},
        timeout=_MAKE_SEC,
        check=False,
    )
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip()
        if "No space left" in words:
            raise files.full("make the disk", disk)
        raise SetupFailed(
            say("Making a file system failed: %(words)s", words=words), step="make the disk", path=str(disk)
        )


def holds(disk: Path, size: Size) -> bool:
    """Tell whether a disk is of that size, and its file system fills it: a growth may have been cut short."""
    if disk.stat().st_size != size.size_bytes:
        return False
    with open(disk, "rb") as file:
        file.seek(_SUPERBLOCK_AT)
        superblock = file.read(_SUPERBLOCK.size)
    return int(_SUPERBLOCK.unpack(superblock)[1]) == size.size_bytes // _BLOCK_BYTES


def mend(disk: Path) -> bool:
    """Repair a disk on which the kernel has found an error, unless somebody uses it; returns whether that was so.

    Most often the host's own disk was full when something had to be written. Raises SetupFailed where it is damaged
    beyond what e2fsck repairs unasked.
    """
    if not _state(disk) & _ERRORS:
        return False
    with disk_mount.alone(str(disk)) as nobody:
        if not nobody:
            return False
        program = shutil.which(CHECKER, path=_PATH) or CHECKER
        command = [program, "-p", "-f", "--", str(disk)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_MEND_SEC, check=False)
    if done.returncode & ~_MENDED:
        words = done.stdout.decode(errors="replace").strip().rpartition("\n")[2]
        raise SetupFailed(say("The disk is damaged: %(words)s", words=words), step="mend the disk", path=str(disk))
    return True


def _state(disk: Path) -> int:
    with open(disk, "rb") as file:
        file.seek(_STATE_AT)
        return int.from_bytes(file.read(2), "little")


def grow(disk: Path, size: Size) -> bool:
    """Make a disk larger where it is, mounted or not; returns False where that cannot be done in place.

    It holds what it held, whenever the power fails; one that is as large already is left. Raises SetupFailed.
    """
    present = disk.stat().st_size
    if size.size_bytes < present or not may_grow():
        return False
    with opened(disk) as directory:
        with open(disk, "r+b") as file:
            file.truncate(size.size_bytes)
        device = disk_mount.device_of(str(disk))
        try:
            if device is not None:
                _ioctl(device, _SET_CAPACITY, 0)
            _ioctl(str(directory), _RESIZE_FS, struct.pack("=Q", size.size_bytes // _BLOCK_BYTES))
        except OSError as error:
            raise SetupFailed.from_oserror("make the disk larger", error) from error
    return True


def _ioctl(path: str, number: int, argument: int | bytes) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, number, argument)
    except OSError as error:
        error.filename = path
        raise
    finally:
        os.close(fd)


def may_grow() -> bool:
    """Tell whether this process may have the kernel resize a mounted file system: not everywhere root may."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> _SYS_RESOURCE & 1)
    return False
