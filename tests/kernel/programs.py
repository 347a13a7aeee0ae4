"""Programs of a few instructions, for containers without a compiler: each makes one call, and exits with its errno."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

_BASE: Final = 0x400000
_HEADERS: Final = 64 + 56
_PREFIXES_64: Final = (b"\x48\xbf", b"\x48\xbe", b"\x48\xba", b"\x49\xba", b"\x49\xb8")
"""mov imm64 to rdi, rsi, rdx, r10, r8."""
_PREFIXES_32: Final = (b"\xbb", b"\xb9", b"\xba", b"\xbe", b"\xbf")
"""mov imm32 to ebx, ecx, edx, esi, edi."""


def calls(number: int, *arguments: int | bytes, i386: bool = False) -> bytes:
    """Return a static program for x86_64 that makes one call and exits with its errno, 0 where it succeeds.

    arguments: numbers, or bytes, whose address is handed over. i386: by int 0x80, whose numbers are others.
    """
    texts: list[bytes] = []
    code = b""
    for _ in range(2):  # the second time the length of the code is known
        at = _BASE + _HEADERS + len(code)
        values: list[int] = []
        texts = []
        for argument in arguments:
            if isinstance(argument, bytes):
                values.append(at + sum(map(len, texts)))
                texts.append(argument + b"\0")
            else:
                values.append(argument)
        code = _code(number, values, i386=i386)
    return _elf(code + b"".join(texts))


def _code(number: int, values: Sequence[int], *, i386: bool) -> bytes:
    if i386:
        moves = b"".join(
            prefix + struct.pack("<I", value & 0xFFFFFFFF) for prefix, value in zip(_PREFIXES_32, values, strict=False)
        )
    else:
        moves = b"".join(
            prefix + struct.pack("<Q", value & 0xFFFFFFFFFFFFFFFF)
            for prefix, value in zip(_PREFIXES_64, values, strict=False)
        )
    enter = b"\xcd\x80" if i386 else b"\x0f\x05"
    # mov eax, number; the call; xor edi, edi; test eax, eax; jns +4; mov edi, eax; neg edi; mov eax, 60; syscall
    tail = b"\x31\xff\x85\xc0\x79\x04\x89\xc7\xf7\xdf\xb8\x3c\x00\x00\x00\x0f\x05"
    return moves + b"\xb8" + struct.pack("<I", number) + enter + tail


def _elf(body: bytes) -> bytes:
    """Return a 64-bit ELF file with one segment. Source: elf(5)."""
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 2, 62, 1, _BASE + _HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0
    )
    size = _HEADERS + len(body)
    return header + struct.pack("<IIQQQQQQ", 1, 7, 0, _BASE, _BASE, size, size, 0x1000) + body
