"""The kernel's mount calls that work by descriptor: what was checked cannot become something else before it is mounted.

Descriptors are close-on-exec and the caller's. A failed call is OSError(errno, strerror, path).
Source: include/uapi/linux/{mount,openat2,stat}.h, openat2(2), open_tree(2), move_mount(2), mount_setattr(2).
"""

from __future__ import annotations

import ctypes
import os
from typing import Final

from ..plans.mount_flags import MS_PRIVATE, MS_SLAVE
from .syscalls import AT_EMPTY_PATH, AT_FDCWD, MOUNT_ATTR_IDMAP, MOVE_MOUNT_F_EMPTY_PATH, OPEN_TREE_CLONE

RESOLVE_NO_XDEV: Final = 0x01
RESOLVE_NO_MAGICLINKS: Final = 0x02
RESOLVE_NO_SYMLINKS: Final = 0x04
RESOLVE_BENEATH: Final = 0x08
RESOLVE_IN_ROOT: Final = 0x10

UMOUNT_NOFOLLOW: Final = 8
TMPFS: Final = 0x01021994
"""A kind of file system, as file_system() tells it. Source: include/uapi/linux/magic.h."""
OF_THE_KERNEL: Final = frozenset({0x9FA0, 0x62656572, 0x27E0EB, 0x63677270})
"""procfs, sysfs and both versions of cgroupfs. Source: include/uapi/linux/magic.h."""

_AT_RECURSIVE: Final = 0x8000
_AT_STATX_DONT_SYNC: Final = 0x4000
_MOUNT_ATTR_RDONLY: Final = 1
_MOUNT_ATTR_NOSUID: Final = 2
_MOUNT_ATTR_NODEV: Final = 4
_MOVE_MOUNT_T_EMPTY_PATH: Final = 0x40
_STATX_MNT_ID: Final = 0x1000
_STATX_BYTES: Final = 256
_STX_MNT_ID_AT: Final = 0x90
_FSCONFIG_SET_FLAG: Final = 0
_FSCONFIG_SET_STRING: Final = 1
_FSCONFIG_CMD_CREATE: Final = 6
_CLOEXEC: Final = 1
"""FSOPEN_CLOEXEC and FSMOUNT_CLOEXEC."""
_RENAME_NOREPLACE: Final = 1
_RENAME_EXCHANGE: Final = 2

_SYS_STATX: Final = {"x86_64": 332, "aarch64": 291}[os.uname().machine]
_SYS_RENAMEAT2: Final = {"x86_64": 316, "aarch64": 276}[os.uname().machine]
_SYS_OPEN_TREE: Final = 428
_SYS_MOVE_MOUNT: Final = 429
_SYS_FSOPEN: Final = 430
_SYS_FSCONFIG: Final = 431
_SYS_FSMOUNT: Final = 432
_SYS_OPENAT2: Final = 437
_SYS_MOUNT_SETATTR: Final = 442

_STATFS_BYTES: Final = 256

_libc = ctypes.PyDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long


class _OpenHow(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("flags", "mode", "resolve")]


class _MountAttr(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd")]


def _call(number: int, *arguments: object, path: str | None = None) -> int:
    result: int = _syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), path)
    return result


def open_path(directory_fd: int | None, path: str, resolve: int) -> int:
    """Open a place without opening what is there (O_PATH). resolve: RESOLVE_* bits. Linux 5.6.

    directory_fd: where a relative path begins; None only for an absolute path. Raises OSError: ELOOP for a forbidden
    link, EXDEV for a path that would lead out.
    """
    how = _OpenHow(flags=os.O_PATH | os.O_CLOEXEC, resolve=resolve)
    size = ctypes.c_size_t(ctypes.sizeof(how))
    start = ctypes.c_int(AT_FDCWD if directory_fd is None else directory_fd)
    return _call(_SYS_OPENAT2, start, os.fsencode(path), ctypes.byref(how), size, path=path)


def copy_mount(place_fd: int, *, recursive: bool = False) -> int:
    """Return a detached copy of the mount at an open place, whose root that place is."""
    flags = OPEN_TREE_CLONE | os.O_CLOEXEC | AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    return _call(_SYS_OPEN_TREE, ctypes.c_int(place_fd), b"", ctypes.c_uint(flags))


