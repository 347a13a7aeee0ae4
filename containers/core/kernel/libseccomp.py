"""The few functions of libseccomp 2.5 that make a filter. Beside core.kernel.syscalls the only module that uses ctypes.

It is loaded in a short-lived process only, so it stands apart. Source: seccomp.h of libseccomp 2.5.
"""

from __future__ import annotations

import ctypes
import os
from typing import Final, Self

ACT_ALLOW: Final = 0x7FFF0000
ARCH_AARCH64: Final = 0xC00000B7
ARCH_ARM: Final = 0x40000028
ARCH_X86: Final = 0x40000003
ARCH_X86_64: Final = 0xC000003E
_ARCH_NATIVE: Final = 0
CMP_EQ: Final = 4
CMP_MASKED_EQ: Final = 7
_ATTRIBUTE_BAD_ARCHITECTURE: Final = 2
_ATTRIBUTE_OPTIMIZE: Final = 8
_NR_ERROR: Final = -1


def act_errno(number: int) -> int:
    """Return the action "fail with this errno"."""
    return 0x00050000 | number & 0xFFFF


class _Compare(ctypes.Structure):
    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


class Filter:
    """A filter under construction; a context manager that frees it. Raises OSError where the library is missing."""

    def __init__(self, default_action: int) -> None:
        self.default_action = default_action
        self._lib = ctypes.CDLL("libseccomp.so.2", use_errno=True)
        self._lib.seccomp_init.argtypes = [ctypes.c_uint32]
        self._lib.seccomp_init.restype = ctypes.c_void_p
        self._lib.seccomp_release.argtypes = [ctypes.c_void_p]
        self._lib.seccomp_release.restype = None
        self._lib.seccomp_arch_add.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
        self._lib.seccomp_arch_remove.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
        self._lib.seccomp_merge.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
        self._lib.seccomp_attr_set.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32]
        self._lib.seccomp_syscall_resolve_name.argtypes = [ctypes.c_char_p]
        self._lib.seccomp_rule_add_array.argtypes = [
            ctypes.c_void_p,
            ctypes.c_uint32,
            ctypes.c_int,
            ctypes.c_uint,
            ctypes.POINTER(_Compare),
        ]
        self._lib.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
        self._context = self._lib.seccomp_init(default_action)
        if not self._context:
            raise OSError(22, "seccomp_init failed")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._context:
            self._lib.seccomp_release(self._context)

    def add_architecture(self, token: int) -> None:
        """Filter calls of one more architecture by the same rules."""
        self._check(self._lib.seccomp_arch_add(self._context, token), f"seccomp_arch_add({token:#x})")

    def only_architecture(self, token: int) -> None:
        """Filter calls of this architecture and of no other; call it before there is a rule."""
        if token == self._native():
            return
        self.add_architecture(token)
        self._check(self._lib.seccomp_arch_remove(self._context, _ARCH_NATIVE), "seccomp_arch_remove")

    def _native(self) -> int:
        return int(ctypes.c_uint32(self._lib.seccomp_arch_native()).value)

    def merge(self, other: Filter) -> None:
        """Take over another filter's architectures and rules; both have the same attributes, and the other is gone."""
        self._check(self._lib.seccomp_merge(self._context, other._context), "seccomp_merge")
        other._context = None

    def optimize(self) -> None:
        """Order the program as a binary tree: a call costs the logarithm of the number of rules."""
        self._set(_ATTRIBUTE_OPTIMIZE, 2)

    def set_foreign_action(self, action: int) -> None:
        """Set what calls of an architecture get that was not added; the library's default kills."""
        self._set(_ATTRIBUTE_BAD_ARCHITECTURE, action)

    def _set(self, attribute: int, value: int) -> None:
        self._check(self._lib.seccomp_attr_set(self._context, attribute, value), f"seccomp_attr_set({attribute})")

    def add(self, action: int, name: str, *comparisons: tuple[int, int, int, int]) -> bool:
        """Add a rule for a call; comparisons: (argument, operator, a, b), all of which must hold.

        Returns False where this library knows no such call.
        """
        number = self._lib.seccomp_syscall_resolve_name(name.encode())
        if number == _NR_ERROR:
            return False
        array = (_Compare * len(comparisons))(*(_Compare(*comparison) for comparison in comparisons))
        result = self._lib.seccomp_rule_add_array(self._context, action, number, len(comparisons), array)
        self._check(result, f"seccomp_rule_add({name})")
        return True

    def export(self) -> bytes:
        """Return the BPF program: struct sock_filter, 8 bytes each."""
        fd = os.memfd_create("seccomp", os.MFD_CLOEXEC)
        try:
            self._check(self._lib.seccomp_export_bpf(self._context, fd), "seccomp_export_bpf")
            return os.pread(fd, os.fstat(fd).st_size, 0)
        finally:
            os.close(fd)

    @staticmethod
    def _check(result: int, what: str) -> None:
        if result < 0:
            raise OSError(-result, f"{what}: {os.strerror(-result)}")
