"""A file with a file system in it, mounted without a place: loop devices that nobody has to take away.

A mount is a descriptor. Whoever has it, or a mount namespace that it was attached in, keeps it; when the last of them
is gone, by whatever death, the kernel unmounts the file system and frees the loop device (LO_FLAGS_AUTOCLEAR). One file
never has two loop devices, which would be two file systems that know nothing of each other: they are made under a lock
on the file's directory, and who comes later mounts the one that is there.
Source: include/uapi/linux/loop.h, loop(4).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from . import mount_api, syscalls

TREE: Final = "rootfs"
"""Where a layer's tree is in its disk; overlay's scratch space is beside it."""
OPTIONS: Final = ("discard", "noinit_itable")
"""What is removed inside is free on the host; what was never used is never written."""
_FSTYPE: Final = "ext4"
_PATIENCE_SEC: Final = 30.0
"""A file system that is being unmounted, or a loop device that somebody else was faster to get: both are passing."""
_LOOK_SEC: Final = 0.01
_LOOP_CONFIGURE: Final = 0x4C0A
_LOOP_CTL_GET_FREE: Final = 0x4C82
_LOOP_GET_STATUS64: Final = 0x4C05
_AUTOCLEAR: Final = 4
_DIRECT_IO: Final = 16
"""Else the host would keep every page a second time; left out by the kernel where the file system has it not."""
_BLOCK_BYTES: Final = 4096
_INFO: Final = struct.Struct("=5Q4I64s64s32s2Q")
"""struct loop_info64: device, inode, rdevice, offset, sizelimit; number, encrypt type, key size, flags; names, key."""


def mounted(path: str) -> int:
    """Return a detached mount of the file system in a file; the caller owns it. Its owners are those on the disk.

    It can be written to; mount_api.restrict() takes that away. Raises OSError naming the file or its loop device.
    """
    deadline = time.monotonic() + _PATIENCE_SEC
    while True:
        try:
            device_fd, device = _device(path)
            try:
                return mount_api.new_mount(_FSTYPE, device, OPTIONS)
            finally:
                os.close(device_fd)
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.ENXIO) or time.monotonic() > deadline:
                raise
        time.sleep(_LOOK_SEC)


@contextlib.contextmanager
def at(path: str) -> Iterator[Path]:
    """Yield the top directory of the file system in a file, for this process and its children. Raises OSError."""
    mount_fd = mounted(path)
    try:
        # not /proc/self: programs that are started look at it, too
        yield Path(f"/proc/{os.getpid()}/fd/{mount_fd}")
    finally:
        os.close(mount_fd)


def layer_mount(path: str) -> tuple[int, str]:
    """Return a detached mount of a layer, and where in it the tree is. path: the tree itself, or a disk."""
    if os.path.isdir(path):
        return syscalls.open_tree(path), "."
    return mounted(path), TREE


def device_of(path: str) -> str | None:
    """Return the loop device that a file is behind now, such as /dev/loop3; None where there is none."""
    try:
        device_fd, device = _existing(path, os.stat(path))
    except FileNotFoundError:
        return None
    os.close(device_fd)
    return device


@contextlib.contextmanager
def alone(path: str) -> Iterator[bool]:
    """Keep everybody from mounting a disk anew; yields whether nobody has it mounted now."""
    with _locked(path):
        yield device_of(path) is None


@contextlib.contextmanager
def _locked(path: str) -> Iterator[None]:
    directory_fd = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(directory_fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory_fd)


def _device(path: str) -> tuple[int, str]:
    """Return the open loop device of a file, and its name; as long as it is open it stays."""
    with _locked(path):
        disk_fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            return _existing(path, os.fstat(disk_fd))
        except FileNotFoundError:
            return _new(disk_fd)
        finally:
            os.close(disk_fd)


def _existing(path: str, status: os.stat_result) -> tuple[int, str]:
    """Open the loop device that a file is behind; raises FileNotFoundError."""
    last_names = path.split("/")[-2:]
    for name in os.listdir("/sys/block"):
        if not name.startswith("loop"):
            continue
        try:
            with open(f"/sys/block/{name}/loop/backing_file", encoding="utf-8", errors="surrogateescape") as file:
                # as somebody else sees it: its directory may have another name by now
                if file.read().rstrip("\n").split("/")[-1] != last_names[-1]:
                    continue
            device_fd = os.open(f"/dev/{name}", os.O_RDWR | os.O_CLOEXEC)
        except OSError:  # it was freed meanwhile
            continue
        if _backing(device_fd) == (status.st_dev, status.st_ino):
            return device_fd, f"/dev/{name}"
        os.close(device_fd)
    raise FileNotFoundError(errno.ENOENT, "No loop device has it", path)


def _backing(device_fd: int) -> tuple[int, int] | None:
    """Return the device and the inode of the file behind a loop device; None where it has none any more."""
    try:
        answer = fcntl.ioctl(device_fd, _LOOP_GET_STATUS64, bytes(_INFO.size))
    except OSError:
        return None
    device, inode = _INFO.unpack(answer)[:2]
    return device, inode


def _new(disk_fd: int) -> tuple[int, str]:
    """Put a file behind a loop device that is free; raises OSError EBUSY where somebody else was faster."""
    control_fd = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        device = f"/dev/loop{fcntl.ioctl(control_fd, _LOOP_CTL_GET_FREE)}"
    finally:
        os.close(control_fd)
    device_fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    try:
        info = _INFO.pack(0, 0, 0, 0, 0, 0, 0, 0, _AUTOCLEAR | _DIRECT_IO, b"", b"", b"", 0, 0)
        config = struct.pack("=2I", disk_fd, _BLOCK_BYTES) + info + bytes(64)
        fcntl.ioctl(device_fd, _LOOP_CONFIGURE, config)
    except OSError as error:
        os.close(device_fd)
        error.filename = device
        raise
    return device_fd, device
