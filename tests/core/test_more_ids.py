"""Ids beyond the usual: out of root's in /etc/subuid and /etc/subgid, and never another's."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from containers.core.errors import HostUnsupported
from containers.core.hoststore import more_ids

STEP = 65536


def test_both_files_must_give_them_to_root(tmp_path: Path) -> None:
    (tmp_path / "subuid").write_text("root:1000000:262144\nalice:100000:65536\nroot:bad:1\nroot:5000000:65536\n")
    (tmp_path / "subgid").write_text("root:1065536:262144\n0:5000000:65536\nroot:0:9\n")
    assert more_ids.given(tmp_path) == [(1065536, 196608), (5000000, 65536)]
    assert more_ids.given(tmp_path / "nowhere") == []


def test_the_lowest_that_is_free_is_taken_and_none_is_told() -> None:
    ranges = [(1_000_000, 4 * STEP)]
    assert more_ids.choose(ranges, [], STEP) == 1_000_000
    assert more_ids.choose(ranges, [(1_000_000 + STEP - 1, 1)], STEP) == 1_000_000 + STEP
    assert more_ids.choose(ranges, [(1_000_000, STEP)], 3 * STEP) == 1_000_000 + STEP
    with pytest.raises(HostUnsupported) as caught:
        more_ids.choose(ranges, [(1_000_000 + STEP, 1), (1_000_000 + 3 * STEP, 1)], 2 * STEP)
    assert caught.value.field == "security.ids"


@pytest.mark.parametrize("seed", range(40))
def test_no_two_ever_touch(seed: int) -> None:
    rolled = random.Random(seed)
    taken: list[tuple[int, int]] = [(2_000_000 + 5, 1)]
    for count in rolled.choices(range(1, 7), k=12):
        try:
            first = more_ids.choose([(2_000_000, 20 * STEP), (9_000_000, 8 * STEP)], taken, count * STEP)
        except HostUnsupported:
            continue
        mine = range(first, first + count * STEP)
        assert not any(start in mine or first in range(start, start + number) for start, number in taken)
        taken.append((first, count * STEP))
    assert len(taken) > 3
