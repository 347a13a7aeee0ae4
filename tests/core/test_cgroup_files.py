from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from containers.core.errors import HostUnsupported, SpecError
from containers.core.model import cpulist
from containers.core.model.limits import Limits, check_file
from containers.core.plans.cgroup_files import (
    CpusV1,
    Offered,
    Write,
    cpu_quota_usec,
    cpu_shares,
    former,
    limits_v1,
    limits_v2,
    parse_keyed,
)

MIB = 1024**2
DISK = Offered(io_device="8:0")


def files(writes: tuple[Write, ...]) -> list[str]:
    return [write.file for write in writes]


def test_a_fresh_cgroup_without_limits_needs_no_write() -> None:
    assert limits_v2(Limits(), offered=DISK, fresh=True, swap=True) == ()
    assert limits_v1(Limits(), offered=DISK, fresh=True, swap=True, memory_now_bytes=2**63) == ()


def test_v2_writes_every_limit() -> None:
    limits = Limits(memory_bytes=64 * MIB, cpus=1.5, pids=100, io_read_bytes_per_sec=MIB)
    writes = {write.file: write.value for write in limits_v2(limits, offered=DISK, fresh=True, swap=True)}
    assert writes == {
        "memory.max": str(64 * MIB),
        "memory.swap.max": "0",
        "cpu.max": "150000 100000",
        "pids.max": "100",
        "io.max": f"8:0 rbps={MIB} wbps=max riops=max wiops=max",
    }


def test_v2_takes_limits_away() -> None:
    writes = {write.file: write.value for write in limits_v2(Limits(), offered=DISK, fresh=False, swap=True)}
    assert writes == {
        "memory.max": "max",
        "memory.swap.max": "max",
        "cpu.max": "max 100000",
        "cpu.weight": "100",
        "pids.max": "max",
        "io.max": "8:0 rbps=max wbps=max riops=max wiops=max",
    }


def test_v2_takes_a_cpuset_away_by_giving_every_cpu() -> None:
    assert "cpuset.cpus" not in files(limits_v2(Limits(), offered=Offered(), fresh=False, swap=True))
    writes = limits_v2(Limits(), offered=Offered(), fresh=False, swap=True, every_cpu="0-3")
    assert Write("cpuset", "cpuset.cpus", "0-3") in writes


def test_without_swap_accounting_swap_is_left_alone() -> None:
    assert "memory.swap.max" not in files(
        limits_v2(Limits(memory_bytes=MIB), offered=Offered(), fresh=False, swap=False)
    )


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
        Limits(memory_bytes=new_bytes), offered=Offered(), fresh=False, swap=True, memory_now_bytes=now_bytes
    )
    memory = [file for file in files(writes) if file.startswith("memory.")]
    assert memory[0] == first
    assert len(memory) == 2


def test_v1_sets_the_period_before_the_quota() -> None:
    writes = limits_v1(Limits(cpus=0.5), offered=Offered(), fresh=True, swap=True, memory_now_bytes=2**63)
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


def v1(limits: Limits, **more: object) -> list[tuple[str, str]]:
    values = {"offered": Offered(), "fresh": False, "swap": True, "memory_now_bytes": 2**63, **more}
    return [(write.file, write.value) for write in limits_v1(limits, **values)]  # type: ignore[arg-type]


def test_swap_is_beside_memory_on_v2_and_on_top_of_it_on_v1() -> None:
    limits = Limits(memory_bytes=64 * MIB, swap_bytes=32 * MIB)
    second = {write.file: write.value for write in limits_v2(limits, offered=Offered(), fresh=True, swap=True)}
    assert second == {"memory.max": str(64 * MIB), "memory.swap.max": str(32 * MIB)}
    assert v1(limits, fresh=True) == [
        ("memory.limit_in_bytes", str(64 * MIB)),
        ("memory.memsw.limit_in_bytes", str(96 * MIB)),
    ]


