"""The system calls that Python 3.11 does not offer. ctypes is used in this module and nowhere else.

A wrapper encodes, calls and checks; a failed call is OSError(errno, strerror, path). Constants keep the kernel's
spelling. Calls go through PyDLL, which keeps the interpreter's lock: nobody else may run between clone and exec.
Source: include/uapi/linux/{mount,sched,prctl,close_range}.h, arch/x86/entry/syscalls/syscall_64.tbl.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import os
import struct
import sys
from collections.abc import Iterable, Iterator
from typing import Final

from .numbers import NUMBERS

AT_EMPTY_PATH: Final = 0x1000
AT_FDCWD: Final = -100
AT_SYMLINK_NOFOLLOW: Final = 0x100

CLONE_ARGUMENTS_BYTES: Final = 88
CLONE_ARGUMENT_CGROUP: Final = 80
"""Size of struct clone_args, and where the descriptor of the cgroup stands in it."""
CLONE_CLEAR_SIGHAND: Final = 0x100000000
CLONE_INTO_CGROUP: Final = 0x200000000
CLONE_NEWCGROUP: Final = 0x02000000
CLONE_NEWIPC: Final = 0x08000000
CLONE_NEWNET: Final = 0x40000000
CLONE_NEWNS: Final = 0x00020000
CLONE_NEWPID: Final = 0x20000000
CLONE_NEWTIME: Final = 0x00000080
CLONE_NEWUSER: Final = 0x10000000
CLONE_PARENT: Final = 0x00008000
CLONE_NEWUTS: Final = 0x04000000
CLONE_PIDFD: Final = 0x00001000
CLONE_VM: Final = 0x00000100

CLOSE_RANGE_CLOEXEC: Final = 4

MNT_DETACH: Final = 2
MOUNT_ATTR_IDMAP: Final = 0x00100000
MOVE_MOUNT_F_EMPTY_PATH: Final = 4
OPEN_TREE_CLOEXEC: Final = os.O_CLOEXEC
OPEN_TREE_CLONE: Final = 1

PR_CAPBSET_DROP: Final = 24
PR_CAP_AMBIENT: Final = 47
PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
PR_SET_CHILD_SUBREAPER: Final = 36
PR_SET_DUMPABLE: Final = 4
PR_SET_NAME: Final = 15
PR_SET_NO_NEW_PRIVS: Final = 38
PR_SET_PDEATHSIG: Final = 1

_CAPABILITY_VERSION: Final = 0x20080522
_KEYCTL_JOIN_SESSION_KEYRING: Final = 1

SFD_CLOEXEC: Final = os.O_CLOEXEC
SFD_NONBLOCK: Final = os.O_NONBLOCK

SECCOMP_SET_MODE_FILTER: Final = 1


# as PyDLL, it keeps the interpreter's lock
_CODE = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)
_LIBC = ctypes.PyDLL(None, use_errno=True)
_syscall = _LIBC.syscall
_syscall.restype = ctypes.c_long
_mount = _LIBC.mount
_mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]
_mount.restype = ctypes.c_int
_umount2 = _LIBC.umount2
_umount2.argtypes = [ctypes.c_char_p, ctypes.c_int]
_umount2.restype = ctypes.c_int
_unshare = _LIBC.unshare
_unshare.argtypes = [ctypes.c_int]
_unshare.restype = ctypes.c_int
_setns = _LIBC.setns
_setns.argtypes = [ctypes.c_int, ctypes.c_int]
_setns.restype = ctypes.c_int
_prctl = _LIBC.prctl
_prctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong]
_prctl.restype = ctypes.c_int
_prctl_text = _LIBC["prctl"]
_prctl_text.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong]
_prctl_text.restype = ctypes.c_int
_sethostname = _LIBC.sethostname
_sethostname.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
_sethostname.restype = ctypes.c_int


_SIG_DFL, _SIG_IGN, _SIG_BLOCK, _SIG_SETMASK = 0, 1, 0, 2
_signal = _LIBC.signal
_signal.argtypes = [ctypes.c_int, ctypes.c_size_t]
_signal.restype = ctypes.c_size_t
_SIGSET_BYTES = 128
_sigprocmask = _LIBC.sigprocmask
_sigprocmask.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p]
_sigprocmask.restype = ctypes.c_int
_signalfd = _LIBC.signalfd
_signalfd.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int]
_signalfd.restype = ctypes.c_int


class _CloneArgs(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_uint64)
        for name in (
            "flags",
            "pidfd",
            "child_tid",
            "parent_tid",
            "exit_signal",
            "stack",
            "stack_size",
            "tls",
            "set_tid",
            "set_tid_size",
            "cgroup",
        )
    ]


class _MountAttr(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd")]


class _SockFprog(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def _check(result: int, path: str | None = None) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return result


def _long(value: int) -> ctypes.c_long:
    return ctypes.c_long(value)


def address_of(memory: mmap.mmap) -> int:
    """Return where a writable mapping begins; it is the caller's to keep."""
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def call_by_number(number: int, *arguments: int) -> int:
    """Make a system call with numbers and addresses; returns its result, -errno where it failed."""
    result = int(_syscall(_long(number), *map(_long, arguments)))
    return -ctypes.get_errno() if result < 0 else result


