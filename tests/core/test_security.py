"""What a container's rights may be set to, and what is refused by name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from containers.core.errors import SpecError
from containers.core.model import capabilities
from containers.core.model.security import DEFAULT, Prlimit, Security

FULL = {
    "nesting": True,
    "capabilities_drop": ["CAP_SYS_CHROOT", "mknod"],
    "capabilities_keep": ["chown", "mknod"],
    "no_new_privs": True,
    "sysctls": {"net.ipv4.ip_forward": 1, "kernel.sem": "250\t32000 100 128"},
    "prlimits": {"nofile": {"soft": 512, "hard": 1024}, "core": "unlimited"},
    "oom_score_adj": 300,
    "keyctl": True,
    "seccomp": "tight",
    "clock_offsets": {"boottime": -3600, "monotonic": 0.25},
    "personality": "linux32",
    "apparmor": "generated",
    "ids": 131072,
}


def test_it_goes_through_json_unchanged() -> None:
    read = Security.from_dict(FULL)
    read.check(privileged=False)
    assert read.capabilities_drop == ("sys_chroot", "mknod")
    assert read.sysctls["net.ipv4.ip_forward"] == "1"
    assert read.prlimits["core"] == Prlimit(soft="unlimited", hard="unlimited")
    assert Security.from_dict(json.loads(json.dumps(read.given()))) == read


def test_only_what_differs_is_kept_and_null_is_the_default() -> None:
    assert DEFAULT.given() == {}
    assert Security.from_dict(dict.fromkeys(FULL)) == DEFAULT
    assert Security(capabilities_keep=()).given() == {"capabilities_keep": []}


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"wings": 2}, "wings"),
        ({"nesting": 1}, "nesting"),
        ({"no_new_privs": "yes"}, "no_new_privs"),
        ({"capabilities_drop": ["flying"]}, "capabilities_drop"),
        ({"capabilities_keep": "chown"}, "capabilities_keep"),
        ({"sysctls": {"kernel.panic": "1"}}, "sysctls.kernel.panic"),
        ({"sysctls": {"kernel.core_pattern": "|/x"}}, "sysctls.kernel.core_pattern"),
        ({"sysctls": {"kernel.shmall/../panic": "1"}}, "sysctls.kernel.shmall/../panic"),
        ({"sysctls": {"net.//.kernel.panic": "1"}}, "sysctls.net.//.kernel.panic"),
        ({"sysctls": {"net...kernel": "1"}}, "sysctls.net...kernel"),
        ({"sysctls": {"net": "1"}}, "sysctls.net"),
        ({"sysctls": {"vm.swappiness": "1"}}, "sysctls.vm.swappiness"),
        ({"sysctls": {"net.ipv4.ip_forward": "1\n0"}}, "sysctls.net.ipv4.ip_forward"),
        ({"sysctls": {"net.ipv4.ip_forward": ""}}, "sysctls.net.ipv4.ip_forward"),
        ({"sysctls": {"net.ipv4.ip_forward": True}}, "sysctls.net.ipv4.ip_forward"),
        ({"sysctls": ["net.ipv4.ip_forward"]}, "sysctls"),
        ({"prlimits": {"wings": 2}}, "prlimits.wings"),
        ({"prlimits": {"nofile": 1}}, "prlimits.nofile"),
        ({"prlimits": {"nofile": "unlimited"}}, "prlimits.nofile"),
        ({"prlimits": {"nofile": {"soft": 1024}}}, "prlimits.nofile"),
        ({"prlimits": {"nofile": {"soft": 2048, "hard": 1024}}}, "prlimits.nofile"),
        ({"prlimits": {"core": {"soft": "unlimited", "hard": 0}}}, "prlimits.core"),
        ({"prlimits": {"core": -1}}, "prlimits.core"),
        ({"prlimits": {"core": True}}, "prlimits.core"),
        ({"prlimits": {"core": "much"}}, "prlimits.core"),
        ({"oom_score_adj": -1}, "oom_score_adj"),
        ({"oom_score_adj": 1001}, "oom_score_adj"),
        ({"keyctl": "yes"}, "keyctl"),
        ({"seccomp": "../etc/passwd"}, "seccomp"),
        ({"seccomp": "Tight"}, "seccomp"),
        ({"clock_offsets": {"realtime": 1}}, "clock_offsets.realtime"),
        ({"clock_offsets": {"boottime": True}}, "clock_offsets.boottime"),
        ({"clock_offsets": {"boottime": "1"}}, "clock_offsets.boottime"),
        ({"clock_offsets": {"boottime": float("nan")}}, "clock_offsets.boottime"),
        ({"clock_offsets": {"monotonic": 2**40}}, "clock_offsets.monotonic"),
        ({"clock_offsets": [1]}, "clock_offsets"),
        ({"personality": "linux64"}, "personality"),
        ({"apparmor": "a b"}, "apparmor"),
        ({"apparmor": "-x"}, "apparmor"),
        ({"ids": 65535}, "ids"),
        ({"ids": 70000}, "ids"),
        ({"ids": 2**25}, "ids"),
        ({"ids": True}, "ids"),
    ],
)
def test_what_no_start_could_put_in_force_is_refused_by_name(values: dict[str, Any], field: str) -> None:
    with pytest.raises(SpecError) as caught:
        Security.from_dict(values).check(privileged=False)
    assert caught.value.field == f"security.{field}"


def test_only_a_privileged_container_may_be_spared_when_memory_is_short() -> None:
    Security(oom_score_adj=-500).check(privileged=True)
    with pytest.raises(SpecError):
        Security(oom_score_adj=-1001).check(privileged=True)


def test_keep_is_instead_of_the_default_and_drop_is_out_of_either() -> None:
    chown = 1 << capabilities.NAMES.index("chown")
    assert capabilities.kept(privileged=False, keep=("chown", "mknod"), drop=("mknod",)) == chown
    assert capabilities.kept(privileged=False, drop=("chown",)) == capabilities.kept(privileged=False) & ~chown
