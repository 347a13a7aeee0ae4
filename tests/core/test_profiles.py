"""System call profiles as their formats say them, and the AppArmor profile that is made."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from containers.core.errors import SpecError
from containers.core.kernel import seccomp
from containers.core.plans import apparmor, seccomp_profile
from containers.core.plans.seccomp_profile import ALLOW, ARCHITECTURES, KILL, LOG, TRACE_SKIPS, TRAP, Rule
from tests import packages

I386, X86_64, X32 = 0x40000003, 0xC000003E, 0x40000000


def errno(number: int) -> int:
    return TRACE_SKIPS | number


def test_lxcs_denylist_with_sections_actions_and_arguments() -> None:
    text = """2
    denylist
    reject_force_umount  # comment
    [all]
    kexec_load errno 1
    mknod
    [x86]
    getpid trap
    [x32]
    getppid errno 9
    [x86_64]
    ioctl errno 5 [1,0x5412,==] [2, 3, SCMP_CMP_NE]
    socket log [0,40,SCMP_CMP_MASKED_EQ,0xff]
    """
    found = seccomp_profile.parse(text)
    assert found.default == ALLOW
    assert found.rules == (
        Rule(ARCHITECTURES, "umount2", errno(13), ((1, 7, 1, 1),)),
        Rule(ARCHITECTURES, "kexec_load", errno(1)),
        Rule(ARCHITECTURES, "mknod", KILL),
        Rule(("i386",), "getpid", TRAP),
        Rule(("x86_64",), "ioctl", errno(5), ((1, 4, 0x5412, 0), (2, 1, 3, 0))),
        Rule(("x86_64",), "socket", LOG, ((0, 7, 0xFF, 40),)),
    )


@pytest.mark.parametrize(
    ("second", "default", "rule"),
    [
        ("allowlist", KILL, ALLOW),
        ("whitelist errno 38", errno(38), ALLOW),
        ("allowlist trap", TRAP, ALLOW),
        ("blacklist", ALLOW, KILL),
        ("denylist log", LOG, KILL),
    ],
)
def test_lxcs_second_line_says_what_calls_without_a_rule_get(second: str, default: int, rule: int) -> None:
    found = seccomp_profile.parse(f"2\n{second}\nread\n")
    assert (found.default, found.rules[0].action) == (default, rule)


def test_ocis_json_by_itself_and_in_a_runtimes_configuration() -> None:
    values: dict[str, Any] = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 38,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [
            {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW"},
            {
                "names": ["personality"],
                "action": "SCMP_ACT_ALLOW",
                "args": [{"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}],
            },
            {"names": ["mount"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1},
        ],
    }
    found = seccomp_profile.parse(json.dumps(values))
    both = ("x86_64", "i386")
    assert found.default == errno(38)
    assert found.rules == (
        Rule(both, "read", ALLOW),
        Rule(both, "write", ALLOW),
        Rule(both, "personality", ALLOW, ((0, 4, 8, 0),)),
        Rule(both, "mount", errno(1)),
    )
    assert seccomp_profile.parse(json.dumps({"linux": {"seccomp": values}})) == found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "line 1"),
        ("1\nallowlist\n5\n", "line 1"),
        ("2\nsomething\n", "second line"),
        ("2\ndenylist what\n", "no action"),
        ("2\ndenylist\nmkdir errno many\n", "line 3"),
        ("2\ndenylist\nmkdir errno 5000\n", "line 3"),
        ("2\ndenylist\nmkdir notify\n", "notifications"),
        ("2\ndenylist\n[vax]\n", "vax"),
        ("2\ndenylist\nMKDIR;\n", "no system call"),
        ("2\ndenylist\nmkdir errno 1 [9,1,==]\n", "argument"),
        ("2\ndenylist\nmkdir errno 1 [0,1]\n", "line 3"),
        ("2\ndenylist\nmkdir errno 1 [0,0x1ffffffffffffffff,==]\n", "64 bits"),
        ("2\nallowlist\n" + "read\n" * 5000, "more than"),
        ("{", "no JSON"),
        ('{"defaultAction": "SCMP_ACT_NOTIFY"}', "no action"),
        ('{"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x"}', "listenerPath"),
        ('{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["a"], "includes": {}}]}', "includes"),
        ('{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": "a", "action": "SCMP_ACT_LOG"}]}', "no list"),
    ],
)
def test_what_is_not_understood_is_refused_and_never_passed_over(text: str, words: str) -> None:
    with pytest.raises(SpecError, match=words) as caught:
        seccomp_profile.parse(text)
    assert caught.value.field == "security.seccomp"


def answer(programs: tuple[bytes, ...], architecture: int, number: int, *arguments: int) -> int:
    """Return the strictest answer of classic BPF programs over a struct seccomp_data. Source: linux/filter.h."""
    args = (*arguments, *(0 for _ in range(6 - len(arguments))))
    data = struct.pack("<iIQ6Q", number if number < 2**31 else number - 2**32, architecture, 0, *args)
    answers = [_run(program, data) for program in programs]

    def strictness(value: int) -> int:
        action = value & 0xFFFF0000
        return action - 2**32 if action & 2**31 else action  # the kernel compares them as signed numbers

    return min(answers, key=strictness)


def _run(program: bytes, data: bytes) -> int:
    steps = [struct.unpack_from("<HBBI", program, at) for at in range(0, len(program), 8)]
    a = at = 0
    while True:
        code, yes, no, k = steps[at]
        at += 1
        if code == 0x20:
            (a,) = struct.unpack_from("<I", data, k)
        elif code == 0x54:
            a &= k
        elif code == 0x06:
            return k
        elif code == 0x05:
            at += k
        else:
            taken = {0x15: a == k, 0x25: a > k, 0x35: a >= k, 0x45: bool(a & k)}[code]
            at += yes if taken else no


NUMBERS = {"keyctl": (250, 288), "kexec_load": (246, 283), "bpf": (321, 357), "mkdir": (83, 39), "getpid": (39, 20)}


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of x86_64")
@pytest.mark.parametrize("custom", [None, "2\ndenylist\n[all]\nmkdir errno 42\n"])
def test_one_answer_by_both_architectures_and_none_by_x32(custom: str | None) -> None:
    profile = seccomp_profile.parse(custom) if custom else None
    programs = seccomp.compile_profile(nesting=False, custom=profile)
    wanted = {"keyctl": errno(1), "kexec_load": errno(1), "bpf": errno(1), "getpid": ALLOW}
    wanted["mkdir"] = errno(42) if custom else ALLOW
    for name, (of_64, of_32) in NUMBERS.items():
        assert answer(programs, X86_64, of_64) == wanted[name], name
        assert answer(programs, I386, of_32) == wanted[name], name
    for number in range(600):
        assert answer(programs, X86_64, X32 | number) == errno(38)
        assert answer(programs, 0x40000028, number) == errno(38)


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of x86_64")
def test_a_section_is_of_its_architecture_alone() -> None:
    text = "2\ndenylist\n[x86]\nmkdir errno 41\n[x86_64]\nmkdir errno 42\nioctl errno 5 [1,0x5401,==]\n"
    programs = seccomp.compile_profile(nesting=False, custom=seccomp_profile.parse(text), instead=True)
    assert answer(programs, I386, 39) == errno(41)
    assert answer(programs, X86_64, 83) == errno(42)
    assert answer(programs, X86_64, 16, 0, 0x5401) == errno(5)
    assert answer(programs, X86_64, 16, 0, 0x5402) == ALLOW
    # what pushes bytes into terminals is refused even where a profile stands instead of Boxroom's list
    assert answer(programs, X86_64, 16, 0, 0x5412) == errno(1)
    assert answer(programs, X86_64, X32 | 83) == errno(38)
    # keyctl is the profile's to say now
    assert answer(programs, X86_64, 250) == ALLOW


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of x86_64")
def test_a_list_of_what_is_allowed_says_no_to_everything_else_and_yes_to_what_a_start_takes() -> None:
    profile = seccomp_profile.parse("2\nallowlist errno 7\n[all]\nmkdir\nsetgroups errno 3\n")
    programs = seccomp.compile_profile(nesting=False, custom=profile, instead=True)
    assert answer(programs, X86_64, 83) == ALLOW
    assert answer(programs, X86_64, 84) == errno(7)
    assert answer(programs, X86_64, 59) == ALLOW  # execve
    assert answer(programs, X86_64, 116) == errno(3)  # setgroups: it says something else of it


@pytest.mark.parametrize("nesting", [False, True])
def test_the_apparmor_profile_names_what_no_container_may(nesting: bool) -> None:
    name = apparmor.name_of("k3v9q", nesting=nesting)
    text = apparmor.profile(name, nesting=nesting)
    assert text.startswith(f'profile "{name}" flags=(attach_disconnected,mediate_deleted) {{\n')
    assert text.rstrip().endswith("}")
    assert text.count("{") == text.count("}")
    assert all(line.endswith(",") for line in text.splitlines()[1:-1])
    assert "deny /proc/sysrq-trigger rwklx," in text
    assert ("change_profile" in text) is nesting
    assert ("deny capability mac_admin," in text) is not nesting


@pytest.mark.parametrize("nesting", [False, True])
def test_the_apparmor_profile_is_understood_by_apparmors_own_parser(nesting: bool, tmp_path: Path) -> None:
    root = packages.unpacked("apparmor")
    parser = shutil.which("apparmor_parser", path=f"{root}/usr/sbin:{root}/sbin")
    assert parser is not None
    path = tmp_path / "profile"
    words = [parser, "-Q", "-K", "--base", f"{root}/etc/apparmor.d", str(path)]
    name = apparmor.name_of("k3v9q", nesting=nesting)
    text = apparmor.profile(name, nesting=nesting)
    path.write_text(text)
    done = subprocess.run([*words, "-N"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, name), done.stderr
    assert subprocess.run(words, capture_output=True, check=False).returncode == 0
    path.write_text(text.replace("deny ", "never "))
    assert subprocess.run(words, capture_output=True, check=False).returncode != 0
