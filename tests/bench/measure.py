"""Figures: percentiles, pairs taken in turn, and the Markdown that shows them."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path


def say(text: str) -> None:
    """Tell how far it is."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stderr.flush()


def percentile(values: list[float], share: float) -> float:
    """Return the value below which this share (0..1) of the values lies; the nearest one that was measured."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def in_turn(rounds: int, *, warm_up: int = 1, **tools: Callable[[], float]) -> dict[str, list[float]]:
    """Measure all tools once in each round, one after the other, so that a ratio holds when the machine's speed drifts.

    Each call returns what it took, in ms; the first warm_up rounds do not count.
    """
    taken: dict[str, list[float]] = {name: [] for name in tools}
    for number in range(rounds + warm_up):
        for name, call in tools.items():
            value = call()
            if number >= warm_up:
                taken[name].append(value)
    return taken


def timed(call: Callable[[], object]) -> float:
    """Return how long a call takes, in ms."""
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1000


TURNS = ("ms", "Boxroom p50", "p99", "beside it: p50 (ours ÷ theirs)", "target")
"""The columns of a table for add_turns()."""
FIGURES = ("", "Boxroom", "beside it", "target")


@dataclass
class Table:
    """One table of the report."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, *cells: object) -> None:
        """Add a row; numbers are written with three significant digits."""
        self.rows.append(tuple(show(cell) for cell in cells))

    def add_turns(self, what: str, taken: Mapping[str, list[float]], target: str = "") -> None:
        """Add what in_turn() measured: p50, p99 of ours; each peer's p50 with the median of the pairs' ratios."""
        ours = taken["boxroom"]
        peers = {name: values for name, values in taken.items() if name != "boxroom"}
        self.add(what, statistics.median(ours), percentile(ours, 0.99), beside(ours, peers) or "–", target)

    def markdown(self) -> str:
        """Return the table."""
        lines = [f"## {self.title}", "", "| " + " | ".join(self.columns) + " |", "|" + "---|" * len(self.columns)]
        lines += ["| " + " | ".join(row) + " |" for row in self.rows]
        lines += ["", *self.notes] if self.notes else []
        return "\n".join([*lines, ""])


def beside(ours: list[float], peers: Mapping[str, list[float]]) -> str:
    """Return each peer's median, and the median of the pairs' ratios, ours to theirs."""
    parts = []
    for name, values in peers.items():
        ratio = statistics.median(a / b for a, b in zip(ours, values, strict=True))
        parts.append(f"{name.replace('_', ' ')} {show(statistics.median(values))} (× {show(ratio)})")
    return "; ".join(parts)


def come_to_rest(timeout_sec: float = 30.0) -> None:
    """Wait until the machine has had nothing to do for half a second, but no longer than that."""
    deadline = time.monotonic() + timeout_sec
    while time.monotonic() < deadline:
        before = _idle_and_all()
        time.sleep(0.5)
        idle, everything = (now - then for now, then in zip(_idle_and_all(), before, strict=True))
        if idle >= _AT_REST * everything:
            return


_AT_REST = 0.95


def _idle_and_all() -> tuple[int, int]:
    """Return the ticks that all cores have been idle, and all ticks (proc_stat(5))."""
    with open("/proc/stat", encoding="ascii") as file:
        ticks = [int(word) for word in file.readline().split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)


def show(cell: object) -> str:
    """Return a cell's text."""
    if isinstance(cell, float):
        return f"{cell:.0f}" if abs(cell) >= 100 else f"{cell:.3g}"
    return str(cell)


def machine() -> str:
    """Say what was measured on, and how busy it was."""
    model = next((row.split(":")[1].strip() for row in Path("/proc/cpuinfo").read_text().splitlines()
                  if row.startswith("model name")), os.uname().machine)  # fmt: skip
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    return f"{os.cpu_count()} × {model}, {memory:.0f} GiB, Linux {os.uname().release}; load before: {load}"


def pss_kb(pid: int) -> int:
    """Return a process's proportional set size in KiB; 0 where it is gone."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next((int(row.split()[1]) for row in text.splitlines() if row.startswith("Pss:")), 0)


def cpu_sec(pid: int, thread: int | None = None) -> float:
    """Return the CPU time, user and system, that a process or one thread of it has used."""
    path = f"/proc/{pid}/task/{thread}/schedstat" if thread else f"/proc/{pid}/stat"
    text = Path(path).read_text()
    if thread:
        return int(text.split()[0]) / 1e9
    fields = text.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
