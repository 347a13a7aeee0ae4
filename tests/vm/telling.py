"""A plugin of the pytest in the machine: it tells what becomes of every test, on a serial line of its own.

One JSON object a line, so that whoever reads it outside has all that was told before a machine stood still: the kernel
and the tests write to the console as they like, and in the midst of each other's lines.
"""

from __future__ import annotations

import json
import os
from typing import Final

import pytest

LINE: Final = "/dev/ttyS1"
"""The machine's second serial line."""
LONGEST: Final = 12000
"""Of a failure's text, in characters; its end says most."""


def _tell(**what: object) -> None:
    line = (json.dumps(what) + "\n").encode()
    fd = os.open(LINE, os.O_WRONLY | os.O_NOCTTY)
    try:
        while line:
            line = line[os.write(fd, line) :]
    finally:
        os.close(fd)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Tell of a file that could not be read, or names a test that is not there."""
    if report.failed:
        _tell(uncollected=report.nodeid, text=report.longreprtext[-LONGEST:])


def pytest_collection_finish(session: pytest.Session) -> None:
    """Tell which tests there will be."""
    _tell(collected=[item.nodeid for item in session.items])


def pytest_runtest_logstart(nodeid: str) -> None:
    """Tell of a test that begins: one that takes the machine down tells nothing else."""
    _tell(begins=nodeid)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Tell what became of a test's arrangement, of itself, and of its clearing away."""
    text = ""
    if not report.passed:
        parts = [report.longreprtext, *(f"{name}:\n{content}" for name, content in report.sections)]
        text = "\n".join(part[-LONGEST:] for part in parts)
    _tell(test=report.nodeid, when=report.when, outcome=report.outcome, sec=round(report.duration, 3), text=text)