def test_a_swap_limit_needs_a_kernel_that_accounts_swap() -> None:
    limits = Limits(memory_bytes=64 * MIB, swap_bytes=MIB)
    for writes in (limits_v2, limits_v1):
        more = {"memory_now_bytes": 0} if writes is limits_v1 else {}
        with pytest.raises(HostUnsupported) as caught:
            writes(limits, offered=Offered(), fresh=True, swap=False, **more)  # type: ignore[arg-type]
        assert caught.value.field == "limits.swap_bytes"


ALL = Offered(
    io_device="8:0", io_weight="io.bfq.weight", page_sizes=("1GB", "2MB"), controllers=frozenset({"memory", "hugetlb"})
)
MORE = Limits(io_write_ops_per_sec=50, io_weight=300, hugepages={"2MB": 4 * MIB}, cgroup={"memory.swappiness": "10"})


def test_disks_huge_pages_and_any_file_on_v2() -> None:
    writes = limits_v2(MORE, offered=ALL, fresh=True, swap=True)
    assert [(write.file, write.value, write.raw) for write in writes] == [
        ("io.bfq.weight", "300", False),
        ("hugetlb.2MB.max", str(4 * MIB), False),
        ("io.max", "8:0 rbps=max wbps=max riops=max wiops=50", False),
        ("memory.swappiness", "10", True),
    ]
    gone = {write.file: write.value for write in limits_v2(Limits(), offered=ALL, fresh=False, swap=True)}
    assert gone.items() >= {"io.bfq.weight": "100", "hugetlb.2MB.max": "max", "hugetlb.1GB.max": "max"}.items()


def test_disks_huge_pages_and_any_file_on_v1() -> None:
    assert v1(MORE, fresh=True, offered=ALL) == [
        ("io.bfq.weight", "300"),
        ("hugetlb.2MB.limit_in_bytes", str(4 * MIB)),
        ("blkio.throttle.write_iops_device", "8:0 50"),
        ("memory.swappiness", "10"),
    ]
    assert ("hugetlb.1GB.limit_in_bytes", "-1") in v1(Limits(), offered=ALL)


@pytest.mark.parametrize(
    ("limits", "field"),
    [
        (Limits(io_weight=10), "io_weight"),
        (Limits(hugepages={"2MB": MIB}), "hugepages"),
        (Limits(cgroup={"net_cls.classid": "1"}), "cgroup.net_cls.classid"),
    ],
)
def test_what_a_host_has_no_file_for_is_named(limits: Limits, field: str) -> None:
    with pytest.raises(HostUnsupported) as caught:
        v1(limits, offered=DISK)
    assert caught.value.field == f"limits.{field}"


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"io_weight": 0}, "io_weight"),
        ({"io_weight": 1001}, "io_weight"),
        ({"io_read_ops_per_sec": 1}, "io_read_ops_per_sec"),
        ({"hugepages": {"2 MB": 1}}, "hugepages"),
        ({"hugepages": {"2MB": -1}}, "hugepages"),
        ({"hugepages": ["2MB"]}, "hugepages"),
        ({"cgroup": {"memory.max": "1"}}, "cgroup.memory.max"),
        ({"cgroup": {"cgroup.procs": "1"}}, "cgroup.cgroup.procs"),
        ({"cgroup": {"devices.allow": "a"}}, "cgroup.devices.allow"),
        ({"cgroup": {"../x.y": "a"}}, "cgroup.../x.y"),
        ({"cgroup": {"memory.high": "1\n2"}}, "cgroup.memory.high"),
        ({"cgroup": {"memory.high": ""}}, "cgroup.memory.high"),
        ({"cgroup": {"memory.high": 5}}, "cgroup.memory.high"),
    ],
)
def test_what_is_no_limit_is_refused_by_name(values: dict[str, object], field: str) -> None:
    limits = Limits(**values)  # type: ignore[arg-type]

    def check() -> None:
        limits.check_types()
        limits.check(host_memory_bytes=2**40, host_cpus=64, host_pids=1000)

    with pytest.raises(SpecError) as caught:
        check()
    assert caught.value.field == f"limits.{field}"


