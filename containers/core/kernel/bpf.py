"""bpf(2), as far as device rules on cgroup v2 need it."""

from __future__ import annotations

import ctypes
import os
from typing import Final

_SYSCALL_NUMBERS: Final = {
    "x86_64": 321,
    "aarch64": 280,
    "riscv64": 280,
    "armv7l": 386,
    "ppc64le": 361,
    "s390x": 351,
}
_BPF_PROG_LOAD: Final = 5
_BPF_PROG_ATTACH: Final = 8
_BPF_PROG_TYPE_CGROUP_DEVICE: Final = 15
_BPF_CGROUP_DEVICE: Final = 6
_BPF_PROG_GET_FD_BY_ID: Final = 13
_BPF_PROG_QUERY: Final = 16
_BPF_F_ALLOW_MULTI: Final = 2
_BPF_F_REPLACE: Final = 4
_PROGRAMS_MAX: Final = 64

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_ulong]


class _LoadAttr(ctypes.Structure):
    """The first fields of union bpf_attr for BPF_PROG_LOAD."""

    _fields_ = [
        ("prog_type", ctypes.c_uint32),
        ("insn_cnt", ctypes.c_uint32),
        ("insns", ctypes.c_uint64),
        ("license", ctypes.c_uint64),
        ("log_level", ctypes.c_uint32),
        ("log_size", ctypes.c_uint32),
        ("log_buf", ctypes.c_uint64),
        ("kern_version", ctypes.c_uint32),
        ("prog_flags", ctypes.c_uint32),
    ]


class _AttachAttr(ctypes.Structure):
    """union bpf_attr for BPF_PROG_ATTACH."""

    _fields_ = [
        ("target_fd", ctypes.c_uint32),
        ("attach_bpf_fd", ctypes.c_uint32),
        ("attach_type", ctypes.c_uint32),
        ("attach_flags", ctypes.c_uint32),
        ("replace_bpf_fd", ctypes.c_uint32),
    ]


class _QueryAttr(ctypes.Structure):
    """The first fields of union bpf_attr for BPF_PROG_QUERY."""

    _fields_ = [
        ("target_fd", ctypes.c_uint32),
        ("attach_type", ctypes.c_uint32),
        ("query_flags", ctypes.c_uint32),
        ("attach_flags", ctypes.c_uint32),
        ("prog_ids", ctypes.c_uint64),
        ("prog_cnt", ctypes.c_uint32),
    ]


class _IdAttr(ctypes.Structure):
    """The first fields of union bpf_attr for BPF_PROG_GET_FD_BY_ID."""

    _fields_ = [("prog_id", ctypes.c_uint32), ("next_id", ctypes.c_uint32), ("open_flags", ctypes.c_uint32)]


def _bpf(command: int, attr: ctypes.Structure, what: str) -> int:
    number = _SYSCALL_NUMBERS.get(os.uname().machine)
    if number is None:
        raise OSError(38, f"bpf(2) has no known number on {os.uname().machine}")
    result: int = _syscall(number, command, ctypes.addressof(attr), ctypes.sizeof(attr))
    if result < 0:
        code = ctypes.get_errno()
        error = OSError(code, os.strerror(code))
        error.add_note(f"bpf({what})")
        raise error
    return result


def load_device_program(instructions: bytes) -> int:
    """Load a BPF_PROG_TYPE_CGROUP_DEVICE program; returns its descriptor, close-on-exec, the caller's to close.

    instructions: 8 bytes each. Raises OSError: EPERM without CAP_BPF, EINVAL where the verifier refuses.
    """
    code = ctypes.create_string_buffer(instructions, len(instructions))
    # bpf_map_* and other GPL-only helpers are not used, so that any licence will do
    licence = ctypes.create_string_buffer(b"none")
    attr = _LoadAttr(
        prog_type=_BPF_PROG_TYPE_CGROUP_DEVICE,
        insn_cnt=len(instructions) // 8,
        insns=ctypes.addressof(code),
        license=ctypes.addressof(licence),
    )
    return _bpf(_BPF_PROG_LOAD, attr, "PROG_LOAD, CGROUP_DEVICE")


def attach_device_program(cgroup_fd: int, program_fd: int) -> None:
    """Attach a device program to a cgroup; it also binds all below, who may add their own, stricter ones.

    The cgroup holds the program: program_fd may be closed afterwards. Borrows both descriptors.
    """
    attr = _AttachAttr(
        target_fd=cgroup_fd,
        attach_bpf_fd=program_fd,
        attach_type=_BPF_CGROUP_DEVICE,
        attach_flags=_BPF_F_ALLOW_MULTI,
    )
    _bpf(_BPF_PROG_ATTACH, attr, "PROG_ATTACH, CGROUP_DEVICE")


def replace_device_program(cgroup_fd: int, program_fd: int) -> None:
    """Put a device program in the place of the one that is attached to a cgroup, at one stroke. Linux 5.6.

    Where none is attached it is attached; where several are, each was meant, and OSError EEXIST says so.
    """
    ids = (ctypes.c_uint32 * _PROGRAMS_MAX)()
    query = _QueryAttr(
        target_fd=cgroup_fd, attach_type=_BPF_CGROUP_DEVICE, prog_ids=ctypes.addressof(ids), prog_cnt=_PROGRAMS_MAX
    )
    _bpf(_BPF_PROG_QUERY, query, "PROG_QUERY, CGROUP_DEVICE")
    if not query.prog_cnt:
        attach_device_program(cgroup_fd, program_fd)
        return
    if query.prog_cnt > 1:
        raise OSError(17, f"{query.prog_cnt} device programs are attached")
    old_fd = _bpf(_BPF_PROG_GET_FD_BY_ID, _IdAttr(prog_id=ids[0]), "PROG_GET_FD_BY_ID")
    try:
        attr = _AttachAttr(
            target_fd=cgroup_fd,
            attach_bpf_fd=program_fd,
            attach_type=_BPF_CGROUP_DEVICE,
            attach_flags=_BPF_F_ALLOW_MULTI | _BPF_F_REPLACE,
            replace_bpf_fd=old_fd,
        )
        _bpf(_BPF_PROG_ATTACH, attr, "PROG_ATTACH, CGROUP_DEVICE, REPLACE")
    finally:
        os.close(old_fd)