def clone_arguments(flags: int, *, exit_signal: int = 0) -> bytes:
    """Return struct clone_args with no cgroup yet, for a script."""
    return struct.pack("=11Q", flags, 0, 0, 0, exit_signal, 0, 0, 0, 0, 0, 0)


def run_code(code: int, argument: int) -> None:
    """Call machine code at an address, with one argument."""
    _CODE(code)(argument)


def clone3(flags: int, *, exit_signal: int, cgroup_fd: int | None = None) -> tuple[int, int]:
    """Fork into new namespaces; returns (pid, pidfd) in the parent and (0, -1) in the child.

    flags: CLONE_NEW* bits. cgroup_fd: a cgroup2 directory in which the child is born (Linux 5.7), borrowed.
    The child skips CPython's after-fork hooks: the caller must be single-threaded, and the child may only make
    system calls and exec. The caller owns the pidfd, which is close-on-exec.
    """
    pidfd = ctypes.c_int(-1)
    args = _CloneArgs(flags=flags | CLONE_PIDFD, pidfd=ctypes.addressof(pidfd), exit_signal=exit_signal)
    if cgroup_fd is not None:
        args.flags |= CLONE_INTO_CGROUP
        args.cgroup = cgroup_fd
    pid = _check(_syscall(_long(NUMBERS["clone3"]), ctypes.byref(args), ctypes.c_size_t(ctypes.sizeof(args))))
    return pid, pidfd.value if pid else -1


def set_thread_effective_ids(uid: int, gid: int) -> None:
    """Set the effective ids of this thread alone, root's to come back to: libc would change every thread's.

    Files, cgroups among them, stay root's to open. The order keeps the right to do the second while the first is done.
    Sources: nptl(7), "Nonconformances"; setfsuid(2).
    """
    keep = _long(-1)
    for name, number in (("setresgid", gid), ("setresuid", uid)) if uid else (("setresuid", uid), ("setresgid", gid)):
        _check(_syscall(_long(NUMBERS[name]), keep, _long(number), _long(0)))
    if uid:
        _syscall(_long(NUMBERS["setfsuid"]), _long(0))


def unshare(flags: int) -> None:
    """Leave the namespaces named by CLONE_NEW* bits for new ones."""
    _check(_unshare(flags))


def setns(fd: int, flags: int) -> None:
    """Enter the namespace (or, for a pidfd, the namespaces of flags) that fd refers to; borrows fd."""
    _check(_setns(fd, flags))


