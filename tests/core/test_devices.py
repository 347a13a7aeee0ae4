from __future__ import annotations

import struct
from collections.abc import Sequence

import pytest

from containers.core.plans.devices import DEFAULT_RULES, DeviceRule, of_node, v1_changes, v1_writes, v2_program

READ, WRITE, MKNOD = 2, 4, 1
BLOCK, CHAR = 1, 2


def run(program: bytes, access_type: int, major: int, minor: int) -> int:
    """Interpret the few instructions that such programs are made of."""
    context = {0: access_type, 4: major, 8: minor}
    registers = dict.fromkeys(range(11), 0)
    instructions = list(struct.iter_unpack("=BBhi", program))
    place = 0
    while True:
        code, pair, offset, value = instructions[place]
        to, source = pair & 15, pair >> 4
        place += 1
        if code == 0x61:
            assert source == 1
            registers[to] = context[offset]
        elif code == 0xB7:
            registers[to] = value
        elif code == 0xBF:
            registers[to] = registers[source]
        elif code == 0x57:
            registers[to] &= value
        elif code == 0x77:
            registers[to] >>= value
        elif code == 0x55:
            if registers[to] != value:
                place += offset
        elif code == 0x95:
            return registers[0]
        else:
            raise AssertionError(hex(code))


def allowed(rules: Sequence[DeviceRule], kind: int, access: int, major: int, minor: int) -> bool:
    return run(v2_program(rules), access << 16 | kind, major, minor) == 1


@pytest.mark.parametrize(
    ("kind", "access", "major", "minor", "expected"),
    [
        (CHAR, READ | WRITE, 1, 3, True),
        (CHAR, READ, 1, 3, True),
        (CHAR, READ, 1, 1, False),  # /dev/mem
        (BLOCK, READ, 1, 3, False),
        (BLOCK, READ, 8, 0, False),
        (BLOCK, MKNOD, 8, 0, True),
        (BLOCK, MKNOD | READ, 8, 0, False),
        (CHAR, MKNOD, 200, 1, True),
        (CHAR, READ | WRITE, 136, 77, True),
        (CHAR, READ, 10, 229, False),  # /dev/fuse: where it is asked for
        (CHAR, READ, 10, 1, False),
    ],
)
def test_default_rules(kind: int, access: int, major: int, minor: int, *, expected: bool) -> None:
    assert allowed(DEFAULT_RULES, kind, access, major, minor) is expected


def test_what_is_in_force_on_v1_is_changed_line_by_line() -> None:
    present = "".join(f"{rule.v1()}\n" for rule in (*DEFAULT_RULES, DeviceRule("c", 10, 229, "rwm")))
    assert v1_changes(present, DEFAULT_RULES) == (("devices.deny", "c 10:229 rwm"),)
    assert v1_changes(present, (*DEFAULT_RULES, DeviceRule("b", 8, 0, "r"))) == (
        ("devices.allow", "b 8:0 r"),
        ("devices.deny", "c 10:229 rwm"),
    )


def test_the_rule_of_a_node_is_the_nodes() -> None:
    assert of_node("/dev/zero") == DeviceRule("c", 1, 5, "rwm")
    with pytest.raises(OSError, match="not a device"):
        of_node("/etc/passwd")


def test_without_rules_nothing_is_allowed() -> None:
    assert not allowed((), CHAR, READ, 1, 3)


def test_a_rule_allows_only_its_own_accesses() -> None:
    rules = (DeviceRule("c", 1, 3, "r"),)
    assert allowed(rules, CHAR, READ, 1, 3)
    assert not allowed(rules, CHAR, WRITE, 1, 3)
    assert not allowed(rules, CHAR, READ | WRITE, 1, 3)


def test_v1_denies_everything_first() -> None:
    writes = v1_writes()
    assert writes[0] == ("devices.deny", "a")
    assert ("devices.allow", "c 136:* rwm") in writes
    assert all(file == "devices.allow" for file, _value in writes[1:])
