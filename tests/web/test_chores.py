"""The ticker's chores: what is told at once, and what together."""

from __future__ import annotations

import threading
import time
from typing import Any

from containers.ticker import chores
from containers.ticker.chores import Chore, Chores


class Taker:
    """Takes events, and has the thread tell three more while it takes the first."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, list[dict[str, Any]]]] = []
        self.done = threading.Event()
        self.thread: Chores | None = None

    def __call__(self, events: list[dict[str, Any]]) -> None:
        assert self.thread is not None
        self.calls.append((time.monotonic(), events))
        if len(self.calls) == 1:
            for number in (2, 3, 4):
                self.thread.event({"id": number})
            raise RuntimeError("one that fails takes none of the next with it")
        self.done.set()


def test_what_comes_soon_after_another_is_handed_on_together():
    taker = Taker()
    taker.thread = Chores((), on_events=taker)
    taker.thread.start()
    taker.thread.event({"id": 1})
    assert taker.done.wait(30)
    taker.thread.stop()
    taker.thread.join(30)
    (first_at, first), (second_at, second) = taker.calls
    assert ([one["id"] for one in first], [one["id"] for one in second]) == ([1], [2, 3, 4])
    assert second_at - first_at > chores.GATHER_SEC - 0.02


class Once:
    """Takes events once, and notes when."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.at = 0.0
        self.done = threading.Event()

    def __call__(self, events: list[dict[str, Any]]) -> None:
        self.at, self.names = time.monotonic(), [one["event"] for one in events]
        self.done.set()


def told(*names: str) -> tuple[float, list[str]]:
    """Return after how many seconds events that are told at once are handed on first, and which."""
    once = Once()
    thread = Chores((), on_events=once)
    for name in names:
        thread.event({"id": 1, "event": name})
    began = time.monotonic()
    thread.start()
    assert once.done.wait(30)
    thread.stop()
    thread.join(30)
    return once.at - began, once.names


def test_a_start_is_not_told_at_once():
    after_sec, names = told("started")
    assert names == ["started"]
    assert after_sec > chores.GATHER_SEC - 0.02


def test_a_start_holds_up_nothing_else(monkeypatch):
    monkeypatch.setattr(chores, "GATHER_SEC", 3600.0)
    assert told("started", "stopped")[1] == ["started", "stopped"]


def test_neither_news_nor_what_is_due_waits_for_ever_for_the_other(monkeypatch):
    monkeypatch.setattr(chores, "GATHER_SEC", 3600.0)
    order: list[str] = []
    enough = threading.Event()

    def take(events: list[dict[str, Any]]) -> None:
        order.append("news")
        thread.event({"id": 1})

    def do() -> None:
        order.append("chore")
        if len(order) > 20:
            enough.set()

    # always due, and always news
    thread = Chores((Chore("always", 1e-6, do),), on_events=take)
    thread.event({"id": 1})
    thread.start()
    assert enough.wait(30)
    thread.stop()
    thread.join(30)
    assert order[:20] == ["chore", "news"] * 10