def mount(source: str | None, target: str, fstype: str | None, flags: int, data: str | None = None) -> None:
    """mount(2); the error names the target."""
    encoded = [None if part is None else os.fsencode(part) for part in (source, target, fstype, data)]
    _check(_mount(encoded[0], encoded[1], encoded[2], flags, encoded[3]), target)


def umount(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    _check(_umount2(os.fsencode(target), flags), target)


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2); with "." twice the old root lies over the new one, to be detached."""
    _check(_syscall(_long(NUMBERS["pivot_root"]), os.fsencode(new_root), os.fsencode(put_old)), new_root)


def open_tree(path: str, *, recursive: bool = False) -> int:
    """Return a detached copy of the mount at path (close-on-exec; the caller owns it). Needs Linux 5.2."""
    flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_SYMLINK_NOFOLLOW | (0x8000 if recursive else 0)
    return _check(
        _syscall(_long(NUMBERS["open_tree"]), ctypes.c_int(AT_FDCWD), os.fsencode(path), ctypes.c_uint(flags)), path
    )


def set_mount_idmap(mount_fd: int, userns_fd: int) -> None:
    """Translate the ids of a detached mount by a user namespace's map. Needs Linux 5.12; borrows both."""
    attr = _MountAttr(attr_set=MOUNT_ATTR_IDMAP, userns_fd=userns_fd)
    _check(
        _syscall(
            _long(NUMBERS["mount_setattr"]),
            ctypes.c_int(mount_fd),
            b"",
            ctypes.c_uint(AT_EMPTY_PATH),
            ctypes.byref(attr),
            ctypes.c_size_t(ctypes.sizeof(attr)),
        )
    )


def move_mount(mount_fd: int, target: str) -> None:
    """Attach a detached mount at target; borrows mount_fd."""
    _check(
        _syscall(
            _long(NUMBERS["move_mount"]),
            ctypes.c_int(mount_fd),
            b"",
            ctypes.c_int(AT_FDCWD),
            os.fsencode(target),
            ctypes.c_uint(MOVE_MOUNT_F_EMPTY_PATH),
        ),
        target,
    )


def prctl(option: int, first: int = 0, second: int = 0) -> int:
    """prctl(2) with up to two numbers; the rest is 0."""
    return _check(_prctl(option, first, second, 0, 0))


def personality(persona: int) -> None:
    """Set the execution domain of this process (personality(2))."""
    _check(_LIBC.personality(ctypes.c_ulong(persona)))


def new_session_keyring() -> None:
    """Give this process an empty session keyring instead of the one that it inherited (keyctl(2))."""
    number = _long(NUMBERS["keyctl"])
    _check(_syscall(number, ctypes.c_int(_KEYCTL_JOIN_SESSION_KEYRING), None, _long(0), _long(0), _long(0)))


def signal_fd(numbers: Iterable[int]) -> int:
    """Return a non-blocking, close-on-exec descriptor that is readable when one of the signals 1..64 is pending.

    The signals must be blocked; a blocked one is kept even where it is ignored (signal(7)). The caller owns it.
    """
    # sigset_t of glibc and musl: 1024 bits, of which the kernel looks at 64
    mask = ctypes.create_string_buffer(128)
    struct.pack_into("=Q", mask, 0, sum(1 << (number - 1) for number in numbers))
    return _check(_signalfd(-1, mask, SFD_CLOEXEC | SFD_NONBLOCK))


def dispose_signals(*, ignored: Iterable[int] = (), default: Iterable[int] = ()) -> None:
    """Ignore signals, and give others their default, without telling the signal module: for a process just forked.

    That module's own functions make members of enumerations of everything, which touches many pages after a fork.
    """
    for number in ignored:
        _signal(number, _SIG_IGN)
    for number in default:
        _signal(number, _SIG_DFL)


def block_signal(number: int) -> None:
    """Block a signal, beside those that are blocked. See dispose_signals() for why not by the signal module."""
    _check(_sigprocmask(_SIG_BLOCK, (1 << number - 1).to_bytes(_SIGSET_BYTES, sys.byteorder), None))


