"""An init that writes the monotonic clock as its first act, then waits for ever: 150 bytes of x86-64 without a libc.

It tells when a container's first instruction ran, on the clock that the caller reads too. Source: elf(5), syscall(2).
"""

from __future__ import annotations

import platform
import struct
import time
from pathlib import Path
from typing import Final

NAME: Final = "bench-init"
STAMP: Final = "bench-started"

_BEFORE_PATH: Final = bytes.fromhex(
    "b8e4000000"  # mov eax, 228        clock_gettime(
    "bf01000000"  # mov edi, 1          CLOCK_MONOTONIC,
    "488d742480"  # lea rsi, [rsp-128]
    "0f05"
    "b802000000"  # mov eax, 2          open(
    "488d3d38000000"  # lea rdi, [rip+56]   path,
    "be41020000"  # mov esi, 0x241      O_WRONLY | O_CREAT | O_TRUNC,
    "baa4010000"  # mov edx, 0644
    "0f05"
    "89c7"  # mov edi, eax
    "b801000000"  # mov eax, 1          write(
    "488d742480"  # lea rsi, [rsp-128]
    "ba10000000"  # mov edx, 16
    "0f05"
    "b803000000"  # mov eax, 3          close
    "0f05"
    "b822000000"  # mov eax, 34         pause
    "0f05"
    "ebf7"  # jmp back to it
)


def program() -> bytes:
    """Return the ELF file."""
    code = bytearray(_BEFORE_PATH)
    # the operand of lea counts from the end of that instruction
    operand = code.index(bytes.fromhex("488d3d")) + 3
    code[operand : operand + 4] = struct.pack("<i", len(code) - (operand + 4))
    code += b"/" + STAMP.encode() + b"\0"
    base, headers = 0x400000, 64 + 56
    size = headers + len(code)
    elf = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 2, 62, 1, base + headers, 64, 0, 0, 64, 56, 1, 0, 0, 0
    )
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 4096)
    return elf + load + bytes(code)


def supported() -> bool:
    """Whether this machine runs it."""
    return platform.machine() == "x86_64"


def install(root: Path) -> None:
    """Put it into a root directory, as its first file."""
    path = root / NAME
    path.write_bytes(program())
    path.chmod(0o755)


def forget(root: Path) -> None:
    """Remove what an earlier run wrote."""
    (root / STAMP).unlink(missing_ok=True)


def started_at(root: Path, timeout_sec: float = 10.0) -> float:
    """Wait for the stamp and return it, in seconds of the monotonic clock; raises TimeoutError."""
    deadline = time.monotonic() + timeout_sec
    while time.monotonic() < deadline:
        try:
            data = (root / STAMP).read_bytes()
        except FileNotFoundError:
            data = b""
        if len(data) == 16:
            seconds, nanoseconds = struct.unpack("<qq", data)
            return float(seconds) + nanoseconds / 1e9
        time.sleep(0.0005)
    raise TimeoutError(f"nothing started in {root}")