@pytest.mark.parametrize(("weight", "shares"), [(1, 10), (100, 1024), (50, 512), (10_000, 102_400)])
def test_weights_are_shares_on_v1(weight: int, shares: int) -> None:
    assert cpu_shares(weight) == shares
    assert v1(Limits(cpu_weight=weight), fresh=True) == [("cpu.shares", str(shares))]


def test_a_cpuset_changes_with_what_is_below_it_among_its_parents() -> None:
    limits = Limits(cpuset="0,2-3")
    assert v1(limits, fresh=True, cpus=CpusV1("0-7", "0-7", inner=False)) == [("cpuset.cpus", "0,2-3")]
    assert v1(limits, fresh=True, cpus=CpusV1("0,2-3", "0-7", inner=False)) == []
    assert v1(limits, fresh=True, cpus=CpusV1("1-2", "0-7", inner=True)) == [
        ("cpuset.cpus", "0-3"),
        ("ns/cpuset.cpus", "0,2-3"),
        ("cpuset.cpus", "0,2-3"),
    ]
    assert ("cpuset.cpus", "0-7") in v1(Limits(), cpus=CpusV1("1-2", "0-7", inner=False))


@pytest.mark.parametrize("text", ["x", "1-", "3-1", "-1", "0-9999", "1;2", "0,,1", "٣", "0x1"])
def test_what_is_no_list_of_cpus(text: str) -> None:
    with pytest.raises(ValueError, match="no CPU"):
        cpulist.parse(text)


@given(st.sets(st.integers(0, 200)))
def test_a_list_of_cpus_reads_as_it_was_written(cpus: set[int]) -> None:
    assert cpulist.parse(cpulist.write(cpus)) == cpus


@pytest.mark.parametrize("name", ["memory.max", "cgroup.procs", "hugetlb.2MB.max", "blkio.throttle.io_service_bytes"])
def test_a_file_of_a_controller(name: str) -> None:
    assert check_file(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "tasks", "../memory.max", "ns/memory.max", "memory.", ".max", "memory..max", "memory.max\n", "a.b/../c"],
)
def test_what_is_no_file_of_a_controller(name: str) -> None:
    with pytest.raises(SpecError) as caught:
        check_file(name)
    assert caught.value.field == "file"


@pytest.mark.parametrize(
    ("file", "value", "text", "undone"),
    [
        ("io.max", "8:0 rbps=5", "", "8:0 rbps=max wbps=max riops=max wiops=max"),
        ("io.max", "8:0 rbps=5", "8:16 rbps=1\n8:0 rbps=9 wbps=max\n", "8:0 rbps=9 wbps=max"),
        ("blkio.throttle.read_bps_device", "8:0 5", "8:16 7\n", "8:0 0"),
        ("blkio.throttle.read_bps_device", "8:0 5", "8:0 7\n", "8:0 7"),
        ("io.weight", "200", "default 100\n8:0 50\n", "default 100"),
        ("cpu.max", "5000 100000", "max 100000\n", "max 100000"),
        ("cpuset.cpus", "0", "\n", ""),
        ("io.latency", "8:0 target=9", "8:0 target=1\n8:16 target=2\n", "8:0 target=1"),
        ("io.latency", "8:0 target=9", "8:16 target=2\n", "8:0 target=max"),
        ("blkio.bfq.weight_device", "8:0 9", "", "8:0 0"),
        ("misc.max", "sev 5", "sev max\nsev_es 9\n", "sev max"),
        ("net_prio.ifpriomap", "eth1 5", "lo 0\neth0 0\neth1 3\n", "eth1 3"),
        ("net_prio.ifpriomap", "eth9 5", "lo 0\neth0 0\n", None),
        ("memory.oom_control", "1", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", "0"),
        ("memory.stat", "1", "anon 0\nfile 0\n", None),
    ],
)
def test_what_a_file_read_as_undoes_a_write(file: str, value: str, text: str, undone: str | None) -> None:
    assert former(Write(file.partition(".")[0], file, value), text) == undone
