"""How often the emulated machine is tried; a shell stands for the emulator."""

from __future__ import annotations

from pathlib import Path

from . import machine

STANDS_STILL = f"echo {machine.BEGIN_MARK}; echo '{machine.STOOD_STILL}: hung tasks'"
ENDS = f"echo {machine.BEGIN_MARK}; echo {machine.EXIT_MARK} 1"


def tried(tmp_path: Path, *boots: str) -> tuple[int, str]:
    """Return how often the machine was booted, and what the last one printed. boots: a command for each."""
    count = 0

    def prepare() -> None:
        nonlocal count
        count += 1

    script = "n=$(cat n 2>/dev/null || echo 0); echo $((n + 1)) > n; case $n in "
    script += " ".join(f"{number}) {boot};;" for number, boot in enumerate(boots)) + " esac"
    words = ["sh", "-c", f"cd {tmp_path}; {script}"]
    late, printed = machine.boot(words, tmp_path / "console", 60, prepare, tmp_path / "kept")
    assert not late
    return count, printed


def test_one_that_stood_still_is_tried_again_and_its_console_is_kept(tmp_path: Path) -> None:
    count, printed = tried(tmp_path, STANDS_STILL, ENDS)
    assert count == 2
    assert machine.STOOD_STILL not in printed
    assert machine.STOOD_STILL in (tmp_path / "kept").read_text()


def test_one_that_always_stands_still_fails(tmp_path: Path) -> None:
    count, printed = tried(tmp_path, *[STANDS_STILL] * (machine.BOOTS + 1))
    assert count == machine.BOOTS
    assert machine.STOOD_STILL in printed


def test_tests_that_fail_are_not_tried_again(tmp_path: Path) -> None:
    count, printed = tried(tmp_path, ENDS, ENDS)
    assert count == 1
    assert machine.EXIT_MARK in printed


def test_one_that_panics_before_it_begins_is_tried_again(tmp_path: Path) -> None:
    assert tried(tmp_path, "echo Kernel panic", ENDS)[0] == 2
