"""What is said of a test in the machine, by what the machine told: only one that came to its end is not wrong."""

from __future__ import annotations

import json

from .told import LATE, NO_STATUS, PHASES, Ended

ONE, TWO, THREE = (f"tests/kernel/test_a.py::test_{name}" for name in ("one", "two", "three"))


def told(*lines: dict[str, object]) -> str:
    return "".join(json.dumps(line) + "\r\n" for line in lines)


def passes(test: str) -> list[dict[str, object]]:
    reports = [{"test": test, "when": when, "outcome": "passed", "sec": 1.5, "text": ""} for when in PHASES]
    return [{"begins": test}, *reports]


def test_each_test_is_told_apart_with_its_own_failure() -> None:
    bad = {
        "test": f"{ONE}[b]",
        "when": "call",
        "outcome": "failed",
        "sec": 1,
        "text": "x.py:3: in f\nE   assert 1 == 2",
    }
    lines = [*passes(f"{ONE}[a]"), *passes(f"{ONE}[b]")[:2], bad, *passes(TWO)]
    ended = Ended(1, "1 failed", told({"collected": [f"{ONE}[a]", f"{ONE}[b]", TWO]}, *lines))
    assert ended.wrong(TWO) == ""
    said = ended.wrong(ONE)
    assert said.startswith(f"assert 1 == 2 ({ONE}[b])\ncall failed:\nx.py:3: in f")
    assert ended.failures() == said
    assert ended.seconds(TWO) == 4.5
    assert ended.wrong(THREE) == "it was not found in the machine: the exit status in there was 1"


def test_where_the_machine_died_it_is_said_in_which() -> None:
    lines = told({"collected": [ONE, TWO, THREE]}, *passes(ONE), *passes(TWO)[:2]) + '{"test": "tests/ker'
    ended = Ended(NO_STATUS, "line\n" * 100 + "Kernel panic - not syncing: why", lines)
    assert ended.wrong(ONE) == ""
    how = f"the machine ended by itself, in {TWO}, Kernel panic - not syncing: why"
    assert ended.wrong(TWO).startswith(f"it did not end ({TWO}): {how}\n")
    assert ended.wrong(TWO).count("\n") < 50
    assert ended.wrong(THREE) == f"it was not begun ({THREE}): {how}"


def test_what_was_cleared_away_badly_or_skipped_is_wrong_too() -> None:
    left = {"test": ONE, "when": "teardown", "outcome": "failed", "sec": 1, "text": "E   AssertionError: left behind"}
    skipped = {"test": TWO, "when": "setup", "outcome": "skipped", "sec": 1, "text": "no such thing"}
    ended = Ended(1, "", told({"collected": [ONE, TWO]}, *passes(ONE)[:3], left, {"begins": TWO}, skipped))
    assert ended.wrong(ONE).startswith("AssertionError: left behind")
    assert ended.wrong(TWO).startswith("skipped")


def test_a_machine_that_told_nothing_says_how_it_ended() -> None:
    ended = Ended(LATE, "booting\nwaiting", told({"uncollected": "tests/kernel/test_a.py", "text": "SyntaxError"}))
    assert ended.wrong(ONE) == "it was not found in the machine: the machine's time was over"
    assert ended.end().splitlines()[1:] == ["tests/kernel/test_a.py: SyntaxError", "Its console:", "booting", "waiting"]