def restrict(mount_fd: int, *, read_only: bool, receives: bool, userns_fd: int | None, nodev: bool = True) -> None:
    """Set what a detached mount, and all mounts in it, may do: no set-uid, no devices. Linux 5.12.

    receives: mounts made on the host later, in a place that the host shares, appear in it; never the other way round.
    userns_fd: the ids on disk are that user namespace's, None: the host's. Raises OSError EINVAL where the file system
    knows no id maps.
    """
    attributes = _MOUNT_ATTR_NOSUID | (_MOUNT_ATTR_NODEV if nodev else 0) | (_MOUNT_ATTR_RDONLY if read_only else 0)
    attr = _MountAttr(attr_set=attributes, propagation=MS_SLAVE if receives else MS_PRIVATE)
    if userns_fd is not None:
        attr.attr_set |= MOUNT_ATTR_IDMAP
        attr.userns_fd = userns_fd
    flags = ctypes.c_uint(AT_EMPTY_PATH | _AT_RECURSIVE)
    size = ctypes.c_size_t(ctypes.sizeof(attr))
    _call(_SYS_MOUNT_SETATTR, ctypes.c_int(mount_fd), b"", flags, ctypes.byref(attr), size)


def attach(mount_fd: int, place_fd: int) -> None:
    """Attach a detached mount at an open place, which must be of the same kind: directory on directory."""
    flags = ctypes.c_uint(MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_EMPTY_PATH)
    _call(_SYS_MOVE_MOUNT, ctypes.c_int(mount_fd), b"", ctypes.c_int(place_fd), b"", flags)


def new_mount(fstype: str, source: str, flags: tuple[str, ...] = ()) -> int:
    """Return a detached mount of a file system, with options that are flags; no directory shows it. Linux 5.2.

    It is gone as soon as nobody has it any more. Where source is mounted already it is the same file system again, and
    its options stay. The error names source.
    """
    context_fd = _call(_SYS_FSOPEN, os.fsencode(fstype), ctypes.c_uint(_CLOEXEC), path=fstype)
    try:

        def configure(command: int, key: bytes | None = None, value: bytes | None = None) -> None:
            number = ctypes.c_int(context_fd), ctypes.c_uint(command)
            _call(_SYS_FSCONFIG, *number, key, value, ctypes.c_int(0), path=source)

        configure(_FSCONFIG_SET_STRING, b"source", os.fsencode(source))
        for flag in flags:
            configure(_FSCONFIG_SET_FLAG, flag.encode())
        configure(_FSCONFIG_CMD_CREATE)
        none = ctypes.c_uint(0)
        return _call(_SYS_FSMOUNT, ctypes.c_int(context_fd), ctypes.c_uint(_CLOEXEC), none, path=source)
    finally:
        os.close(context_fd)


def mount_id(fd: int) -> int:
    """Return the id, as in /proc/PID/mountinfo, of the mount that an open place is in. Linux 5.8."""
    buffer = ctypes.create_string_buffer(_STATX_BYTES)
    flags = ctypes.c_int(AT_EMPTY_PATH | _AT_STATX_DONT_SYNC)
    _call(_SYS_STATX, ctypes.c_int(fd), b"", flags, ctypes.c_uint(_STATX_MNT_ID), buffer)
    return int.from_bytes(buffer.raw[_STX_MNT_ID_AT : _STX_MNT_ID_AT + 8], "little")


def rename_to_free(old_fd: int, old: str, new_fd: int, new: str) -> None:
    """Rename within one file system, by open directories, and replace nothing: FileExistsError. See renameat2(2)."""
    names = ctypes.c_int(old_fd), os.fsencode(old), ctypes.c_int(new_fd), os.fsencode(new)
    _call(_SYS_RENAMEAT2, *names, ctypes.c_uint(_RENAME_NOREPLACE), path=old)


def exchange(dir_fd: int, one: str, other: str) -> None:
    """Have two names of an open directory change places, at one stroke. See renameat2(2)."""
    names = ctypes.c_int(dir_fd), os.fsencode(one), ctypes.c_int(dir_fd), os.fsencode(other)
    _call(_SYS_RENAMEAT2, *names, ctypes.c_uint(_RENAME_EXCHANGE), path=other)


def file_system(fd: int) -> int:
    """Return the kind of the file system that an open file lies in, by its magic number. Source: fstatfs(2)."""
    buffer = ctypes.create_string_buffer(_STATFS_BYTES)
    if _libc.fstatfs(ctypes.c_int(fd), buffer):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return int.from_bytes(buffer.raw[: ctypes.sizeof(ctypes.c_long)], "little")
