from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from containers.ticker.rings import COLUMNS, FILE_BYTES, RINGS, Rings, Values, merge, nothing
from containers.ticker.sampling import next_due

START = 1_700_000_000 - 1_700_000_000 % 600
CPU, CPU_MAX, LIMIT = (COLUMNS.index(name) for name in ("cpu_cores", "cpu_cores_max", "cpu_limit_cores"))


def values(cpu: float, limit: float | None = None) -> Values:
    row: list[float | None] = [0.0] * len(COLUMNS)
    row[CPU] = row[CPU_MAX] = cpu
    row[LIMIT] = limit
    return row


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "c.rings"


def test_steps_divide_each_other() -> None:
    for (fine, size), (coarse, _size) in itertools.pairwise(RINGS):
        assert coarse % fine == 0
        assert size % (coarse // fine) == 0


def test_what_was_recorded_is_found_second_by_second(path: Path) -> None:
    rings = Rings(path)
    for second in range(20):
        if second != 7:
            rings.append(START + second, values(second))
    found = rings.query(START, START + 20, 100, now=START + 19)
    rings.close()
    assert found["from"] == START
    assert found["step_sec"] == 1
    cpu = found["series"]["cpu_cores"]
    assert cpu == [None if second == 7 else second for second in range(20)]


def test_a_file_is_sparse(path: Path) -> None:
    rings = Rings(path)
    rings.append(START, values(1))
    rings.close()
    assert path.stat().st_size == FILE_BYTES
    assert path.stat().st_blocks * 512 < 64 * 1024
    assert path.stat().st_mode & 0o777 == 0o600


def test_coarser_rings_average_and_keep_the_peak(path: Path) -> None:
    rings = Rings(path)
    for second in range(1300):
        rings.append(START + second, values(9.0 if second == 605 else 1.0, limit=2.0))
    for ring, (step, _size) in enumerate(RINGS):
        records = {int(record[0]): record for record in rings._records(ring, START, START + 1200)}
        assert len(records) == 1200 // step, step
        spiked = records[START + 605 - 605 % step]
        assert spiked[1 + CPU] == pytest.approx((step - 1 + 9) / step, rel=1e-5)
        assert spiked[1 + CPU_MAX] == 9
        assert spiked[1 + LIMIT] == 2
    rings.close()


def test_history_survives_a_restart_in_the_middle_of_a_record(path: Path) -> None:
    rings = Rings(path)
    for second in range(595):
        rings.append(START + second, values(1.0))
    rings.close()
    rings = Rings(path)
    for second in range(600, 700):
        rings.append(START + second, values(3.0))
    tens = {int(record[0]): record[1 + CPU] for record in rings._records(3, START, START + 600)}
    rings.close()
    assert tens == {START: 1.0}


def test_an_hour_later_the_seconds_are_gone_and_the_tens_are_not(path: Path) -> None:
    rings = Rings(path)
    for second in range(30):
        rings.append(START + second, values(1.0))
    for second in range(3600, 3630):
        rings.append(START + second, values(2.0))
    found = rings.query(START, START + 30, 100, now=START + 3630)
    rings.close()
    assert found["step_sec"] == 10
    assert found["series"]["cpu_cores"] == [1, 1, 1]


def test_a_clock_that_steps_back_leaves_gaps_never_wrong_values(path: Path) -> None:
    rings = Rings(path)
    for second in range(100):
        rings.append(START + 10_000 + second, values(5.0))
    for second in range(100):
        rings.append(START + second, values(1.0))
    found = rings.query(START - 50, START + 200, 1000, now=START + 99)
    rings.close()
    cpu = found["series"]["cpu_cores"]
    assert set(cpu) == {None, 1}
    assert sum(value == 1 for value in cpu) == 100


def test_points_are_never_more_than_asked_for(path: Path) -> None:
    rings = Rings(path)
    for second in range(1000):
        rings.append(START + second, values(second))
    found = rings.query(START, START + 1000, 90, now=START + 1000)
    rings.close()
    assert found["count"] <= 91
    assert found["step_sec"] == 12
    first = [second for second in range(1000) if (START + second - found["from"]) // 12 == 0]
    assert found["series"]["cpu_cores"][0] == pytest.approx(sum(first) / len(first), rel=1e-5)


def test_a_file_of_another_format_begins_anew(path: Path) -> None:
    path.write_bytes(b"something else" * 100)
    rings = Rings(path)
    rings.append(START, values(1.0))
    assert rings.query(START, START + 1, 1, now=START)["series"]["cpu_cores"] == [1]
    rings.close()


def test_merge_leaves_out_what_is_missing() -> None:
    nan = float("nan")
    rows = [[nan] * len(COLUMNS) for _ in range(3)]
    rows[0][CPU], rows[1][CPU] = 1.0, 3.0
    rows[0][LIMIT] = 1.0  # taken away since: the last says none
    merged = merge(rows)
    assert merged[CPU] == 2.0
    assert merged[LIMIT] is None
    assert merged[CPU_MAX] is None


def test_samples_are_due_in_the_middle_of_each_second() -> None:
    assert next_due(None, 100.0, 5000.5) == pytest.approx(100.0)
    assert next_due(None, 100.0, 5000.9) == pytest.approx(100.6)
    assert next_due(100.0, 100.02, 5000.52) == pytest.approx(101.0)


def test_missed_seconds_are_left_out() -> None:
    assert next_due(100.0, 103.4, 5003.9) == pytest.approx(104.0)


def test_a_stepped_clock_moves_the_samples() -> None:
    due = next_due(100.0, 100.02, 7000.92)
    assert (7000.92 + due - 100.02) % 1 == pytest.approx(0.5)
    assert 0.5 <= due - 100.02 <= 2


def test_the_last_seconds_of_some_columns_with_their_gaps(path: Path) -> None:
    rings = Rings(path)
    for second in (0, 1, 3):
        rings.append(START + second, values(second))
    found = rings.recent(START + 4, 6, ("cpu_cores", "cpu_limit_cores"))
    rings.close()
    assert found == {"cpu_cores": [None, None, 0, 1, None, 3], "cpu_limit_cores": [None] * 6}


def test_nothing_measured_has_the_shape_of_what_is_measured(tmp_path):
    rings = Rings(tmp_path / "r")
    try:
        for ago, points in ((3600, 1200), (100, 100), (400_000, 7), (0, 0)):
            found = nothing(START - ago, START, points, now=START)
            assert found == rings.query(START - ago, START, points, now=START)
            assert {len(values) for values in found["series"].values()} == {found["count"]}
    finally:
        rings.close()
