"""The numbers of system calls that are made by number. Sources: arch/x86/entry/syscalls/syscall_64.tbl and, for the
others, include/uapi/asm-generic/unistd.h.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

# the calls newer than 2019 have one number on every architecture
_EVERYWHERE: Final = {
    "open_tree": 428,
    "move_mount": 429,
    "clone3": 435,
    "close_range": 436,
    "mount_setattr": 442,
}
_BY_MACHINE: Final = {
    "x86_64": {
        "read": 0,
        "write": 1,
        "close": 3,
        "mprotect": 10,
        "rt_sigaction": 13,
        "rt_sigprocmask": 14,
        "ioctl": 16,
        "socket": 41,
        "sendmsg": 46,
        "recvmsg": 47,
        "execve": 59,
        "chdir": 80,
        "umask": 95,
        "setsid": 112,
        "setgroups": 116,
        "setresuid": 117,
        "setresgid": 119,
        "setfsuid": 122,
        "capset": 126,
        "personality": 135,
        "pivot_root": 155,
        "prctl": 157,
        "mount": 165,
        "umount2": 166,
        "sethostname": 170,
        "keyctl": 250,
        "openat": 257,
        "mkdirat": 258,
        "symlinkat": 266,
        "fchmod": 91,
        "unshare": 272,
        "dup3": 292,
        "prlimit64": 302,
        "seccomp": 317,
    },
    "aarch64": {
        "read": 63,
        "write": 64,
        "close": 57,
        "mprotect": 226,
        "rt_sigaction": 134,
        "rt_sigprocmask": 135,
        "ioctl": 29,
        "socket": 198,
        "sendmsg": 211,
        "recvmsg": 212,
        "execve": 221,
        "chdir": 49,
        "umask": 166,
        "setsid": 157,
        "setgroups": 159,
        "setresuid": 147,
        "setresgid": 149,
        "setfsuid": 151,
        "capset": 91,
        "personality": 92,
        "pivot_root": 41,
        "prctl": 167,
        "mount": 40,
        "umount2": 39,
        "sethostname": 161,
        "keyctl": 219,
        "openat": 56,
        "mkdirat": 34,
        "symlinkat": 36,
        "fchmod": 52,
        "unshare": 97,
        "dup3": 24,
        "prlimit64": 261,
        "seccomp": 277,
    },
}
MACHINES: Final = tuple(_BY_MACHINE)


def of(machine: str) -> Mapping[str, int]:
    """Return the numbers by name, of a machine as uname(2) calls it. Raises KeyError."""
    return _BY_MACHINE[machine] | _EVERYWHERE


NUMBERS: Final = of(os.uname().machine)
