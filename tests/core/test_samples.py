from __future__ import annotations

import pytest

from containers.core.plans.samples import (
    Sample,
    container_view,
    find_number,
    parse_cpu_limit,
    parse_io_v1,
    parse_io_v2,
    parse_limit,
    parse_net_dev,
    parse_psi_some,
    public,
    rates,
)

SAMPLE = Sample(
    at=1000.0,
    monotonic=50.0,
    cpu_usage_usec=1_000_000,
    cpu_throttled_usec=0,
    cpu_limit_cores=0.5,
    memory_bytes=10,
    cache_bytes=5,
    memory_limit_bytes=None,
    swap_bytes=0,
    processes=3,
    oom_kills=0,
    network_rx_bytes=100,
    network_tx_bytes=200,
    disk_read_bytes=1000,
    disk_write_bytes=2000,
    psi_usec=(0, 0, 0),
)


def test_rates_are_per_second_of_the_monotonic_clock() -> None:
    later = SAMPLE._replace(
        at=900.0,  # the wall clock went back: no matter
        monotonic=52.0,
        cpu_usage_usec=2_000_000,
        network_rx_bytes=300,
        disk_write_bytes=6000,
        psi_usec=(1_000_000, 0, 2_000_000),
    )
    rate = rates(SAMPLE, later)
    assert rate is not None
    assert rate.cpu_cores == pytest.approx(0.5)
    assert rate.network_rx_bytes_per_sec == pytest.approx(100)
    assert rate.network_tx_bytes_per_sec == 0
    assert rate.disk_write_bytes_per_sec == pytest.approx(2000)
    assert rate.psi_pct == pytest.approx((50, 0, 100))


def test_a_container_started_anew_has_no_rate_yet() -> None:
    assert rates(SAMPLE, SAMPLE._replace(monotonic=51.0, cpu_usage_usec=10)) is None
    assert rates(SAMPLE, SAMPLE) is None


def test_a_new_link_counts_from_zero() -> None:
    rate = rates(SAMPLE, SAMPLE._replace(monotonic=51.0, network_rx_bytes=40))
    assert rate is not None
    assert rate.network_rx_bytes_per_sec == pytest.approx(40)


def test_the_api_fields_are_there() -> None:
    fields = public(SAMPLE, None, disk_used_bytes=None)
    wanted = """at cpu_usage_usec cpu_pct memory_bytes memory_limit_bytes swap_bytes processes network_rx_bytes
        network_tx_bytes disk_read_bytes disk_write_bytes disk_used_bytes oom_kills"""
    assert set(wanted.split()) <= set(fields)
    assert fields["cpu_pct"] is None


def test_limits() -> None:
    assert parse_limit("max\n") is None
    assert parse_limit("9223372036854771712\n") is None
    assert parse_limit("67108864\n") == 67108864
    assert parse_cpu_limit("max 100000\n") is None
    assert parse_cpu_limit("-1\n") is None
    assert parse_cpu_limit("50000 200000\n") == pytest.approx(0.25)
    assert parse_cpu_limit("50000\n") == pytest.approx(0.5)


def test_numbers_in_keyed_text() -> None:
    text = b"usage_usec 12\nuser_usec 7\nusage 9"
    assert find_number(text, b"usage_usec") == 12
    assert find_number(text, b"user_usec") == 7
    assert find_number(text, b"usage") == 9
    assert find_number(text, b"usec") == 0


def test_io_of_both_versions() -> None:
    v2 = "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n253:0 rbytes=1 wbytes=2 rios=1 wios=1\n"
    assert parse_io_v2(v2) == (11, 22)
    assert parse_io_v2(v2, skip={"8:0"}) == (1, 2)
    v1 = "8:0 Read 10\n8:0 Write 20\n8:0 Sync 30\n8:0 Total 30\n7:0 Read 5\nTotal 35\n"
    assert parse_io_v1(v1) == (15, 20)
    assert parse_io_v1(v1, skip={"7:0"}) == (10, 20)
    assert parse_io_v1("Total 0\n") == (0, 0)


def test_the_container_receives_what_its_host_link_sends() -> None:
    text = (
        "Inter-|   Receive                                                |  Transmit\n"
        " face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs\n"
        "    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n"
        "vbabcde0.0:700 1 0 0 0 0 0 0 900 1 0 0 0 0 0 0\n"
    )
    links = parse_net_dev(text)
    assert links["vbabcde0.0"] == (700, 900)
    assert container_view(links, ["vbabcde0.0"]) == (900, 700)
    assert container_view(links, ["gone"]) == (0, 0)


def test_psi() -> None:
    text = b"some avg10=0.00 avg60=0.00 avg300=0.00 total=1234\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=99\n"
    assert parse_psi_some(text) == 1234