def unblock_signals() -> None:
    """Let every signal come. See dispose_signals() for why not by the signal module."""
    _check(_sigprocmask(_SIG_SETMASK, bytes(_SIGSET_BYTES), None))


def set_process_name(name: str) -> None:
    """Set what ps shows in the comm column, 15 bytes at most."""
    _check(_prctl_text(PR_SET_NAME, name.encode()[:15], 0, 0, 0))


def sethostname(name: str) -> None:
    """Set the host name of this UTS namespace."""
    encoded = os.fsencode(name)
    _check(_sethostname(encoded, len(encoded)))


def close_range(first_fd: int, flags: int = 0) -> None:
    """Close every descriptor from first_fd on, or mark it close-on-exec with CLOSE_RANGE_CLOEXEC. Linux 5.9."""
    _check(
        _syscall(
            _long(NUMBERS["close_range"]), ctypes.c_uint(first_fd), ctypes.c_uint(0xFFFFFFFF), ctypes.c_uint(flags)
        )
    )


def set_capabilities(permitted: int, *, effective: int | None = None, inheritable: int = 0) -> None:
    """Set this thread's capability sets from bit masks; effective None means all that are permitted."""
    header, sets = capability_sets(permitted, effective=effective, inheritable=inheritable)
    _check(_syscall(_long(NUMBERS["capset"]), header, sets))


def capability_sets(permitted: int, *, effective: int | None = None, inheritable: int = 0) -> tuple[bytes, bytes]:
    """Return header and data of capset(2) for this thread, as set_capabilities() has them."""
    every = (permitted if effective is None else effective, permitted, inheritable)
    halves = (one >> shift & 0xFFFFFFFF for shift in (0, 32) for one in every)
    return struct.pack("=Ii", _CAPABILITY_VERSION, 0), struct.pack("=6I", *halves)


def pack_filters(programs: Iterable[bytes]) -> bytes:
    """Join BPF programs of struct sock_filter (8 bytes each) for load_seccomp."""
    return b"".join(struct.pack("=I", len(program)) + program for program in programs)


def filters_of(packed: bytes) -> Iterator[bytes]:
    """Return the programs that pack_filters joined."""
    while packed:
        (size,) = struct.unpack_from("=I", packed)
        yield packed[4 : 4 + size]
        packed = packed[4 + size :]


def load_seccomp(packed: bytes) -> None:
    """Install what pack_filters joined; needs CAP_SYS_ADMIN in the user namespace, or no_new_privs."""
    for one in filters_of(packed):
        buffer = ctypes.create_string_buffer(one, len(one))
        program = _SockFprog(length=len(one) // 8, filter=ctypes.addressof(buffer))
        number = _long(NUMBERS["seccomp"])
        _check(_syscall(number, ctypes.c_uint(SECCOMP_SET_MODE_FILTER), ctypes.c_uint(0), ctypes.byref(program)))


@functools.cache
def argument_area() -> tuple[int, int]:
    """Return where this process's arguments begin and end in memory, which is the same in all that it forks."""
    with open("/proc/self/stat", encoding="ascii", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
    # fields[0] is field 3 of proc(5): arg_start and arg_end are fields 48 and 49
    return int(fields[45]), int(fields[46])


def overwrite_cmdline(title: bytes) -> None:
    """Write what ps shows as this process's command line over its arguments in memory, and over nothing else.

    What does not fit is cut off: whoever starts the process makes room by a long argument (start_plan.TITLE_ROOM).
    Source: kernel fs/proc/base.c, get_mm_cmdline.
    """
    start, end = argument_area()
    size = end - start
    text = title[: size - 1].ljust(size, b"\0")
    if text.endswith(b"\0\0"):
        # an argument area that does not end in NUL is shown up to its first NUL: no tail of empty arguments
        text = text[:-1] + b"\1"
    ctypes.memmove(start, text, size)
