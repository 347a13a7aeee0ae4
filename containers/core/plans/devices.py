"""Which devices a container may use: the rules, as v1 files and as a v2 BPF program. Pure.

Sources: kernel Documentation/admin-guide/cgroup-v1/devices.rst, cgroup-v2.rst (Device controller),
include/uapi/linux/bpf.h (struct bpf_cgroup_dev_ctx), Documentation/bpf/standardization/instruction-set.rst.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

DeviceType = Literal["b", "c"]

_ACCESS: Final = {"m": 1, "r": 2, "w": 4}
"""BPF_DEVCG_ACC_MKNOD, _READ, _WRITE."""
_TYPE: Final = {"b": 1, "c": 2}
"""BPF_DEVCG_DEV_BLOCK, _CHAR."""


@dataclass(frozen=True, slots=True)
class DeviceRule:
    """One kind of access that is allowed. major, minor None: any. access: of "r", "w", "m"."""

    type: DeviceType
    major: int | None
    minor: int | None
    access: str

    def v1(self) -> str:
        """Return the rule as devices.allow takes it."""
        major = "*" if self.major is None else self.major
        minor = "*" if self.minor is None else self.minor
        return f"{self.type} {major}:{minor} {self.access}"


DEFAULT_RULES: Final = (
    # making a node is harmless without the right to open it; package managers unpack some
    DeviceRule("c", None, None, "m"),
    DeviceRule("b", None, None, "m"),
    DeviceRule("c", 1, 3, "rwm"),  # null
    DeviceRule("c", 1, 5, "rwm"),  # zero
    DeviceRule("c", 1, 7, "rwm"),  # full
    DeviceRule("c", 1, 8, "rwm"),  # random
    DeviceRule("c", 1, 9, "rwm"),  # urandom
    DeviceRule("c", 5, 0, "rwm"),  # tty
    DeviceRule("c", 5, 1, "rwm"),  # console
    DeviceRule("c", 5, 2, "rwm"),  # ptmx
    DeviceRule("c", 136, None, "rwm"),  # pts/*
)


def of_node(path: str) -> DeviceRule:
    """Return the rule for using a device node of the host. Raises OSError; ENODEV where there is something else."""
    info = os.stat(path, follow_symlinks=False)
    if not (stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode)):
        raise OSError(19, "not a device node", path)
    kind: DeviceType = "c" if stat.S_ISCHR(info.st_mode) else "b"
    return DeviceRule(kind, os.major(info.st_rdev), os.minor(info.st_rdev), "rwm")


def v1_changes(present: str, rules: Iterable[DeviceRule]) -> tuple[tuple[str, str], ...]:
    """Return (file, value) that make the rules in force those given. present: the text of devices.list."""
    there, wanted = set(present.splitlines()), {rule.v1() for rule in rules}
    return (
        *(("devices.allow", line) for line in sorted(wanted - there)),
        *(("devices.deny", line) for line in sorted(there - wanted)),
    )


def v1_writes(rules: Iterable[DeviceRule] = DEFAULT_RULES) -> tuple[tuple[str, str], ...]:
    """Return (file, value) in order: everything is denied first."""
    return (("devices.deny", "a"), *(("devices.allow", rule.v1()) for rule in rules))


# registers: r2 device type, r3 access, r4 major, r5 minor; r1, the context, is scratch once those are loaded
_LDX_W: Final = 0x61
_MOV64_IMM: Final = 0xB7
_MOV64_REG: Final = 0xBF
_AND64_IMM: Final = 0x57
_RSH64_IMM: Final = 0x77
_JNE_IMM: Final = 0x55
_EXIT: Final = 0x95


def _instruction(code: int, *, to: int = 0, source: int = 0, offset: int = 0, value: int = 0) -> bytes:
    return struct.pack("=BBhi", code, source << 4 | to, offset, value)


def _rule_program(rule: DeviceRule) -> bytes:
    """Return instructions that end the program with 1 where the rule allows the access, else fall through."""
    forbidden = 7 & ~sum(_ACCESS[letter] for letter in rule.access)
    # (instructions before the test, the register tested, the value it must have)
    tests: list[tuple[list[bytes], int, int]] = [([], 2, _TYPE[rule.type])]
    if forbidden:
        masked = [_instruction(_MOV64_REG, to=1, source=3), _instruction(_AND64_IMM, to=1, value=forbidden)]
        tests.append((masked, 1, 0))
    if rule.major is not None:
        tests.append(([], 4, rule.major))
    if rule.minor is not None:
        tests.append(([], 5, rule.minor))
    body = b""
    tail = 2  # instructions of "return 1"
    for before, register, wanted in reversed(tests):
        jump = _instruction(_JNE_IMM, to=register, offset=len(body) // 8 + tail, value=wanted)
        body = b"".join(before) + jump + body
    return body + _instruction(_MOV64_IMM, to=0, value=1) + _instruction(_EXIT)


def v2_program(rules: Iterable[DeviceRule] = DEFAULT_RULES) -> bytes:
    """Return the instructions of a BPF_PROG_TYPE_CGROUP_DEVICE program that allows what a rule allows, no more."""
    load = (
        _instruction(_LDX_W, to=2, source=1, offset=0),
        _instruction(_MOV64_REG, to=3, source=2),
        _instruction(_AND64_IMM, to=2, value=0xFFFF),
        _instruction(_RSH64_IMM, to=3, value=16),
        _instruction(_LDX_W, to=4, source=1, offset=4),
        _instruction(_LDX_W, to=5, source=1, offset=8),
    )
    deny = _instruction(_MOV64_IMM, to=0, value=0) + _instruction(_EXIT)
    return b"".join(load) + b"".join(_rule_program(rule) for rule in rules) + deny
