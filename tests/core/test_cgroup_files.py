from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from containers.core.cgroup_files import Write, cpu_quota_usec, limits_v1, limits_v2, parse_keyed
from containers.core.spec import Limits

MIB = 1024**2


def files(writes: tuple[Write, ...]) -> list[str]:
    return [write.file for write in writes]


def test_a_fresh_cgroup_without_limits_needs_no_write() -> None:
    assert limits_v2(Limits(), io_device="8:0", fresh=True, swap=True) == ()
    assert limits_v1(Limits(), io_device="8:0", fresh=True, swap=True, memory_now_bytes=2**63) == ()


def test_v2_writes_every_limit() -> None:
    limits = Limits(memory_bytes=64 * MIB, cpus=1.5, pids=100, io_read_bytes_per_sec=MIB)
    writes = {write.file: write.value for write in limits_v2(limits, io_device="8:0", fresh=True, swap=True)}
    assert writes == {
        "memory.max": str(64 * MIB),
        "memory.swap.max": "0",
        "cpu.max": "150000 100000",
        "pids.max": "100",
        "io.max": f"8:0 rbps={MIB} wbps=max",
    }


def test_v2_takes_limits_away() -> None:
    writes = {write.file: write.value for write in limits_v2(Limits(), io_device="8:0", fresh=False, swap=True)}
    assert writes == {
        "memory.max": "max",
        "memory.swap.max": "max",
        "cpu.max": "max 100000",
        "pids.max": "max",
        "io.max": "8:0 rbps=max wbps=max",
    }


def test_without_swap_accounting_swap_is_left_alone() -> None:
    assert "memory.swap.max" not in files(limits_v2(Limits(memory_bytes=MIB), io_device=None, fresh=False, swap=False))


@pytest.mark.parametrize(
    ("now_bytes", "new_bytes", "first"),
    [
        (64 * MIB, 32 * MIB, "memory.limit_in_bytes"),
        (64 * MIB, 128 * MIB, "memory.memsw.limit_in_bytes"),
        (64 * MIB, None, "memory.memsw.limit_in_bytes"),
        (2**63, 128 * MIB, "memory.limit_in_bytes"),
    ],
)
def test_v1_orders_memory_and_memsw(now_bytes: int, new_bytes: int | None, first: str) -> None:
    writes = limits_v1(
        Limits(memory_bytes=new_bytes), io_device=None, fresh=False, swap=True, memory_now_bytes=now_bytes
    )
    memory = [file for file in files(writes) if file.startswith("memory.")]
    assert memory[0] == first
    assert len(memory) == 2


def test_v1_sets_the_period_before_the_quota() -> None:
    writes = limits_v1(Limits(cpus=0.5), io_device=None, fresh=True, swap=True, memory_now_bytes=2**63)
    assert [(write.file, write.value) for write in writes] == [
        ("cpu.cfs_period_us", "100000"),
        ("cpu.cfs_quota_us", "50000"),
    ]


@given(st.floats(min_value=0.01, max_value=1024))
def test_quota_is_what_the_kernel_takes(cpus: float) -> None:
    quota = cpu_quota_usec(cpus)
    assert quota >= 1000
    assert abs(quota - cpus * 100_000) <= 1


def test_keyed_files() -> None:
    assert parse_keyed("populated 1\nfrozen 0\nodd\n") == {"populated": 1, "frozen": 0}
